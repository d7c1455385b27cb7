"""JSON lines: a row holds any text, and a line ends with a line feed alone."""

import random
import sys
import unicodedata
from pathlib import Path

import pytest
from pydantic import BaseModel

from ai_forge.data_pipeline.datasets.formats import convert, read_dataset, write_records
from ai_forge.data_pipeline.validator import read_dataset as read_examples
from ai_forge.errors import InputError
from ai_forge.json_lines import json_line, lines_of, read_jsonl, write_jsonl
from tiny_training import raft_examples

LINE_ENDS = [chr(n) for n in range(sys.maxunicode + 1) if len(f"a{chr(n)}b".splitlines()) > 1] + ["\r\n"]


class Row(BaseModel):
    text: str


def test_every_line_end_of_unicode_is_tried() -> None:
    assert {"\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"} <= set(LINE_ENDS)


def test_rows_with_every_line_end_come_back(tmp_path: Path) -> None:
    draw = random.Random(1)
    separators = [chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) in ("Zl", "Zp", "Zs", "Cc")]
    alphabet = [*LINE_ENDS, *separators, "a", '"', "\\", "é", "😀"]
    rows = [Row(text="".join(draw.choices(alphabet, k=draw.randrange(30)))) for _ in range(500)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl", Row) == rows
    assert len(list(lines_of("".join(json_line(row.text) for row in rows)))) == len(rows)


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
def test_datasets_of_code_with_odd_line_ends_are_read(end: str, tmp_path: Path) -> None:
    example = raft_examples(1)[0]
    document = example.oracle_documents[0].model_copy(update={"text": f"x = 'a{end}b'"})
    example = example.model_copy(update={"oracle_documents": (document,), "question": f"What{end}is x?"})
    write_jsonl(tmp_path / "data.jsonl", [example, example])
    assert read_examples(tmp_path / "data.jsonl") == [example, example]
    assert read_dataset(tmp_path / "data.jsonl").records == (example, example)


def test_an_error_names_the_line_as_an_editor_counts_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a\u2028b"}\n\n{"text": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match="Line 3"):
        read_jsonl(tmp_path / "rows.jsonl", Row)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "chat.jsonl",
            '{"messages": [{"role": "user", "content": "\\ud83d?"}, {"role": "assistant", "content": "b"}]}',
        ),
        ("pairs.json", '[{"instruction": "half \\udc00", "input": "", "output": "\\ud800\\ud800"}]'),
        ("plain.jsonl", '{"text": "whole \\ud83d\\ude00, half \\ude00\\ud83d"}'),
    ],
)
def test_half_characters_are_replaced_and_told(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    dataset = read_dataset(tmp_path / name)
    assert any("lone surrogate" in loss and "1 records" in loss for loss in dataset.losses)
    write_records(tmp_path / "out.jsonl", convert(dataset, "text"))
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert "\ufffd" in written
    assert "😀" in written or name != "plain.jsonl"
