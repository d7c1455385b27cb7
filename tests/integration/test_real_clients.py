"""Programs that people point at the service, run for real against it, and what editors send, as they send it.

`npm ci` and `uv` fetch them, each pinned; where the program that runs them or a registry is missing, the test says so and is left out.
Those that are heavy to fetch are run with AI_FORGE_HEAVY_CLIENTS=1 (`make soak`).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service_app import Running, deploy_version, running, service_at, tiny_gguf

pytestmark = pytest.mark.slow
CLIENTS = Path(__file__).parents[1] / "clients"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "clients"
QUESTION = "Which function does load call?"
CITED = "Shown: [src/load.py:2-3]"
heavy = pytest.mark.skipif("AI_FORGE_HEAVY_CLIENTS" not in os.environ, reason="AI_FORGE_HEAVY_CLIENTS is not set")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("clients")
    deploy_version(home, tiny_gguf(home / "made"), num_ctx=4096)
    with running(service_at(home)) as listening:
        yield listening


def run(*command: str | Path, timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=os.environ | {"NO_PROXY": "127.0.0.1"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=environment.get("HOME"),
    )


def fetched(*command: str | Path) -> None:
    """Run what fetches a client, or leave the test out."""
    try:
        ended = run(*command)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{command[0]} did not fetch it: {error}")
    if ended.returncode:
        pytest.skip(f"{command[0]} did not fetch it: {ended.stderr[-300:]}")


def node_package(folder: Path, *packages: str) -> Path:
    """A folder with the packages of `tests/clients`, or with those named."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node and npm on PATH")
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    options = ["--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"]
    if packages:
        (folder / "package-lock.json").unlink()
    fetched("npm", *(["install", *packages] if packages else ["ci"]), *options)
    return folder


def uv_tool(package: str, command: str) -> list[str | Path]:
    """The start of a command line that runs `command` out of `package`."""
    found: list[str | Path] = [
        sys.executable,
        "-m",
        "uv",
        "tool",
        "run",
        "--python",
        "3.11",
        "--from",
        package,
        command,
    ]
    fetched(*found, "--version")
    return found


def test_openais_javascript_client(service: Running, tmp_path: Path) -> None:
    folder = node_package(tmp_path / "js")
    ended = run("node", folder / "openai_client.mjs", f"{service.url}/v1")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["models"] == ["demo", "demo:plain"]
    assert told["retrieved"] == "demo:plain"
    assert told["chat"].endswith(CITED)
    assert told["streamed"] == told["helped"] == told["chat"]
    assert told["response_streamed"] == told["response"] == told["chat"]
    assert [place["path"] for place in told["citations"]] == ["src/load.py"]
    assert told["usage"] > 0
    assert told["pieces_before_leaving"] == 2
    assert told["completed"] == "length"
    assert told["errors"] == {
        "model": ["NotFoundError", "model_not_found", "model"],
        "temperature": ["UnprocessableEntityError", "bad_input", "temperature"],
        "tool": ["BadRequestError", "unsupported", "tool_choice"],
    }


def test_llm_on_the_command_line(service: Running, tmp_path: Path) -> None:
    llm = uv_tool("llm==0.36", "llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: forge, model_name: demo, api_base: {service.url}/v1, supports_tools: true, supports_schema: true}}\n"
    )
    chosen = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none", "HOME": str(tmp_path)}
    chosen |= {"UV_CACHE_DIR": run(sys.executable, "-m", "uv", "cache", "dir").stdout.strip()}
    streamed = run(*llm, "-m", "forge", "-o", "temperature", "0", QUESTION, **chosen)
    whole = run(*llm, "-m", "forge", "-o", "temperature", "0", "--no-stream", QUESTION, **chosen)
    assert (streamed.returncode, whole.returncode) == (0, 0), streamed.stderr + whole.stderr
    assert streamed.stdout.strip().endswith(CITED)
    assert streamed.stdout == whole.stdout
    went_on = run(*llm, "-m", "forge", "-c", "And where is it?", **chosen)
    assert (went_on.returncode, CITED in went_on.stdout) == (0, True), went_on.stderr
    form = run(*llm, "-m", "forge", "--schema", "n int", "-o", "max_tokens", "8", "A dog.", **chosen)
    assert (form.returncode, form.stdout.strip()[:1]) in ((0, "{"), (0, "")), form.stderr


