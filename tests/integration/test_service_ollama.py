"""The service in front of a real Ollama: the same answers to the same requests, and what its own routes would do otherwise."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ai_forge.config import load_settings
from ai_forge.serving import AskSettings, OllamaRuntime, Registry, deployment_from_gguf
from ai_forge.workspace import Workspace
from real_ollama import OllamaProcess
from service_app import SERVED, Running, running, service_at

pytestmark = [pytest.mark.ollama, pytest.mark.slow]
TURNS: Any = [{"role": "user", "content": "Say hi."}]


@pytest.fixture(scope="module")
def service(
    ollama_server: OllamaProcess, base_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("ollama-service")
    settings = load_settings(("test", SERVED)).settings.runtime
    deployment = deployment_from_gguf(
        "hi", "r1", base_gguf, system_prompt="", settings=settings, base="SmolLM2", asking=AskSettings()
    )
    workspace = Workspace.open(home)
    with (
        contextlib.closing(OllamaRuntime(ollama_server.host)) as runtime,
        Registry(workspace.registry_path) as registry,
    ):
        runtime.create(deployment)
        runtime.activate("hi", "r1")
        registry.register(deployment)
        registry.activate("hi", "r1", "ollama")
    with running(service_at(home, runtime__ollama_host=ollama_server.host)) as listening:
        yield listening


def test_openais_client_chats_streams_and_completes_through_ollama(service: Running) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        answer = client.chat.completions.create(model="hi", messages=TURNS, temperature=0)
        text = answer.choices[0].message.content
        assert text
        chunks = list(client.chat.completions.create(model="hi", messages=TURNS, temperature=0, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        two = client.chat.completions.create(model="hi", messages=TURNS, temperature=1.5, n=2, seed=5)
        assert [choice.index for choice in two.choices] == [0, 1]
        with pytest.raises(openai.BadRequestError, match=r"(?i)context|exceed|tokens"):
            client.chat.completions.create(model="hi", messages=[{"role": "user", "content": "word " * 4000}])


def test_a_text_goes_on_as_it_stands(service: Running, ollama_server: OllamaProcess) -> None:
    body = {"model": "hi", "prompt": "The capital of France is", "max_tokens": 6, "temperature": 0}
    with httpx.Client(base_url=service.url, timeout=120, trust_env=False) as http:
        whole = http.post("/v1/completions", json=body).json()
        text = http.post("/v1/completions", json=body | {"stream": True}).text
    with contextlib.closing(OllamaRuntime(ollama_server.host)) as runtime:
        expected = runtime.greedy("hi:r1", "The capital of France is", 6)
    assert whole["choices"][0]["text"] == expected.text
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 6
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]) == expected.text


def test_an_ollama_that_went_away_is_a_503_and_comes_back(service: Running, ollama_server: OllamaProcess) -> None:
    with httpx.Client(base_url=service.url, timeout=120, trust_env=False) as http:
        ollama_server.kill()
        try:
            answer = http.post("/v1/chat/completions", json={"messages": TURNS})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "try_again")
            assert http.get("/readyz").status_code in (200, 503)
        finally:
            ollama_server.start()
        assert http.post("/v1/chat/completions", json={"messages": TURNS}).status_code == 200
