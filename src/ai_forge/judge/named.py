"""The measures that people know by name, of the answers that the judge got from what is served.

What is looked for in each answer (`Looked`) is found by `metrics.served` when it was given; here it is counted, each share
with Wilson's interval over answers (or pieces of code). The answers are those to people's questions and to the pipeline's
alike, of the two contenders that are asked as a user asks.
"""

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from ai_forge.judge.evaluation import Answer, Evaluation
from ai_forge.judge.looked import Looked
from ai_forge.judge.statistics import Estimate, proportion


def not_measured(model: str) -> Mapping[str, str]:
    """Measures that take minutes to hours, by name, each with the command that measures it of the deployed `model`."""
    asked = f"python -c \"from ai_forge.judge import run_humaneval_subset; print(run_humaneval_subset('{model}'))\""
    return {
        "completing what the newest commits wrote": "ai-forge evaluate REPO --completion",
        "passing the repository's own tests": f"ai-forge own-tests REPO --model {model}",
        "HumanEval": asked,
        "reconstruction, CodeBLEU": "ai_forge.judge.evaluate_reconstruction and compute_codebleu, on blocks of your choice",
    }


class Perplexities(BaseModel):
    """Of the reference answers, after the contender's prompt: per token of its tokenizer, word (by white space) and byte."""

    model_config = ConfigDict(frozen=True)

    per_token: float
    per_word: float
    per_byte: float
    n_tokens: int


def perplexities_of(answers: Sequence[Answer]) -> Perplexities | None:
    """exp of the summed losses over the sizes of the references; None without answers."""
    nats = sum(answer.loss for answer in answers)
    n_tokens = sum(answer.n_tokens for answer in answers)
    n_words = sum(len(answer.reference.split()) for answer in answers)
    n_bytes = sum(len(answer.reference.encode()) for answer in answers)
    if not n_tokens or not n_words:
        return None
    return Perplexities(
        per_token=math.exp(nats / n_tokens),
        per_word=math.exp(min(nats / n_words, 700.0)),  # an untrained model's word may be beyond a float
        per_byte=math.exp(nats / n_bytes),
        n_tokens=n_tokens,
    )


def named_figures(evaluation: Evaluation, contender: str, confidence: float) -> Mapping[str, Estimate | None]:
    """Shares of a contender's answers by name; one that no answer was looked at for is None. Languages are in alphabetical order."""
    of_pipeline = evaluation.of(contender)
    of_both = [*(one.looked for one in evaluation.people.of(contender)), *(one.looked for one in of_pipeline)]
    looked = [one for one in of_both if one is not None]
    code: dict[str, list[bool]] = {}
    for one in looked:
        for language, compiles in one.code:
            code.setdefault(language, []).append(compiles)
    without = [one.looked.refused for one in of_pipeline if one.looked is not None and not one.oracle_shown]
    with_answer = [one.looked.refused for one in of_pipeline if one.looked is not None and one.oracle_shown]
    figures = {
        "hallucination rate": proportion([bool(one.inventions) for one in looked], confidence),
        "cites only what it was shown, where it cites": _cites_what_was_shown(looked, confidence),
        "refused where the context holds no answer": proportion(without, confidence),
        "refused where it holds one": proportion(with_answer, confidence),
    }
    for language, pieces in sorted(code.items()):
        how = "compiles" if language == "python" else "has no syntax error"
        figures[f"{language} in answers that {how}"] = proportion(pieces, confidence)
    return figures


def _cites_what_was_shown(looked: Sequence[Looked], confidence: float) -> Estimate | None:
    """Of the answers that cite, how many cite only what was shown to them."""
    return proportion([one.cited_shown for one in looked if one.cited_shown is not None], confidence)
