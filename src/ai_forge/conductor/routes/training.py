"""Train, judge, deploy, roll back."""

from __future__ import annotations

import asyncio
import shutil
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictStr

from ai_forge.conductor.gate import allow, require_deploy
from ai_forge.conductor.problems import ServiceError, without_paths
from ai_forge.conductor.routes.openai import example
from ai_forge.conductor.schemas import DEPLOY, FINE_TUNE, Job, JobRequest, JobStatus, RunSource
from ai_forge.conductor.service import Service, TheService
from ai_forge.conductor.uploads import check_base, receive, repository_inside
from ai_forge.errors import InputError
from ai_forge.pipeline import actions
from ai_forge.pipeline.identity import slug
from ai_forge.pipeline.run import Run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.runs import report_in, run_folder
from ai_forge.pipeline.stages.report import CheckSummary, ReportSummary

router = APIRouter(tags=["training"])
Id = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]


class Submitted(BaseModel):
    """A job that was queued; `GET /status/{job_id}` says how far it is."""

    job_id: str
    status: JobStatus
    model: str | None = None
    found: str | None = Field(None, description="what was found in the upload")


class JobStatusAnswer(BaseModel):
    """How far a job is."""

    job_id: str
    status: JobStatus
    progress: float = Field(ge=0, le=1)
    started_at: datetime | None
    current_step: str | None
    metrics: dict[str, JsonValue]
    error: str | None
    error_code: str | None = None
    kind: str
    model: str | None
    run_id: str | None
    created_at: datetime
    finished_at: datetime | None
    attempt: int


def status_of(job: Job) -> JobStatusAnswer:
    """What is told of a job: not what it was asked, which names places of this machine."""
    values = job.model_dump(include=set(JobStatusAnswer.model_fields))
    values["error"] = None if job.error is None else without_paths(job.error)
    values["model"] = job.model or job.project_name
    return JobStatusAnswer.model_validate(values)


async def job_of(service: Service, job_id: str) -> Job:
    """A job. Raises `ServiceError` 404 where there is none."""
    try:
        return await asyncio.to_thread(service.jobs.get, job_id)
    except InputError as error:
        raise ServiceError(404, "not_found", f"There is no job {job_id!r}.", "GET /v1/jobs lists them.") from error


@router.post(
    "/v1/fine-tune",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "content": {
                "multipart/form-data": {
                    "example": {"project_name": "demo", "epochs": 1, "data_file": "@examples.jsonl"},
                }
            }
        }
    },
)
@allow("train", upload=True)
async def fine_tune(
    request: Request,
    service: TheService,
    project_name: Annotated[str, Form(min_length=1, max_length=80, description="what the model is called")],
    base_model: Annotated[str | None, Form(min_length=1, description="a base of `ai-forge models`")] = None,
    epochs: Annotated[float | None, Form(gt=0, le=1000, description="3, or what is best for the base")] = None,
    learning_rate: Annotated[float | None, Form(gt=0, le=1, description="2e-4, or what is best for the base")] = None,
    rank: Annotated[int | None, Form(ge=1, le=1024, description="64, or what is best for the base")] = None,
    batch_size: Annotated[int | None, Form(ge=1, le=1024, description="2, or what is best for the base")] = None,
    max_steps: Annotated[int | None, Form(ge=1, description="at most so many optimizer steps")] = None,
    data_file: Annotated[
        UploadFile | None,
        File(description="examples (.jsonl, .json, .parquet, .txt), or a repository (.zip, .tar, .tar.gz)"),
    ] = None,
    repository: Annotated[
        str | None, Form(min_length=1, description="instead of a file: a folder inside service.repository_roots")
    ] = None,
    recipe: Annotated[Literal["repository", "handbook", "dataset"] | None, Form(description="how it is read")] = None,
    deploy: Annotated[bool, Form(description="deploy it where it was shown to be better")] = False,
) -> Submitted:
    """Train a model on examples or on a repository. What is sent is checked before the job is queued. `deploy` needs the scope deploy
    beside train."""
    if deploy:
        require_deploy(request)
    name = slug(project_name)
    if not name:
        raise ServiceError(
            400, "bad_input", f"{project_name!r} leaves no name.", "use letters and digits.", param="project_name"
        )
    if (data_file is None) == (repository is None):
        raise ServiceError(
            400, "bad_input", "Send data_file or repository: one of the two.", "see /docs.", param="data_file"
        )
    roots = service.context.settings.service.repository_roots
    settings: dict[str, JsonValue] = {
        "training.base_model": None if base_model is None else check_base(base_model, roots),
        "training.num_epochs": epochs,
        "training.learning_rate": learning_rate,
        "training.rank": rank,
        "training.micro_batch_size": batch_size,
        "training.max_steps": max_steps,
    }
    chosen = {key: value for key, value in settings.items() if value is not None}
    job_id = service.jobs.new_id()
    folder = await asyncio.to_thread(service.jobs.folder, job_id)
    found = None
    try:
        if data_file is not None:
            limit = service.context.settings.service.max_upload_bytes
            received = await asyncio.to_thread(
                receive, data_file.file, data_file.filename or "", data_file.size, folder, recipe, limit
            )
            source, found = RunSource(path=received.path, recipe=received.recipe, settings=chosen), received.found
        else:
            assert repository is not None
            path = await asyncio.to_thread(repository_inside, repository, roots)
            source = RunSource(path=path, recipe=recipe, settings=chosen)
        wanted = JobRequest(kind=FINE_TUNE, project_name=name, run=source, deploy=deploy)
        record(service, request, "train", job_id, model=name, found=found)
        job = await asyncio.to_thread(lambda: service.jobs.submit(wanted, job_id=job_id))
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise
    return Submitted(job_id=job.job_id, status=job.status, model=name, found=found)


