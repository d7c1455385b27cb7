"""The pages: server-rendered, with three vendored scripts and no build step. `add_pages(app)` puts them on the service.

    /  /runs/{id}  /data/{id}  /chat  /compare  /deployments  /settings  /code        each a function below
    /runs/{id}/stream    the run's events, folded: what has changed since the last, once a second (SSE, resumable)
    /chat/ask            an answer in lines of JSON, as it comes

A page asks nothing that a program could not ask by the API; what it changes goes through the queue, the registry and the
workspace as there. A form carries a token that only a page of this service knows, for a browser that is signed in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib import resources
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.staticfiles import StaticFiles

from ai_forge.antigravity_agent.cycle import guardians_of
from ai_forge.conductor.gate import allow
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.problems import ServiceError, problem_of
from ai_forge.conductor.service import Service, TheService, invalid, service_of
from ai_forge.config import LoadedSettings
from ai_forge.dashboard.answers import answer_lines, with_errors
from ai_forge.dashboard.rendering import rendered
from ai_forge.dashboard.session import Session, csrf_checked, session_of
from ai_forge.dashboard.views import (
    code_of,
    curve_of,
    histories_of,
    models_of,
    quality_of,
    versions_of,
)
from ai_forge.dashboard.watched_run import WatchedRuns
from ai_forge.errors import AIForgeError
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.dropped import drop_example, dropped_examples
from ai_forge.pipeline.runs import EventTail, RunOverview, overview_of, run_folder, runs_of, view_of
from ai_forge.prompting.prompt import Message

N_RUNS = 30
MAX_QUESTION = 8000  # characters: a longer one fits into no context


class PageRoute(APIRoute):
    """A route whose errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors told in HTML where a browser asks for a page."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            """Handle the request."""
            try:
                return await handle(request)
            except (AIForgeError, RequestValidationError) as error:
                if "text/html" not in request.headers.get("accept", ""):
                    raise
                if isinstance(error, RequestValidationError):
                    error = invalid(error.errors())
                problem = problem_of(error)
                return rendered("problem.html", session_of(request), "", problem=problem, status=problem.status)

        return told


router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
TheSession = Annotated[Session, Depends(session_of)]


def add_pages(app: FastAPI, settings: LoadedSettings) -> None:
    """Put the pages and their static files on a service; `settings` are shown with where each comes from."""
    app.state.loaded_settings = settings
    app.state.watched_runs = WatchedRuns()
    files = StaticFiles(directory=str(resources.files("ai_forge.dashboard") / "static"))
    app.mount("/static", allow("everyone")(files))
    app.include_router(router)


# -- looking --------------------------------------------------------------------------------------------------------------


@router.get("/")
@allow("read")
async def overview(service: TheService, session: TheSession) -> Response:
    """Models, queue, runs."""
    return rendered("overview.html", session, "/", **await run_in_threadpool(_state, service))


@router.get("/overview/live")
@allow("read")
async def overview_live(service: TheService, session: TheSession) -> Response:
    """The part of the overview that moves."""
    return rendered("overview_live.html", session, "/", **await run_in_threadpool(_state, service))


def _state(service: Service) -> JsonObject:
    workspace = service.context.workspace
    jobs = service.context.jobs
    waiting = [job for job in jobs.list() if job.finished_at is None] if jobs else []
    runs, guardians = runs_of(workspace, N_RUNS), guardians_of(workspace)
    return {"models": models_of(workspace), "jobs": waiting, "runs": runs, "guardians": guardians}


@router.get("/jobs/{job_id}/live")
@allow("read")
async def job_page(job_id: str, service: TheService, session: TheSession) -> Response:
    """The page of the job's run; until it has one, the job."""
    job = await run_in_threadpool(_queue(service).get, job_id)
    if job.run_id:
        return RedirectResponse(f"/runs/{job.run_id}", 303)
    return rendered("job.html", session, "/", job=job)


@router.get("/runs/{run_id}")
@allow("read")
async def run_page(run_id: str, service: TheService, session: TheSession) -> Response:
    """A run while it works, and after."""
    folder = _run_folder(service, run_id)
    run = _run_of(folder)
    events = EventTail(folder / "events.jsonl")()
    view = view_of(event for _, event in events)
    queue = service.context.jobs
    jobs = [job for job in await run_in_threadpool(queue.list) if job.run_id == run_id] if queue else []
    return rendered(
        "run.html",
        session,
        "/",
        run=run,
        view=view,
        job=jobs[0] if jobs else None,
        n_events=events[-1][0] if events else 0,
        curve=curve_of(view.losses, view.held_out),
        has_data=(folder / "dataset").is_dir(),
    )


