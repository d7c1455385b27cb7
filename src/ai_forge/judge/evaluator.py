"""The judge's public face: how a model is measured, and each measure by its name.

    Evaluator                     tuned model and rivals on held-out questions and code (`judge.evaluation`)
    compute_perplexity …          the named measures (`judge.metrics`, `judge.human_eval`)

`python -m ai_forge.judge.evaluator MODEL DATASET` prints what can be measured of a model on a dataset.
"""

import sys

from ai_forge.judge.evaluation import (
    CONTENDERS,
    TUNED,
    Answer,
    CodeScore,
    Contender,
    Evaluation,
    Evaluator,
    HeldOut,
    Reply,
    scored,
)
from ai_forge.judge.human_eval import run_humaneval_subset
from ai_forge.judge.metrics.codebleu import codebleu_components, compute_codebleu
from ai_forge.judge.metrics.hallucination import evaluate_hallucination_rate, measure_hallucination
from ai_forge.judge.metrics.perplexity import compute_perplexity, measure_perplexity
from ai_forge.judge.metrics.reconstruction import evaluate_reconstruction
from ai_forge.judge.windows import code_windows

__all__ = [
    "CONTENDERS",
    "TUNED",
    "Answer",
    "CodeScore",
    "Contender",
    "Evaluation",
    "Evaluator",
    "HeldOut",
    "Reply",
    "code_windows",
    "codebleu_components",
    "compute_codebleu",
    "compute_perplexity",
    "evaluate_hallucination_rate",
    "evaluate_reconstruction",
    "measure_hallucination",
    "measure_perplexity",
    "run_humaneval_subset",
    "scored",
]

if __name__ == "__main__":
    from ai_forge.judge.metrics.command import main

    sys.exit(main())
