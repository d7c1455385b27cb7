"""The service answers through the embedded runtime: OpenAI's routes, retrieval, new versions, readers that go away."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from service_app import Running, deploy_version, running, service_at, tiny_gguf

QUESTION = {"role": "user", "content": "Which function does load call?"}
PLACE = {"path": "src/load.py", "first_line": 2, "last_line": 3, "name": "load", "cited": False}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def service(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    deploy_version(home, gguf)
    with running(service_at(home)) as listening:
        yield listening


@pytest.fixture
def http(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def client(service: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="not-needed", max_retries=0) as made:
        yield made


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def said(chunks: list[Any], index: int = 0) -> str:
    parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(part["delta"].get("content") or "" for part in parts)


# -- OpenAI's own client ----------------------------------------------------------------------------------------------


def test_openais_client_lists_chats_streams_and_completes(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo", "demo:plain"]
    assert client.models.retrieve("demo:plain").owned_by == "ai-forge"
    turns: Any = [QUESTION]
    answer = client.chat.completions.create(model="demo:plain", messages=turns, temperature=0, seed=1)
    text = answer.choices[0].message.content
    assert text
    assert answer.usage
    assert answer.usage.completion_tokens > 0
    assert answer.model == "demo:r1"
    stream = client.chat.completions.create(
        model="demo:plain", messages=turns, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage is not None
    completed = client.completions.create(model="demo", prompt="def load(", max_tokens=4)
    assert completed.choices[0].finish_reason == "length"


def test_openais_client_gets_its_own_errors(client: openai.OpenAI) -> None:
    turns: Any = [QUESTION]
    with pytest.raises(openai.NotFoundError, match="deployed are demo") as missing:
        client.chat.completions.create(model="gpt-4", messages=turns)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as long:
        client.chat.completions.create(model="demo:plain", messages=[{"role": "user", "content": "x " * 3000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="no tokens for a suffix"):
        client.completions.create(model="demo", prompt="def load(", suffix="return x")
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client.chat.completions.create(model="demo", messages=turns, temperature=3)


def test_a_client_may_ask_for_more_tokens_than_are_given(gguf: Path, tmp_path: Path) -> None:
    deploy_version(tmp_path, gguf, indexed=False)
    with (
        running(service_at(tmp_path, service__max_answer_tokens=5)) as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client,
    ):
        turns: Any = [QUESTION]
        answer = client.chat.completions.create(model="demo", messages=turns, max_tokens=32_000, temperature=0)
    assert answer.usage
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)


def test_json_mode_keeps_to_the_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"], "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    turns: Any = [QUESTION]
    for model in ("demo", "demo:plain"):
        answer = client.chat.completions.create(model=model, messages=turns, response_format=form, max_tokens=64)
        content = answer.choices[0].message.content
        if answer.choices[0].finish_reason == "stop":  # random weights may write blanks without end
            assert json.loads(content or "") == {"n": 7}
        assert set(content or "") <= set('{"n": 7}\n\t ')


def test_openais_client_asks_for_responses(client: openai.OpenAI) -> None:
    asked: Any = {"model": "demo:plain", "input": QUESTION["content"], "temperature": 0, "instructions": "Be short."}
    answer = client.responses.create(**asked)
    assert (answer.model, answer.instructions) == ("demo:r1", "Be short.")
    assert answer.output_text
    assert answer.usage
    assert answer.usage.input_tokens + answer.usage.output_tokens == answer.usage.total_tokens
    turns: Any = [{"role": "system", "content": "Be short."}, QUESTION]
    chat = client.chat.completions.create(model="demo:plain", messages=turns, temperature=0)
    assert answer.output_text == chat.choices[0].message.content
    status = {"length": "incomplete", "stop": "completed"}[chat.choices[0].finish_reason]
    assert answer.status == answer.output[0].status == status
    assert chat.usage
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    with client.responses.stream(**asked, max_output_tokens=3) as stream:
        events = list(stream)
    assert events[-1].type == "response.incomplete"
    cut = events[-1].response
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == cut.output_text == answer.output_text[: len(deltas)]
    assert (cut.status, cut.usage and cut.usage.output_tokens) == ("incomplete", 3)
    assert cut.incomplete_details
    assert cut.incomplete_details.reason == "max_output_tokens"
    # an answer is sent back as it came, and the talk goes on
    more: Any = [QUESTION, *(item.model_dump() for item in answer.output), {"role": "user", "content": "Why?"}]
    assert client.responses.create(model="demo:plain", input=more, max_output_tokens=2).status == "incomplete"


def test_a_response_tells_what_was_found_and_keeps_to_a_schema(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="demo", input=str(QUESTION["content"]), temperature=0)
    assert answer.output_text.endswith("Shown: [src/load.py:2-3]")
    assert (answer.model_extra or {})["citations"] == [PLACE]
    last = list(client.responses.create(model="demo", input=str(QUESTION["content"]), temperature=0, stream=True))[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert last.type == f"response.{answer.status}"
    assert last.response.output_text == answer.output_text
    assert (last.response.model_extra or {})["citations"] == [PLACE]
    schema = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"], "additionalProperties": False}
    form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": schema}}
    kept = client.responses.create(model="demo:plain", input="n?", text=form, max_output_tokens=64)
    assert set(kept.output_text) <= set('{"n": 7}\n\t ')


def test_what_a_response_cannot_be_given_is_named(client: openai.OpenAI) -> None:
    wanted: list[dict[str, Any]] = [
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"conversation": "conv_1"},
    ]
    for more in wanted:
        with pytest.raises(openai.BadRequestError, match=f"without {next(iter(more))}") as refused:
            client.responses.create(model="demo", input="Why?", **more)
        assert refused.value.param == next(iter(more))
    with pytest.raises(openai.NotFoundError, match="deployed are demo"):
        client.responses.create(model="gpt-5", input="Why?", stream=True)


def test_token_ids_are_not_embedded_as_if_they_were_ours(client: openai.OpenAI) -> None:
    for ids in ([3, 4], [[3, 4], [5]]):
        with pytest.raises(openai.BadRequestError, match=r"whose vocabulary.*send the text"):
            client.embeddings.create(model="demo", input=ids)


def test_several_answers_and_stop_words(client: openai.OpenAI, http: httpx.Client) -> None:
    turns: Any = [QUESTION]
    answer = client.chat.completions.create(model="demo:plain", messages=turns, n=3, temperature=1.5, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage
    assert answer.usage.completion_tokens > 12
    body = {"model": "demo:plain", "messages": [QUESTION], "n": 2, "temperature": 1.5, "seed": 3, "stream": True}
    chunks = events(http.post("/v1/chat/completions", json=body).text)
    for index in (0, 1):  # the end may be half a character, which a stream tells otherwise
        assert said(chunks, index)[:8] == str(answer.choices[index].message.content)[:8]
    full = client.completions.create(model="demo", prompt="a", max_tokens=12, temperature=0).choices[0].text
    cut = client.completions.create(model="demo", prompt="a", max_tokens=12, temperature=0, stop=[full[4:6]])
    assert cut.choices[0].text == full[: full.index(full[4:6])]


# -- with what is found -----------------------------------------------------------------------------------------------


def test_a_name_is_asked_with_what_is_found_and_says_what_that_was(http: httpx.Client) -> None:
    body = {"model": "demo", "messages": [QUESTION], "temperature": 0}
    answer = http.post("/v1/chat/completions", json=body).json()
    text = answer["choices"][0]["message"]["content"]
    assert answer["citations"] == [PLACE]
    assert text.endswith("\n\nShown: [src/load.py:2-3]")
    chunks = events(http.post("/v1/chat/completions", json=body | {"stream": True}).text)
    assert said(chunks) == text
    assert chunks[-1]["citations"] == [PLACE]
    plain = http.post("/v1/chat/completions", json=body | {"model": "demo:plain"}).json()
    assert "citations" not in plain
    assert plain["usage"]["prompt_tokens"] < answer["usage"]["prompt_tokens"]


def test_a_callers_own_instructions_and_earlier_turns_are_kept(http: httpx.Client) -> None:
    turns = [
        {"role": "system", "content": "Speak like a pirate."},
        QUESTION,
        {"role": "assistant", "content": "load_all."},
        {"role": "user", "content": [{"type": "text", "text": "And where is it?"}]},
    ]
    short = http.post("/v1/chat/completions", json={"messages": turns[-1:]}).json()
    long = http.post("/v1/chat/completions", json={"messages": turns}).json()
    assert long["usage"]["prompt_tokens"] > short["usage"]["prompt_tokens"] + 20
    assert long["citations"][0]["name"] == "load", "a follow-up is looked up with the question before it"


def test_one_question_one_answer_and_what_search_finds(http: httpx.Client) -> None:
    answer = http.post("/v1/query", json={"prompt": "Which function does load call?"}).json()
    assert answer["answer"]
    assert answer["metadata"]["model"] == "demo:r1"
    assert answer["metadata"]["citations"] == [PLACE]
    found = http.post("/v1/search", json={"query": "Which function does load call?", "k": 1}).json()["results"]
    assert [(one["path"], one["first_line"], one["last_line"]) for one in found] == [("src/load.py", 2, 3)]
    assert found[0]["text"].startswith("def load(value):")


# -- versions -----------------------------------------------------------------------------------------------------------


def test_the_old_version_serves_until_the_new_one_has_answered(gguf: Path, tmp_path: Path) -> None:
    deploy_version(tmp_path, gguf, version="r1", indexed=False)
    body = {"messages": [QUESTION], "max_tokens": 2}
    with running(service_at(tmp_path)) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        assert http.post("/v1/chat/completions", json=body).json()["model"] == "demo:r1"
        deploy_version(tmp_path, gguf, version="r2", indexed=False)
        until, served = time.monotonic() + 20, ["demo:r1"]
        while served[-1] != "demo:r2" and time.monotonic() < until:
            answer = http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
            served.append(answer.json()["model"])
        assert served == ["demo:r1"] * (len(served) - 1) + ["demo:r2"]
        assert served[1] == "demo:r1", "nobody waited for the new one"
        # a version that cannot be loaded leaves the one before where it is
        deploy_version(tmp_path, gguf, version="r3", indexed=False)
        (tmp_path / "models" / "demo" / "r3" / "model.gguf").unlink()
        for _ in range(3):
            assert http.post("/v1/chat/completions", json=body).json()["model"] == "demo:r2"
            time.sleep(0.2)


def test_a_model_that_cannot_be_opened_is_a_503_without_its_path(gguf: Path, tmp_path: Path) -> None:
    deploy_version(tmp_path, gguf)
    (tmp_path / "models" / "demo" / "r1" / "model.gguf").unlink()
    with running(service_at(tmp_path)) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        answer = http.post("/v1/query", json={"prompt": "Why?"})
        assert answer.status_code == 503
        assert "model.gguf is missing" in answer.text
        assert str(tmp_path) not in answer.text
        assert http.get("/healthz").status_code == 200


# -- readers that go away -------------------------------------------------------------------------------------------


def test_streams_that_are_cut_off_leave_nothing_behind(service: Running) -> None:
    body = {"model": "demo", "messages": [QUESTION], "max_tokens": 400, "stream": True}
    process = psutil.Process()

    def stream(number: int) -> int:
        with (
            httpx.Client(base_url=service.url, timeout=120, trust_env=False) as http,
            http.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            for _ in response.iter_lines():
                if number % 2:
                    break
            return response.status_code

    stream(0)
    with ThreadPoolExecutor(20) as pool:
        before = process.num_fds()
        assert set(pool.map(stream, range(60))) == {200}
    until = time.monotonic() + 20
    in_flight = service.app.state.service.metrics.in_flight
    while (in_flight._value.get() or process.num_fds() > before + 8) and time.monotonic() < until:
        time.sleep(0.1)
    assert in_flight._value.get() == 0
    assert process.num_fds() <= before + 8  # a few connections are kept open to be used again
    assert threading.active_count() < 60
    assert all(model.n_users == 0 for model in service.app.state.service.models.opened())


def test_an_answer_that_takes_too_long_is_ended(gguf: Path, tmp_path: Path) -> None:
    deploy_version(tmp_path, gguf)
    app = service_at(tmp_path, service__answer_timeout_s=0.001)
    with running(app) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        answer = http.post("/v1/chat/completions", json={"messages": [QUESTION]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "too_slow")
        assert http.get("/healthz").status_code == 200
