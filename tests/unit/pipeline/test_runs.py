"""A run is read off its events: how far it came, its curve, its newest figures."""

import json
from pathlib import Path

import pytest

from ai_forge.events import EventStream, StageFailed, StageFinished, StageProgress, StageStarted, StepLogged
from ai_forge.pipeline.runs import EventTail, RunView, report_in, run_folder, runs_of, view_of
from ai_forge.workspace import Workspace


def told(path: Path, *events: object) -> RunView:
    stream = EventStream(path)
    for event in events:
        stream(event)
    return view_of(event for _, event in EventTail(path)())


def step(n: int, loss: float) -> StepLogged:
    return StepLogged(n, 40, loss, 0.5, 1e-3, 1.0, 700.0, 2_000_000_000, 60.0)


def test_a_run_that_trains_shows_its_curve_and_its_newest_step(tmp_path: Path) -> None:
    view = told(tmp_path / "events.jsonl", StageStarted("train"), step(1, 1.5), step(2, 1.25))
    assert view.state == "in train"
    assert view.losses == [(1, 1.5), (2, 1.25)]
    assert view.now is not None
    assert (view.now.step, view.now.eta_s) == (2, 60.0)


def test_a_stage_that_is_made_again_takes_no_run_back(tmp_path: Path) -> None:
    done = [StageFinished(name, 1.0, False) for name in ("train", "deploy")]
    again = [StageStarted("train"), StageFinished("train", 1.0, True)]
    path = tmp_path / "events.jsonl"
    assert told(path, StageStarted("train"), done[0], StageStarted("deploy"), done[1], *again).state == "deployed"


def test_a_failure_is_told_with_what_to_do(tmp_path: Path) -> None:
    failed = StageFailed("train", 2.0, "out_of_memory", "too large", "set a smaller batch.")
    view = told(tmp_path / "events.jsonl", StageStarted("train"), StageProgress("train", 1, 4), failed)
    assert view.state == "train failed"
    assert (view.stages["train"].text, view.stages["train"].next_step) == ("too large", "set a smaller batch.")


def test_a_look_at_a_run_does_not_move_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert told(path, StageStarted("plan"), StageFinished("plan", 1.0, False)).state == "not begun"


def test_a_tail_reads_whole_lines_once_and_numbers_them(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail() == []
    path.write_bytes(b'{"event": "A"}\n{"event": "B"}\n{"eve')
    assert [(n, event["event"]) for n, event in tail()] == [(1, "A"), (2, "B")]
    assert tail() == []
    with path.open("ab") as file:
        file.write(b'nt": "C"}\nnot json\n{"event": "D"}\n[1]\n{"event": "E"}\n')
    assert [(n, event["event"]) for n, event in tail()] == [(3, "C"), (5, "D"), (7, "E")]


def test_runs_are_listed_newest_first_and_torn_ones_passed_over(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    for name, created in (("a1", "2026-01-01T00:00:00+00:00"), ("b2", "2026-02-01T00:00:00+00:00")):
        folder = workspace.runs_dir / name
        folder.mkdir()
        run = {"id": name, "model": "demo", "repository": "/r", "recipe": "repository"}
        record = {"run": run, "created": created, "base": {"name": "tiny"}}
        (folder / "run.json").write_text(json.dumps(record))
    (workspace.runs_dir / "torn").mkdir()
    (workspace.runs_dir / "torn" / "run.json").write_text('{"run": ')
    assert [run.run_id for run in runs_of(workspace)] == ["b2", "a1"]
    assert [run.run_id for run in runs_of(workspace, 1)] == ["b2"]


@pytest.mark.parametrize(
    ("written", "page", "text"),
    [
        (("report.html", "report.md"), "report.html", "report.md"),
        (("report.md",), "report.md", "report.md"),
        (("compliance.md",), "compliance.md", "compliance.md"),
        ((), None, None),
    ],
)
def test_each_recipes_report_is_found(tmp_path: Path, written: tuple[str, ...], page: str, text: str) -> None:
    for name in written:
        (tmp_path / name).touch()
    found = report_in(tmp_path), report_in(tmp_path, as_text=True)
    assert [path and path.name for path in found] == [page, text]


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../runs", "gone", "a\0b"])
def test_no_name_leads_out_of_the_folder_of_runs(tmp_path: Path, name: str) -> None:
    assert run_folder(Workspace.open(tmp_path), name) is None


@pytest.mark.parametrize("damage", [{"created": None}, {"base": []}, {"base": {}}, {"run": {"id": 3}}, {"run": None}])
def test_a_record_of_wrong_types_is_passed_over(tmp_path: Path, damage: dict[str, object]) -> None:
    run = {"id": "a1", "model": "demo", "repository": "/demo", "recipe": "repository"}
    record = {"run": run, "created": "2026-11-27T10:00:00+00:00", "base": {"name": "tiny"}}
    workspace = Workspace.open(tmp_path)
    for name, content in (("sound", record), ("odd", record | damage)):
        (workspace.runs_dir / name).mkdir()
        (workspace.runs_dir / name / "run.json").write_text(json.dumps(content))
    assert [row.run_id for row in runs_of(workspace)] == ["a1"]


@pytest.mark.parametrize(
    "event", ["StageStarted", "StageProgress", "StageFinished", "StepLogged", "EvalFinished", "Notice"]
)
def test_an_event_that_lost_its_fields_is_passed_over(event: str) -> None:
    view = view_of([{"event": "StageStarted", "stage": "train"}, {"event": event}, {"event": event, "stage": []}])
    assert view.state == "in train"
