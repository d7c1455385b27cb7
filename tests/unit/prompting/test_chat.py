"""Prompts equal transformers' `apply_chat_template`; templates are untrusted."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ai_forge.errors import InputError
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.gguf.writer import check_exportable, write_gguf
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.chat_templates import JINJA
from ai_forge.prompting.prompt import Message, messages_for
from tiny_models import CHATML, make_tiny, with_gemma_tokenizer
from tiny_training import raft_examples

LLAMA3 = """{{- bos_token }}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if tools is not none %}
    {{- "Environment: ipython" }}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
BREAKING = """{% for message in messages %}
    {% if loop.index > 2 %}{% break %}{% endif %}
{{ message | tojson }}{{ unk_token }}
{% endfor %}"""
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "breaking": BREAKING, **{f"ours {k}": v for k, v in JINJA.items()}}


def chats() -> list[list[Message]]:
    example, other = raft_examples(2)
    return [
        [{"role": "user", "content": "  Hi <b>there</b> & “you”\n\n"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ähm\tπ 日本"}],
        [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "<|im_end|> in the text"},
        ],
        messages_for(example.question, example.shown_documents, [other]),
    ]


def with_template(folder: Path, template: Any) -> Path:
    make_tiny(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return folder


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_equal_transformers(tmp_path: Path, name: str) -> None:
    folder = with_template(tmp_path, TEMPLATES[name])
    ours, theirs = ChatTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for chat in chats():
        expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert ours.render(chat) == expected
        assert ours.encode_prompt(chat) == theirs(expected, add_special_tokens=False)["input_ids"]


def test_prompts_of_smollm2_equal_transformers(smollm2: Base) -> None:
    ours, theirs = ChatTokenizer(smollm2.folder), AutoTokenizer.from_pretrained(smollm2.folder)
    for chat in chats():
        expected = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert ours.encode_prompt(chat) == expected
    assert ours.end_of_turn == theirs.eos_token
    assert ours.end_of_turn_id == theirs.eos_token_id


GENERATION = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ 'A: ' + m['content'] }}{% endgeneration %}\n{% else %}{{ 'Q: ' + m['content'] }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
TRIMMED = """{%- for m in messages %}
    {%- if m['role'] == 'assistant' %}
        {%- generation -%}
        {{ m['content'] | trim }}{% set ended = true %}
        {%- endgeneration -%}
    {%- else %}{{- m['role'] ~ ': ' ~ m['content'] }}
    {%- endif %}{{ 'never' if ended }}
{%- endfor %}"""
NESTED = (
    "{% set turns = namespace(n=0) %}{% for m in messages %}{% generation %}{% if m.role == 'user' %}"
    "{% set turns.n = turns.n + 1 %}{{ turns.n }}) {% endif %}{{ m.content }};{% endgeneration %}{% endfor %}{{ turns.n }}"
)


@pytest.mark.parametrize("template", [GENERATION, TRIMMED, NESTED])
def test_marks_of_the_assistants_tokens_are_rendered_as_transformers_does(tmp_path: Path, template: str) -> None:
    folder = with_template(tmp_path / "a", template)
    ours, theirs = ChatTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for chat in chats():
        assert ours.render(chat) == theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("template", [GENERATION, NESTED])
def test_marks_of_the_assistants_tokens_pass_the_check_before_training(tmp_path: Path, template: str) -> None:
    check_exportable(with_template(tmp_path / "a", template))


def test_a_template_that_llama_cpp_renders_otherwise_is_refused_before_training(tmp_path: Path) -> None:
    """What is set inside the marks is seen after them in llama.cpp, not in transformers."""
    with pytest.raises(InputError, match=r"llama\.cpp makes another prompt .* with the roles user, assistant, user"):
        check_exportable(with_template(tmp_path / "a", TRIMMED))


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "template": f"{name}: {CHATML}"} for name in names]


@pytest.mark.parametrize(
    "template", [named("default"), named("tool_use", "default", "rag"), {"default": "d", "rag": "r"}]
)
def test_of_several_templates_the_default_counts(tmp_path: Path, template: Any) -> None:
    folder = with_template(tmp_path / "a", template)
    chat: list[Message] = [{"role": "user", "content": "x"}]
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )
    assert ChatTokenizer(folder).render(chat) == expected
    known = {row["name"]: row["template"] for row in template} if isinstance(template, list) else template
    written = read_gguf(write_gguf(folder, tmp_path / "a.gguf")).metadata["tokenizer.chat_template"]
    assert written == known["default"]


SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
TOKEN_AS_OBJECT = {
    "content": "<|im_start|>",
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
}


