"""A real Ollama: deployed, prompted as trained, rolled back, killed in mid-deployment."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ai_forge.conductor import ollama_manager
from ai_forge.conductor.ollama_manager import (
    check_ollama_status,
    create_ollama_model,
    get_active_model,
    list_ollama_models,
    query_model,
    set_active_model,
)
from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import InputError, RefusedError, TransientError
from ai_forge.judge.exporter import convert_to_gguf, create_ollama_modelfile
from ai_forge.model_files.base import Base
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import SYSTEM_PROMPT, Message, messages_for
from ai_forge.serving import (
    Deployment,
    EmbeddedRuntime,
    ExpectedAnswer,
    OllamaRuntime,
    Registry,
    Runtime,
    choose_runtime,
    deploy,
    deployment_from_gguf,
    prompt_difference,
    rollback,
)
from ai_forge.training.backends.torch_model import TorchGenerator
from ai_forge.workspace import Workspace
from llama_cpp import LlamaCpp
from real_ollama import OllamaProcess
from tiny_models import with_a_merge_onto_codes, with_another_rope

pytestmark = [pytest.mark.ollama, pytest.mark.slow]

SETTINGS = RuntimeSettings(num_ctx=1024, num_predict=16)
QUESTIONS = ["What is 2+2?", "Say hi.", "Write a function that adds two numbers.", "What does `len` do in Python?"]
NEAR_TIE_NATS = 1.0
CONVERSATIONS: list[list[Message]] = [
    messages_for("What does `retry` do?", []),
    [{"role": "user", "content": "Say hi."}],
    [*messages_for('Is "{{ x }}" 12345 in it?\n\n  def f():\n\treturn 1', [])],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u é 漢"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ],
]


def version_of(gguf: Path, name: str, version: str, system_prompt: str = SYSTEM_PROMPT) -> Deployment:
    return deployment_from_gguf(
        name, version, gguf, system_prompt=system_prompt, settings=SETTINGS, base="SmolLM2-135M-Instruct"
    )


def accept(_runtime: Runtime, _deployment: Deployment) -> None:
    pass


@pytest.fixture
def runtime(ollama_server: OllamaProcess) -> Iterator[OllamaRuntime]:
    runtime = OllamaRuntime(ollama_server.host)
    yield runtime
    runtime.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry.db") as opened:
        yield opened


def names(runtime: Runtime, name: str) -> list[str]:
    return [model.model for model in runtime.models() if model.model.startswith(f"{name}:")]


def test_it_prompts_as_the_trainer(runtime: OllamaRuntime, base_gguf: Path, smollm2: Base) -> None:
    deployment = version_of(base_gguf, "parity", "r1", system_prompt="")
    steps: list[str] = []
    runtime.create(deployment, lambda what, _done, _total: steps.append(what))
    assert "Ollama: success" in steps
    chat = ChatTokenizer(smollm2.folder)
    for messages in CONVERSATIONS:
        rendered = runtime.render("parity:r1", messages)
        assert rendered.text is not None
        assert prompt_difference(rendered, chat.render(messages), len(chat.encode_prompt(messages))) is None


def test_it_answers_as_the_embedded_runtime_up_to_near_ties(
    runtime: OllamaRuntime, base_gguf: Path, tmp_path: Path
) -> None:
    """Two builds of llama.cpp round differently: where greedy answers part, the two tokens are about equally likely."""
    deployment = version_of(base_gguf, "same", "r1", system_prompt="")
    embedded = EmbeddedRuntime(tmp_path / "models", n_threads=1)
    for served in (runtime, embedded):
        served.create(deployment)
    n_same = 0
    for question in QUESTIONS:
        prompt = embedded.render("same:r1", [{"role": "user", "content": question}]).text
        assert prompt is not None
        here, there = embedded.greedy("same:r1", prompt, 8), runtime.greedy("same:r1", prompt, 8)
        assert here.n_prompt_tokens == there.n_prompt_tokens
        n_same += here.text == there.text
        ours, theirs = embedded.tokenize("same:r1", here.text), embedded.tokenize("same:r1", there.text)
        parting = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if parting is not None:
            likely = LlamaCpp(base_gguf).next_token(embedded.tokenize("same:r1", prompt) + ours[:parting], 20)
            assert likely[ours[parting]] - likely[theirs[parting]] < NEAR_TIE_NATS
    embedded.close()
    assert n_same >= 2


def test_what_ollama_would_have_guessed_is_caught(runtime: OllamaRuntime, base_gguf: Path, smollm2: Base) -> None:
    runtime.create(version_of(base_gguf, "guessed", "r1", system_prompt=""))
    digest = version_of(base_gguf, "guessed", "r1").gguf_sha256
    body = {"model": "guessed:r2", "files": {"m.gguf": f"sha256:{digest}"}}
    assert list(runtime.server.stream("/api/create", body))[-1] == {"status": "success"}
    chat = ChatTokenizer(smollm2.folder)
    messages: list[Message] = [{"role": "user", "content": "Say hi."}]
    text, n_tokens = chat.render(messages), len(chat.encode_prompt(messages))
    assert prompt_difference(runtime.render("guessed:r1", messages), text, n_tokens) is None
    difference = prompt_difference(runtime.render("guessed:r2", messages), text, n_tokens)
    assert difference is not None
    assert "'user" in difference


def test_deployed_it_streams_with_its_own_settings(runtime: OllamaRuntime, base_gguf: Path, registry: Registry) -> None:
    done = deploy(version_of(base_gguf, "served", "r1"), runtime, registry, check=accept)
    assert done.changed
    again = deploy(version_of(base_gguf, "served", "r1"), runtime, registry, check=accept)
    assert not again.changed
    assert again.seconds < 1
    pieces = list(runtime.chat("served:latest", [{"role": "user", "content": "What is the capital of France?"}]))
    assert len(pieces) > 3
    shown = runtime.show("served")
    assert shown.system_prompt == SYSTEM_PROMPT
    assert shown.parameters["num_ctx"] == "1024"
    assert shown.parameters["num_predict"] == "16"
    assert shown.parameters["repeat_penalty"] == "1"
    assert shown.parameters["stop"] == '"<|im_end|>", "<|im_start|>"'
    assert shown.size_bytes > 90e6
    with pytest.raises(InputError, match=r"The prompt has \d{4} tokens; the model was deployed with a context of 1024"):
        list(runtime.chat("served:r1", [{"role": "user", "content": "x y z " * 500}]))
    with pytest.raises(InputError, match="has no model 'served:r9'"):
        list(runtime.chat("served:r9", [{"role": "user", "content": "x"}]))


def test_latest_moves_and_rolls_back(runtime: OllamaRuntime, base_gguf: Path, registry: Registry) -> None:
    for n in (1, 2):
        deploy(version_of(base_gguf, "moves", f"r{n}", f"system {n}"), runtime, registry, check=accept)
    assert runtime.active("moves") == "r2"
    assert runtime.show("moves").system_prompt == "system 2"
    assert rollback("moves", runtime, registry).version == "r1"
    assert runtime.active("moves") == "r1"
    assert runtime.show("moves:latest").system_prompt == "system 1"


def test_a_failed_check_removes_the_new_version(runtime: OllamaRuntime, base_gguf: Path, registry: Registry) -> None:
    deploy(version_of(base_gguf, "checked", "r1"), runtime, registry, check=accept)

    def refuse(_runtime: Runtime, _deployment: Deployment) -> None:
        raise RefusedError("greedy answers differ")

    with pytest.raises(RefusedError, match="greedy answers differ"):
        deploy(version_of(base_gguf, "checked", "r2", "new"), runtime, registry, check=refuse)
    assert names(runtime, "checked") == ["checked:latest", "checked:r1"]
    assert runtime.active("checked") == "r1"


def test_a_wrong_rope_and_a_merge_onto_codes_are_refused(
    runtime: OllamaRuntime, registry: Registry, base_gguf: Path, smollm2: Base, tmp_path: Path
) -> None:
    """Template, stop words and hash are right; only what it says tells that it is another model than the trainer's."""
    tokenizer = ChatTokenizer(smollm2.folder)
    trainer = TorchGenerator.load(smollm2.folder, tokenizer.end_of_turn_id, exact=True)
    chats: list[list[Message]] = [[{"role": "user", "content": question}] for question in QUESTIONS]
    told = trainer.generate([tokenizer.encode_prompt(chat) for chat in chats], 8)
    answers = [ExpectedAnswer(tokenizer.render(c), tokenizer.decode(a)) for c, a in zip(chats, told, strict=True)]
    assert deploy(version_of(base_gguf, "planted", "r1"), runtime, registry, check=accept, expected=answers).changed
    for plant in (with_another_rope, with_a_merge_onto_codes):
        version, folder = plant.__name__, shutil.copytree(smollm2.folder, tmp_path / plant.__name__)
        planted = version_of(convert_to_gguf(plant(folder), tmp_path / f"{version}.gguf", "f16"), "planted", version)
        with pytest.raises(RefusedError, match=rf"^planted:{version} answers [01] of 4 prompts as its file did before"):
            deploy(planted, runtime, registry, check=accept, expected=answers)
    assert runtime.active("planted") == "r1"


