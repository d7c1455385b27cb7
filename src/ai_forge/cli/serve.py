"""`ai-forge serve`: the service put together, with its pages, its agents and its guardian, and run."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import Config, Home, Options, Set, readable
from ai_forge.cli.output import warn
from ai_forge.errors import PrerequisiteError
from ai_forge.places import expanded

if TYPE_CHECKING:
    import uvicorn

    from ai_forge.conductor.job_queue import JobQueue
    from ai_forge.conductor.schemas import Job, RunSource
    from ai_forge.config import LoadedSettings, Settings
    from ai_forge.workspace import Workspace

GRACE_S = 20  # for answers that are under way when the service is stopped
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 takes a free one.", show_default="8000")]


def serve(host: Host = None, port: Port = None, home: Home = None, config: Config = None, set: Set = None) -> None:
    """Serve the deployed models, take jobs and do them. Ctrl-C saves what is at work and stops."""
    chosen = [f"service.{name}={value}" for name, value in (("host", host), ("port", port)) if value is not None]
    options = Options(home=home, config=config and readable(config), set=[*(set or []), *chosen])
    loaded, workspace = options.settings(), options.workspace()
    settings = loaded.settings
    from ai_forge.antigravity_agent.job import KINDS
    from ai_forge.conductor.job_queue import JobQueue
    from ai_forge.conductor.logs import log_as_json

    with (
        _one_at_a_time(workspace, settings),
        closing(_listen(settings)) as listening,
        _until_saved(),
        log_as_json(),
        JobQueue(workspace, settings, config=options.config, kinds=KINDS) as queue,
    ):
        server = _server(workspace, loaded, queue)
        for line in greeting(workspace, settings, listening.getsockname()[1]):
            warn(line, style="default")
        server.run(sockets=[listening])
    warn("Stopped. What was at work goes on at the next start.", style="default")


@contextmanager
def _one_at_a_time(workspace: Workspace, settings: Settings) -> Iterator[None]:
    """Raises `TransientError` where another service is at work in the workspace; with PostgreSQL several may be."""
    with ExitStack() as held:
        if settings.conductor.database_url is None:
            held.enter_context(workspace.lock("serve"))
        yield


def _listen(settings: Settings) -> socket.socket:
    """The socket, bound before anything slow: a port that is taken is told at once."""
    host, port = settings.service.host, settings.service.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
        # what is accepted inherits it: asyncio does not see that this is TCP, and with Nagle's algorithm pieces wait for 40 ms
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError) as error:  # a name that is none is no error of the system's
        raise PrerequisiteError(
            f"{host}:{port} cannot be listened on: {getattr(error, 'strerror', None) or error}.",
            "choose another: --port 0 takes a free one.",
        ) from error


def _server(workspace: Workspace, loaded: LoadedSettings, queue: JobQueue) -> uvicorn.Server:
    import uvicorn

    from ai_forge.antigravity_agent.job import request_retraining
    from ai_forge.antigravity_agent.mcp_server import Forge, add_mcp
    from ai_forge.conductor.service import ServiceContext, create_app
    from ai_forge.dashboard.pages import add_pages

    settings = loaded.settings

    def cycle(source: RunSource, name: str) -> Job:
        recipe = source.recipe or "repository"
        return request_retraining(
            queue, workspace, source.path, reason="POST /v1/retrain", recipe=recipe, name=name, settings=source.settings
        )

    app = create_app(ServiceContext(workspace, settings, queue, cycle))
    add_pages(app, loaded)
    roots = tuple(expanded(Path(root)) for root in settings.service.repository_roots)
    add_mcp(app, Forge(workspace, settings, queue, roots))
    return uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_S, server_header=False)
    )


@contextmanager
def _until_saved() -> Iterator[None]:
    """SIGTERM and Ctrl-C end no more than the server: it hears them first, and raises them again when it has ended, which is
    when we still have to save what is at work."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def greeting(workspace: Workspace, settings: Settings, port: int) -> list[str]:
    """Where it listens, with which model, and a line that can be pasted into a shell."""
    from ai_forge.serving.registry import Registry

    with Registry(workspace.registry_path) as registry:
        active = list(registry.deployed())
    host = settings.service.host
    if host in ("0.0.0.0", "::"):  # every address of this machine, of which this is one
        host = "127.0.0.1"
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [f"AI Forge listens on {url} (pages: {url}/, API: {url}/docs, MCP: {url}/mcp), workspace {workspace.root}."]
    if not active:
        return [*lines, "No model is deployed yet: `ai-forge run REPO` makes one, or send a job:", _curl_job(url)]
    return [*lines, f"Models: {', '.join(active)}. Ask one:", _curl_chat(url, active[0])]


def _curl_chat(url: str, model: str) -> str:
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What does this project do?"}}]}}'
    return f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def _curl_job(url: str) -> str:
    return f"  curl {url}/v1/fine-tune -F project_name=demo -F data_file=@examples.jsonl"
