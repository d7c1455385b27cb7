"""The gate: each check passes, fails and goes unscored."""

import math
import random
from typing import Any

import pytest

from ai_forge.config import JudgeSettings
from ai_forge.judge.evaluator import TUNED, Evaluation
from ai_forge.judge.statistics import level_of, looks, paired_difference
from ai_forge.judge.verdict import Verdict, best_base, judge
from evaluations import GOOD, POOR, answer, make_evaluation, people_asked

SETTINGS = JudgeSettings(forgetting_budget=0.1)


def verdict_on(evaluation: Evaluation) -> Verdict:
    return judge(evaluation, SETTINGS)


def passed(verdict: Verdict) -> dict[str, bool | None]:
    return {check.name: check.passed for check in verdict.checks}


def test_better_in_all_is_better() -> None:
    verdict = verdict_on(make_evaluation())
    assert verdict.better
    assert passed(verdict) == {"answer loss": True, "citations": True, "facts": True, "forgetting": True}
    assert verdict.headline == (
        "Better than the base: cites the right code in 100% of the answers (best base: 0%), "
        "states the facts right in 100% (best base: 0%)."
    )
    assert verdict.checks[0].text.startswith("-0.900 (-0.900 to -0.900) nats per token against ")


@pytest.mark.parametrize(
    ("tuned", "failed"),
    [
        (GOOD | {"loss": 11.0}, "answer loss"),  # surely worse
        (GOOD | {"loss": 10.0}, "answer loss"),  # equal is not better
        (GOOD | {"citation_right": False}, "citations"),
    ],
)
def test_one_failed_check_is_enough(tuned: dict[str, Any], failed: str) -> None:
    verdict = verdict_on(make_evaluation(tuned=tuned))
    assert not verdict.better
    assert [name for name, ok in passed(verdict).items() if ok is False] == [failed]
    assert verdict.headline.endswith(f": {failed}.")


def test_the_rival_is_the_best_base_for_each_figure() -> None:
    worked = {"loss": 2.0, "citation_right": True, "facts_right": False}
    plain = {"loss": 8.0, "citation_right": False, "facts_right": True}
    rivals = {"base + retrieval + worked examples": worked, "base + retrieval": plain}
    verdict = verdict_on(make_evaluation(tuned=GOOD | {"facts_right": False}, rivals=rivals))
    assert passed(verdict) == {"answer loss": True, "citations": False, "facts": False, "forgetting": True}
    loss, citations, facts, _ = (check.text for check in verdict.checks)
    assert "against base + retrieval + worked examples" in loss
    assert "against base + retrieval + worked examples" in citations
    assert "against base + retrieval;" in facts


def test_facts_as_good_as_the_bases_do_not_fail() -> None:
    verdict = verdict_on(make_evaluation(rivals={"base + retrieval": POOR | {"facts_right": True}}))
    assert passed(verdict)["facts"] is True


@pytest.mark.parametrize(
    ("ours", "lucky", "check", "text"),
    [
        (POOR | {"loss": 1.0}, {"citation_right": True}, 1, "+8 points (+0 to +25) "),
        (GOOD | {"loss": 10.5}, {"loss": 0.0}, 0, "-0.037 (-"),
    ],
)
def test_a_gain_within_the_noise_is_not_shown(
    ours: dict[str, Any], lucky: dict[str, Any], check: int, text: str
) -> None:
    """One lucky answer in twelve."""
    answers = [
        a if a.contender != TUNED or i % 12 else a.model_copy(update=lucky)
        for i, a in enumerate(make_evaluation(n=12, tuned=ours).answers)
    ]
    evaluation = make_evaluation(n=12).model_copy(update={"answers": tuple(answers)})
    verdict = verdict_on(evaluation)
    assert verdict.checks[check].passed is False
    assert verdict.checks[check].text.startswith(text), verdict.checks[check].text