def record(service: Service, request: Request, action: str, target: str, **more: object) -> None:
    """A line of the audit log; `target` is a job's id, or a model."""
    caller = request.state.caller
    service.audit.record(caller.name if caller else "everyone", action, target, **more)


@router.get("/status/{job_id}")
@allow("read")
async def status(job_id: Id, service: TheService) -> JobStatusAnswer:
    """How far a job is."""
    return status_of(await job_of(service, job_id))


class Report(BaseModel):
    """The verdict on a job's model, and the evidence. A condition that could not be scored is null."""

    job_id: str
    run_id: str
    model: str
    better: bool
    headline: str
    checks: list[CheckSummary]
    metrics: dict[str, JsonValue]
    report: str = Field(description="where it stands in full")


async def run_of(service: Service, job: Job) -> Run:
    """The run of a job. Raises `ServiceError` 409 where it has none yet."""
    try:
        return await asyncio.to_thread(service.jobs.run_of, job.job_id)
    except InputError as error:
        raise ServiceError(
            409, "not_yet", f"Job {job.job_id} ({job.status}) has no run yet.", "wait for it."
        ) from error


@router.post("/validate/{job_id}")
@allow("read")
async def validate(job_id: Id, service: TheService) -> Report:
    """The report on a job's model: whether it is better than its rivals, condition by condition."""
    job = await job_of(service, job_id)
    run = await run_of(service, job)
    summary = await asyncio.to_thread(_report_of, service, run)
    if summary is None:
        raise ServiceError(
            409,
            "not_yet",
            f"Job {job_id} ({job.status}, {job.progress:.0%}) has no report yet.",
            "wait until it is ready.",
        )
    return Report(
        job_id=job_id,
        run_id=run.id,
        model=run.model,
        better=summary.better,
        headline=summary.headline,
        checks=list(summary.checks),
        metrics=job.metrics,
        report=f"/v1/runs/{run.id}/report",
    )


def _report_of(service: Service, run: Run) -> ReportSummary | None:
    runner = Runner(run, service.context.workspace)
    if any(planned.state != "done" for planned in runner.plan("report")):
        return None
    summary = runner.run_until("report").summary
    assert isinstance(summary, ReportSummary)
    return summary


@router.get(
    "/v1/runs/{run_id}/report",
    response_class=Response,
    responses={200: {"content": {"text/html": {}, "text/markdown": {}}, "description": "The report."}},
)
@allow("read")
async def report(run_id: Id, service: TheService, format: Literal["html", "markdown"] = "html") -> Response:
    """The report of a run as a page, or as Markdown."""
    folder = run_folder(service.context.workspace, run_id)
    found = report_in(folder, as_text=format == "markdown") if folder else None
    if found is None:
        raise ServiceError(404, "not_found", f"There is no report of a run {run_id!r}.", "GET /v1/jobs names the runs.")
    text = await asyncio.to_thread(found.read_text, encoding="utf-8")
    if found.suffix == ".html":
        # made of a repository's own text: no script of it may run
        return HTMLResponse(
            text, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
        )
    return PlainTextResponse(text, media_type="text/markdown")


