"""Questions of people: which are asked, in what time, and planted answers counted by hand."""

from collections.abc import Sequence

import pytest

from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.judge.evaluation import BASE_AS_SERVED, TUNED
from ai_forge.judge.questions.people import ask_in_turn, gain_of, people_scored, row_of
from ai_forge.judge.questions.team_questions import still_there

ENTRIES = [
    Entry(f"src/part{i}.py", 1, 2, f"part{i}", "function", "python", f"def part{i}(limit):\n    return {i}0")
    for i in range(4)
]
INDEX = QuestionIndex.build(ENTRIES)
QUESTIONS = [
    TeamQuestion(
        question=f"What does part{i} give?",
        files=(f"src/part{i}.py",),
        answer=f"`part{i}` gives {i}0 whatever `limit` is.",
        must=("gives",),
        must_not=("nothing",),
    )
    for i in range(4)
]


def test_what_is_gone_is_left_out_and_told() -> None:
    gone = TeamQuestion(question="Where was it?", files=("old.py", "older/"), symbols=("Old",))
    half = TeamQuestion(question="Where is the half?", files=("old.py", "src/part1.py"))
    asked, left_out = still_there([*QUESTIONS, gone, half], INDEX)
    assert [one.text for one in asked] == [*(q.question for q in QUESTIONS), "Where is the half?"]
    assert [(one.question, one.missing) for one in left_out] == [("Where was it?", ("old.py", "older/", "Old"))]


def test_planted_answers_are_counted() -> None:
    """By hand: the tuned model cites 3 of 4, says 2 of 4, has both in 1; of two facts it states 2, 0, 1 and 0."""
    asked, _ = still_there(QUESTIONS, INDEX)
    shown = [[ENTRIES[i].document()] for i in range(4)]
    cite = [f"[{documents[0].citation}]" for documents in shown]
    tuned = [
        f"It gives 00 by limit {cite[0]}.",  # all right, both facts
        f"It gives nothing {cite[1]}.",  # a forbidden word, no fact
        f"20 {cite[2]}.",  # not what it must say, one of two facts
        f"It gives no more {cite[0]}.",  # cites what it was not shown
    ]
    base = ["It gives it."] * 4  # says it, cites nothing
    told = {i: {BASE_AS_SERVED: base[i], TUNED: tuned[i]} for i in range(4)}
    people = people_scored(asked, [], shown, told)
    assert {answer.origin for answer in people.answers} == {"people"}
    ours = row_of(people, TUNED, 0.95, 0).figures
    theirs = row_of(people, BASE_AS_SERVED, 0.95, 0).figures
    values = {name: (estimate.value, estimate.n) for name, estimate in ours.items() if estimate}
    assert values == {
        "right": (0.25, 4),
        "right place cited": (0.75, 4),
        "said what it must": (0.5, 4),
        "facts of the written answer": (1.5 / 4, 4),
    }
    assert [e.value if e else None for e in theirs.values()] == [0.0, 0.0, 1.0, 0.0]
    gain = gain_of(people, "said what it must", TUNED, BASE_AS_SERVED, 0.95, 0)
    assert gain is not None
    assert (gain.value, gain.n) == (-0.5, 4)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("budget_s", "n_asked"), [(1.0, 8), (33.0, 16), (1000.0, 20)])
def test_as_many_are_asked_as_fit_into_the_time(budget_s: float, n_asked: int) -> None:
    """A second an answer, two models: a round of eight takes 16 s."""
    clock = Clock()

    def ask(prompts: Sequence[Sequence[int]]) -> list[str]:
        clock.now += len(prompts)
        return [f"about {prompt[0]}" for prompt in prompts]

    prompts = [[i] for i in range(20)]
    told = ask_in_turn({"a": ask, "b": ask}, prompts, seed=1, budget_s=budget_s, report=lambda done: None, clock=clock)
    assert len(told) == n_asked
    assert list(told) == sorted(told)
    assert all(answers == {"a": f"about {place}", "b": f"about {place}"} for place, answers in told.items())
    if n_asked == 8:
        assert list(told) != list(range(8))  # a sample, not the beginning