def test_what_cannot_be_scored_is_never_better() -> None:
    one_file = [a.model_copy(update={"subject_path": "one.py"}) for a in make_evaluation().answers]
    verdict = verdict_on(make_evaluation().model_copy(update={"answers": tuple(one_file)}))
    assert passed(verdict) == {"answer loss": None, "citations": None, "facts": None, "forgetting": True}
    assert not verdict.better
    assert verdict.headline == "Not shown to be better than the base: answer loss, citations, facts."
    nothing = verdict_on(Evaluation(answers=(), code=(), n_worked_examples=0))
    assert set(passed(nothing).values()) == {None}
    assert not nothing.better
    assert nothing.retrieval_recall is None
    assert all(row.citations is None for row in nothing.rows)


def test_unscored_facts_and_code_do_not_stand_in_the_way() -> None:
    none = {"facts_right": None}
    names = ("base", "base + retrieval", "base + retrieval + worked examples", "tuned")
    verdict = verdict_on(make_evaluation(tuned=GOOD | none, code=(), rivals=dict.fromkeys(names, POOR | none)))
    assert passed(verdict) == {"answer loss": True, "citations": True, "facts": None, "forgetting": None}
    assert verdict.better
    assert verdict.headline.endswith("(best base: 0%).")


@pytest.mark.parametrize(("tuned_nats", "ok"), [(90.0, True), (109.0, True), (110.0, False), (200.0, False)])
def test_forgetting_is_perplexity_per_byte_against_its_budget(tuned_nats: float, ok: bool) -> None:
    verdict = verdict_on(make_evaluation(code=((100.0, tuned_nats),) * 6))
    assert passed(verdict)["forgetting"] is ok
    assert verdict.better is ok
    assert verdict.forgetting is not None
    assert verdict.forgetting.value == pytest.approx(math.exp((tuned_nats - 100) / 100) - 1)
    assert verdict.code_tuned is not None
    assert verdict.code_tuned.value == pytest.approx(tuned_nats / 100 / math.log(2))


def test_figures_are_token_weighted() -> None:
    answers = tuple(
        answer(name, i, loss=30.0 if i % 2 else 1.0, n_tokens=10 if i % 2 else 1)
        for name in {a.contender for a in make_evaluation(1).answers}
        for i in range(8)
    )
    row = verdict_on(Evaluation(answers=answers, code=(), n_worked_examples=0)).rows[0]
    assert row.answer_loss is not None
    assert row.answer_loss.value == pytest.approx(31 / 11)


def test_the_best_base_is_the_last_where_none_is_scored() -> None:
    rows = verdict_on(Evaluation(answers=(), code=(), n_worked_examples=0)).rows
    assert best_base(rows, lambda row: row.citations) == "base + retrieval + worked examples"


def test_a_planted_better_model_is_promoted() -> None:
    verdict = verdict_on(make_evaluation(general=(1.0, 1.02), n_looks=3))
    assert verdict.decision == "promote"
    assert verdict.better
    assert {reason.partition(":")[0] for reason in verdict.reasons} >= {"answer loss", "citations", "general code"}


def test_a_planted_equal_model_is_held() -> None:
    verdict = verdict_on(make_evaluation(tuned=POOR, general=(1.0, 1.0)))
    assert verdict.decision == "hold"
    assert {reason.partition(":")[0] for reason in verdict.reasons} == {"answer loss", "citations"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"general": (3.0, 1.0)}, "general code"),
        ({"general": (1.0, 5.0)}, "general chat"),
        ({"code": ((100.0, 150.0),) * 6}, "forgetting"),
        ({"tuned": GOOD | {"loss": 30.0}}, "answer loss"),
    ],
)
def test_a_planted_over_trained_model_is_rejected(changes: dict[str, Any], reason: str) -> None:
    """However well it answers: it was trained until it forgot the rest."""
    verdict = verdict_on(make_evaluation(**changes))
    assert verdict.decision == "reject"
    assert not verdict.better
    assert [text.partition(":")[0] for text in verdict.reasons] == [reason]
    assert verdict.headline == f"Worse than it may be: {reason}."


