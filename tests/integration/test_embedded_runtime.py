"""The embedded runtime on the real SmolLM2: deployed, asked, rolled back, without Ollama."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import InputError, PrerequisiteError, RefusedError, TransientError
from ai_forge.model_files.base import Base
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import SYSTEM_PROMPT, Message, messages_for
from ai_forge.serving import (
    Deployment,
    EmbeddedRuntime,
    ExpectedAnswer,
    LlamaServer,
    Registry,
    Runtime,
    choose_runtime,
    deploy,
    deployment_from_gguf,
    prompt_difference,
    rollback,
)
from ai_forge.serving.embedded_runtime import GGUF_FILE
from ai_forge.workspace import Workspace, file_sha256

SETTINGS = RuntimeSettings(num_ctx=1024, num_predict=24)
CONVERSATIONS: list[list[Message]] = [
    messages_for("What does `retry` do?", []),
    [{"role": "user", "content": "Say hi."}],
    [*messages_for('Is "{{ x }}" 12345 in it?\n\n  def f():\n\treturn <|im_end|>', [])],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u é 漢"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ],
]


def version_of(gguf: Path, version: str, system_prompt: str = SYSTEM_PROMPT) -> Deployment:
    return deployment_from_gguf(
        "demo", version, gguf, system_prompt=system_prompt, settings=SETTINGS, base="SmolLM2-135M-Instruct"
    )


def accept(_runtime: Runtime, _deployment: Deployment) -> None:
    pass


@pytest.fixture(scope="module")
def loaded(base_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRuntime]:
    """A runtime with demo:bare (no system text of its own), which stays loaded through this file."""
    runtime = EmbeddedRuntime(tmp_path_factory.mktemp("models"), n_threads=1)
    runtime.create(version_of(base_gguf, "bare", system_prompt=""))
    runtime.activate("demo", "bare")
    yield runtime
    runtime.close()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[EmbeddedRuntime]:
    runtime = EmbeddedRuntime(tmp_path / "models", n_threads=1)
    yield runtime
    runtime.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry.db") as opened:
        yield opened


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_it_renders_and_tokenises_as_the_trainer_does(
    loaded: EmbeddedRuntime, smollm2: Base, messages: list[Message]
) -> None:
    chat = ChatTokenizer(smollm2.folder)
    text, ids = chat.render(messages), chat.encode_prompt(messages)
    assert prompt_difference(loaded.render("demo:bare", messages), text, len(ids)) is None
    assert loaded.tokenize("demo:bare", text) == ids


def test_the_answer_streams_and_greedy_answers_repeat(loaded: EmbeddedRuntime) -> None:
    messages: list[Message] = [{"role": "user", "content": "What is 2+2?"}]
    pieces = list(loaded.chat("demo:latest", messages))
    assert len(pieces) > 3
    assert "4" in "".join(pieces)
    prompt = loaded.render("demo:bare", messages).text
    assert prompt is not None
    first, second = (loaded.greedy("demo:bare", prompt, 24) for _ in range(2))
    assert first == second
    assert first.token_ids is not None
    assert first.text.strip() == "".join(pieces).strip()
    assert first.n_prompt_tokens == len(loaded.tokenize("demo:bare", prompt))


def test_an_answer_that_is_left_half_way_frees_the_model(loaded: EmbeddedRuntime) -> None:
    stream = loaded.chat("demo:bare", [{"role": "user", "content": "Count to one thousand."}], max_tokens=800)
    next(stream)
    stream.close()
    started = time.monotonic()
    assert loaded.greedy("demo:bare", "def f", 1).n_tokens == 1
    assert time.monotonic() - started < 5


def test_slots_answer_several_chats_as_one_slot_does(base_gguf: Path, tmp_path: Path) -> None:
    shared = messages_for("What is 2+2? Answer with a number.", [])[0]
    chats: list[list[Message]] = [
        [shared, {"role": "user", "content": f"What is the capital of {country}?"}]
        for country in ("France", "Italy", "Japan", "Spain", "Egypt", "Peru")
    ]
    answers = {}
    for n_slots in (1, 3):
        with contextlib.closing(EmbeddedRuntime(tmp_path / f"{n_slots}", 1, n_slots)) as several:
            several.create(version_of(base_gguf, "r1"))
            answers[n_slots] = several.answers("demo:r1", chats, 12)
    assert [a.n_prompt_tokens for a in answers[1]] == [a.n_prompt_tokens for a in answers[3]]
    for one, three in zip(answers[1], answers[3], strict=True):
        assert one.token_ids == three.token_ids
    assert "Paris" in answers[3][0].text


def test_a_long_answer_does_not_hold_up_the_next_one_and_closing_ends_both(base_gguf: Path, tmp_path: Path) -> None:
    several = EmbeddedRuntime(tmp_path / "models", 1, n_slots=2)
    several.create(version_of(base_gguf, "r1"))
    long = several.chat("demo:r1", [{"role": "user", "content": "Count to one thousand."}], max_tokens=900)
    next(long)
    assert several.greedy("demo:r1", "def f", 1).n_tokens == 1  # with one slot it would come after 900 tokens
    next(long)
    several.close()
    with pytest.raises(TransientError):
        list(long)


def test_many_threads_ask_while_models_are_closed_and_loaded(base_gguf: Path, tmp_path: Path) -> None:
    several = EmbeddedRuntime(tmp_path / "models", 1, n_slots=3)
    several.create(version_of(base_gguf, "r1"))

    def ask(number: int) -> str:
        try:
            return several.greedy("demo:r1", f"The number {number} is", 6).text
        except TransientError:
            return "closed"

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, number) for number in range(24)]
        for _ in range(3):
            time.sleep(0.4)
            several.close()
        assert all(future.result(timeout=60) for future in asked)
    several.close()


def test_a_seed_repeats_a_sampled_answer(loaded: EmbeddedRuntime) -> None:
    messages: list[Message] = [{"role": "user", "content": "Name an animal."}]
    one, two = ("".join(loaded.chat("demo:bare", messages, max_tokens=8, temperature=1.0, seed=3)) for _ in range(2))
    assert one == two


def test_a_prompt_longer_than_the_context_is_refused_not_cut(loaded: EmbeddedRuntime) -> None:
    with pytest.raises(InputError, match=r"The prompt has \d{4} tokens; the model was deployed with a context of 1024"):
        list(loaded.chat("demo:bare", [{"role": "user", "content": "x y z " * 500}]))


def test_an_unknown_model_names_the_known(loaded: EmbeddedRuntime) -> None:
    for name in ("demo:nope", "nope", "../demo:bare", "demo:../bare"):
        with pytest.raises(InputError, match="there are: demo:bare"):
            loaded.show(name)


def test_deploying_checking_and_rolling_back(base_gguf: Path, runtime: EmbeddedRuntime, registry: Registry) -> None:
    first, second = version_of(base_gguf, "r1"), version_of(base_gguf, "r2", "You are terse.")
    assert deploy(first, runtime, registry, check=accept).changed
    again = deploy(first, runtime, registry, check=accept)
    assert not again.changed
    assert again.seconds < 1

    def refuse(_runtime: Runtime, deployment: Deployment) -> None:
        assert _runtime.show(deployment.model).system_prompt == "You are terse."
        raise RefusedError("parity 3 of 20")

    with pytest.raises(RefusedError, match="parity 3 of 20"):
        deploy(second, runtime, registry, check=refuse)
    assert [model.model for model in runtime.models()] == ["demo:r1"]
    assert runtime.active("demo") == "r1"
    assert registry.find("demo", "r2") is None

    deploy(second, runtime, registry, check=accept)
    assert runtime.active("demo") == "r2"
    assert runtime.show("demo").system_prompt == "You are terse."
    assert rollback("demo", runtime, registry).version == "r1"
    assert runtime.active("demo") == "r1"
    with pytest.raises(RefusedError, match="oldest version"):
        rollback("demo", runtime, registry)


def test_a_failed_check_of_a_registered_version_keeps_it(
    base_gguf: Path, runtime: EmbeddedRuntime, registry: Registry
) -> None:
    first, second = version_of(base_gguf, "r1"), version_of(base_gguf, "r2", "other")
    deploy(first, runtime, registry, check=accept)
    deploy(second, runtime, registry, check=accept)

    def interrupt(_runtime: Runtime, _deployment: Deployment) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(first, runtime, registry, check=interrupt)
    assert [model.model for model in runtime.models()] == ["demo:r1", "demo:r2"]
    assert runtime.active("demo") == "r2"


def test_old_versions_go_and_rollback_restores_a_lost_one(
    base_gguf: Path, runtime: EmbeddedRuntime, registry: Registry
) -> None:
    removed = [
        deploy(version_of(base_gguf, f"r{n}", f"system {n}"), runtime, registry, check=accept, keep=2).removed
        for n in range(1, 5)
    ]
    assert removed == [(), (), ("r1",), ("r2",)]
    assert [model.model for model in runtime.models()] == ["demo:r3", "demo:r4"]
    runtime.delete("demo:r3")
    assert rollback("demo", runtime, registry).version == "r3"
    assert runtime.show("demo").system_prompt == "system 3"


def test_a_latest_that_fell_behind_is_set_again(base_gguf: Path, runtime: EmbeddedRuntime, registry: Registry) -> None:
    first, second = version_of(base_gguf, "r1"), version_of(base_gguf, "r2", "other")
    deploy(first, runtime, registry, check=accept)
    deploy(second, runtime, registry, check=accept)
    runtime.activate("demo", "r1")
    assert not deploy(second, runtime, registry, check=accept).changed
    assert runtime.active("demo") == "r2"


def test_a_damaged_file_leaves_nothing(base_gguf: Path, tmp_path: Path, runtime: EmbeddedRuntime) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(base_gguf, copy)
    deployment = version_of(copy, "r1")
    with copy.open("r+b") as file:
        file.seek(90_000_000)
        file.write(b"damage")
    with pytest.raises(InputError, match=r"copy\.gguf has sha256 .*…, demo:r1 was made from b179c9523d0e…"):
        runtime.create(deployment)
    assert runtime.models() == []


def test_a_file_that_llama_cpp_refuses_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "no-such-architecture")
    writer.add_tensor("x", np.zeros(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(PrerequisiteError, match=r"llama.cpp could not load .*odd\.gguf with a context of 512 tokens"):
        LlamaServer(path, 512)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_on_another_disk_the_file_is_copied(base_gguf: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        runtime = EmbeddedRuntime(Path(folder), n_threads=1)
        runtime.create(version_of(base_gguf, "r1"))
        copied = Path(folder) / "demo" / "r1" / GGUF_FILE
        assert copied.stat().st_dev != base_gguf.stat().st_dev
        assert file_sha256(copied) == file_sha256(base_gguf)


def test_a_model_file_that_vanished_is_named(base_gguf: Path, tmp_path: Path, runtime: EmbeddedRuntime) -> None:
    runtime.create(version_of(base_gguf, "r1"))
    (tmp_path / "models" / "demo" / "r1" / GGUF_FILE).unlink()
    with pytest.raises(PrerequisiteError, match="deploy again"):
        runtime.greedy("demo:r1", "x", 1)


def test_auto_takes_the_embedded_runtime_where_no_ollama_answers(tmp_path: Path) -> None:
    settings = RuntimeSettings(ollama_host="127.0.0.1:9")
    chosen = choose_runtime(settings, Workspace(tmp_path))
    assert chosen.kind == "embedded"
    chosen.close()


def damage(path: Path, at: int = 90_000_000) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0xFF]))


def copied(base_gguf: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(base_gguf, copy)
    return copy


@pytest.mark.parametrize("at", [40_000_000, 90_000_000, 97_000_000])
def test_a_model_damaged_after_it_was_deployed_is_not_asked_and_made_again(
    base_gguf: Path, tmp_path: Path, runtime: EmbeddedRuntime, registry: Registry, at: int
) -> None:
    copy = copied(base_gguf, tmp_path)
    deployment = version_of(copy, "r1")
    deploy(deployment, runtime, registry, check=accept)
    damage(copy, at)  # the version's file is a hard link to it
    with pytest.raises(InputError, match=r"is not the file that demo:r1 was deployed with"):
        runtime.render("demo", CONVERSATIONS[1])
    with pytest.raises(InputError, match=r"copy\.gguf has sha256"):
        deploy(deployment, runtime, registry, check=accept)
    copy.unlink()
    shutil.copyfile(base_gguf, copy)
    assert deploy(deployment, runtime, registry, check=accept).changed
    assert runtime.render("demo", CONVERSATIONS[1]).n_tokens > 0


def test_a_file_that_was_only_touched_is_hashed_once(
    base_gguf: Path, tmp_path: Path, runtime: EmbeddedRuntime, registry: Registry
) -> None:
    copy = copied(base_gguf, tmp_path)
    deploy(version_of(copy, "r1"), runtime, registry, check=accept)
    record = tmp_path / "models/demo/r1/deployment.json"
    before = record.read_text()
    os.utime(copy, ns=(1, 1))
    assert runtime.is_whole("demo:r1")
    assert (after := record.read_text()) != before
    assert runtime.is_whole("demo:r1")
    assert record.read_text() == after


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"name": 3}', '{"name": "demo", "version": "r1", "stamp": {"size": 1}}']
)
def test_a_damaged_record_is_told_and_made_again(
    base_gguf: Path, tmp_path: Path, runtime: EmbeddedRuntime, registry: Registry, content: str
) -> None:
    deployment = version_of(base_gguf, "r1")
    deploy(deployment, runtime, registry, check=accept)
    (tmp_path / "models/demo/r1/deployment.json").write_text(content)
    assert runtime.models() == []
    with pytest.raises(InputError, match=r"deployment\.json is damaged: .* Next: make it again: ai-forge deploy"):
        runtime.render("demo", CONVERSATIONS[1])
    assert deploy(deployment, runtime, registry, check=accept).changed
    assert [model.model for model in runtime.models()] == ["demo:r1"]
    (tmp_path / "models/demo/r1/deployment.json").write_text(content)
    runtime.delete("demo:r1")
    assert not (tmp_path / "models/demo").exists()


def test_it_is_asked_from_several_threads_and_loads_once(loaded: EmbeddedRuntime) -> None:
    alone = "".join(loaded.chat("demo", CONVERSATIONS[1], max_tokens=6))
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(lambda: "".join(loaded.chat("demo", CONVERSATIONS[1], max_tokens=6))) for _ in range(6)]
        assert {answer.result(timeout=60) for answer in asked} == {alone}
    assert time.monotonic() - started < 30


def test_a_model_that_is_answering_is_not_taken_away_by_another(base_gguf: Path, runtime: EmbeddedRuntime) -> None:
    for version in ("r1", "r2"):
        runtime.create(version_of(base_gguf, version, f"system {version}"))
    answer = runtime.chat("demo:r1", CONVERSATIONS[1], max_tokens=20)
    begun = next(answer)
    assert "system r2" in str(runtime.render("demo:r2", CONVERSATIONS[1]).text)
    assert begun + "".join(answer)


def test_closing_ends_an_answer_that_is_on_its_way(base_gguf: Path, runtime: EmbeddedRuntime) -> None:
    runtime.create(version_of(base_gguf, "r1", ""))
    answer = runtime.chat("demo:r1", CONVERSATIONS[1], max_tokens=500)
    next(answer)
    runtime.close()
    with pytest.raises(TransientError):
        list(answer)
    assert runtime.render("demo:r1", CONVERSATIONS[1]).n_tokens > 0  # it is loaded again where it is asked again


def test_answers_are_compared_with_the_trainers(base_gguf: Path, runtime: EmbeddedRuntime, registry: Registry) -> None:
    deployment = version_of(base_gguf, "r1", "")
    runtime.create(deployment)
    prompts = [str(runtime.render("demo:r1", chat).text) for chat in CONVERSATIONS[:3]]
    right = [ExpectedAnswer(prompt, runtime.greedy("demo:r1", prompt, 12).text) for prompt in prompts]
    wrong = [ExpectedAnswer(prompt, "zebra zebra zebra") for prompt in prompts]
    with pytest.raises(RefusedError, match=r"demo:r1 answers 1 of 3 prompts as its file did before; it begins with"):
        deploy(deployment, runtime, registry, check=accept, expected=[right[0], *wrong[1:]])
    assert registry.active("demo") is None
    assert deploy(deployment, runtime, registry, check=accept, expected=[*right[:2], wrong[2]]).changed
