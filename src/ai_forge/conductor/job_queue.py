"""The queue of jobs: send one, look at it, stop it, go on with it. The service, the command line and the guardian all use this.

Every method works with and without a worker: it reads and writes the table of jobs, and whoever runs the queue acts on it.
`start` has a worker run them, as a process of its own that is started again when it dies; progress and events come from the
event stream that the job's stages write.
"""

from __future__ import annotations

import datetime
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from ai_forge.conductor.jobs.kinds import kind_named, load_kinds
from ai_forge.conductor.jobs.store import JobStore, Row, RowChanges, database_url
from ai_forge.conductor.jobs.supervisor import Supervisor, WorkerTask, worker_lives
from ai_forge.conductor.schemas import ACTIVE, FINISHED, Job, JobEvent, JobRequest, JobStatus, recorded_request
from ai_forge.config import Settings
from ai_forge.errors import InputError
from ai_forge.events import event_of
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.run import Run, read_run
from ai_forge.pipeline.runs import view_of
from ai_forge.workspace import Workspace

TAIL_BYTES = 65536
Jobs: TypeAlias = list[Job]  # `list` is a method below
Events: TypeAlias = list[JobEvent]
TRAINING, TASKS = "training", "tasks"
TRAIN, PREFER = "train", "prefer"  # stages whose steps are told one by one


