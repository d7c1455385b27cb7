"""What the runs of a workspace did, read off their folders: nothing is opened, loaded or locked.

`events.jsonl` is the one stream; here it is folded into what a reader wants to know of a run: how far it came, its curve,
its figures of the moment. The command line lists runs with it, the pages show a run while it works.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_forge.events import event_of, n_damaged_events, read_events
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.run import RECORD, read_record
from ai_forge.workspace import Workspace

StageState = Literal["running", "done", "failed", "cancelled"]
PLAN = "plan"  # not a stage: a look at a run does not move it
REPORTS = ("report.html", "report.md", "compliance.md")  # of a repository, of a file of examples, of a handbook
KEPT_SAMPLES = 4  # answers to the fixed question, the newest: a reader compares the last with the first


class StageView(BaseModel):
    """One stage as its events tell it. `done` of `total` units, 0 of 0 where nothing is known."""

    name: str
    state: StageState = "running"
    seconds: float | None = None
    done: int = 0
    total: int = 0
    note: str = ""
    text: str = ""
    next_step: str | None = None

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1; None where it does not tell."""
        if self.total <= 0:
            return None
        return min(1.0, self.done / self.total)


class Moment(BaseModel):
    """The newest training step: what it measured, and what is left (seconds)."""

    step: int
    n_steps: int
    loss: float
    tokens_per_s: float
    memory_bytes: int
    eta_s: float


class Sample(BaseModel):
    """An answer to the fixed held-out question after some steps."""

    step: int
    question: str
    answer: str


class RunOverview(BaseModel):
    """A run in one line. `state` is in words; `report` the file that says how good the model is."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    created: str
    model: str
    repository: str
    recipe: str
    base: str
    state: str
    verdict: str | None
    report: str | None


class RunView(BaseModel):
    """A run while it works: what its events say so far."""

    stages: dict[str, StageView] = Field(default_factory=dict)
    losses: list[tuple[int, float]] = Field(default_factory=list)
    held_out: list[tuple[int, float]] = Field(default_factory=list)
    now: Moment | None = None
    samples: list[Sample] = Field(default_factory=list)
    notices: list[str] = Field(default_factory=list)
    verdict: str | None = None
    latest: str = ""

    @property
    def state(self) -> str:
        """How far the run came, in words."""
        moved = [stage for stage in self.stages.values() if stage.name != PLAN]
        if not moved:
            return "not begun"
        last = self.stages.get(self.latest, moved[-1])
        if last.state == "running":
            return f"in {last.name}"
        if last.state != "done":
            return f"{last.name} {last.state}"
        # in the order of the first time: a stage that is made again takes no run back
        furthest = [stage for stage in moved if stage.state == "done"][-1]
        if furthest.name == "deploy":
            return "deployed"
        return f"{furthest.name} done"

    def take(self, event: JsonObject) -> None:
        """Fold in one record of `events.jsonl`; what is not known, or damaged, is passed over: a later version may write more."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            self._take(event)

    def _take(self, event: JsonObject) -> None:
        kind = event.get("event")
        if kind == "StageStarted":
            self.stages[event["stage"]] = StageView(name=event["stage"])
            if event["stage"] != PLAN:
                self.latest = event["stage"]
        elif kind == "StageProgress":
            stage = self._stage(event)
            stage.done, stage.total, stage.note = event["done"], event["total"], event.get("note", "")
        elif kind == "StageFinished":
            self._end(event, "done", event.get("text", ""))
            if event["stage"] == "report":
                self.verdict = event.get("text")
        elif kind == "StageFailed":
            self._end(event, "failed", event.get("message", "")).next_step = event.get("next_step")
        elif kind == "StageCancelled":
            self._end(event, "cancelled", event.get("reason", ""))
        elif kind == "StepLogged":
            self.now = Moment.model_validate(event)
            self.losses.append((event["step"], event["loss"]))
        elif kind == "EvalFinished":
            self.held_out.append((event["step"], event["loss"]))
        elif kind == "AnswerSampled":
            self.samples = [*self.samples, Sample.model_validate(event)][-KEPT_SAMPLES:]
        elif kind == "Notice":
            self.notices.append(event["message"])

    def _stage(self, event: JsonObject) -> StageView:
        return self.stages.setdefault(event["stage"], StageView(name=event["stage"]))

    def _end(self, event: JsonObject, state: StageState, text: str) -> StageView:
        stage = self._stage(event)
        stage.state, stage.seconds, stage.text, stage.note = state, event.get("seconds"), text, ""
        return stage


