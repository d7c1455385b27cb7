"""The tasks of a training cycle, each on stages of the runner, and how long they will take by what past runs took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_forge.events import read_events
from ai_forge.pipeline.run import Run
from ai_forge.pipeline.runner import Planned
from ai_forge.workspace import Workspace, read_json

__all__ = [
    "AnyTask",
    "CyclePlan",
    "DeployTask",
    "ExportTask",
    "ExtractDataTask",
    "SummaryTask",
    "Task",
    "TrainTask",
    "ValidateDataTask",
    "ValidateModelTask",
    "kind_of",
    "past_seconds",
    "tasks_of",
]

N_PAST = 5


class Task(BaseModel):
    """A step of a cycle on the run `run_id`. A small value: it fits into a row of a queue, and may be executed again.

    `expected_s` is what it took lately, 0 where it is done already, None where nothing is known.
    """

    model_config = ConfigDict(frozen=True)

    stages: ClassVar[tuple[str, ...]] = ()
    run_id: str
    expected_s: float | None = None

    @property
    def title(self) -> str:
        """What it does, for people."""
        return (type(self).__doc__ or "").strip().rstrip(".")


class ExtractDataTask(Task):
    """Read the repository: blocks, notes, the index."""

    kind: Literal["extract_data"] = "extract_data"
    stages: ClassVar = ("mine", "notes", "index")


class ValidateDataTask(Task):
    """Make the examples and score them; below the mean quality asked for nothing is trained."""

    kind: Literal["validate_data"] = "validate_data"
    stages: ClassVar = ("dataset",)


class TrainTask(Task):
    """Train the adapter; continues where it was cut off."""

    kind: Literal["train"] = "train"
    stages: ClassVar = ("train", "prefer")


class ValidateModelTask(Task):
    """Judge the tuned model against its rivals."""

    kind: Literal["validate_model"] = "validate_model"
    # the verdict's page also tells of parity, so the files are written before it: seconds beside a training
    stages: ClassVar = ("merge", "evaluate", "export", "parity", "report")


class ExportTask(Task):
    """Name the files of the model and write its Modelfile."""

    kind: Literal["export"] = "export"


class DeployTask(Task):
    """Make it the active version where the gate says so, checked in its runtime."""

    kind: Literal["deploy"] = "deploy"
    stages: ClassVar = ("deploy",)


class SummaryTask(Task):
    """Tell how the cycle went."""

    kind: Literal["summary"] = "summary"


AnyTask = Annotated[
    ExtractDataTask | ValidateDataTask | TrainTask | ValidateModelTask | ExportTask | DeployTask | SummaryTask,
    Field(discriminator="kind"),
]
KINDS: tuple[type[Task], ...] = (
    *(ExtractDataTask, ValidateDataTask, TrainTask),
    *(ValidateModelTask, ExportTask, DeployTask, SummaryTask),
)


def kind_of(task: Task) -> str:
    """What a task is called in records and steps.

    >>> kind_of(TrainTask(run_id="a"))
    'train'
    """
    return str(task.model_dump()["kind"])


class CyclePlan(BaseModel):
    """What a cycle will do. `estimated_duration` is in seconds, None where no part of it was ever run here."""

    model_config = ConfigDict(frozen=True)

    run: Run
    tasks: tuple[AnyTask, ...]
    estimated_duration: float | None

    @property
    def plan(self) -> tuple[Task, ...]:
        """The tasks, in order."""
        return self.tasks


def tasks_of(run: Run, planned: list[Planned], past: Mapping[str, float]) -> CyclePlan:
    """The tasks of a cycle on `run`, whose stages stand as `planned`; `past` is what each stage took lately, s."""
    state = {row.name: row for row in planned}
    tasks = []
    for kind in KINDS:
        known: list[float] = []
        # of a recipe without a stage there is nothing to wait for; `deploy` is no stage and always to do
        for name in [stage for stage in kind.stages if stage in state or stage == "deploy"]:
            row = state.get(name)
            if row is not None and row.state == "done":
                known.append(0.0)
            elif name in past:
                known.append(past[name])
            elif row is not None and row.seconds is not None:
                known.append(row.seconds)
        expected = sum(known) if known or not kind.stages else None
        tasks.append(kind(run_id=run.id, expected_s=expected))
    known_parts = [task.expected_s for task in tasks if task.expected_s is not None and task.stages]
    estimated = sum(known_parts) if known_parts else None
    return CyclePlan.model_validate({"run": run, "tasks": tasks, "estimated_duration": estimated})


def past_seconds(workspace: Workspace, model: str) -> dict[str, float]:
    """Median of what each stage took in the last few runs, s: of this model's where it has any, else of all. Work that was
    not done (cached) is no measurement."""
    own: dict[str, list[tuple[float, float]]] = defaultdict(list)
    every: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in workspace.runs_dir.glob("*/run.json"):
        record = read_json(path) or {}
        is_own = (record.get("run") or {}).get("model") == model
        for event in read_events(path.with_name("events.jsonl")):
            if event.get("event") != "StageFinished" or event.get("cached"):
                continue
            row = (float(event.get("time", 0)), float(event.get("seconds", 0)))
            every[str(event.get("stage"))].append(row)
            if is_own:
                own[str(event.get("stage"))].append(row)
    return {
        stage: statistics.median(seconds for _, seconds in sorted(own.get(stage) or rows)[-N_PAST:])
        for stage, rows in every.items()
    }