@router.get("/runs/{run_id}/stream")
@allow("read")
async def run_stream(run_id: str, request: Request, service: TheService, after: int = 0) -> Response:
    """What happens in the run, once a second."""
    folder = _run_folder(service, run_id)
    # a browser that lost the connection says what it has heard; the number in the address is only of the first time
    heard = request.headers.get("last-event-id", "")
    begin = int(heard) if heard.isdigit() else after
    watched: WatchedRuns = request.app.state.watched_runs
    return StreamingResponse(watched.stream(folder / "events.jsonl", begin), media_type="text/event-stream")


@router.get("/data/{run_id}")
@allow("read")
async def data_page(run_id: str, service: TheService, session: TheSession) -> Response:
    """The run's training data and its worst examples."""
    folder = _run_folder(service, run_id)
    run = _run_of(folder)
    dropped = dropped_examples(service.context.workspace, run.model)
    quality = await run_in_threadpool(quality_of, folder / "dataset", dropped)
    return rendered("data.html", session, "/", run=run, quality=quality)


@router.get("/chat")
@allow("chat")
async def chat_page(service: TheService, session: TheSession, model: str = "") -> Response:
    """Ask a deployed model."""
    names = sorted(service.models.deployed())
    return rendered("chat.html", session, "/chat", models=names, chosen=model)


@router.get("/compare")
@allow("chat")
async def compare_page(service: TheService, session: TheSession) -> Response:
    """Ask two versions the same."""
    versions = await run_in_threadpool(versions_of, service.context.workspace)
    return rendered("compare.html", session, "/compare", versions=versions)


@router.get("/deployments")
@allow("read")
async def deployments_page(service: TheService, session: TheSession) -> Response:
    """What was deployed when, and the way back."""
    histories = await run_in_threadpool(histories_of, service.context.workspace)
    return rendered("deployments.html", session, "/deployments", histories=histories)


@router.get("/settings")
@allow("read")
async def settings_page(request: Request, session: TheSession) -> Response:
    """Every setting, and where it comes from."""
    return rendered("settings.html", session, "/settings", rows=request.app.state.loaded_settings.rows())


@router.get("/code")
@allow("chat")
async def code_page(service: TheService, session: TheSession, model: str, document: str) -> Response:
    """What a citation points at."""
    code = await run_in_threadpool(code_of, service.context.workspace, model, document)
    return rendered("code.html", session, "", code=code)


# -- asking ---------------------------------------------------------------------------------------------------------------


@router.post("/chat/ask", dependencies=[Depends(csrf_checked)])
@allow("chat")
async def ask(
    service: TheService,
    model: Annotated[str, Form()],
    question: Annotated[str, Form(min_length=1, max_length=MAX_QUESTION)],
    history: Annotated[str, Form()] = "[]",
) -> Response:
    """An answer, line by line."""
    deployed, _ = service.models.find(model)
    turns = _turns(history)

    async def lines() -> AsyncIterator[bytes]:
        """The model stays open until the last."""
        async with service.models.using(deployed) as opened:
            reply = await run_in_threadpool(opened.served.ask, question, turns)
            async for line in iterate_in_threadpool(answer_lines(reply)):
                yield line

    return StreamingResponse(with_errors(lines()), media_type="application/x-ndjson")


@router.post("/compare/ask", dependencies=[Depends(csrf_checked)])
@allow("chat")
async def ask_version(
    service: TheService,
    model: Annotated[str, Form()],
    question: Annotated[str, Form(min_length=1, max_length=MAX_QUESTION)],
) -> Response:
    """The answer of any version that is kept, line by line."""
    from ai_forge.serving.served_model import ServedModel

    name, _, version = model.partition(":")
    context = service.context

    async def lines() -> AsyncIterator[bytes]:
        """The version is opened for this answer alone."""
        served = await run_in_threadpool(
            lambda: ServedModel.open(name, context.workspace, context.settings.runtime, version=version)
        )
        try:
            reply = await run_in_threadpool(served.ask, question)
            async for line in iterate_in_threadpool(answer_lines(reply)):
                yield line
        finally:
            await run_in_threadpool(served.close)

    return StreamingResponse(with_errors(lines()), media_type="application/x-ndjson")


