"""What is asked of Ollama and what is made of its answers, against a local server of the same form.

The real Ollama is asked in `tests/integration/test_ollama_runtime.py`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.conductor.ollama_manager import (
    check_ollama_status,
    create_ollama_model,
    get_active_model,
    list_ollama_models,
    main,
    query_model,
    set_active_model,
)
from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import InputError, RefusedError, TransientError
from ai_forge.model_files.gguf.writer import write_gguf
from ai_forge.serving import Deployment, OllamaRuntime, Registry, deploy, deployment_from_gguf, rollback
from local_ollama import LocalOllama, local_ollama
from tiny_models import make_tiny

SETTINGS = RuntimeSettings(num_ctx=512, num_predict=16, temperature=0.5, top_k=7)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ollama")
    return write_gguf(make_tiny(folder / "m"), folder / "m.gguf")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalOllama]:
    with local_ollama() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        monkeypatch.setenv("AI_FORGE_HOME", str(tmp_path / "home"))
        yield server


@pytest.fixture
def runtime(server: LocalOllama) -> Iterator[OllamaRuntime]:
    runtime = OllamaRuntime(server.host)
    yield runtime
    runtime.close()


def version_of(gguf: Path, version: str, system: str = "Be brief.") -> Deployment:
    return deployment_from_gguf("demo", version, gguf, system_prompt=system, settings=SETTINGS, base="tiny")


def test_a_model_is_created_with_everything_named(runtime: OllamaRuntime, server: LocalOllama, gguf: Path) -> None:
    steps: list[str] = []
    runtime.create(version_of(gguf, "r1"), lambda what, _done, _total: steps.append(what))
    path, body = server.asked[-1]
    assert path == "/api/create"
    assert body["model"] == "demo:r1"
    assert body["system"] == "Be brief."
    assert body["template"].startswith('{{ $before := "" }}')
    assert body["parameters"] == {
        "num_ctx": 512, "num_predict": 16, "temperature": 0.5, "top_k": 7, "top_p": 0.9,
        "stop": ["<|im_end|>", "<|im_start|>"], "repeat_penalty": 1.0, "min_p": 0.0,
    }  # fmt: skip
    assert steps[0] == "checking the model file"
    assert "sending the model file to Ollama" in steps
    assert steps[-1] == "Ollama: success"
    runtime.create(version_of(gguf, "r2"), lambda what, _done, _total: steps.append(f"again: {what}"))
    assert "again: sending the model file to Ollama" not in steps  # Ollama has the bytes


def test_versions_move_and_roll_back(runtime: OllamaRuntime, gguf: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.db") as registry:
        for version in ("r1", "r2"):
            deploy(version_of(gguf, version, f"system {version}"), runtime, registry, check=lambda *_: None)
        assert runtime.active("demo") == "r2"
        assert [model.model for model in runtime.models()] == ["demo:latest", "demo:r1", "demo:r2"]
        assert rollback("demo", runtime, registry).version == "r1"
        assert runtime.active("demo") == "r1"

        def refuse(*_: object) -> None:
            raise RefusedError("no")

        with pytest.raises(RefusedError):
            deploy(version_of(gguf, "r3", "other"), runtime, registry, check=refuse)
        assert runtime.active("demo") == "r1"
        assert not runtime.is_whole("demo:r3")


def test_an_answer_comes_in_pieces_and_is_never_cut(runtime: OllamaRuntime, server: LocalOllama, gguf: Path) -> None:
    runtime.create(version_of(gguf, "r1"))
    pieces = list(runtime.chat("demo:r1", [{"role": "user", "content": "a b c"}], max_tokens=3, seed=1))
    assert pieces == ["a", "b", "c"]
    body = server.asked[-1][1]
    assert body["truncate"] is False
    assert body["options"] == {"num_predict": 3, "seed": 1}
    with pytest.raises(InputError, match="The prompt has 2000 tokens; the model was deployed with a context of 1024"):
        list(runtime.chat("demo:r1", [{"role": "user", "content": "x" * 2000}]))


def test_prompts_are_read_back_and_continued_raw(runtime: OllamaRuntime, server: LocalOllama, gguf: Path) -> None:
    runtime.create(version_of(gguf, "r1"))
    rendered = runtime.render("demo:r1", [{"role": "user", "content": "hello"}])
    assert (rendered.text, rendered.n_tokens) == ("<hello>", 5)
    completion = runtime.greedy("demo:r1", "abc", 4)
    assert (completion.text, completion.n_prompt_tokens, completion.n_tokens, completion.token_ids) == (
        "cba",
        3,
        3,
        None,
    )
    body = server.asked[-1][1]
    assert (body["raw"], body["options"]) == (True, {"num_predict": 4, "temperature": 0, "stop": []})
    assert runtime.tokenize("demo:r1", "abc") is None


def test_a_model_is_shown_in_full(runtime: OllamaRuntime, gguf: Path) -> None:
    runtime.create(version_of(gguf, "r1"))
    shown = runtime.show("demo:r1")
    assert shown.size_bytes == gguf.stat().st_size
    assert shown.system_prompt == "Be brief."
    assert shown.parameters["stop"] == '"<|im_end|>", "<|im_start|>"'
    runtime.delete("demo:r1")
    runtime.delete("demo:r1")
    with pytest.raises(InputError, match="has no model 'demo:r1'"):
        runtime.show("demo:r1")


@pytest.mark.parametrize(
    ("question", "message"),
    [("it fails", None), ("fails here", "llama runner process has terminated"), ("it stops", "ended in the middle")],
)
def test_an_answer_that_breaks_off_is_worth_a_retry(
    runtime: OllamaRuntime, gguf: Path, question: str, message: str | None
) -> None:
    runtime.create(version_of(gguf, "r1"))
    answer = runtime.chat("demo:r1", [{"role": "user", "content": question}])
    if message is None:
        assert list(answer) == ["it", "fails"]
        return
    with pytest.raises(TransientError, match=message):
        list(answer)


def test_the_functions_keep_their_contract(server: LocalOllama, gguf: Path) -> None:
    assert bool(check_ollama_status()) is True
    assert list_ollama_models() == []
    assert create_ollama_model("senior-dev", gguf, "You are terse.") is True
    assert list_ollama_models() == ["senior-dev:latest"]
    assert server.models["senior-dev:latest"]["parameters"]["num_ctx"] == 512  # the file's own, below the default
    assert get_active_model() == ""
    assert set_active_model("senior-dev") is True
    assert get_active_model() == "senior-dev:latest"
    assert query_model("senior-dev", "say hi") == "sayhi"
    assert server.asked[-1][1]["options"] == {"temperature": 0.7}
    query_model("senior-dev", "say hi", 0.1)
    assert server.asked[-1][1]["options"] == {"temperature": 0.1}
    OllamaRuntime(server.host).delete("senior-dev:latest")
    assert get_active_model() == ""


def test_another_ollama_has_another_active_model(server: LocalOllama, gguf: Path) -> None:
    create_ollama_model("one", gguf)
    set_active_model("one")
    with local_ollama() as other:
        assert get_active_model(host=other.host) == ""
        create_ollama_model("two:5", gguf, host=other.host)
        set_active_model("two:5", other.host)
        assert get_active_model(host=other.host) == "two:5"
        assert get_active_model("two", other.host) == "two:5"
    assert get_active_model() == "one:latest"


def test_the_commands_print_one_line(server: LocalOllama, gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "m", str(gguf)]) == 0
    assert main(["list"]) == 0
    assert main(["query", "m", "say hi"]) == 0
    assert capsys.readouterr().out == "created m\nm:latest\nsayhi\n"
    assert main(["activate", "nobody"]) == 2
    assert capsys.readouterr().err.startswith(f"Ollama at {server.host} has no model 'nobody'")
    assert main(["--host", "127.0.0.1:1", "status"]) == 3
