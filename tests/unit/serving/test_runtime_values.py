import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.serving import RenderedPrompt, deployment_from_gguf, prompt_difference
from ai_forge.serving.ollama_http import ollama_url
from ai_forge.serving.ollama_runtime import modelfile_for


def make(gguf: Path, name: str = "demo", version: str = "r1", **settings: object):
    return deployment_from_gguf(
        name,
        version,
        gguf,
        system_prompt="Be brief.",
        settings=RuntimeSettings(**settings),
        base="SmolLM2",
        gguf_sha256="0" * 64,
    )


def test_importing_the_part_loads_neither_llama_cpp_nor_torch() -> None:
    code = (
        "import sys, ai_forge.serving as c; c.choose_runtime; c.Registry\n"
        "assert not {'xllamacpp', 'torch'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_template_and_stop_words_come_from_the_file(base_gguf: Path) -> None:
    deployment = make(base_gguf)
    assert deployment.model == "demo:r1"
    assert "<|im_start|>" in deployment.chat_template
    assert deployment.stop == ("<|im_end|>", "<|im_start|>")


@pytest.mark.parametrize("name", ["", "a b", "../up", "a:b", "-x", "latest", "x" * 81])
def test_names_that_a_path_or_a_tag_cannot_hold_are_refused(base_gguf: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a model name"):
        make(base_gguf, name=name)
    with pytest.raises(InputError, match="cannot be a version"):
        make(base_gguf, version=name)


def test_a_context_longer_than_the_models_is_refused(base_gguf: Path) -> None:
    with pytest.raises(InputError, match=r"num_ctx is 9000; .* was made for at most 8192.*NUM_CTX=8192"):
        make(base_gguf, num_ctx=9000)


def test_a_missing_or_changed_file_is_named(base_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"none\.gguf is missing"):
        make(tmp_path / "none.gguf")
    deployment = make(base_gguf)
    with pytest.raises(InputError, match="has sha256 b179c9523d0e…, demo:r1 was made from 000000000000…"):
        deployment.check_file()
    with pytest.raises(PrerequisiteError, match="of demo:r1 is missing"):
        dataclasses.replace(deployment, gguf_path=tmp_path / "gone.gguf").check_file()


def test_a_cut_off_file_is_refused(base_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with base_gguf.open("rb") as whole:
        cut.write_bytes(whole.read(20_000_000))
    with pytest.raises(InputError, match="cut"):
        make(cut)


def test_a_template_that_ollama_cannot_follow_leaves_the_end_token(base_gguf: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.gguf"
    template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    raw = base_gguf.read_bytes()
    start = raw.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template") + 4
    length = int.from_bytes(raw[start : start + 8], "little")
    odd.write_bytes(raw[: start + 8] + template.ljust(length).encode() + raw[start + 8 + length :])
    assert make(odd).stop == ("<|im_end|>",)


def test_the_modelfile_says_what_the_deployment_says(base_gguf: Path) -> None:
    text = modelfile_for(make(base_gguf, num_ctx=2048, temperature=0.5))
    assert "PARAMETER num_ctx 2048" in text
    assert "PARAMETER temperature 0.5" in text
    assert 'SYSTEM """Be brief."""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text


def test_the_prompts_difference_is_told_in_words() -> None:
    assert prompt_difference(RenderedPrompt("abc", 3), "abc", 3) is None
    assert prompt_difference(RenderedPrompt(None, 3), "abc", 3) is None
    assert prompt_difference(RenderedPrompt("bc", 3), "abc", 3) is None  # the begin token is added by the tokeniser
    assert "character 1 on: 'xc' instead of 'bc'" in str(prompt_difference(RenderedPrompt("axc", 3), "abc", 3))
    assert "character 3 on: '' instead of 'de'" in str(prompt_difference(RenderedPrompt("abc", 3), "abcde", 5))
    assert "has 4 tokens, the trainer's 3" in str(prompt_difference(RenderedPrompt("abc", 4), "abc", 3))
    assert "has 12 tokens, the trainer's 31" in str(prompt_difference(RenderedPrompt(None, 12), "abc", 31))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:1234", "http://127.0.0.1:1234"),
        ("box", "http://box:11434"),
        ("https://box/", "https://box:443"),
        ("[::]:99", "http://[::1]:99"),
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(text: str, url: str) -> None:
    assert ollama_url(text) == url


@pytest.mark.parametrize("text", ["http://box:port", "ftp://box", "box:99999"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not an address of Ollama"):
        ollama_url(text)
