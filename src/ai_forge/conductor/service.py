"""The service: one FastAPI application, put together from its parts.

    create_app(ServiceContext(workspace, settings, jobs)) -> FastAPI

Nothing is global: two applications in one process share nothing. A part of the service (the dashboard, MCP) includes its router
or mounts its application on what `create_app` returns, marks each endpoint with `gate.allow(scope)`, and finds everything in
`Depends(service_of)`. Starting the application starts the queue; stopping it ends the queue and frees the models.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ai_forge import __version__
from ai_forge.conductor.auth import KeyStore, require_keys_to_listen
from ai_forge.conductor.gate import Gate
from ai_forge.conductor.gauges import gauges
from ai_forge.conductor.logs import AUDIT_FILE, Audit
from ai_forge.conductor.metrics import Metrics
from ai_forge.conductor.open_models import OpenModels
from ai_forge.conductor.openai.embedding import Embedding
from ai_forge.conductor.openai.upstream import Upstream
from ai_forge.conductor.problems import ErrorAnswer, ServiceError, answer_to

if TYPE_CHECKING:
    from ai_forge.conductor.job_queue import JobQueue
    from ai_forge.conductor.schemas import Job, RunSource
    from ai_forge.config import Settings
    from ai_forge.workspace import Workspace

__all__ = ["Service", "ServiceContext", "TheService", "create_app", "service_of"]

# queues a guardian's cycle on what a model of this name is made of: training, judging, and deployment where it is better
Cycle = Callable[["RunSource", str], "Job"]
DESCRIPTION = "Fine-tunes local models on a team's own repositories, judges, deploys and serves them."


@dataclass(frozen=True)
class ServiceContext:
    """What the service is made of. Without `jobs` it answers from the deployed models and does nothing else."""

    workspace: Workspace
    settings: Settings
    jobs: JobQueue | None = None
    cycle: Cycle | None = None


@dataclass(frozen=True)
class Service:
    """The parts that routes use."""

    context: ServiceContext
    keys: KeyStore
    models: OpenModels
    upstream: Upstream
    embedding: Embedding
    metrics: Metrics
    audit: Audit

    @property
    def jobs(self) -> JobQueue:
        """The queue.

        Raises:
            ServiceError: 503, this service has none.
        """
        if self.context.jobs is None:
            raise ServiceError(503, "no_queue", "This service takes no jobs.", "start it with `ai-forge serve`.")
        return self.context.jobs


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    service: Service = request.app.state.service
    return service


async def _depended_on(request: Request) -> Service:  # async: the framework calls other functions in a thread
    return service_of(request)


TheService = Annotated[Service, Depends(_depended_on)]


def create_app(context: ServiceContext) -> FastAPI:
    """The application.

    Raises:
        PrerequisiteError: it is to listen beyond this machine and there is no API key.
    """
    from ai_forge.conductor.routes import health, jobs, models, openai, query, training

    workspace, settings = context.workspace, context.settings.service
    keys = KeyStore(workspace)
    require_keys_to_listen(settings, keys)
    service = Service(
        context=context,
        keys=keys,
        models=OpenModels(workspace, context.settings.runtime, limit=settings.max_models),
        upstream=Upstream(),
        embedding=Embedding(context.settings.runtime.embedder),
        metrics=Metrics(),
        audit=Audit(workspace.root / AUDIT_FILE),
    )
    service.metrics.read_when_asked(partial(gauges, service))
    app = FastAPI(
        title="AI Forge",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; ours are rendered here
        redoc_url=None,
        openapi_url=None,
        lifespan=lambda _: _running(service),
        responses={"default": {"model": ErrorAnswer, "description": "What went wrong, and what to do next."}},
    )
    app.state.service = service
    for kind in (ServiceError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _told)
    app.add_middleware(Gate, service=app, settings=settings, keys=keys, metrics=service.metrics)
    if settings.allowed_origins:  # outside the gate: a browser asks beforehand, without a key
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    # the framework tries one after the other: first what is to be quick
    for router in (openai.router, health.router, models.router, query.router, training.router, jobs.router):
        app.include_router(router)
    return app


@contextlib.asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    jobs = service.context.jobs
    if jobs is not None:
        jobs.start()
    try:
        yield
    finally:
        if jobs is not None:
            await asyncio.to_thread(jobs.stop)  # saves what is at work, which takes seconds
        await service.models.close()


async def _told(request: Request, error: Exception) -> JSONResponse:
    return answer_to(_as_problem(error), request.url.path)


def _as_problem(error: Exception) -> Exception:
    if isinstance(error, RequestValidationError):
        return invalid(error.errors())
    if isinstance(error, HTTPException) and isinstance(error.__cause__, ServiceError):
        return error.__cause__  # the gate stopped the body while the framework was reading it
    if isinstance(error, HTTPException):  # the framework's own: no such route, no such method, an odd form
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_input")
        return ServiceError(error.status_code, code, f"{error.detail}.", "see /openapi.json.", headers=error.headers)
    return error


def invalid(errors: Any) -> ServiceError:
    """A 422 that names each field, what is wrong with it and what was sent."""
    told = []
    for item in list(errors)[:5]:
        place = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
        told.append(f"{place or 'the body'}: {item['msg']}")
    first = next(iter(errors))["loc"]
    param = ".".join(str(part) for part in first[1:]) or None
    return ServiceError(422, "bad_input", f"{'; '.join(told)}.", "correct it; /docs shows an example.", param=param)
