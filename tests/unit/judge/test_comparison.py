"""Two models compared: only what both were asked, differences with known values, and pages that open."""

import json
from pathlib import Path
from typing import Any

import pytest

from ai_forge.judge.comparison import Comparison, Row, Side, compare, write_comparison
from ai_forge.judge.evaluator import TUNED, Evaluation
from evaluations import answer, make_evaluation, people_asked


def side(**changes: Any) -> Side:
    values: dict[str, Any] = {
        "run_id": "a1",
        "model": "shop",
        "created": "2026-11-27 10:00:00",
        "commit": "c" * 40,
        "base": "tiny",
        "decision": "promote",
        "headline": "Better than the base.",
        "n_questions": 24,
        "n_train": 100,
        "settings": {"training.rank": "16"},
    }
    return Side(**(values | changes))


def evaluated(numbers: range, *, right: set[int], loss: float = 2.0) -> Evaluation:
    answers = [
        answer(TUNED, i, citation_right=i in right, facts_right=None, loss=loss, answer=f"it is {i in right}")
        for i in numbers
    ]
    return make_evaluation().model_copy(update={"answers": tuple(answers)})


def rows_of(comparison: Comparison) -> dict[str, Row]:
    return {row.figure: row for row in comparison.rows}


def test_only_questions_of_both_count_and_differences_are_the_second_minus_the_first() -> None:
    one, other = (
        evaluated(range(24), right=set(range(24))),
        evaluated(range(12, 36), right={12, 13, 14, *range(24, 36)}),
    )
    found = compare(side(), side(run_id="b2"), (one, other))
    citations = rows_of(found)["right citations"]
    assert found.n_common == 12
    assert citations.first is not None
    assert citations.second is not None
    assert citations.difference is not None
    assert (citations.first.value, citations.second.value, citations.difference.value) == (1.0, 0.25, -0.75)
    assert citations.difference.n == 12
    assert citations.better == "first"
    assert "facts right" not in rows_of(found)  # no question of both asks for facts
    assert found.headline == "The first is better in right citations (12 questions asked of both)."
    assert found.pairs[0].first_right
    assert not found.pairs[0].second_right


def test_of_a_loss_less_is_better_and_alike_is_not_shown() -> None:
    right = set(range(24))
    slower, better = evaluated(range(24), right=right), evaluated(range(24), right=right, loss=1.0)
    found = rows_of(compare(side(), side(run_id="b2"), (slower, better)))
    loss = found["answer loss per byte"]
    assert loss.difference is not None
    assert loss.difference.value == pytest.approx(-1.0 / len("It is."))
    assert loss.better == "second"
    assert found["right citations"].better == "not shown"
    assert found["held-out code, loss per byte"].better == "not shown"


def test_the_same_words_about_code_that_changed_are_another_question() -> None:
    one = evaluated(range(4), right=set())
    changed = tuple(a.model_copy(update={"reference": "It was."}) for a in one.answers)
    found = compare(side(), side(run_id="b2"), (one, one.model_copy(update={"answers": changed})))
    assert found.n_common == 0
    assert found.headline == "Nothing was asked of both: no comparison."


def test_what_people_asked_comes_first() -> None:
    one, other = evaluated(range(6), right=set(range(6))), evaluated(range(6), right=set(range(6)))
    one = one.model_copy(update={"people": people_asked(8, tuned=2, base=0)})
    other = other.model_copy(update={"people": people_asked(8, tuned=8, base=0)})
    found = compare(side(), side(run_id="b2"), (one, other))
    assert found.rows[0].figure == "people's questions: right"
    assert found.rows[0].difference is not None
    assert found.rows[0].difference.value == 0.75
    assert found.rows[0].better == "second"
    assert found.pairs[0].origin == "people"


def test_it_says_what_differs_and_what_it_does_not_know(tmp_path: Path) -> None:
    one = evaluated(range(6), right={1})
    found = compare(side(), side(run_id="b2", commit=None, settings={"training.rank": "8"}), (one, one))
    assert found.differing_settings == {"training.rank": ("16", "8")}
    assert any("other states of the code" in text for text in found.unknown)
    for ending in (".html", ".md", ".json"):
        write_comparison(tmp_path / f"page{ending}", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")  # opens offline
    for text in (page, (tmp_path / "page.md").read_text(encoding="utf-8")):
        assert found.headline in text
        assert "training.rank" in text
    assert Comparison.model_validate(json.loads((tmp_path / "page.json").read_text())) == found


def test_a_models_words_are_no_markup(tmp_path: Path) -> None:
    one = evaluated(range(1), right=set())
    hostile = tuple(a.model_copy(update={"answer": "<script>alert(1)</script>"}) for a in one.answers)
    write_comparison(
        tmp_path / "page.html", compare(side(), side(run_id="b2"), (one, one.model_copy(update={"answers": hostile})))
    )
    assert "<script>" not in (tmp_path / "page.html").read_text(encoding="utf-8")
