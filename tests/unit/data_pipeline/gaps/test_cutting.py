"""What is taken out of a file: whole pieces, of written lines, in several languages, none over another."""

from itertools import pairwise

import pytest

from ai_forge.data_pipeline.gaps.cutting import Gap, changed_lines, chosen, gaps_in

PYTHON = '''import os
from pathlib import Path


def load(path, retries=3):
    """Read it."""
    for attempt in range(retries):
        # comments are no task
        content = path.read_text(encoding="utf-8")
        if content:
            return content.strip()
    raise OSError(path, "was empty")
'''
GO = "package a\n\nfunc Load(n int) error {\n\tif n > limitOfAll {\n\t\treturn errTooMany\n\t}\n\treturn save(n, limitOfAll)\n}\n"
TYPESCRIPT = (
    "export function load(n: number): string {\n  const text = read(n, defaultEncoding);\n  return text.trim();\n}\n"
)
JAVA = "class A {\n  int load(int n) {\n    int twice = doubled(number, factor);\n    return twice + offset;\n  }\n}\n"


def texts(gaps: list[Gap], kind: str) -> list[str]:
    return [gap.text for gap in gaps if gap.kind == kind]


def test_pieces_are_whole_nodes_and_put_together_they_are_the_file() -> None:
    gaps = gaps_in("a.py", "python", PYTHON)
    assert all(gap.prefix + gap.text + gap.suffix == PYTHON for gap in gaps)
    assert 'content = path.read_text(encoding="utf-8")' in texts(gaps, "line")
    assert 'encoding="utf-8"' in texts(gaps, "arguments")
    assert "return content.strip()" in texts(gaps, "block") + texts(gaps, "line")
    (body,) = texts(gaps, "body")
    assert body.startswith('"""Read it."""\n    for attempt')
    assert body.endswith('"was empty")')
    assert not any("import" in gap.text or gap.text.startswith("#") for gap in gaps)


@pytest.mark.parametrize(
    ("language", "text", "kinds"),
    [
        ("go", GO, {"arguments", "body", "line"}),
        ("typescript", TYPESCRIPT, {"arguments", "body", "line"}),
        ("java", JAVA, {"arguments", "body", "line"}),
    ],
)
def test_other_languages_have_the_same_pieces(language: str, text: str, kinds: set[str]) -> None:
    gaps = gaps_in("a", language, text)
    assert kinds <= {gap.kind for gap in gaps}
    assert all(gap.prefix + gap.text + gap.suffix == text and gap.text == gap.text.strip() for gap in gaps)


def test_only_what_was_written_is_taken() -> None:
    before = PYTHON.replace('    raise OSError(path, "was empty")\n', "    return None\n")
    lines = changed_lines(before, PYTHON)
    assert lines == {11}
    gaps = gaps_in("a.py", "python", PYTHON, lines, "c" * 40)
    assert {gap.text for gap in gaps} == {'raise OSError(path, "was empty")', 'path, "was empty"'}
    assert {gap.commit for gap in gaps} == {"c" * 40}
    assert gaps_in("a.py", "python", PYTHON, frozenset()) == []


def test_characters_of_several_bytes_are_not_cut() -> None:
    text = 'def f():\n    shown = "größer als 日本"\n    return tell("größer", shown)\n'
    gaps = gaps_in("a.py", "python", text)
    assert gaps
    assert all(gap.prefix + gap.text + gap.suffix == text for gap in gaps)


def test_short_and_long_pieces_are_no_task() -> None:
    text = "def f():\n    a = 1\n" + "    total = call(first, second)\n" * 60
    gaps = gaps_in("a.py", "python", text)
    assert {gap.kind for gap in gaps} == {"line", "arguments"}  # the body has more than 1,000 bytes
    assert "a = 1" not in {gap.text for gap in gaps}


def test_broken_code_is_cut_where_it_is_whole() -> None:
    gaps = gaps_in("a.py", "python", "def f(:\n    pass pass\n\n\ndef g():\n    return joined(one, two)\n")
    assert all("pass" not in gap.text for gap in gaps)


def test_chosen_ones_do_not_overlap_and_are_spread() -> None:
    every = [gap for n in range(5) for gap in gaps_in(f"a{n}.py", "python", PYTHON)]
    picked = chosen(every, 12, per_file=3, seed=1)
    assert 5 < len(picked) <= 12
    assert {gap.kind for gap in picked} >= {"line", "arguments", "body"}
    for path in {gap.path for gap in picked}:
        spans = sorted((len(g.prefix), len(g.prefix) + len(g.text)) for g in picked if g.path == path)
        assert len(spans) <= 3
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert chosen(every, 12, per_file=3, seed=1) == picked
    assert chosen([], 5) == []
