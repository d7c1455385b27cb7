"""What the image is built of and is told: each file gets there, each command is one, and its health check finds the service."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli_runs import ai_forge
from service_app import running, service_at

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)


def test_all_that_the_dockerfile_uses_reaches_its_build() -> None:
    lines = DOCKERFILE.splitlines()
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    read = {
        name for line in lines if line.startswith("RUN ") for name in re.findall(r"-[rc] (\S+\.(?:lock|toml))", line)
    }
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert read <= copied
    assert copied <= let_through
    assert all((ROOT / name).exists() for name in copied)


def test_what_it_needs_is_installed_before_its_code_is_copied() -> None:
    """A new version of the code must not bring torch's gigabytes again."""
    lines = DOCKERFILE.splitlines()
    code = next(i for i, line in enumerate(lines) if line.startswith("COPY") and "src" in line.split())
    assert any("requirements.lock" in line and line.startswith("RUN") for line in lines[:code])
    assert all("--no-deps" in line for line in lines[code:] if "pip install" in line)


def test_all_code_is_compiled_as_nobody_may_write_beside_it() -> None:
    installs = [part for line in DOCKERFILE.splitlines() for part in line.split("&&") if "uv pip install" in part]
    assert all("--compile-bytecode" in part for part in installs if "--require-hashes" not in part)


@pytest.mark.parametrize("hosts", [(), ("forge.example.com",)])
def test_the_health_check_finds_a_service_that_answers(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    """Its own words from the `Dockerfile`, on another port; also behind a proxy whose name is the only one allowed."""
    [words] = re.findall(r"HEALTHCHECK .*CMD (\[.*\])", DOCKERFILE)
    python, *arguments = json.loads(words)
    assert python == "python"
    with running(service_at(tmp_path, service__allowed_hosts=hosts)) as service:
        answering = [word.replace("http://127.0.0.1:8000", service.url) for word in arguments]
        assert answering != arguments
        subprocess.run([sys.executable, *answering], check=True, timeout=30)
    assert subprocess.run([sys.executable, *answering], capture_output=True, timeout=30).returncode != 0


def test_compose_serves_where_the_image_is_exposed_and_asked() -> None:
    serve = COMPOSE["services"]["serve"]
    port = serve["command"][serve["command"].index("--port") + 1]
    assert [port] == re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.M)
    assert [published.rsplit(":", 1)[-1] for published in serve["ports"]] == [port]
    assert f"http://127.0.0.1:{port}/healthz" in DOCKERFILE


def commands() -> list[list[str]]:
    """What compose and its head say to the image, and what the image does by itself."""
    told = re.findall(r"^# docker compose run --rm forge (.*?)(?: {2,}|$)", COMPOSE_TEXT, re.M)
    [default] = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.M)
    return [COMPOSE["services"]["serve"]["command"], json.loads(default), *(line.split() for line in told)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_containers_commands_are_commands(words: list[str]) -> None:
    """Each word is understood, and none carried out: help comes before that, and after what is unknown."""
    assert ai_forge(*words, "--help").code == 0
