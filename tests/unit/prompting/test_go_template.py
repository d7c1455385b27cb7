import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from ai_forge.errors import InputError
from ai_forge.judge.exporter import convert_to_gguf, create_ollama_modelfile
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.prompting.chat_templates import JINJA, alpaca_jinja, family_of
from ai_forge.prompting.go_template import _render, pieces_of
from ai_forge.training.bases.resolve import resolve_base
from real_ollama import OllamaProcess
from tiny_models import CHATML, make_tiny

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN = (
    "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}{% if message.role != 'system' %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALKS: list[list[tuple[str, str]]] = [
    [("user", "Say hi.")],
    [("system", "Cite your sources."), ("user", "What is x?\n\n```python\nx = {'a': {{1}}}\n```")],
    [("user", "a"), ("assistant", "b"), ("user", "c")],
    [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
]


@pytest.mark.parametrize(
    "jinja",
    [CHATML, LLAMA3, QWEN, *JINJA.values(), alpaca_jinja(with_bos=True), alpaca_jinja(with_bos=False)],
    ids=["chatml", "llama3", "qwen", *JINJA, "alpaca-bos", "alpaca"],
)
def test_the_pieces_render_what_the_jinja_renders(jinja: str) -> None:
    pieces = pieces_of(jinja, "<|bos|>", "<|eos|>", "<|bos|>")
    for talk in TALKS:
        assert pieces.render(talk) == _render(jinja, talk, "<|bos|>", "<|eos|>").removeprefix("<|bos|>")


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        ("{{ messages[0]['content'] }}", "leaves out a message"),
        ("{{ messages|length }}" + CHATML, "which a Go template made of its pieces"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{% for", "cannot be rendered"),
        ("{{ ''.__class__.__mro__ }}", "cannot be rendered|leaves out"),
    ],
)
def test_templates_that_no_go_template_follows_are_refused(jinja: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pieces_of(jinja, "", "", "")


def test_a_template_of_neither_family_is_refused() -> None:
    with pytest.raises(InputError, match=r"of no known family \(chatml: "):
        family_of("### Instruction:")


def test_smollm2s_default_system_message_is_in_the_go_template(smollm2: Base, tmp_path: Path) -> None:
    prompt = ollama_prompt(convert_to_gguf(smollm2, tmp_path / "m.gguf", "f16"))
    assert "You are a helpful AI assistant named SmolLM, trained by Hugging Face" in prompt.template
    assert prompt.stop == ("<|im_end|>", "<|im_start|>")


def test_a_gguf_without_template_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="has no chat template"):
        ollama_prompt(convert_to_gguf(folder, tmp_path / "a.gguf", "f16"))


# -- the real Ollama ------------------------------------------------------------------------------------------------


def _create(server: OllamaProcess, name: str, modelfile: str, folder: Path) -> None:
    path = folder / "Modelfile"
    path.write_text(modelfile)
    environment = os.environ | {"OLLAMA_HOST": server.host, "HOME": str(server.models_dir.parent)}
    command = ["ollama", "create", name, "-f", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def _rendered(server: OllamaProcess, name: str, talk: Sequence[tuple[str, str]]) -> str:
    messages = [{"role": role, "content": content} for role, content in talk]
    body = {"model": name, "messages": messages, "stream": False, "_debug_render_only": True}
    answer = httpx.post(f"{server.host}/api/chat", json=body, timeout=60.0)
    answer.raise_for_status()
    return str(answer.json()["_debug_info"]["rendered_template"])


@pytest.mark.ollama
@pytest.mark.parametrize(
    "jinja",
    [CHATML, LLAMA3, QWEN, JINJA["gemma"], JINJA["phi3"], JINJA["mistral"]],
    ids=["chatml", "llama3", "qwen", "gemma", "phi3", "mistral"],
)
def test_ollama_renders_what_the_jinja_renders(jinja: str, ollama_server: OllamaProcess, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": jinja}))
    gguf = convert_to_gguf(folder, tmp_path / "m.gguf", "f16")
    _create(ollama_server, "tiny", create_ollama_modelfile("tiny", gguf, num_ctx=512), tmp_path)
    for talk in TALKS:
        assert _rendered(ollama_server, "tiny", talk) == _render(jinja, talk, "<|im_start|>", "<|im_end|>")


@pytest.mark.ollama
@pytest.mark.slow
def test_ollama_serves_smollm2_and_gives_it_back(smollm2: Base, ollama_server: OllamaProcess, tmp_path: Path) -> None:
    """Created from our q4_k_m with a system text, asked, and read back as `ollama:NAME` from the store."""
    gguf = convert_to_gguf(smollm2, tmp_path / "m.gguf", "q4_k_m")
    system = "You answer in one word."
    _create(ollama_server, "smol", create_ollama_modelfile("smol", gguf, system, temperature=0.0), tmp_path)
    assert smollm2.chat_template is not None
    for talk in TALKS:
        full = talk if talk[0][0] == "system" else [("system", system), *talk]
        assert _rendered(ollama_server, "smol", talk) == _render(
            smollm2.chat_template, full, "<|im_start|>", "<|im_end|>"
        )
    question = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": "smol", "messages": question, "stream": False}
    answer = httpx.post(f"{ollama_server.host}/api/chat", json=body, timeout=120.0).json()
    assert "Paris" in answer["message"]["content"]
    back = resolve_base("ollama:smol", cache_dir=tmp_path / "cache", ollama_models_dir=ollama_server.models_dir)
    assert (back.origin.kind, back.origin.quantization, back.n_parameters) == ("ollama", "Q5_0", 134_515_008)
    assert back.origin.notes["system"] == system
    assert back.chat_template == smollm2.chat_template
