"""The team's questions on their way through a run: kept with the examples, part of the keys, not trained on."""

import json
from pathlib import Path

import pytest

from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE
from ai_forge.errors import InputError
from ai_forge.events import Event, Notice
from ai_forge.judge.evaluation import BASE_AS_SERVED, TUNED, Evaluation
from ai_forge.pipeline.opened import Opened
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stages.dataset import DatasetSummary, team_questions
from ai_forge.pipeline.stages.evaluate import FILE
from cli_runs import TinyRun, copy_of, runner_of

TEXT = "- question: {}\n  files: bisect.py\n"


def ask(run: TinyRun, question: str) -> None:
    path = run.repo / QUESTIONS_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(TEXT.format(question))


def dataset_of(runner: Runner) -> DatasetSummary:
    summary = runner.run_until("dataset").summary
    assert isinstance(summary, DatasetSummary)
    return summary


def key_of(runner: Runner, stage: str) -> str | None:
    return next(row.key for row in runner.plan() if row.name == stage)


def test_questions_are_kept_and_only_what_is_judged_follows_them(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    plain, key = dataset_of(runner_of(run)), key_of(runner_of(run), "evaluate")
    assert team_questions(runner_of(run).outputs()) == []
    ask(run, "How do I keep a list sorted?")
    runner = runner_of(run)
    summary = dataset_of(runner)
    assert summary.content == plain.content  # nothing is trained anew
    assert summary.judged != plain.judged
    assert key_of(runner, "evaluate") not in (None, key)
    asked = TeamQuestion(question="How do I keep a list sorted?", files=("bisect.py",))
    assert team_questions(runner.outputs()) == [asked]


def test_what_is_asked_is_not_trained_on(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    plain = runner_of(run)
    train = Opened(plain.run, plain.workspace, lambda event: None).examples(plain.outputs(), "train")
    ask(run, f'"{train[0].question}"')
    runner = runner_of(run)
    assert dataset_of(runner).rejected["asked_by_team"] > 0
    left = Opened(runner.run, runner.workspace, lambda event: None).examples(runner.outputs(), "train")
    assert train[0].question not in [example.question for example in left]


def test_a_broken_file_is_told_before_anything_is_made(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    ask(run, "a")
    with pytest.raises(InputError, match="line 1: question 'a'"):
        runner_of(run)


def test_questions_that_changed_while_the_run_was_at_work_are_refused(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    ask(run, "How do I keep a list sorted?")
    runner = runner_of(run)
    ask(run, "How do I keep a heap?")
    with pytest.raises(InputError, match=r"questions\.yaml changed while run"):
        runner.run_until("dataset")


def test_both_models_are_asked_them_first_and_the_report_tells(finished: TinyRun, tmp_path: Path) -> None:
    """The answers are what the exported files say to the documents that a user is shown; what is gone is told and left out."""
    run = copy_of(finished, tmp_path)
    path = run.repo / QUESTIONS_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "- question: How do I keep a list sorted?\n  files: bisect.py\n  must: insort\n"
        "- question: Where was it?\n  files: gone.py\n"
    )
    told: list[Event] = []
    runner = runner_of(run, told.append)
    runner.run_until("report")
    evaluation = runner.outputs().read("evaluate", FILE, Evaluation)
    people = evaluation.people
    assert [(a.contender, a.question, a.origin) for a in people.answers] == [
        (name, "How do I keep a list sorted?", "people") for name in (BASE_AS_SERVED, TUNED)
    ]
    assert {answer.origin for answer in evaluation.answers} == {"pipeline"}
    assert [one.missing for one in people.left_out] == [("gone.py",)]
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert any("Where was it?" in text and "gone.py" in text for text in notices)
    report = json.loads((runner.outputs().folder("report") / "report.json").read_text())
    assert list(report).index("people") < list(report).index("figures")
    assert (report["people"]["n_written"], report["people"]["n_asked"]) == (2, 1)
    assert report["people"]["figures"][TUNED]["right place cited"]["n"] == 1