@pytest.mark.parametrize("moment", ["Ollama: parsing GGUF", "checking what it answers"])
def test_ollama_killed_in_mid_deployment_leaves_the_old_version(
    ollama_server: OllamaProcess, runtime: OllamaRuntime, base_gguf: Path, registry: Registry, moment: str
) -> None:
    name = "killed" + str(len(moment))
    deploy(version_of(base_gguf, name, "r1", "old"), runtime, registry, check=accept)

    def kill(what: str, _done: int, _total: int) -> None:
        if what == moment:
            ollama_server.kill()

    def ask(runtime: Runtime, deployment: Deployment) -> None:
        runtime.greedy(deployment.model, "x", 1)

    second = version_of(base_gguf, name, "r2", "new")
    try:
        with pytest.raises(TransientError, match=r"went away|in the middle") as caught:
            deploy(second, runtime, registry, check=ask, progress=kill)
        assert "\n" not in str(caught.value)
    finally:
        ollama_server.kill()
        ollama_server.start()
    active = registry.active(name)
    assert active is not None
    assert active.version == "r1"
    assert runtime.active(name) == "r1"
    assert registry.find(name, "r2") is None
    assert deploy(second, runtime, registry, check=accept).changed
    assert runtime.active(name) == "r2"


def test_killed_while_the_file_is_sent_nothing_is_left(
    ollama_server: OllamaProcess, runtime: OllamaRuntime, base_gguf: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"  # another hash, so that it has to be sent
    other.write_bytes(base_gguf.read_bytes() + bytes(32))
    deployment = version_of(other, "unsent", "r1")

    def kill(what: str, done: int, _total: int) -> None:
        if "sending" in what and done > 40_000_000:
            ollama_server.kill()

    try:
        with pytest.raises(TransientError, match="went away"):
            runtime.create(deployment, kill)
    finally:
        ollama_server.kill()
        ollama_server.start()
    assert names(runtime, "unsent") == []
    assert not runtime.server.has_blob(deployment.gguf_sha256)


def test_the_functions_for_one_off_use(
    ollama_server: OllamaProcess, base_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", ollama_server.host)
    status = check_ollama_status()
    assert bool(status) is True
    assert status.installed
    assert create_ollama_model("senior-dev", base_gguf, "You are terse.") is True
    assert create_ollama_model("senior-dev:2", base_gguf, "You are kind.", settings=SETTINGS) is True
    assert {"senior-dev:latest", "senior-dev:2"} <= {*list_ollama_models()}
    assert get_active_model() == ""
    assert get_active_model("senior-dev") == ""
    assert set_active_model("senior-dev") is True
    assert get_active_model() == "senior-dev:latest"
    assert set_active_model("senior-dev:2") is True
    assert (get_active_model(), get_active_model("senior-dev")) == ("senior-dev:2", "senior-dev:2")
    assert query_model("senior-dev", "What is the capital of France?", 0.0, max_tokens=12)
    assert query_model("senior-dev", "Say hi.", system_prompt="Be loud.", max_tokens=4)
    for missing in ("senior-dev:9", "nobody"):
        with pytest.raises(InputError, match=f"has no model '{missing}'"):
            set_active_model(missing)


def test_the_same_as_commands(
    ollama_server: OllamaProcess, base_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", ollama_server.host)

    def run(*words: str) -> tuple[int, str]:
        code = ollama_manager.main(words)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    assert run("status")[0] == 0
    assert run("create", "by-hand", str(base_gguf), "--system", "Be brief.") == (0, "created by-hand\n")
    assert "by-hand:latest" in run("list")[1].splitlines()
    assert run("activate", "by-hand") == (0, "active: by-hand\n")
    assert run("active") == (0, "by-hand:latest\n")
    assert run("query", "by-hand", "Say hi.", "--temperature", "0")[0] == 0
    code, message = run("query", "nobody", "Say hi.")
    assert (code, "has no model 'nobody'" in message) == (2, True)
    assert run("create", "x", str(tmp_path / "no.gguf"))[0] == 3


def test_ollama_makes_the_same_model_from_the_modelfile(
    ollama_server: OllamaProcess, runtime: OllamaRuntime, base_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "Modelfile"
    path.write_text(create_ollama_modelfile("senior", base_gguf, "Say {{ x }} and {y}.", num_ctx=1024))
    environment = os.environ | {"OLLAMA_HOST": ollama_server.host, "HOME": str(tmp_path)}
    command = ["ollama", "create", "senior", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    made = runtime.show("senior")
    assert made.system_prompt == "Say {{ x }} and {y}."
    assert made.parameters["num_predict"] == "512"
    runtime.create(version_of(base_gguf, "demo", "hand"))
    assert made.template == runtime.show("demo:hand").template


def test_auto_chooses_the_ollama_that_answers(ollama_server: OllamaProcess, tmp_path: Path) -> None:
    chosen = choose_runtime(RuntimeSettings(ollama_host=ollama_server.host), Workspace(tmp_path))
    assert chosen.kind == "ollama"
    chosen.close()
