"""Surely worse than what is deployed: told by pairs of answers, whatever the base does."""

from typing import Any

from ai_forge.antigravity_agent.against_active import compared
from ai_forge.antigravity_agent.artifact_data import RESULTS
from ai_forge.config.settings import JudgeSettings
from ai_forge.judge.evaluation import TUNED, Answer
from evaluations import answer

SETTINGS = JudgeSettings()
N = 36  # three of each of twelve files
RIGHT = {"citation_right": True, "facts_right": True}
WRONG = {"citation_right": False, "facts_right": False}
NO_FACTS = {"citation_right": True, "facts_right": None}


def answers(*kinds: dict[str, Any]) -> list[Answer]:
    """Answers of the new model, the kinds in turn."""
    return [answer(TUNED, number, **kinds[number // 12 % len(kinds)]) for number in range(N)]


def decided(new: list[Answer], active: list[Answer]) -> list[bool | None]:
    rows = compared(new, [(bool(one.citation_right), one.facts_right) for one in active], SETTINGS)
    assert [row.name for row in rows] == ["citations against the active version", "facts against the active version"]
    by_result = {result: passed for passed, result in RESULTS.items()}
    return [by_result[row.result] for row in rows]


def test_who_has_forgotten_what_is_deployed_fails() -> None:
    """A third of what the active version answers is lost: better than a base that knows nothing, and still worse."""
    assert decided(answers(RIGHT, RIGHT, WRONG), answers(RIGHT)) == [False, False]


def test_equal_and_better_pass() -> None:
    assert decided(answers(RIGHT, WRONG), answers(RIGHT, WRONG)) == [True, True]
    assert decided(answers(RIGHT), answers(RIGHT, WRONG)) == [True, True]


def test_one_question_lost_is_not_surely_worse() -> None:
    new = [answer(TUNED, number, **(WRONG if number == 0 else RIGHT)) for number in range(N)]
    assert decided(new, answers(RIGHT)) == [True, True]


def test_one_figure_alone_may_fail() -> None:
    assert decided(answers({**RIGHT, "facts_right": False}), answers(RIGHT)) == [True, False]


def test_where_no_question_asks_for_facts_nothing_is_decided_on_them() -> None:
    citations, facts = decided(answers(NO_FACTS), answers(NO_FACTS))
    assert citations is True
    assert facts is None
