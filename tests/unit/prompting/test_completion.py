"""How a model is asked to complete: with its own tokens, or in a chat; and what is kept of what it writes."""

import pytest

from ai_forge.data_pipeline.schemas import Document
from ai_forge.prompting.completion import (
    MISSING,
    PREFIX_CHARACTERS,
    SUFFIX_CHARACTERS,
    FimTokens,
    completion_chat,
    completion_opening,
    fim_prompt,
    trimmed,
)

QWEN = {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>"}
SHOWN = Document(block_id="1", name="g", citation="b.py:1-2", language="python", text="def g(): ...", path="b.py")


def test_the_bases_own_tokens_are_used_and_none_where_one_is_missing() -> None:
    fim = FimTokens.of(QWEN.__contains__)
    assert fim is not None
    assert fim_prompt(fim, "a.py", "x = ", "\ny", [SHOWN]) == (
        "<|file_sep|>b.py\ndef g(): ...\n<|file_sep|>a.py\n<|fim_prefix|>x = <|fim_suffix|>\ny<|fim_middle|>"
    )
    plain = FimTokens.of((QWEN - {"<|file_sep|>"}).__contains__)
    assert plain is not None
    assert fim_prompt(plain, "a.py", "x = ", "\ny", [SHOWN]).startswith(
        "<|fim_prefix|>def g(): ...\n\nx = <|fim_suffix|>"
    )
    assert FimTokens.of((QWEN - {"<|fim_middle|>"}).__contains__) is None
    assert FimTokens.of(lambda text: False) is None


def test_a_chat_shows_the_mark_and_begins_the_answer() -> None:
    _, user = completion_chat("a.py", "python", "x = 1\ny = ", "\nz", [SHOWN])
    assert f"`a.py`:\n```python\nx = 1\ny = {MISSING}\nz\n```" in user["content"]
    assert user["content"].startswith("`g` [b.py:1-2]")
    assert completion_opening("python", "x = 1\n    y = ") == "```python\n    y = "


def test_long_files_are_cut_at_lines() -> None:
    prefix, suffix = "".join(f"line_{n}\n" for n in range(900)), "".join(f"\nrow_{n}" for n in range(900))
    _, user = completion_chat("a.py", "python", prefix, suffix)
    before, _, after = user["content"].partition(MISSING)
    assert len(before) < PREFIX_CHARACTERS + 100
    assert len(after) < SUFFIX_CHARACTERS + 200
    assert before.splitlines()[2].startswith("line_")
    assert before.splitlines()[-1] == "line_899"


@pytest.mark.parametrize(
    ("written", "suffix", "one_line", "kept"),
    [
        ("value)\nmore", ")\n", True, "value"),
        ("value, other", "\n", True, "value, other"),
        ("return a\n    return b\n```\nSo.", "\n\n", False, "return a\n    return b"),
        ("a = 1\nb = 2\nc = 3", "\nc = 3\n", False, "a = 1\nb = 2"),
        ("", ")", True, ""),
        ("x", "", False, "x"),
    ],
)
def test_what_stands_there_already_is_cut_off(written: str, suffix: str, one_line: bool, kept: str) -> None:
    assert trimmed(written, suffix, one_line=one_line) == kept