@heavy
def test_aider(service: Running, tmp_path: Path) -> None:
    aider = uv_tool("aider-chat==0.86.2", "aider")
    (tmp_path / "load.py").write_text("def load(path):\n    return open(path).read()\n")
    chosen = {"OPENAI_API_BASE": f"{service.url}/v1", "OPENAI_API_KEY": "none", "HOME": str(tmp_path)}
    chosen |= {"UV_CACHE_DIR": run(sys.executable, "-m", "uv", "cache", "dir").stdout.strip()}
    quiet = ["--no-git", "--no-pretty", "--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--yes"]
    ended = run(*aider, "--model", "openai/demo", *quiet, "--message", QUESTION, "load.py", timeout_s=300, **chosen)
    assert ended.returncode == 0, ended.stderr
    assert "Shown: [src/" in ended.stdout


@heavy
def test_opencode_and_continue(service: Running, tmp_path: Path) -> None:
    folder = node_package(tmp_path / "js", "opencode-ai@1.18.33", "@continuedev/cli@1.5.47")
    model = {"name": "forge", "provider": "openai", "model": "demo", "apiBase": f"{service.url}/v1", "apiKey": "none"}
    config = tmp_path / "config.yaml"  # YAML is a superset of JSON
    config.write_text(json.dumps({"name": "ours", "version": "1.0.0", "schema": "v1", "models": [model]}))
    home = {"HOME": str(tmp_path), "CONTINUE_TELEMETRY_ENABLED": "0"}
    cn = folder / "node_modules" / "@continuedev" / "cli" / "dist" / "cn.js"
    ended = run("node", cn, "-p", "--config", config, QUESTION, **home)
    assert ended.returncode == 0, ended.stderr
    served = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": f"{service.url}/v1"}, "models": {"demo": {}}}
    settings = {"share": "disabled", "autoupdate": False, "provider": {"forge": served}, "model": "forge/demo"}
    (tmp_path / "opencode.json").write_text(json.dumps(settings))
    (opencode,) = folder.glob("node_modules/opencode-*64/bin/opencode")
    home |= {"XDG_DATA_HOME": str(tmp_path / "data"), "OPENCODE_CONFIG": str(tmp_path / "opencode.json")}
    told = run(opencode, "run", QUESTION, **home)
    # its instructions are some 7,000 tokens, more than the tiny model was made for: that is said
    assert "exceeds the available context size" in told.stdout + told.stderr


# -- as editors send it -------------------------------------------------------------------------------------------------


def sent(service: Running, path: str, body: Any) -> list[Any]:
    """The chunks of a streamed answer."""
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_continues_chat_with_its_tools(service: Running) -> None:
    """Recorded from @continuedev/cli 1.5.47."""
    chunks = sent(service, "/v1/chat/completions", json.loads((FIXTURES / "continue_chat.json").read_text()))
    assert [place["path"] for place in chunks[-1]["citations"]] == ["src/load.py"]
    assert any(chunk.get("usage") for chunk in chunks)
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] in (
        ["length"],
        ["stop"],
    )


@pytest.mark.parametrize("suffix", [None, "", "\n"])
def test_continues_autocomplete(service: Running, suffix: str | None) -> None:
    """As `OpenAI._legacystreamComplete` of Continue writes it: the prompt has the template of the model's name in it."""
    stop = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>", "<|endoftext|>", "</fim_middle>", "</code>"]
    body = {
        "model": "demo",
        "max_tokens": 4096,
        "temperature": 0.01,
        "stream": True,
        "stop": [
            *stop,
            "/src/",
            "#- coding: utf-8",
            "```",
            *(f"\n{word}" for word in ("class", "def", "import", "t.", "t")),
        ],
        "prompt": "<fim_prefix>def load(path):\n    <fim_suffix>\n    return data\n<fim_middle>",
    }
    if suffix != "\n":
        body |= {} if suffix is None else {"suffix": suffix}
        chunks = sent(service, "/v1/completions", body)
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])
        return
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
        refused = http.post("/v1/completions", json=body | {"suffix": suffix, "stream": False})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")