@router.post("/deploy/{job_id}", status_code=202)
@allow("deploy")
async def deploy(
    request: Request,
    job_id: Id,
    service: TheService,
    force: Annotated[
        bool, Query(description="also where it was not shown to be better; parity must hold all the same")
    ] = False,
) -> Submitted:
    """Deploy what a job made: a job of its own, which ends with the new version active, or with the old one."""
    job = await job_of(service, job_id)
    if job.status != "ready":
        raise ServiceError(409, "not_yet", f"Job {job_id} is {job.status}, not ready.", "wait for it, or retry it.")
    run = await run_of(service, job)
    if force:
        runtime = run.settings.runtime.model_copy(update={"deploy": "always"})
        run = run.model_copy(update={"settings": run.settings.model_copy(update={"runtime": runtime})})
    wanted, queued_id = JobRequest(kind=DEPLOY, project_name=run.model, run=run), service.jobs.new_id()
    record(service, request, "deploy", queued_id, model=run.model, run=run.id, force=force)
    queued = await asyncio.to_thread(lambda: service.jobs.submit(wanted, job_id=queued_id))
    return Submitted(job_id=queued.job_id, status=queued.status, model=run.model)


class Named(BaseModel):
    """A deployed model."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[StrictStr, Field(min_length=1, max_length=80)]


class Retrain(Named):
    """A model to train again."""

    deploy: StrictBool = Field(
        False,
        description="a guardian's cycle: judged against the active version, deployed where it was shown to be better",
    )


@router.post("/v1/retrain", status_code=202, openapi_extra=example({"model": "demo"}))
@allow("train")
async def retrain(request: Request, body: Retrain, service: TheService) -> Submitted:
    """Train a model again, on its repository as it is now, in the way of its last training here. It is not deployed, unless `deploy`
    asks for that, which needs the scope deploy beside train."""
    if body.deploy:
        require_deploy(request)
    source = await asyncio.to_thread(_source_of, service, body.model)
    cycle = service.context.cycle
    record(service, request, "retrain", body.model, deploy=body.deploy)
    if body.deploy and cycle is not None and source.recipe in (None, "repository", "handbook"):
        job = await asyncio.to_thread(cycle, source, body.model)
    else:
        wanted = JobRequest(kind=FINE_TUNE, project_name=body.model, run=source, deploy=body.deploy)
        job = await asyncio.to_thread(service.jobs.submit, wanted)
    return Submitted(job_id=job.job_id, status=job.status, model=body.model)


def _source_of(service: Service, model: str) -> RunSource:
    """What a model was made of. Raises `ServiceError` 404 where that is not known."""
    for job in service.jobs.list():
        if job.kind == FINE_TUNE and job.project_name == model and isinstance(job.request.run, RunSource):
            return job.request.run
    deployed = service.models.deployed().get(model)
    asking = deployed.version.deployment.asking if deployed else None
    if asking is None or asking.repository is None or not asking.repository.path.exists():
        raise ServiceError(
            404,
            "not_found",
            f"It is not known here what {model!r} was made of.",
            "send it to /v1/fine-tune.",
            param="model",
        )
    return RunSource(path=asking.repository.path, recipe=asking.kind)


class RolledBack(BaseModel):
    """The version that is active again."""

    model: str
    version: str
    runtime: str


@router.post("/rollback", openapi_extra=example({"model": "demo"}))
@allow("deploy")
async def rollback(request: Request, body: Named, service: TheService) -> RolledBack:
    """Return to the version that the active one of a model replaced."""
    context = service.context
    if body.model not in service.models.deployed():
        known = ", ".join(service.models.deployed()) or "none"
        raise ServiceError(
            404, "model_not_found", f"There is no model {body.model!r}; deployed are {known}.", param="model"
        )
    record(service, request, "rollback", body.model)
    activation = await asyncio.to_thread(actions.rollback, body.model, context.settings.runtime, context.workspace)
    return RolledBack(model=activation.name, version=activation.version, runtime=activation.runtime)
