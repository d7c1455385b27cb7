"""The queue: what is in it, what happens, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from ai_forge.conductor.gate import allow, require_deploy
from ai_forge.conductor.openai.streams import Events
from ai_forge.conductor.problems import ServiceError, without_paths
from ai_forge.conductor.routes.training import Id, JobStatusAnswer, job_of, record, status_of
from ai_forge.conductor.schemas import FINE_TUNE, FINISHED, JobEvent, JobStatus
from ai_forge.conductor.service import Service, TheService
from ai_forge.errors import InputError

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
POLL_S = 0.5
KEEP_ALIVE_S = 15.0
OVER = (*FINISHED, "paused")
Action = Literal["cancel", "pause", "resume", "retry"]


class Jobs(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobStatusAnswer]


@router.get("")
@allow("read")
async def list_jobs(
    service: TheService,
    status: Annotated[JobStatus | None, Query(description="those alone")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Jobs:
    """The jobs, the newest first."""
    found = await asyncio.to_thread(lambda: service.jobs.list(status=status, limit=limit))
    return Jobs(jobs=[status_of(job) for job in found])


@router.get("/{job_id}")
@allow("read")
async def get_job(job_id: Id, service: TheService) -> JobStatusAnswer:
    """One job; as `GET /status/{job_id}`."""
    return status_of(await job_of(service, job_id))


@router.delete("/{job_id}", status_code=204, response_class=Response)
@allow("train")
async def delete_job(request: Request, job_id: Id, service: TheService) -> Response:
    """Forget a job that is over, with its uploads and its log. What it made stays."""
    await job_of(service, job_id)
    record(service, request, "delete", job_id)
    try:
        await asyncio.to_thread(service.jobs.delete, job_id)
    except InputError as error:
        raise ServiceError(409, "not_now", error.message, f"cancel it first: POST /v1/jobs/{job_id}/cancel.") from error
    return Response(status_code=204)


@router.post("/{job_id}/{action}")
@allow("train")
async def change_job(request: Request, job_id: Id, action: Action, service: TheService) -> JobStatusAnswer:
    """Stop a job for good, stop it so that it can go on, go on with it, or do a failed one again. What goes on or is done again to
    end with a deployment needs the scope deploy too."""
    job = await job_of(service, job_id)
    if action in ("resume", "retry") and (job.request.deploy or job.kind != FINE_TUNE):
        require_deploy(request)
    record(service, request, action, job_id)
    queue = service.jobs
    change = {"cancel": queue.cancel, "pause": queue.pause, "resume": queue.resume, "retry": queue.retry}[action]
    try:
        job = await asyncio.to_thread(change, job_id)
    except InputError as error:
        raise ServiceError(409, "not_now", error.message, f"GET /status/{job_id} says how it is.") from error
    return status_of(job)


@router.get("/{job_id}/logs", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
@allow("read")
async def logs(
    job_id: Id, service: TheService, max_bytes: Annotated[int, Query(ge=1, le=10_000_000)] = 1_000_000
) -> PlainTextResponse:
    """What the job's process printed; the end of it where it is long."""
    await job_of(service, job_id)
    return PlainTextResponse(without_paths(await asyncio.to_thread(service.jobs.log, job_id, max_bytes)))


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}},
)
@allow("read")
async def events(
    job_id: Id,
    service: TheService,
    after: Annotated[int, Query(ge=0, lt=2**62, description="only what came after the event with this id")] = 0,
    last_event_id: Annotated[str | None, Header(description="as browsers send it when they come back")] = None,
) -> Response:
    """What happens, as it happens: stages, steps with their loss, checkpoints. The stream ends with the job."""
    await job_of(service, job_id)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19:
        after = int(last_event_id)
    return Events(_events(service, job_id, after))


async def _events(service: Service, job_id: str, after: int) -> AsyncGenerator[bytes]:
    yield b": events of a job\n\n"
    said = time.monotonic()
    while True:
        # first: what is written between the two looks is read before the end is told
        job = await job_of(service, job_id)
        found = await asyncio.to_thread(service.jobs.events, job_id, after)
        for event in found:
            after = event.id
            yield _event(event)
        if found:
            said = time.monotonic()
            continue
        if job.status in OVER:
            status = status_of(job).model_dump_json()
            yield f"event: end\ndata: {status}\n\n".encode()
            return
        if time.monotonic() - said > KEEP_ALIVE_S:
            said = time.monotonic()
            yield b": still there\n\n"
        await asyncio.sleep(POLL_S)


def _event(event: JobEvent) -> bytes:
    data = without_paths(json.dumps({"time": event.time, **event.data}, ensure_ascii=False))
    return f"id: {event.id}\nevent: {event.event}\ndata: {data}\n\n".encode()
