"""Evaluations with chosen results, for the verdict and the report."""

from typing import Any

from ai_forge.judge.evaluation import BASE_AS_SERVED
from ai_forge.judge.evaluator import CONTENDERS, TUNED, Answer, CodeScore, Evaluation
from ai_forge.judge.questions.general_texts import general_scores
from ai_forge.judge.questions.people import LeftOut, PeopleAnswer, PeopleEvaluation, TeamScore

GOOD: dict[str, Any] = {"loss": 1.0, "citation_right": True, "facts_right": True}
POOR: dict[str, Any] = {"loss": 10.0, "citation_right": False, "facts_right": False}


def answer(contender: str, number: int, **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "contender": contender,
        "question": f"What is {number}?",
        "reference": "It is.",
        "subject_path": f"src/file{number % 12}.py",
        "family": "purpose",
        "difficulty": "easy",
        "answer": f"{contender} says {number}",
        "oracle_shown": True,
        "similarity": 0.5,
        "n_tokens": 10,
    }
    return Answer(**(values | POOR | changes))


def make_evaluation(
    n: int = 24,
    *,
    tuned: dict[str, Any] | None = None,
    code: tuple[tuple[float, float], ...] = ((100.0, 101.0),) * 6,
    rivals: dict[str, dict[str, Any]] | None = None,
    general: tuple[float, float] | None = None,
    n_looks: int = 1,
) -> Evaluation:
    """`tuned` are the tuned model's results with retrieval; `rivals` those of the others, by name; `general` by what
    factor the nats of general code and chat are the base's."""
    chosen = {c.name: POOR for c in CONTENDERS} | {TUNED: GOOD if tuned is None else tuned}
    chosen |= rivals or {}
    return Evaluation(
        answers=tuple(answer(name, i, **values) for name, values in chosen.items() for i in range(n)),
        code=tuple(
            CodeScore(path=f"c{i}.py", n_bytes=100, base_nats=base, tuned_nats=ours)
            for i, (base, ours) in enumerate(code)
        ),
        n_worked_examples=2,
        general=general_scores([100.0] * 24, [100.0 * (general or (1, 1))[i // 12] for i in range(24)])
        if general
        else (),
        n_looks=n_looks,
    )


def people_asked(
    n: int, *, tuned: int, base: int, figure: str = "citation_right", left_out: tuple[str, ...] = ()
) -> PeopleEvaluation:
    """`n` questions of people; `tuned` and `base` of them, the first ones, have `figure`, all else is right alike."""

    def one(contender: str, number: int, right: bool) -> PeopleAnswer:
        values: dict[str, Any] = {
            "found_first": True,
            "found_among": True,
            "citation_right": True,
            "said_right": True,
            "similarity": None,
            "facts": 1.0,
        }
        score = TeamScore.model_validate(values | {figure: right})
        question, text = f"Who is {number}?", f"{contender} answers person {number}"
        return PeopleAnswer(contender=contender, question=question, answer=text, score=score)

    counts = {BASE_AS_SERVED: base, TUNED: tuned}
    return PeopleEvaluation(
        answers=tuple(one(name, i, i < right) for i in range(n) for name, right in counts.items()),
        left_out=tuple(LeftOut(question=question, missing=("gone.py",)) for question in left_out),
        n_written=n + len(left_out),
    )
