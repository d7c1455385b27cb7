"""From an adapter to a verdict and to the files that are served.

    adapter ─ merge ─► model folder ─ evaluator ─► Evaluation ─ verdict ─► Verdict ─ report ─► report.html, report.md
                            └ exporter (by `model_files`) ─► GGUF ─ parity ─► is what is served what was trained?

A figure that could not be computed is None, "unscored", never 0; every estimate carries its interval (`statistics`).
Nothing here trains or serves: models come in through `training.backends.base`. The exports are loaded on first use.
"""

from typing import TYPE_CHECKING

from ai_forge.lazy import lazy_exports

if TYPE_CHECKING:
    from ai_forge.judge.compliance import Compliance, judge_compliance
    from ai_forge.judge.evaluation import Answer, CodeScore, Evaluation, Evaluator, HeldOut
    from ai_forge.judge.exporter import QUANTIZATIONS, convert_to_gguf, create_ollama_modelfile
    from ai_forge.judge.human_eval import HumanEval, measure_human_eval, run_humaneval_subset
    from ai_forge.judge.parity import Parity, compare
    from ai_forge.judge.report import ReportData, write_report
    from ai_forge.judge.statistics import Estimate
    from ai_forge.judge.verdict import Check, Row, Verdict, judge
    from ai_forge.model_files.merge import merge_adapters_to_base

_HOMES = {
    "Answer": "evaluator",
    "CodeScore": "evaluator",
    "Compliance": "compliance",
    "judge_compliance": "compliance",
    "Evaluation": "evaluator",
    "Evaluator": "evaluator",
    "HeldOut": "evaluator",
    "HumanEval": "human_eval",
    "measure_human_eval": "human_eval",
    "run_humaneval_subset": "human_eval",
    "QUANTIZATIONS": "exporter",
    "convert_to_gguf": "exporter",
    "create_ollama_modelfile": "exporter",
    "merge_adapters_to_base": "ai_forge.model_files.merge",
    "Parity": "parity",
    "compare": "parity",
    "ReportData": "report",
    "write_report": "report",
    "Estimate": "statistics",
    "Check": "verdict",
    "Row": "verdict",
    "Verdict": "verdict",
    "judge": "verdict",
}

__all__ = [
    "QUANTIZATIONS",
    "Answer",
    "Check",
    "CodeScore",
    "Compliance",
    "Estimate",
    "Evaluation",
    "Evaluator",
    "HeldOut",
    "HumanEval",
    "Parity",
    "ReportData",
    "Row",
    "Verdict",
    "compare",
    "convert_to_gguf",
    "create_ollama_modelfile",
    "judge",
    "judge_compliance",
    "measure_human_eval",
    "merge_adapters_to_base",
    "run_humaneval_subset",
    "write_report",
]

__getattr__ = lazy_exports(__name__, _HOMES)