def _turns(history: str) -> list[Message]:
    try:
        turns: list[Message] = [{"role": turn["role"], "content": str(turn["content"])} for turn in json.loads(history)]
    except (ValueError, TypeError, KeyError):
        raise ServiceError(422, "bad_input", "The history is no list of turns.", "begin a new conversation.") from None
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise ServiceError(
            422, "bad_input", "The history is not user and assistant in turn.", "begin a new conversation."
        )
    return turns


# -- doing ----------------------------------------------------------------------------------------------------------------


@router.post("/jobs/{job_id}/{what}", dependencies=[Depends(csrf_checked)])
@allow("train")
async def act_on_job(job_id: str, what: str, service: TheService) -> Response:
    """Cancel, pause, resume or retry a job, then back to its page."""
    queue = _queue(service)
    actions = {"cancel": queue.cancel, "pause": queue.pause, "resume": queue.resume, "retry": queue.retry}
    if what not in actions:
        raise ServiceError(404, "not_found", f"There is nothing like {what!r}.", f"there are {', '.join(actions)}.")
    await run_in_threadpool(actions[what], job_id)
    return RedirectResponse(f"/jobs/{job_id}/live", 303)


@router.post("/data/{run_id}/{what}", dependencies=[Depends(csrf_checked)])
@allow("train")
async def drop(run_id: str, what: str, service: TheService, example: Annotated[str, Form()]) -> Response:
    """Drop an example from later training data, or keep it after all."""
    if what not in ("drop", "keep"):
        raise ServiceError(404, "not_found", f"There is nothing like {what!r}.", "there are drop and keep.")
    run = _run_of(_run_folder(service, run_id))
    drop_example(service.context.workspace, run.model, example, keep=what == "keep")
    return RedirectResponse(f"/data/{run_id}", 303)


@router.post("/deployments/rollback", dependencies=[Depends(csrf_checked)])
@allow("deploy")
async def roll_back(service: TheService, model: Annotated[str, Form()]) -> Response:
    """Return to the version before."""
    from ai_forge.pipeline.actions import rollback

    context = service.context
    await run_in_threadpool(rollback, model, context.settings.runtime, context.workspace)
    return RedirectResponse("/deployments", 303)


# -- signing in -----------------------------------------------------------------------------------------------------------


@router.get("/sign-in")
@allow("everyone")
async def sign_in_page(request: Request, next: str = "/") -> Response:
    """Ask for a key."""
    return rendered("sign_in.html", session_of(request), "", next=next, wrong="")


@router.post("/sign-in")
@allow("everyone")
async def sign_in(request: Request, key: Annotated[str, Form()], next: Annotated[str, Form()] = "/") -> Response:
    """Keep the key in a cookie that no script reads and no other site sends."""
    service = service_of(request)
    try:
        service.keys.caller(key.strip())
    except ServiceError as problem:
        return rendered("sign_in.html", session_of(request), "", next=next, wrong=str(problem), status=401)
    # a path of this service, whatever the form says: else a link could send someone elsewhere after signing in
    target = next if next.startswith("/") and not next.startswith("//") else "/"
    answer = RedirectResponse(target, 303)
    Session.keep(answer, key.strip(), secure=request.url.scheme == "https")
    return answer


@router.post("/sign-out", dependencies=[Depends(csrf_checked)])
@allow("everyone")
async def sign_out() -> Response:
    """Forget the key."""
    answer = RedirectResponse("/sign-in?" + urlencode({"next": "/"}), 303)
    Session.forget(answer)
    return answer


def _queue(service: Service) -> JobQueue:
    if service.context.jobs is None:
        raise ServiceError(404, "not_found", "This service takes no jobs.", "ai-forge serve starts one that does.")
    return service.context.jobs


def _run_folder(service: Service, run_id: str) -> Path:
    folder = run_folder(service.context.workspace, run_id)
    if folder is None:
        raise ServiceError(404, "not_found", f"There is no run {run_id[:40]!r}.", "ai-forge runs lists them.")
    return folder


def _run_of(folder: Path) -> RunOverview:
    run = overview_of(folder)
    if run is None:
        raise ServiceError(404, "not_found", f"There is no run {folder.name!r}.", "ai-forge runs lists them.")
    return run
