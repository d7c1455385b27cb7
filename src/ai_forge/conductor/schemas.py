"""What is sent to the queue and what it tells: a request, a job, an event. Plain values that go over HTTP as they are."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.run import Run

if TYPE_CHECKING:
    from ai_forge.data_pipeline.search.question_index import Found

ActiveStatus = Literal["training", "validating", "exporting"]
JobStatus = Literal["queued", "training", "validating", "exporting", "ready", "failed", "cancelled", "paused"]
ACTIVE: tuple[ActiveStatus, ...] = ("training", "validating", "exporting")
FINISHED: tuple[JobStatus, ...] = ("ready", "failed", "cancelled")
FINE_TUNE, DEPLOY = "fine-tune", "deploy"
"""The kinds of job that there always are."""


class RunSource(BaseModel):
    """What a run is made of when its job begins: a repository as it is then, or a file of examples.

    `settings` are dotted keys (`training.max_steps`), laid over what the machine's settings file and environment say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    recipe: str | None = Field(
        None, description="repository, handbook or dataset; the code itself where it is left out"
    )
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class JobRequest(BaseModel):
    """What is to be done. `until` is the last stage, `deploy` asks for deployment behind it, where the gate lets it through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = FINE_TUNE
    project_name: str | None = Field(None, description="what the model is called; the repository's name otherwise")
    run: Run | RunSource | None = None
    until: str = "report"
    deploy: bool = False
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="for kinds of job that have options of their own"
    )


def recorded_request(text: str) -> JobRequest:
    """A request as it was stored, by this version or another.

    Where another wrote it in a way that is not read any more (a setting that is gone), the place is kept that its run was made of.

    Raises:
        ValueError: that is not there either.
    """
    try:
        return JobRequest.model_validate_json(text)
    except ValidationError:
        stored = json.loads(text)
    run = stored.get("run") or {}
    place = {"path": run.get("path") or run.get("repository"), "recipe": run.get("recipe")}
    kept = {name: stored[name] for name in JobRequest.model_fields if name in stored}
    return JobRequest.model_validate(kept | {"run": place if run else None})


class Job(BaseModel):
    """A job as it stands. Times are UTC; `progress` only grows within an attempt; `metrics` holds what was measured so far.

    `wanted` is what was asked of a job at work and not done yet: to be cancelled or paused.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    kind: str
    status: JobStatus
    progress: float = Field(0.0, ge=0, le=1)
    current_step: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    error: str | None = None
    error_code: str | None = Field(None, description="stable; see `ai_forge.errors`")
    project_name: str | None = None
    model: str | None = None
    run_id: str | None = None
    attempt: int = 1
    wanted: Literal["cancel", "pause"] | None = None
    request: JobRequest


class JobEvent(BaseModel):
    """A line of the job's event stream. `id` grows along the stream: ask for what comes after it."""

    model_config = ConfigDict(frozen=True)

    id: int
    event: str
    time: float = Field(description="seconds since 1970")
    data: JsonObject


class FoundPlace(BaseModel):
    """A place of the repository as it was when the model was trained. `why`: what each ranking added to the score."""

    path: str
    first_line: int
    last_line: int
    name: str
    kind: str
    score: float
    why: dict[str, float]
    text: str

    @classmethod
    def of(cls, found: Found) -> Self:
        """What an index found."""
        return cls(**found.row(), why=found.why, text=found.entry.text)
