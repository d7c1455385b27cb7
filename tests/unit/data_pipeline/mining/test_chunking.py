"""Units that are too long, and the heads of files: parts are whole definitions, and nothing of a body is lost."""

import ast
import itertools

import pytest

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline import SourceFile, mine
from ai_forge.data_pipeline.mining.parsing import parse
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.data_pipeline.validator import validate_code_block

LONG = MinerSettings(max_tokens=120)
STATEMENTS = "".join(
    f"    # step {i}\n    if total > {i}:\n        total = total + weigh(values[{i}], by={i})\n\n" for i in range(12)
)
PYTHON = f'''@cached
def weigh_all(values, total=0):
    """Weigh all values."""
    if not values:
        raise ValueError("no values")
{STATEMENTS}
    @inner
    def last():
        return total
    return last()
'''
JAVASCRIPT = "/** Weigh all values. */\nfunction weighAll(values) {\n" + "".join(
    f"  if (values[{i}] > {i}) {{\n    total += weigh(values[{i}], {i});\n  }}\n" for i in range(12)
) + "}\n"  # fmt: skip
GO = "package a\n\n// WeighAll weighs.\nfunc WeighAll(values []int) int {\n" + "".join(
    f"\tif values[{i}] > {i} {{\n\t\ttotal += weigh(values[{i}], {i})\n\t}}\n" for i in range(12)
) + "\treturn total\n}\n"  # fmt: skip
RUST = "/// A scale.\nimpl Scale {\n}\n/// Weighs.\nmod scale {\n}\npub trait Weigh {\n" + "".join(
    f"    /// Step {i}.\n    #[inline]\n    fn step_{i}(&self, value: usize) -> usize;\n" for i in range(12)
) + "}\n"  # fmt: skip
RUBY = (
    "# Weighs.\nclass Scale < Base\n"
    + "".join(f"  validates :field_{i}, presence: true\n" for i in range(30))
    + "end\n"
)


def blocks(path: str, text: str, settings: MinerSettings = LONG) -> list[CodeBlock]:
    content = text.encode()
    return list(mine([SourceFile(path, content, blob_id(content))], settings).documents)


def test_a_long_function_is_cut_between_its_statements() -> None:
    parts = [block for block in blocks("a.py", PYTHON) if block.metadata.part]
    lines = PYTHON.splitlines()
    assert len(parts) > 3
    own: list[int] = []
    for number, part in enumerate(parts, start=1):
        meta = part.metadata
        assert (part.name, meta.part, meta.n_parts) == ("weigh_all", number, len(parts))
        assert meta.n_tokens <= LONG.max_tokens
        assert part.source_code.startswith('@cached\ndef weigh_all(values, total=0):\n    """Weigh all values."""\n')
        assert ast.get_docstring(ast.parse(part.source_code).body[0]) == part.docstring == "Weigh all values."  # type: ignore[arg-type]
        shown = part.source_code.splitlines()
        assert shown[meta.head_lines :] == lines[meta.first_line - 1 : meta.last_line]
        own += range(meta.first_line, meta.last_line + 1)
    assert sorted(own) == own
    assert {n for n, line in enumerate(lines, start=1) if line.strip()} == {n for n in own if lines[n - 1].strip()}


def test_a_comment_and_a_decorator_stay_with_what_they_stand_above() -> None:
    for part in blocks("a.py", PYTHON):
        text = part.source_code.rstrip().splitlines()
        assert not text[-1].lstrip().startswith(("#", "@"))


def test_a_part_says_only_what_stands_in_it() -> None:
    first, *rest = [block for block in blocks("a.py", PYTHON) if block.metadata.part]
    assert first.metadata.raises == ("ValueError",)
    assert len(first.metadata.guards) == 1
    assert all(part.metadata.raises == () and part.metadata.guards == () for part in rest)
    assert "last" in rest[-1].metadata.calls
    assert "last" not in first.metadata.calls


@pytest.mark.parametrize(
    ("path", "text", "opening", "closing"),
    [
        ("a.js", JAVASCRIPT, "/** Weigh all values. */\nfunction weighAll(values) {\n", "\n}"),
        ("a.go", GO, "// WeighAll weighs.\nfunc WeighAll(values []int) int {\n", "\n}"),
        ("a.rs", RUST, "pub trait Weigh {\n", "\n}"),
        ("a.rb", RUBY, "# Weighs.\nclass Scale < Base\n", "\nend"),
    ],
)
def test_parts_are_closed_as_the_unit_is(path: str, text: str, opening: str, closing: str) -> None:
    parts = [block for block in blocks(path, text) if block.metadata.part]
    assert len(parts) > 1
    for part in parts:
        assert part.source_code.startswith(opening)
        assert part.source_code.endswith(closing)
        parsed = parse(part.source_code.encode(), part.language)
        assert parsed is not None
        assert not parsed.has_error
        assert [p for p in validate_code_block(part)[1] if "lines" in p] == []
    spans = [(part.metadata.first_line, part.metadata.last_line) for part in parts]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert spans[-1][1] == text.count("\n")


def test_a_statement_that_is_too_long_is_counted_and_left_out() -> None:
    text = "def f(a):\n    '''Doc.'''\n    a += [\n" + "".join(f"{i},\n" for i in range(200)) + "]\n    return a\n"
    content = text.encode()
    result = mine([SourceFile("a.py", content, blob_id(content))], LONG)
    assert [block.source_code for block in result.documents] == ["def f(a):\n    '''Doc.'''\n    return a"]
    assert result.documents[0].citation == "a.py:205-205"
    assert result.rejected["too_long"] == 1


def test_a_part_that_is_a_definition_by_itself_is_that_definition() -> None:
    methods = "".join(
        f"    def step_{i}(self, value):\n" + "        value = self.weigh(value, value, value)\n" * 8 for i in range(6)
    )
    found = blocks("a.py", "class A:\n    '''Steps.'''\n" + methods)
    assert [block.name for block in found if not block.metadata.part] == [f"step_{i}" for i in range(6)]
    assert len({block.citation for block in found}) == len(found)


def test_the_head_of_a_file_is_a_module() -> None:
    head = '"""Scales."""\n\nimport os\nfrom a import b\n\nLIMIT = {"a": 1, "b": os.sep, "c": b}\n'
    text = head + "\nif LIMIT:\n    def f():\n        pass\n"
    module, function = blocks("src/scales.py", text)
    assert (module.block_type, module.name, module.docstring) == ("module", "scales.py", "Scales.")
    assert module.source_code == head.rstrip("\n")
    assert module.metadata.imports == ("os", "b")
    assert function.citation == "src/scales.py:9-10"


def test_a_file_without_definitions_is_cut_at_its_statements() -> None:
    text = "".join(f"NAME_{i} = compute({i}, {i + 1})\n" for i in range(40))
    parts = blocks("constants.py", text)
    assert [part.block_type for part in parts] == ["module"] * len(parts)
    assert "\n".join(part.source_code for part in parts) == text.rstrip("\n")


def test_the_comment_of_the_first_definition_is_not_in_the_head() -> None:
    text = 'package a\n\nimport (\n\t"fmt"\n\t"os"\n\t"strings"\n)\n\n// F does.\nfunc F() {}\n'
    module, function = blocks("a.go", text, MinerSettings(min_tokens=5))
    assert (module.metadata.last_line, function.metadata.first_line) == (7, 9)
