"""The report tells the verdict, the figures and what is not known, and is safe to open."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from ai_forge.config import JudgeSettings
from ai_forge.events import AdapterInitialised, EvalFinished, StepLogged
from ai_forge.judge.evaluator import Evaluation
from ai_forge.judge.looked import Looked, ServedSpeed
from ai_forge.judge.report import N_SHOWN, ReportData, markdown_text, number, percent, side_by_side, write_report
from ai_forge.judge.statistics import Estimate
from ai_forge.judge.verdict import judge
from ai_forge.training.plan import Schedule
from ai_forge.training.record import TrainingRecord
from evaluations import GOOD, POOR, make_evaluation, people_asked

HOSTILE = "<script>alert(1)</script> & <img src=x onerror=alert(2)>"
TRAINING = TrainingRecord(
    config={},
    base="Tiny",
    backend="torch",
    schedule=Schedule(12, 40, 300.0, 55.0, "time budget 60 s"),
    best_step=11,
    history=(
        EvalFinished(0, 2.5, 0.5, 90),
        StepLogged(1, 12, 2.0, 0.5, 1e-4, 0.7, 300.0, 1, 2.0),
        EvalFinished(1, 0.75, 0.5, 90),
    ),
    initialisation=AdapterInitialised("QPiSSA", "nf4", 32, 210, 1234567, 0.071, 0.0021, 0.0034, 9.0),
)


def data(evaluation: Evaluation, **changes: Any) -> ReportData:
    values: dict[str, Any] = {
        "repository": "my-repo",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "run_id": "abc123",
        "created": "2026-01-02 03:04",
        "base": {"name": "Tiny", "description": "tiny.gguf", "lossy": True, "quantisation": "Q4_1"},
        "counts": [("blocks mined", "321")],
        "training": TRAINING,
        "evaluation": evaluation,
        "verdict": judge(evaluation, JudgeSettings()),
        "parity": {"first 32 greedy tokens": "20 of 20"},
        "unknowns": ["Nobody asked about Go."],
        "max_new_tokens": 112,
        "model": "my-repo",
    }
    return ReportData(**(values | changes))


def test_a_training_that_continued_an_adapter_has_no_initialisation_to_tell(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"initialisation": None})
    write_report(tmp_path, data(make_evaluation(), training=training))
    assert "an adapter that was there was trained on" in (tmp_path / "report.html").read_text()
    assert "An adapter that was there was trained on. Held-out answer loss" in (tmp_path / "report.md").read_text()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_verdict_figures_and_unknowns_are_told(tmp_path: Path, name: str) -> None:
    report = data(make_evaluation())
    write_report(tmp_path, report)
    text = (tmp_path / name).read_text()
    for expected in (
        report.verdict.headline,
        "my-repo",
        "0123456789ab",
        "abc123",
        "QPiSSA, rank 32, 210 matrices",
        "1,234,567 trained values",
        "2.10e-03",
        "3.40e-03",
        "2.500 → 0.750",
        "time budget 60 s",
        "100% (86% to 100%), n = 24",
        "0% (0% to 14%), n = 24",
        "The 24 questions are written by the pipeline and not by people",
        "it may be deployed",
        "purpose",
        "0.10 (0.10 to 0.10)",
        "1.443 (1.443 to 1.443) bits per byte",
        "+1.0% (+1.0% to +1.0%)",
        "blocks mined",
        "321",
        "20 of 20",
        "Nobody asked about Go.",
        "tuned + retrieval says 3",
    ):
        assert expected in text, expected
    assert text.index(report.verdict.headline) < text.index("Did it help?")


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_failure_and_what_was_unscored_are_told(tmp_path: Path, name: str) -> None:
    write_report(tmp_path, data(make_evaluation(tuned=POOR, code=()), parity=None, commit=None))
    text = (tmp_path / name).read_text()
    assert "Not shown to be better than the base: answer loss, citations." in text
    assert "✗" in text
    assert "?" in text
    assert "unscored bits per byte" in text.replace("\n", " ") or "unscored" in text
    assert "Is what is served" not in text


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_nothing_from_outside_becomes_markup(tmp_path: Path, name: str) -> None:
    evaluation = make_evaluation()
    hostile = {"answer": HOSTILE, "question": HOSTILE, "reference": HOSTILE}
    answers = tuple(a.model_copy(update=hostile) for a in evaluation.answers)
    write_report(tmp_path, data(evaluation.model_copy(update={"answers": answers})))
    text = (tmp_path / name).read_text()
    assert "&lt;script&gt;" in text
    tags = Tags()
    tags.feed(text)
    assert "script" not in {tag for tag, _ in tags.seen}
    assert not any("onerror" in attributes for _, attributes in tags.seen)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`def f() -> A` is <b>\nnew", "`def f() -> A` is &lt;b&gt; new"),
        ("`<script>``", "`&lt;script&gt;``"),
        ("``<script>`", "``&lt;script&gt;`"),
        ("`a < b", "`a &lt; b"),
    ],
)
def test_code_is_shown_as_written_and_only_in_a_whole_code_span(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
    assert "<script>" not in MarkdownIt().render(markdown_text(text))


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html, markdown = write_report(tmp_path, data(make_evaluation()))
    tags = Tags()
    tags.feed(html.read_text())
    sources = [a.get("src") or a.get("href") for _, a in tags.seen if a.get("src") or a.get("href")]
    assert len(sources) == 3
    assert all(str(source).startswith("data:image/png;base64,iVBORw0KGgo") for source in sources)
    for picture in ("contenders", "loss_distribution", "loss_curve"):
        assert f"(pictures/{picture}.png)" in markdown.read_text()
        assert (tmp_path / "pictures" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_a_lossy_base_is_told(tmp_path: Path) -> None:
    html, _ = write_report(tmp_path, data(make_evaluation()))
    assert "The base was lossy (Q4_1) before we began." in html.read_text()


def test_estimates_as_text() -> None:
    assert percent(Estimate(0.5, 0.25, 0.75, 8)) == "50% (25% to 75%)"
    assert number(Estimate(1.234, None, None, 1)) == "1.23 (n = 1, no interval)"
    assert number(None) == "unscored"


def test_failures_are_shown_beside_successes() -> None:
    evaluation = make_evaluation(24)
    mixed = tuple(
        a.model_copy(update=GOOD if i % 24 < 18 else POOR) if a.contender == "tuned + retrieval" else a
        for i, a in enumerate(evaluation.answers)
    )
    pairs = side_by_side(evaluation.model_copy(update={"answers": mixed}), "base")
    assert len(pairs) == N_SHOWN
    assert [ours.citation_right for ours, _ in pairs][:6] == [True] * 3 + [False] * 3
    assert all(ours.question == theirs.question and theirs.contender == "base" for ours, theirs in pairs)
    assert len(side_by_side(make_evaluation(3), "base")) == 3


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_what_people_asked_comes_before_what_the_pipeline_asked(tmp_path: Path, name: str) -> None:
    people = people_asked(16, tuned=12, base=4, left_out=("Where was it?",))
    write_report(tmp_path, data(make_evaluation().model_copy(update={"people": people})))
    text = (tmp_path / name).read_text()
    for expected in (
        "16 of the 17 questions that people wrote",
        "75% (51% to 90%), n = 16",
        "25% (10% to 49%), n = 16",
        "+50 points (",
        "Where was it?",
        "gone.py",
        "tuned + retrieval answers person 3",
    ):
        assert expected in text, expected
    assert text.index("What people ask") < text.rindex("+50 points (") < text.index("What the pipeline asks")
    if name.endswith("md"):
        tables = MarkdownIt().enable("table").render(text).count("<table>")
        assert tables == 3


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_who_has_no_questions_is_told_how_to_write_some(tmp_path: Path, name: str) -> None:
    write_report(tmp_path, data(make_evaluation()))
    text = (tmp_path / name).read_text()
    assert "Nobody has written questions of their own" in text
    assert "ai-forge questions add" in text


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_what_people_wrote_becomes_no_markup(tmp_path: Path, name: str) -> None:
    people = people_asked(3, tuned=1, base=1, left_out=(HOSTILE,))
    answers = tuple(a.model_copy(update={"question": HOSTILE, "answer": HOSTILE}) for a in people.answers)
    people = people.model_copy(update={"answers": answers})
    write_report(tmp_path, data(make_evaluation().model_copy(update={"people": people})))
    tags = Tags()
    tags.feed((tmp_path / name).read_text())
    assert "script" not in {tag for tag, _ in tags.seen}
    assert not any("onerror" in attributes for _, attributes in tags.seen)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_measures_by_name_and_what_was_not_measured_are_told(tmp_path: Path, name: str) -> None:
    evaluation = make_evaluation(20)
    invents = Looked(inventions=("name: load_all",), code=(("python", False),), refused=False, cited_shown=False)
    sound = Looked(inventions=(), code=(("python", True), ("go", True)), refused=True, cited_shown=True)
    answers = tuple(
        a.model_copy(update={"looked": sound if i % 4 else invents}) for i, a in enumerate(evaluation.answers)
    )
    speed = ServedSpeed(first_token_s=0.5, tokens_per_s=31.0, n_prompts=3, prompt_tokens=400)
    write_report(tmp_path, replace(data(evaluation.model_copy(update={"answers": answers})), speed=speed))
    text = (tmp_path / name).read_text()
    for expected in (
        "hallucination rate",
        "25% (11% to 47%), n = 20",
        "python in answers that compiles",
        "go in answers that has no syntax error",
        "per word",
        "31.0 tokens/s",
        "ai-forge evaluate REPO --completion",
        "ai-forge own-tests REPO --model my-repo",
    ):
        assert expected in text, expected


def test_on_a_narrow_screen_each_figure_says_what_it_is(tmp_path: Path) -> None:
    """There a row is a paragraph and the headings are not shown, so each cell carries the one that it stands under."""
    people = people_asked(16, tuned=12, base=4)
    write_report(tmp_path, data(make_evaluation().model_copy(update={"people": people})))
    tables = re.findall(r'<div class="wide"><table>(.*?)</table>', (tmp_path / "report.html").read_text(), re.DOTALL)
    assert len(tables) >= 3
    for table in tables:
        first, *rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        headings = [heading.replace("<br>", " ") for heading in re.findall(r"<th>(.*?)</th>", first, re.DOTALL)]
        assert [re.findall(r'data-of="(.*?)"', row) for row in rows] == [headings[1:]] * len(rows)


def test_what_no_question_asks_for_is_no_column(tmp_path: Path) -> None:
    people = people_asked(16, tuned=12, base=4)
    unasked = [a.model_copy(update={"score": a.score.model_copy(update={"said_right": None})}) for a in people.answers]
    people = people.model_copy(update={"answers": tuple(unasked)})
    write_report(tmp_path, data(make_evaluation().model_copy(update={"people": people})))
    text = (tmp_path / "report.md").read_text()
    assert "right place cited" in text
    assert "said what it must" not in text