def test_what_may_lie_beyond_a_budget_is_held_though_its_point_lies_within() -> None:
    code = tuple((100.0, 100.0 + change) for change in (0.0, 0.0, 0.0, 0.0, 0.0, 50.0))  # +8.7 %, from 0 to 28 %
    verdict = verdict_on(make_evaluation(code=code))
    assert verdict.forgetting is not None
    assert verdict.forgetting.value < SETTINGS.forgetting_budget < (verdict.forgetting.high or 0)
    assert verdict.decision == "hold"


def test_looks_widen_the_intervals() -> None:
    tuned = GOOD | {"citation_right": True}
    one, three = (verdict_on(make_evaluation(tuned=tuned, n_looks=n)) for n in (1, 3))
    assert (one.confidence, three.confidence) == (0.95, pytest.approx(1 - 0.05 / 3))
    narrow, wide = one.rows[-1].citations, three.rows[-1].citations
    assert narrow is not None
    assert wide is not None
    assert (wide.low or 0) < (narrow.low or 0)


def test_looking_three_times_keeps_the_error_and_stops_early() -> None:
    """Of 300 pairs of equal models about 5 % are called different at any of the looks; unequal ones are told early."""
    generator = random.Random(7)

    def first_clear(p_ours: float, p_theirs: float) -> int | None:
        ours, theirs = ([float(generator.random() < p) for _ in range(48)] for p in (p_ours, p_theirs))
        for n in looks(48):
            level = level_of(0.95, 3)
            difference = paired_difference(ours[:n], theirs[:n], confidence=level, n_resamples=400)
            assert difference is not None
            if (difference.low or 0) > 0 or (difference.high or 0) < 0:
                return n
        return None

    equal = [first_clear(0.4, 0.4) for _ in range(300)]
    assert sum(n is not None for n in equal) / len(equal) <= 0.07
    unequal = [first_clear(0.8, 0.1) for _ in range(50)]
    assert sum(n == 12 for n in unequal) / len(unequal) >= 0.8


# -- what people asked ----------------------------------------------------------------------------------------------------


def with_people(n: int, tuned: int, base: int, figure: str = "citation_right") -> Verdict:
    people = people_asked(n, tuned=tuned, base=base, figure=figure)
    return verdict_on(make_evaluation().model_copy(update={"people": people}))


def test_people_are_read_first() -> None:
    verdict = with_people(20, tuned=15, base=5)
    assert verdict.decision == "promote"
    assert verdict.checks[0].name == "questions of people"
    assert verdict.checks[0].text.startswith("+50 points (+")
    assert "n = 20" in verdict.checks[0].text
    assert verdict.headline.startswith(
        "Better than the base: answers 75% of 20 questions of people right (base: 25%), cites the right code in 100%"
    )


@pytest.mark.parametrize("figure", ["citation_right", "said_right", "facts"])
@pytest.mark.parametrize(("n", "tuned", "base", "decision"), [(40, 5, 35, "reject"), (6, 0, 6, "hold")])
def test_who_answers_people_surely_worse_is_not_promoted(
    figure: str, n: int, tuned: int, base: int, decision: str
) -> None:
    """Though the pipeline's own questions are all answered better; a few that are all worse do not yet reject."""
    verdict = with_people(n, tuned, base, figure)
    assert not verdict.better
    assert verdict.checks[0].passed is False
    assert verdict.decision == decision
    assert verdict.reasons[0].startswith("questions of people: ")


def test_a_little_worse_within_the_noise_does_not_stand_in_the_way() -> None:
    verdict = with_people(20, tuned=9, base=10)
    assert verdict.checks[0].passed is True
    assert verdict.better


def test_one_question_alone_decides_nothing() -> None:
    verdict = with_people(1, tuned=0, base=1)
    assert verdict.checks[0].passed is None
    assert verdict.better


def test_better_answers_to_people_alone_do_not_promote() -> None:
    people = people_asked(20, tuned=20, base=0)
    verdict = verdict_on(make_evaluation(tuned=POOR).model_copy(update={"people": people}))
    assert not verdict.better
    assert verdict.checks[0].passed is True
