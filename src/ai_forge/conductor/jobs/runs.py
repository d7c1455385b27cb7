"""The kinds of job that there always are: a run taken through its stages (`fine-tune`), and a deployment (`deploy`).

Each stage is a step. A stage keeps what it made under the hash of what went into it, so a step that is done again finds it, and a
training continues from its newest checkpoint. Deploying a version that is active already changes nothing.
The pipeline is imported in the functions that need it: the queue knows these kinds without loading it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ai_forge.conductor.jobs.kinds import JobContext, Kind, Perform, Prepared, Step, register_kind
from ai_forge.conductor.schemas import DEPLOY, FINE_TUNE, JobRequest, RunSource
from ai_forge.config import Settings, environment_layer, file_layer, load_settings, recipe_layer
from ai_forge.errors import InputError, RefusedError, TransientError
from ai_forge.events import Notice
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.run import Run, new_run
from ai_forge.workspace import LOCK_POLL_S

if TYPE_CHECKING:
    from ai_forge.conductor.schemas import ActiveStatus
    from ai_forge.pipeline.runner import Runner

STATUS: dict[str, ActiveStatus] = {
    **{"evaluate": "validating", "parity": "validating", "report": "validating"},
    **{"export": "exporting", "base-export": "exporting", "deploy": "exporting"},
}
# shares of the time of a real run; every other stage is small
WEIGHTS = {"train": 60.0, "prefer": 20.0, "evaluate": 15.0, "export": 5.0, "parity": 5.0}
OTHER_WEIGHT = 2.0
DEPLOY_STEP = Step(name="deploy", status="exporting", weight=OTHER_WEIGHT)


def settings_of(source: RunSource, config: Path | None) -> Settings:
    """The settings of a run: the recipe's, the machine's file and environment, and over them what was asked for.

    Raises:
        InputError: a key is unknown or a value not allowed; all are told.
    """
    layers = [recipe_layer(source.recipe)] if source.recipe not in (None, "repository") else []
    if config is not None:
        layers.append(file_layer(config))
    return load_settings(*layers, environment_layer(), ("request", source.settings)).settings


def _asked(request: JobRequest) -> Run | RunSource:
    if request.run is None:
        raise InputError(
            f"A job {request.kind} needs a run.", "say which repository or file of examples, as `run.path`."
        )
    return request.run


def _check(request: JobRequest, config: Path | None) -> None:
    from ai_forge.pipeline.recipes import recipe_named

    source = _asked(request)
    stages = {stage.name for stage in recipe_named(source.recipe).stages}
    if request.until not in stages:
        raise InputError(f"There is no stage {request.until!r}.", f"known are {', '.join(sorted(stages))}.")
    if isinstance(source, RunSource):
        settings_of(source, config)
        if not source.path.exists():
            raise InputError(f"{source.path} is not there.", "name a folder, or a file of examples.")


def _run_of(context: JobContext) -> Run:
    source = _asked(context.request)
    if isinstance(source, Run):
        return source
    name, settings = context.request.project_name, settings_of(source, context.config)
    return new_run(source.path, settings, context.workspace, recipe=source.recipe, name=name, emit=context.emit)


def _prepare(context: JobContext) -> Prepared:
    from ai_forge.pipeline import actions
    from ai_forge.pipeline.runner import Runner

    run = _run_of(context)
    runner = Runner(run, context.workspace)
    if context.request.deploy:
        actions.require_runtime(runner)  # before hours of training, not after them
    names = [planned.name for planned in runner.plan(context.request.until)]
    steps = [
        Step(name=name, status=STATUS.get(name, "training"), weight=WEIGHTS.get(name, OTHER_WEIGHT)) for name in names
    ]
    if context.request.deploy:
        steps.append(DEPLOY_STEP)
    return Prepared(steps=tuple(steps), run=run)


@contextlib.contextmanager
def _runner(context: JobContext, run: Run) -> Iterator[Runner]:
    """The run, held. Another process may have it, such as `ai-forge run`: it is waited for."""
    from ai_forge.pipeline.runner import WAIT_FOR_ANOTHER_S, Runner

    runner = Runner(run, context.workspace, context.emit, context.cancel, tuple(context.early))
    waited = 0.0
    while True:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(runner)
            except TransientError as error:
                if waited == 0.0:
                    context.emit(Notice("info", f"{error.message} This job waits for it."))
                elif waited > WAIT_FOR_ANOTHER_S:
                    raise
            else:
                yield runner
                return
        context.cancel.check()
        time.sleep(LOCK_POLL_S)
        waited += LOCK_POLL_S


@contextlib.contextmanager
def _open(context: JobContext, prepared: Prepared) -> Iterator[Perform]:
    from ai_forge.pipeline import actions
    from ai_forge.pipeline.stages.report import ReportSummary

    assert prepared.run is not None
    with _runner(context, prepared.run) as runner:
        known = {stage.name for stage in runner.stages}

        def perform(step: str) -> JsonObject:
            if step == DEPLOY_STEP.name:
                return _deploy(runner, context)
            if step not in known:  # planned by another version; what the later stages need they make
                context.emit(Notice("info", f"This version of AI Forge has no stage {step}."))
                return {}
            result = runner.run_until(step)
            summary = result.summary
            if isinstance(summary, ReportSummary):
                actions.link_results(runner)
                return {"verdict": summary.headline, "better": summary.better}
            if step in ("train", "prefer"):
                return dict(summary.model_dump(mode="json"))
            return {}

        yield perform


def _deploy(runner: Runner, context: JobContext) -> JsonObject:
    """Deploy, where the policy `runtime.deploy` and the gate let it. Raises `RefusedError` where deployment was all that was asked."""
    from ai_forge.pipeline import actions
    from ai_forge.pipeline.stages.report import ReportSummary

    report = runner.run_until("report").summary
    assert isinstance(report, ReportSummary)
    policy = runner.run.settings.runtime.deploy
    if policy != "always" and not report.better:
        reason = f"{runner.run.model} was not shown to be better: {report.headline}"
        if context.request.kind == DEPLOY:
            raise RefusedError(reason, "ask with runtime.deploy=always to deploy it all the same.")
        context.emit(Notice("warning", f"{reason} It is not deployed; the version before stays active."))
        return {"deployed": False}
    if policy == "never" and context.request.kind != DEPLOY:
        return {"deployed": False}
    deployed = actions.deploy(runner)
    return {"deployed": True, "version": deployed.activation.version, "runtime": deployed.activation.runtime}


def _prepare_deployment(context: JobContext) -> Prepared:
    from ai_forge.pipeline.runner import Runner

    run = _run_of(context)
    runner = Runner(run, context.workspace)
    missing = [planned.name for planned in runner.plan("report") if planned.state != "done"]
    if missing:  # a deployment does not train: it would do so beside the training slot
        raise InputError(
            f"Run {run.id} is not finished: {', '.join(missing)}.", f"queue a job {FINE_TUNE} for it first."
        )
    return Prepared(steps=(DEPLOY_STEP,), run=run)


register_kind(Kind(FINE_TUNE, _prepare, _open, trains=True, check=_check))
register_kind(Kind(DEPLOY, _prepare_deployment, _open, check=_check))
