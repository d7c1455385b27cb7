"""The names, arguments and defaults that callers and documents already use."""

import inspect

import pytest

from ai_forge.judge import evaluator


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("compute_perplexity", {"model": inspect.Parameter.empty, "eval_dataset": inspect.Parameter.empty}),
        (
            "compute_codebleu",
            {"predictions": inspect.Parameter.empty, "references": inspect.Parameter.empty, "language": "python"},
        ),
        (
            "evaluate_reconstruction",
            {"model": inspect.Parameter.empty, "original_code_blocks": inspect.Parameter.empty},
        ),
        ("evaluate_hallucination_rate", {"model": inspect.Parameter.empty, "raft_test_set": inspect.Parameter.empty}),
    ],
)
def test_a_metric_is_called_as_written(name: str, arguments: dict[str, object]) -> None:
    parameters = inspect.signature(getattr(evaluator, name)).parameters
    first = list(parameters.values())[: len(arguments)]
    assert {p.name: p.default for p in first} == arguments
    rest = list(parameters.values())[len(arguments) :]
    assert all(p.default is not p.empty for p in rest), "what is added has a default"
    assert name in evaluator.__all__
