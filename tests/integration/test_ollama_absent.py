"""Ollama that is not there, not itself, or has to be started: each is one clear error with a next step."""

import http.server
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.conductor.ollama_manager import check_ollama_status, query_model
from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import InputError, PrerequisiteError, TransientError
from ai_forge.serving import OllamaRuntime, choose_runtime
from ai_forge.serving.ollama_http import OllamaServer
from ai_forge.workspace import Workspace


class _Garbage(http.server.BaseHTTPRequestHandler):
    """Answers every request with something that is not Ollama's; `answer` is set by the test."""

    answer = b"<html>hello</html>"
    status = 200

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[tuple[str, type[_Garbage]]]:
    handler = type("Handler", (_Garbage,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def free_host() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def without_ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


@pytest.mark.usefixtures("without_ollama")
def test_not_installed(free_host: str, workspace: Workspace) -> None:
    status = check_ollama_status(free_host)
    assert (status.installed, status.running, status.version) == (False, False, None)
    assert "nothing answers" in str(status.problem)
    with pytest.raises(PrerequisiteError, match=r"ollama is not on PATH.*install Ollama from .*KIND=embedded"):
        choose_runtime(RuntimeSettings(kind="ollama", ollama_host=free_host), workspace)
    with pytest.raises(PrerequisiteError, match="install Ollama"):
        query_model("demo", "hi", host=free_host)


def test_installed_but_not_running_and_not_to_be_started(
    free_host: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\necho cannot bind the port >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = RuntimeSettings(kind="ollama", ollama_host=free_host)
    with pytest.raises(PrerequisiteError, match="start it: ollama serve"):
        choose_runtime(settings, workspace, may_start=False)
    with pytest.raises(PrerequisiteError, match=r"did not come up at .*: cannot bind the port Next: read "):
        choose_runtime(settings, workspace)


def test_another_machines_ollama_is_not_started_here(tmp_path: Path) -> None:
    if shutil.which("ollama") is None:
        (tmp_path / "ollama").touch(0o755)
    server = OllamaServer("192.0.2.1:11434")
    with pytest.raises(PrerequisiteError, match=r"can only be started on this machine|not on PATH"):
        server.start(tmp_path / "log")
    server.close()


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"[1, 2]", b'{"version": 3}', b"", b"\xff\xfe"])
def test_something_else_has_the_port(fake: tuple[str, type[_Garbage]], workspace: Workspace, answer: bytes) -> None:
    host, handler = fake
    handler.answer = answer
    status = check_ollama_status(host)
    assert not status.running
    assert "something that is not Ollama answers" in str(status.problem)
    with pytest.raises(PrerequisiteError, match=r"not Ollama answers .*set OLLAMA_HOST"):
        choose_runtime(RuntimeSettings(kind="ollama", ollama_host=host), workspace)
    chosen = choose_runtime(RuntimeSettings(kind="auto", ollama_host=host), workspace)
    assert chosen.kind == "embedded"
    chosen.close()


def test_an_ollama_that_is_too_old_asks_for_an_update(fake: tuple[str, type[_Garbage]], workspace: Workspace) -> None:
    host, handler = fake
    handler.answer = b'{"version": "0.3.14"}'
    with pytest.raises(PrerequisiteError, match=r"Ollama 0\.3\.14 at .* is older than 0\.5\.5\. Next: update Ollama"):
        choose_runtime(RuntimeSettings(kind="ollama", ollama_host=host), workspace)


def test_nonsense_in_the_middle_is_named(fake: tuple[str, type[_Garbage]]) -> None:
    host, handler = fake
    runtime = OllamaRuntime(host)
    with pytest.raises(PrerequisiteError, match=r"not Ollama answers at .*<html>"):
        runtime.models()
    handler.answer, handler.status = b'{"error": "disk full"}', 500
    with pytest.raises(TransientError, match="Ollama failed on demo:r1: disk full"):
        list(runtime.chat("demo:r1", []))
    handler.answer, handler.status = b'{"error": "invalid model name"}', 400
    with pytest.raises(InputError, match="Ollama refused the request: invalid model name"):
        runtime.models()
    handler.answer, handler.status = b'{"message": {"content": "half an ans"}}\n', 200
    with pytest.raises(TransientError, match=r"ended in the middle of the answer of demo:r1"):
        list(runtime.chat("demo:r1", []))
    runtime.close()


@pytest.mark.ollama
def test_a_real_ollama_is_started_where_it_was_asked_for(
    free_host: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("ollama") is None:
        pytest.skip("no `ollama` on PATH: a real one is needed")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path))
    runtime = choose_runtime(RuntimeSettings(kind="ollama", ollama_host=free_host), workspace)
    assert isinstance(runtime, OllamaRuntime)
    process = runtime.server.process
    assert process is not None
    try:
        assert runtime.is_available()
        assert runtime.models() == []
    finally:
        process.terminate()
        process.wait()
        runtime.close()
    assert not check_ollama_status(free_host).running
