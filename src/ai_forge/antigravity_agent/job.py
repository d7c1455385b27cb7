"""The cycle as a job of the conductor's queue: durable, one training at a time, cancelled, paused and resumed like any other.

`request_retraining` is what `POST /v1/retrain` and agents call. The queue has to be told of this module (`KINDS`), which registers
the kind. A step is a task of the cycle; one that was cut off is done again, and what it had made is found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from ai_forge.antigravity_agent.cycle import CycleStore
from ai_forge.antigravity_agent.project import ProjectConfig
from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
from ai_forge.antigravity_agent.tasks import CyclePlan, SummaryTask, kind_of
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.jobs.kinds import JobContext, Kind, Perform, Prepared, Step, register_kind
from ai_forge.conductor.jobs.runs import settings_of
from ai_forge.conductor.schemas import ActiveStatus, Job, JobRequest, RunSource
from ai_forge.errors import InputError, TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline import actions
from ai_forge.pipeline.runner import Runner
from ai_forge.workspace import Workspace

__all__ = ["GUARDIAN", "KINDS", "request_retraining"]

GUARDIAN = "guardian"
KINDS = ("ai_forge.antigravity_agent.job",)
"""What a `JobQueue` is given as `kinds` so that it can do cycles."""
STATUS: dict[str, ActiveStatus] = {
    "validate_data": "validating",
    "validate_model": "validating",
    "export": "exporting",
    "deploy": "exporting",
}
LEAST_WEIGHT = 0.02
ASK_WAIT_S = 10.0


def request_retraining(
    queue: JobQueue,
    workspace: Workspace,
    repository: Path,
    *,
    reason: str = "asked for",
    recipe: str = "repository",
    name: str | None = None,
    settings: Mapping[str, JsonValue] | None = None,
) -> Job:
    """Queue a cycle of a repository; where one waits already, this joins it and gives that job.

    Raises:
        InputError: the path or a setting cannot be used.
    """
    store = CycleStore(workspace, repository, recipe)
    source = RunSource(path=repository, recipe=recipe, settings=dict(settings or {}))
    request = JobRequest(kind=GUARDIAN, project_name=name, run=source, options={"reason": reason, "key": store.key})
    # two requests that come at once must not both find that none waits
    with workspace.lock(f"guardian-ask-{store.key}", wait_s=ASK_WAIT_S):
        for job in queue.list(status="queued"):
            if job.kind == GUARDIAN and job.request.options.get("key") == store.key and job.request.run == source:
                return job
        return queue.submit(request)


def _source(request: JobRequest) -> RunSource:
    if not isinstance(request.run, RunSource):
        raise InputError("A cycle is made of a repository as it is then.", "name the repository's path.")
    return request.run


def _check(request: JobRequest, config: Path | None) -> None:
    source = _source(request)
    settings_of(source, config)
    if not source.path.is_dir():
        raise InputError(f"{source.path} is not a folder.", "name the folder of a repository.")


def _guardian(context: JobContext) -> RepoGuardian:
    source = _source(context.request)
    project = ProjectConfig(
        repository=source.path,
        recipe=source.recipe or "repository",
        name=context.request.project_name,
        home=context.workspace.root,
        settings=settings_of(source, context.config),
    )
    return RepoGuardian(project, emit=context.emit, cancel=context.cancel)


def _prepare(context: JobContext) -> Prepared:
    guardian = _guardian(context)
    plan = guardian.plan_training_cycle()
    if guardian.project.settings.runtime.deploy != "never":
        actions.require_runtime(Runner(plan.run, context.workspace))  # before hours of training, not after them
    steps = tuple(
        Step(
            name=kind_of(task),
            status=STATUS.get(kind_of(task), "training"),
            weight=max(LEAST_WEIGHT, (task.expected_s or 0.0) / (plan.estimated_duration or 1.0)),
        )
        for task in plan.tasks
    )
    return Prepared(steps=steps, run=plan.run)


@contextlib.contextmanager
def _open(context: JobContext, prepared: Prepared) -> Iterator[Perform]:
    guardian = _guardian(context)
    assert prepared.run is not None, "it was planned"
    with guardian.cycles.working():  # an `ai-forge guardian run` may be at work: then the job is tried again
        plan = guardian.plan_of(prepared.run)
        last = guardian.cycles.last()
        if last is not None and last.job_id == context.job_id and last.run_id == prepared.run.id:
            guardian.reopen_cycle()  # paused or tried again: what its tasks said before still holds
        else:
            guardian.begin_cycle(plan, str(context.request.options.get("reason", "asked for")), context.job_id)

        def perform(step: str) -> JsonObject:
            try:
                return _performed(guardian, plan, step)
            except TransientError:
                raise  # the queue tries it again
            except Exception as error:  # stopped, too: whether it was paused or cancelled only the queue knows
                guardian.end_cycle(error)
                raise

        yield perform


def _performed(guardian: RepoGuardian, plan: CyclePlan, step: str) -> JsonObject:
    task = next(task for task in plan.tasks if kind_of(task) == step)
    record = guardian.cycles.last()
    if isinstance(task, SummaryTask):
        ended = guardian.end_cycle()
        return {"outcome": ended.state, "outcome_text": ended.text, "deployed": ended.state == "deployed"}
    if record is not None and record.said_no:
        return {}
    artifact = guardian.advance(task)
    return {f"artifact_{step}": str(artifact.markdown)}


register_kind(Kind(GUARDIAN, _prepare, _open, trains=True, check=_check))
