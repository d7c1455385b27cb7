"""`ai-forge jobs`: the queue from the command line, whether a service runs it or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Config, Home, Options, Words
from ai_forge.cli.output import show, table, warn

if TYPE_CHECKING:
    from ai_forge.conductor.job_queue import JobQueue
    from ai_forge.conductor.schemas import Job, JobEvent

jobs_app = typer.Typer(
    cls=Words, help="The queue of jobs: what is in it, and what becomes of it.", no_args_is_help=True
)
JobId = Annotated[str, typer.Argument(help="The job's id; see `ai-forge jobs list`.")]


@contextmanager
def _queue(home: Home, config: Config) -> Iterator[JobQueue]:
    from ai_forge.conductor.job_queue import JobQueue

    options = Options(home=home, config=config)
    with JobQueue(options.workspace(), options.settings().settings, config=config) as queue:
        yield queue


@jobs_app.command("list")
def list_jobs(home: Home = None, config: Config = None, json: AsJson = False) -> None:
    """The jobs, newest first."""
    with _queue(home, config) as queue:
        jobs = queue.list()

    def text() -> None:
        if not jobs:
            print("no jobs yet: ai-forge serve takes them")
            return
        rows = [
            [job.job_id, job.kind, job.model or job.project_name or "", job.status, f"{job.progress:.0%}", _when(job)]
            for job in jobs
        ]
        table(("job", "kind", "model", "status", "done", "sent"), rows, right=("done",))

    show([job.model_dump(mode="json") for job in jobs], text, json)


@jobs_app.command("show")
def show_job(job_id: JobId, home: Home = None, config: Config = None, json: AsJson = False) -> None:
    """A job: how far it is, what it measured, what went wrong."""
    with _queue(home, config) as queue:
        _print(queue.get(job_id), json)


@jobs_app.command("events")
def events(
    job_id: JobId,
    after: Annotated[int, typer.Option("--after", min=0, help="Only what came after the event with this id.")] = 0,
    home: Home = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """What happened in a job so far, oldest first."""
    found: list[JobEvent] = []
    with _queue(home, config) as queue:
        while page := queue.events(job_id, found[-1].id if found else after):
            found += page

    def text() -> None:
        for event in found:
            told = ", ".join(f"{key}={value}" for key, value in event.data.items() if value not in (None, "", {}))
            print(f"{event.id:>8} {event.event}: {told}")

    show([event.model_dump(mode="json") for event in found], text, json)
    for event in found:
        if event.event == "Notice" and event.data.get("level") == "warning":
            warn(f"  {event.data.get('message')}")


@jobs_app.command("log")
def log(job_id: JobId, home: Home = None, config: Config = None) -> None:
    """What the job's process printed."""
    with _queue(home, config) as queue:
        print(queue.log(job_id), end="")


@jobs_app.command("cancel")
def cancel(job_id: JobId, home: Home = None, config: Config = None, json: AsJson = False) -> None:
    """Stop a job for good. What it had made is kept."""
    with _queue(home, config) as queue:
        _print(queue.cancel(job_id), json)


@jobs_app.command("pause")
def pause(job_id: JobId, home: Home = None, config: Config = None, json: AsJson = False) -> None:
    """Stop a job at the end of its step and let others run. `resume` goes on with it."""
    with _queue(home, config) as queue:
        _print(queue.pause(job_id), json)


@jobs_app.command("resume")
def resume(job_id: JobId, home: Home = None, config: Config = None, json: AsJson = False) -> None:
    """Go on with a paused job."""
    with _queue(home, config) as queue:
        _print(queue.resume(job_id), json)


@jobs_app.command("retry")
def retry(job_id: JobId, home: Home = None, config: Config = None, json: AsJson = False) -> None:
    """Do a failed or cancelled job again, from where it was."""
    with _queue(home, config) as queue:
        _print(queue.retry(job_id), json)


@jobs_app.command("delete")
def delete(job_id: JobId, home: Home = None, config: Config = None) -> None:
    """Forget a job that is over, with what was uploaded for it. The model that it made stays."""
    with _queue(home, config) as queue:
        queue.delete(job_id)


def _when(job: Job) -> str:
    from ai_forge.wording import local_time

    return local_time(job.created_at.isoformat())


def _print(job: Job, json: bool) -> None:
    def text() -> None:
        asked = f" ({job.wanted} asked for)" if job.wanted else ""
        at = f", at {job.current_step}" if job.current_step else ""
        print(f"{job.job_id}  {job.status}{asked}, {job.progress:.0%}{at}")
        for name, value in (("model", job.model), ("run", job.run_id), ("error", job.error)):
            if value:
                print(f"{name:<9} {value}")
        for name, measured in job.metrics.items():
            print(f"  {name}: {measured}")

    show(job.model_dump(mode="json"), text, json)