def view_of(events: Iterable[JsonObject]) -> RunView:
    """All events of a run, folded."""
    view = RunView()
    for event in events:
        view.take(event)
    return view


def runs_of(workspace: Workspace, limit: int | None = None) -> list[RunOverview]:
    """The runs in the workspace, newest first, at most `limit`. A folder whose record is torn, or of a version that wrote
    another, is passed over: the list is for finding runs."""
    records = [(path.parent, _record_in(path.parent)) for path in workspace.runs_dir.glob(f"*/{RECORD}")]
    known = [(folder, record) for folder, record in records if record is not None]
    # sorted before their events are read, which may be thousands for each
    newest = sorted(known, key=lambda one: str(one[1]["created"]), reverse=True)
    return [_overview(folder, record) for folder, record in newest[:limit]]


def damaged_runs(workspace: Workspace) -> list[str]:
    """What cannot be told of runs, in sentences: records are damaged (or of a version of AI Forge that wrote them otherwise);
    events of theirs are damaged, or gone though the run made something."""
    # an empty one is of a run that was killed before it was written down
    folders = sorted(path for path in workspace.runs_dir.glob("[!.]*") if path.is_dir() and any(path.iterdir()))
    told = [
        f"{folder / RECORD} is damaged or missing. Next: the same `ai-forge run` as then writes it again."
        for folder in folders
        if _record_in(folder) is None
    ]
    for record in sorted(workspace.runs_dir.glob(f"[!.]*/{RECORD}")):
        path = record.with_name("events.jsonl")
        if n_damaged := n_damaged_events(path):
            told.append(f"{path}: {n_damaged} of its lines are damaged; what they told is left out.")
        elif not path.is_file() and (record.parent / "report").is_symlink():
            told.append(f"{path} is gone: how far its run came is not known, {record.parent} holds what it made.")
    return told


def run_folder(workspace: Workspace, run_id: str) -> Path | None:
    """Where a run lies, whoever names it; None where there is none. Nothing that is named leads out of the folder of runs."""
    folder = workspace.runs_dir / run_id
    # a run's id is hexadecimal: no separator, no dot
    return folder if run_id.isalnum() and folder.is_dir() else None


def overview_of(folder: Path) -> RunOverview | None:
    """A run in one line; None where the folder holds none that can be read."""
    record = _record_in(folder)
    return None if record is None else _overview(folder, record)


def report_in(folder: Path, *, as_text: bool = False) -> Path | None:
    """The report of a run: a page where its recipe writes one, or `as_text` Markdown where there is any."""
    names = sorted(REPORTS, key=lambda name: name.endswith(".md") is not as_text)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _record_in(folder: Path) -> JsonObject | None:
    record = read_record(folder) or {}
    run, base = record.get("run"), record.get("base")
    if not isinstance(run, dict) or not isinstance(base, dict):
        return None
    shown = [
        record.get("created"),
        base.get("name"),
        *(run.get(name) for name in ("id", "model", "repository", "recipe")),
    ]
    return record if all(isinstance(value, str) for value in shown) else None


def _overview(folder: Path, record: JsonObject) -> RunOverview:
    run, view = record["run"], view_of(read_events(folder / "events.jsonl"))
    report = report_in(folder)
    return RunOverview(
        run_id=run["id"],
        created=record["created"],
        model=run["model"],
        repository=run["repository"],
        recipe=run["recipe"],
        base=record["base"]["name"],
        state=view.state,
        verdict=view.verdict,
        report=None if report is None else str(report),
    )


class EventTail:
    """Follows an `events.jsonl` that another process writes: each call gives what came since the last, with numbers from 1 on.

    Only what is new is read, and only whole lines: the last may be half written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._number = 0

    def __call__(self) -> list[tuple[int, JsonObject]]:
        """The events since the last call; none where there is no file yet."""
        if not self._path.is_file():  # not there yet; a pipe in its place would be waited for
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        events = []
        for line in whole.split(b"\n")[:-1]:
            self._number += 1
            record = event_of(line)  # a torn line keeps its number and says nothing
            if record is not None:
                events.append((self._number, record))
        return events
