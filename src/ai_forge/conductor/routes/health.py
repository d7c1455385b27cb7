"""Is it alive, can it work, what do its numbers say, and how is it called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from ai_forge import __version__
from ai_forge.conductor.gate import allow
from ai_forge.conductor.service import Service, TheService
from ai_forge.errors import AIForgeError
from ai_forge.serving.choosing import choose_runtime
from ai_forge.workspace import require_disk

router = APIRouter(tags=["health"])
LEAST_DISK_BYTES = 200_000_000


class Health(BaseModel):
    """The service runs."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class Readiness(BaseModel):
    """Whether it can work; each check is "ok" or says what is wrong."""

    ready: bool
    checks: dict[str, str]


@router.get("/healthz")
@allow("everyone")
async def healthz() -> Health:
    """Whether the service runs; nothing else is asked."""
    return Health()


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
@allow("everyone")
async def readyz(service: TheService) -> JSONResponse:
    """Whether it can work: its registry, its disk, its queue and a runtime. 503 where one of them cannot."""
    found = await asyncio.to_thread(_readiness, service)
    return JSONResponse(found.model_dump(), 200 if found.ready else 503)


def _readiness(service: Service) -> Readiness:
    workspace, runtime = service.context.workspace, service.context.settings.runtime
    checks: dict[str, Callable[[], object]] = {
        "registry": service.models.deployed,
        "disk": lambda: require_disk(workspace.root, LEAST_DISK_BYTES, "The service"),
        "queue": lambda: service.jobs.list(limit=1),
        "runtime": lambda: choose_runtime(runtime, workspace, may_start=False).close(),
    }
    told = {}
    for name, check in checks.items():
        told[name] = "ok"
        try:
            check()
        except AIForgeError as error:
            # anyone may ask: the kind of trouble is told, where it lies is not
            told[name] = error.code
    return Readiness(ready=all(word == "ok" for word in told.values()), checks=told)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
@allow("admin")
async def metrics(service: TheService) -> Response:
    """Prometheus metrics."""
    text = await asyncio.to_thread(generate_latest, service.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
@allow("read")
async def openapi(request: Request) -> JSONResponse:
    """The description of every route."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
@allow("read")
async def docs(request: Request) -> HTMLResponse:
    """The same as a page: rendered here, nothing is loaded from elsewhere."""
    return HTMLResponse(await asyncio.to_thread(_page, request.app))


@cache
def _page(app: Any) -> str:
    from ai_forge.conductor.api_page import api_html

    return api_html(app.openapi())
