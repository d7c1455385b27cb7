"""The real service with a small deployed model: in this process, or behind uvicorn on a free port."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.service import ServiceContext, create_app
from ai_forge.config import load_settings
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.model_files.gguf.writer import write_gguf
from ai_forge.prompting.prompt import SYSTEM_PROMPT
from ai_forge.serving import AskSettings, EmbeddedRuntime, Registry, RetrievalSettings, deployment_from_gguf
from ai_forge.serving.choosing import MODELS_DIR
from ai_forge.workspace import Workspace
from cli_runs import tiny_base
from tiny_training import NAMES, document

SERVED = {"runtime.kind": "embedded", "runtime.embedder": "none", "runtime.num_ctx": 1024, "runtime.num_predict": 12}


def tiny_gguf(folder: Path) -> Path:
    """A random model of a megabyte."""
    return write_gguf(tiny_base(folder / "base"), folder / "tiny.gguf", "f16")


def deploy_version(
    home: Path, gguf: Path, name: str = "demo", version: str = "r1", *, indexed: bool = True, num_ctx: int = 1024
) -> None:
    """Make `gguf` the active version of `name`, with an index over a few small functions."""
    workspace = Workspace.open(home)
    runtime_settings = load_settings(("test", SERVED | {"runtime.num_ctx": num_ctx})).settings.runtime
    asking = AskSettings()
    if indexed:
        folder = workspace.served_dir / name / version / "index"
        shown = [document(word, i + 1) for i, word in enumerate(NAMES)]
        entries = [Entry(str(d.path), i + 1, i + 2, d.name, "function", "python", d.text) for i, d in enumerate(shown)]
        QuestionIndex.build(entries).save(folder)
        asking = AskSettings(index_folder=folder, retrieval=RetrievalSettings(k=2, max_tokens=200))
    deployment = deployment_from_gguf(
        name,
        version,
        gguf,
        system_prompt=SYSTEM_PROMPT if indexed else "",
        settings=runtime_settings,
        base="tiny",
        asking=asking,
    )
    with (
        contextlib.closing(EmbeddedRuntime(workspace.root / MODELS_DIR, n_threads=1)) as runtime,
        Registry(workspace.registry_path) as registry,
    ):
        runtime.create(deployment)
        runtime.activate(name, version)
        registry.register(deployment)
        registry.activate(name, version, "embedded")


class Waiting(JobQueue):
    """A queue on which nobody works."""

    def start(self) -> None:
        pass


def service_at(home: Path, **changes: Any) -> FastAPI:
    """The application on a workspace; changes are written as `service__port=1`."""
    chosen = SERVED | {key.replace("__", ".", 1): value for key, value in changes.items()}
    settings = load_settings(("test", chosen)).settings
    workspace = Workspace.open(home)
    return create_app(ServiceContext(workspace, settings, Waiting(workspace, settings, kinds=("job_kinds",))))


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    app: FastAPI
    url: str


@contextlib.contextmanager
def running(app: FastAPI, host: str = "127.0.0.1") -> Iterator[Running]:
    """`app` behind uvicorn, in a thread, on a free port."""
    # the protocol is named: asyncio turns Nagle's algorithm off only where it is, and with it streams wait 40 ms for each piece
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind((host, 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started and thread.is_alive() and time.monotonic() < until:
                time.sleep(0.01)
            assert server.started
            yield Running(app, f"http://{host}:{port}")
        finally:
            server.should_exit = True
            thread.join(30)