class JobQueue:
    """The queue of a workspace; a context manager.

    Args:
        workspace: where everything is kept; with PostgreSQL all machines see it under the same path.
        settings: the machine's, of which `conductor` is read.
        config: the settings file of the machine, for the runs that jobs make.
        kinds: modules that register further kinds of job when they are imported.

    Raises:
        PrerequisiteError: from every method, where the database cannot be used.
    """

    def __init__(
        self, workspace: Workspace, settings: Settings, *, config: Path | None = None, kinds: Sequence[str] = ()
    ) -> None:
        load_kinds(kinds)
        self._workspace = workspace
        self._config = config
        self._store = JobStore(database_url(workspace, settings.conductor.database_url))
        task = WorkerTask(home=workspace.root, settings=settings, config=config, kinds=tuple(kinds))
        self._supervisor = Supervisor(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker, if this started one, and let go of the database."""
        self.stop()
        self._store.close()

    # -- running it -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Have the jobs done, by a worker process that lives as long as this one."""
        self._supervisor.start()

    def stop(self) -> None:
        """Stop doing jobs: the step at work is saved where it can be, and the next start goes on with it."""
        self._supervisor.stop()

    # -- jobs -----------------------------------------------------------------------------------------------------

    @staticmethod
    def new_id() -> str:
        """An id for a job that is yet to be submitted, whose uploads already need a `folder`."""
        return secrets.token_hex(6)

    def folder(self, job_id: str) -> Path:
        """The job's own folder, made if absent: uploads lie here, and go when the job is deleted."""
        folder = self._workspace.root / "jobs" / job_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def submit(self, request: JobRequest, *, job_id: str | None = None) -> Job:
        """Queue a job.

        Raises:
            InputError: what is asked for can never be done.
        """
        kind = kind_named(request.kind)
        kind.check(request, self._config)
        row = Row(
            job_id=job_id or self.new_id(),
            kind=request.kind,
            queue=TRAINING if kind.trains else TASKS,
            request=request.model_dump_json(),
            status="queued",
            created_at=time.time(),
            project_name=request.project_name,
        )
        self._store.insert(row)
        return self._job(row)

    def get(self, job_id: str) -> Job:
        """A job as it stands. Raises `InputError` where there is none."""
        return self._job(self._row(job_id))

    def list(self, *, status: JobStatus | None = None, limit: int | None = None) -> Jobs:
        """The jobs, newest first."""
        return [self._job(row) for row in self._store.rows((status,) if status else (), limit)]

    def run_of(self, job_id: str) -> Run:
        """The run that a job works on. Raises `InputError` where it has none, or none yet."""
        row = self._row(job_id)
        run = read_run(self._workspace.runs_dir / row.run_id) if row.run_id else None
        if run is None:
            told = "yet" if row.run_id is None else "that this version of AI Forge reads"
            raise InputError(f"Job {job_id} has no run {told}.", f"see how far it is: ai-forge jobs show {job_id}.")
        return run

    def cancel(self, job_id: str) -> Job:
        """Stop a job for good; what it had made is kept. A job at work ends within seconds."""
        if self._settle(job_id, ("queued", "paused"), "cancelled"):
            return self.get(job_id)
        changed = self._store.update(job_id, statuses=ACTIVE, wanted="cancel")
        # a job that was at work when everything died is nobody's until a worker starts
        if changed and self._store.is_sqlite and not worker_lives(self._workspace):
            self._settle(job_id, ACTIVE, "cancelled")
        return self._changed(job_id, changed, "cancelled")

    def pause(self, job_id: str) -> Job:
        """Stop a job so that it can go on: a training saves a checkpoint at the end of its step, and others may run."""
        if self._store.update(job_id, statuses=("queued",), status="paused"):
            return self.get(job_id)
        changed = self._store.update(job_id, statuses=ACTIVE, wanted="pause")
        if changed and self._store.is_sqlite and not worker_lives(self._workspace):
            self._store.update(job_id, statuses=ACTIVE, status="paused", wanted=None)
        return self._changed(job_id, changed, "paused")

    def resume(self, job_id: str) -> Job:
        """Go on with a paused job, on the state of its repository that it began with."""
        return self._again(job_id, ("paused",), "resumed")

    def retry(self, job_id: str) -> Job:
        """Do a failed or cancelled job again, on its repository as it is now; what it had made is used where it still holds."""
        return self._again(job_id, ("failed", "cancelled"), "retried", anew=True)

    def delete(self, job_id: str) -> None:
        """Forget a job that is over, with its uploads and its log. What it made stays in the workspace."""
        deleted = self._store.delete(job_id, (*FINISHED, "paused"))
        if not deleted:
            self._changed(job_id, False, "deleted")
        shutil.rmtree(self._workspace.root / "jobs" / job_id, ignore_errors=True)

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> Events:
        """The events behind the one with the id `after`, oldest first, at most `limit`."""
        row = self._row(job_id)
        path = self._events_of(row)
        if path is None:
            return []
        found: Events = []
        with path.open("rb") as file:
            file.seek(row.events_from + after)
            for line in file:
                after += len(line)
                record = event_of(line) if line.endswith(b"\n") else None  # the last may be half written
                if record is not None:
                    name, moment = str(record.pop("event")), float(record.pop("time", 0.0))
                    found.append(JobEvent(id=after, event=name, time=moment, data=record))
                elif line.endswith(b"\n") and line.strip():
                    told = f"A line of {path} is damaged; what it told is left out."
                    found.append(
                        JobEvent(id=after, event="Notice", time=0.0, data={"level": "warning", "message": told})
                    )
                if len(found) == limit:
                    break
        return found

    def log(self, job_id: str, max_bytes: int = 1_000_000) -> str:
        """What the job's process printed, at most the last `max_bytes`."""
        self._row(job_id)
        path = self._workspace.root / "jobs" / job_id / "log.txt"
        if not path.is_file():
            return ""
        return _tail(path, max_bytes).decode("utf-8", "replace")

    # -- behind these ---------------------------------------------------------------------------------------------

    def _row(self, job_id: str) -> Row:
        row = self._store.get(job_id)
        if row is None:
            raise InputError(f"There is no job {job_id!r}.", "see which there are: ai-forge jobs list.")
        return row

    def _events_of(self, row: Row) -> Path | None:
        """The file of a job's events, once there is one."""
        if row.events is None:
            return None
        path = self._workspace.root / row.events
        return path if path.is_file() else None

    def _settle(self, job_id: str, statuses: Sequence[str], status: str) -> bool:
        return self._store.update(job_id, statuses=statuses, status=status, wanted=None, finished_at=time.time())

    def _again(self, job_id: str, statuses: Sequence[str], done: str, *, anew: bool = False) -> Job:
        row = self._row(job_id)
        changes: RowChanges = {"status": "queued", "attempt": row.attempt + 1, "restarts": 0, "wanted": None}
        changes |= {"finished_at": None, "error": None, "error_code": None}
        if anew:
            changes["prepared"] = None
        changed = self._store.update(job_id, statuses=statuses, at_attempt=row.attempt, **changes)
        return self._changed(job_id, changed, done)

    def _changed(self, job_id: str, changed: bool, done: str) -> Job:
        row = self._row(job_id)
        if not changed:
            raise InputError(f"Job {job_id} is {row.status} and cannot be {done}.", f"ai-forge jobs show {job_id}.")
        return self._job(row)

    def _job(self, row: Row) -> Job:
        progress, metrics = row.progress, dict(row.metrics)
        if row.status in ACTIVE:
            fraction, live = _live(self._events_of(row), row.current_step)
            progress, metrics = min(progress + fraction * row.step_weight, 1.0), live | metrics
        return Job(
            job_id=row.job_id,
            kind=row.kind,
            status=row.status,
            progress=round(progress, 4),
            current_step=row.current_step,
            created_at=_moment(row.created_at),
            started_at=None if row.started_at is None else _moment(row.started_at),
            finished_at=None if row.finished_at is None else _moment(row.finished_at),
            metrics=metrics,
            error=row.error,
            error_code=row.error_code,
            project_name=row.project_name,
            model=row.model,
            run_id=row.run_id,
            attempt=row.attempt,
            wanted=row.wanted,
            request=recorded_request(row.request),
        )


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _tail(path: Path, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - n_bytes))
        return file.read()


def _live(events: Path | None, step: str | None) -> tuple[float, JsonObject]:
    """How far the step at work is, and what its newest events measured."""
    if events is None:
        return 0.0, {}
    records = map(event_of, _tail(events, TAIL_BYTES).splitlines())
    view = view_of(record for record in records if record is not None)
    share, metrics = 0.0, JsonObject()
    if step in view.stages:
        share = view.stages[step].share or 0.0
    if view.held_out:
        metrics["held_out_loss"] = view.held_out[-1][1]
    if view.now is not None:
        metrics |= view.now.model_dump()
        if step in (TRAIN, PREFER):
            share = view.now.step / view.now.n_steps
    return share, metrics