@pytest.mark.parametrize(
    ("settings", "mapped"),
    [
        ({}, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
        ({}, {"bos_token": TOKEN_AS_OBJECT, "pad_token": "<|endoftext|>"}),
        ({"bos_token": "<|endoftext|>"}, {"bos_token": "<|im_start|>"}),
        ({"eos_token": "<|im_end|>", "added_tokens_decoder": {"0": TOKEN_AS_OBJECT | {"content": "<|endoftext|>"}}},
         {"bos_token": "<|im_start|>"}),
        ({"eos_token": {"__type": "AddedToken"} | TOKEN_AS_OBJECT}, None),
        ({"tokenizer_class": "Qwen2Tokenizer"}, None),
        ({"tokenizer_class": "GPT2TokenizerFast"}, {"pad_token": "<|im_end|>"}),
        ({"tokenizer_class": "LlamaTokenizerFast"}, None),
    ],
)  # fmt: skip
def test_special_tokens_are_those_that_transformers_reads(tmp_path: Path, settings: Any, mapped: Any) -> None:
    folder = make_tiny(tmp_path / "a")
    written = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ bos_token }}|{{ eos_token }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(written | settings))
    if mapped is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(mapped))
    theirs, ours = AutoTokenizer.from_pretrained(folder), ChatTokenizer(folder)
    assert [ours.special(name) for name in SPECIAL_TOKENS] == [getattr(theirs, name) or "" for name in SPECIAL_TOKENS]
    metadata = read_gguf(write_gguf(folder, tmp_path / "a.gguf")).metadata
    if theirs.bos_token:
        assert metadata["tokenizer.ggml.bos_token_id"] == theirs.bos_token_id
    if theirs.eos_token:
        assert metadata["tokenizer.ggml.eos_token_id"] == theirs.eos_token_id


def test_a_broken_map_of_special_tokens_names_the_file(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    (folder / "special_tokens_map.json").write_text("[1]")
    with pytest.raises(InputError, match=r"special_tokens_map\.json is not a JSON object"):
        ChatTokenizer(folder)


def test_the_template_file_wins_over_the_config(tmp_path: Path) -> None:
    folder = with_template(tmp_path, "old")
    (folder / "chat_template.jinja").write_text("new {{ messages[0]['content'] }}")
    assert ChatTokenizer(folder).render([{"role": "user", "content": "x"}]) == "new x"


def test_text_survives_encoding_and_decoding(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(make_tiny(tmp_path))
    text = "def f(x):\n    return x * 1234  # π 日本\n"
    assert tokenizer.decode([*tokenizer.encode(text), tokenizer.end_of_turn_id]) == text


@pytest.mark.parametrize("template", [None, 3, [], [{"name": "tool_use", "template": CHATML}], [CHATML], {"rag": "x"}])
def test_a_base_without_a_template_is_refused(tmp_path: Path, template: Any) -> None:
    folder = with_template(tmp_path, template)
    with pytest.raises(InputError) as caught:
        ChatTokenizer(folder)
    assert str(caught.value) == (
        f"The base in {folder} has no chat template, so there is no right way to ask it. "
        "Next: choose the instruct version of the base."
    )


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_missing_or_broken_tokenizer_names_the_folder(tmp_path: Path, name: str, content: str | None) -> None:
    folder = make_tiny(tmp_path)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"^The tokenizer in {folder} cannot be read: "):
        ChatTokenizer(folder)


def test_a_template_that_refuses_system_messages_gives_way_to_its_familys(tmp_path: Path) -> None:
    folder = with_gemma_tokenizer(make_tiny(tmp_path))
    chat = ChatTokenizer(folder)
    user: list[Message] = [{"role": "user", "content": "Say hi."}]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    assert chat.render(user) == theirs
    assert chat.render([{"role": "system", "content": "Be brief."}, *user]) == theirs.replace("Say", "Be brief.\n\nSay")
    assert (chat.end_of_turn, chat.special("eos_token")) == ("<end_of_turn>", "<eos>")
    assert chat.prompts_begin_with_bos()
    assert chat.replaced == "gemma"


def test_a_template_of_no_known_family_stays_though_it_refuses(tmp_path: Path) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}Q: {{ messages[0]['content'] }}"
    )
    chat = ChatTokenizer(with_template(tmp_path, refusing))
    assert chat.chat_template == refusing
    assert chat.replaced is None
    with pytest.raises(InputError, match="cannot render the chat: no"):
        chat.render([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])


def test_what_a_template_writes_as_plain_text_ends_no_turn(tmp_path: Path) -> None:
    chat = ChatTokenizer(with_template(tmp_path, "{% for m in messages %}{{ m['content'] }}<|eom_id|>{% endfor %}"))
    assert chat.end_of_turn == chat.special("eos_token")
    assert chat.end_of_turn_id is not None


def test_an_end_of_turn_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"eos_token": "<|nowhere|>", "chat_template": "{{ eos_token }}"})
    )
    with pytest.raises(InputError, match=r"^The base's end-of-turn token '<\|nowhere\|>' is not in its vocabulary"):
        _ = ChatTokenizer(folder).end_of_turn_id


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{{ ('{0.__class__}').format(messages) }}",
    ],
)
def test_a_hostile_template_reaches_nothing(tmp_path: Path, template: str) -> None:
    folder = with_template(tmp_path, template)
    try:
        rendered = ChatTokenizer(folder).render([{"role": "user", "content": "x"}])
    except InputError as error:
        assert error.message.startswith("The base's chat template cannot render the chat: ")  # noqa: PT017
    else:
        assert rendered == ""  # undefined, not reached


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Only user turns!') }}", "Only user turns!"),
        ("{% for", "unexpected"),
        ("{{ a.b.c }}", "'a' is undefined"),
    ],
)
def test_a_template_that_fails_is_the_bases_fault(tmp_path: Path, template: str, reason: str) -> None:
    tokenizer = ChatTokenizer(with_template(tmp_path, template))
    with pytest.raises(InputError) as caught:
        tokenizer.render([{"role": "user", "content": "x"}])
    assert caught.value.message.startswith("The base's chat template cannot render the chat: ")
    assert reason in caught.value.message
