"""From files to blocks: the public functions, the filters, and inputs that try to break them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline import MiningResult, SourceFile, mine, parse_repository
from ai_forge.data_pipeline.languages import load
from ai_forge.data_pipeline.miner import extract_classes, extract_functions, extract_module_info
from ai_forge.data_pipeline.mining.filters import file_rejection, is_trivial
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.data_pipeline.validator import validate_code_block
from ai_forge.errors import InputError, PrerequisiteError

DOCUMENTED = '''def area(width, height):
    """Area of a rectangle with the given sides."""
    if width < 0 or height < 0:
        raise ValueError("sides must not be negative")
    return width * height
'''


LONG = "".join(f"{number},\n" for number in range(2_000))


def source(path: str, text: str | bytes) -> SourceFile:
    content = text.encode() if isinstance(text, str) else text
    return SourceFile(path, content, blob_id(content))


def test_parse_repository_gives_blocks_with_provenance(make_repository: Callable[[dict[str, str]], Path]) -> None:
    root = make_repository({"src/a.py": "# SPDX-License-Identifier: MIT\nimport math\n\n" + DOCUMENTED})
    (block,) = parse_repository(root)
    assert (block.path, block.name, block.block_type, block.language) == ("src/a.py", "area", "function", "python")
    assert block.source_code == DOCUMENTED.rstrip("\n")
    assert block.citation == "src/a.py:4-8"
    meta = block.metadata
    assert meta.licence == "MIT"
    assert len(meta.commit or "") == 40
    assert meta.parameters == ("width", "height")
    assert meta.raises == ("ValueError",)
    assert meta.complexity == 3
    assert 0.5 < meta.score <= 1
    assert validate_code_block(block) == (True, [])
    assert parse_repository(root) == [block]


def test_parse_repository_with_nothing_left_says_why(make_repository: Callable[[dict[str, str]], Path]) -> None:
    root = make_repository({"a.py": DOCUMENTED.replace('"""Area of a rectangle with the given sides."""', "pass")})
    with pytest.raises(InputError, match=r"no_docstring 1.*require_docstring"):
        parse_repository(root)
    assert len(parse_repository(root, settings=MinerSettings(require_docstring=False))) == 1


def test_extract_functions_leaves_out_private_ones_and_tests_unless_asked() -> None:
    code = b"def a(): pass\ndef _b(): pass\ndef test_c(): pass\nclass D:\n    def e(self): 'Doc.'\n"
    assert [name for name, _, _ in extract_functions(code, "python")] == ["a", "D.e"]
    every = extract_functions(code, "python", include_private=True, include_tests=True)
    assert every == [
        ("a", None, "def a(): pass"),
        ("_b", None, "def _b(): pass"),
        ("test_c", None, "def test_c(): pass"),
        ("D.e", "Doc.", "    def e(self): 'Doc.'"),
    ]


def test_extract_classes_and_module_info() -> None:
    code = b'"""Doc."""\nimport os\nfrom a.b import c as d\nLIMIT = 1\nclass A(B):\n    "Say."\n    def f(self): ...\n'
    assert extract_classes(code, "python") == [("A", "Say.", ["f"])]
    assert extract_module_info(code) == {
        "docstring": "Doc.",
        "imports": ["os", "d"],
        "constants": ["LIMIT"],
        "dependencies": ["os", "a.b"],
    }


def test_an_unknown_language_and_a_missing_grammar_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Unknown language 'cobol'.*Known: python"):
        extract_functions(b"", "cobol")
    monkeypatch.setitem(sys.modules, "tree_sitter_go", None)
    load.cache_clear()
    try:
        with pytest.raises(PrerequisiteError, match="pip install tree-sitter-go"):
            extract_functions(b"", "go")
        result = mine([source("a.go", "package a"), source("b.py", DOCUMENTED)])
        assert result.skipped == {"no_grammar_go": 1}
        assert len(result.blocks) == 1
    finally:
        load.cache_clear()


def test_every_block_is_a_subject_or_counted(mined: MiningResult) -> None:
    soft = {"test", "private", "too_short", "trivial", "no_docstring", "overload", "duplicate", "module", "part"}
    counted = sum(n for reason, n in mined.rejected.items() if reason in soft)
    assert len(mined.documents) == len(mined.blocks) + counted
    assert len(mined.blocks) > 80
    assert len({block.citation for block in mined.documents}) == len(mined.documents)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DOCUMENTED.replace('"""Area of a rectangle with the given sides."""', "width += 0"), "no_docstring"),
        ('def f():\n    """Doc."""\n', "too_short"),
        (
            "class A:\n    def size(self):\n        '''Return the size of it.'''\n"
            "        return self._size_of_the_thing_in_metres\n",
            "trivial",
        ),
        ("def f(a):\n    '''Doc.'''\n    a += [\n" + LONG + "]\n", "too_long"),
        ("def f(a):\n    '''Doc.'''\n    a += [\n" + LONG + "]\n    return a\n", "part"),
        ("import os\n" + DOCUMENTED, "short_module"),
        (DOCUMENTED.replace("return", "return ("), "syntax_error"),
    ],
)
def test_rejections_are_counted_by_reason(text: str, reason: str) -> None:
    assert mine([source("a.py", text)]).rejected[reason] == 1


def test_overload_stubs_are_documents_but_no_subjects() -> None:
    stub = (
        '@overload\ndef f(aaaa: int, bbbb: int) -> int:\n    """One of the forms of f, for numbers only."""\n    ...\n'
    )
    result = mine([source("a.py", stub + DOCUMENTED)])
    assert [b.name for b in result.blocks] == ["area"]
    assert result.rejected["overload"] == 1


def test_tests_are_documents_but_no_subjects() -> None:
    result = mine([source("tests/test_a.py", DOCUMENTED)])
    assert len(result.documents) == 1
    assert result.blocks == ()
    assert mine([source("tests/test_a.py", DOCUMENTED)], MinerSettings(include_tests=True)).blocks


def test_getters_are_trivial_and_explained_one_liners_are_not() -> None:
    text = (
        'class A:\n    def size(self):\n        """Size."""\n        return self._size\n\n'
        '    def total(self):\n        """Sum of all entries, in cents, after fees and taxes."""\n'
        "        return self._total\n"
    )
    blocks = {b.name: b for b in mine([source("a.py", text)]).documents}
    assert is_trivial(blocks["size"])
    assert not is_trivial(blocks["total"])


HOSTILE = {
    "broken.py": b"def f(:\n  return (((\nclass 3 { }",
    "binary.py": b"\x7fELF\0\0\0" * 50,
    "minified.js": b"var a=1;" * 20_000,
    "nul_late.py": b"x = 1\n" * 3000 + b"\0\0",
    "deep.py": b"x = " + b"(\n" * 20_000 + b")" * 200,
    "deep_if.py": b"".join(b" " * i + b"if x:\n" for i in range(300)) + b" " * 300 + b"pass\n",
    "deep.js": b"f(\n" * 3000 + b")\n" * 3000,
    "latin.py": b"# -*- coding: latin-1 -*-\ndef caf\xe9():\n"
    b"    '''Gr\xfc\xdfe an alle Leute hier im Haus und im Garten.'''\n    return [1, 2]\n",
    "utf16.py": "def f(a):\n    '''Say it.'''\n    return a\n".encode("utf-16"),
    "bom.py": b"\xef\xbb\xbf" + DOCUMENTED.encode(),
    "crlf.py": DOCUMENTED.replace("\n", "\r\n").encode(),
    "cr.py": DOCUMENTED.replace("\n", "\r").encode(),
    "empty.py": b" \n",
    "generated.py": b"# Generated by the protocol buffer compiler.  DO NOT EDIT!\n" + DOCUMENTED.encode(),
    "api_pb2.py": DOCUMENTED.encode(),
    "vendor/x.go": b"package x\n",
    "surrogate.py": b"def f():\n    '''\xed\xa0\x80 bad'''\n    return 1\n",
    "quotes.py": b'"""' * 5000,
    "half.ts": b"export class A<T extends { b( { return `${",
    "bad.java": b"class { public void ( } }",
    "bad.go": b"func (s *",
    "emoji.py": "def f(x):\n    '''Wave 👋 to everybody that is near the sea.'''\n    return '👋' * x\n".encode(),
}


def test_hostile_files_cost_only_themselves() -> None:
    result = mine([source(path, content) for path, content in HOSTILE.items()])
    assert {b.path for b in result.documents} >= {"bom.py", "crlf.py", "cr.py", "latin.py", "emoji.py"}
    assert result.skipped == {
        "binary": 1,
        "minified": 2,
        "empty": 1,
        "generated": 2,
        "vendored": 1,
        "syntax_error": 3,
        "repetitive": 1,
        "too_deep": 3,
    }
    spans = {b.citation for b in result.documents}
    assert result.rejected["duplicate"] == 2, "the same function with other line ends is the same"
    assert {"bom.py:1-5", "crlf.py:1-5", "cr.py:1-5"} <= spans
    for block in result.documents:
        assert json.loads(block.model_dump_json())["path"] == block.path


@pytest.mark.parametrize(
    "head",
    [
        "(function (global, factory) {\n  typeof exports === 'object' && typeof module !== 'undefined' ? factory(exports) :",
        ';(function(f) {\n    if (typeof exports === "object" && typeof module !== "undefined") {\n        module.exports = f()',
        '(function(f){if(typeof exports==="object"&&typeof module!=="undefined"){module.exports=f()}',
        "(function webpackUniversalModuleDefinition(root, factory) {",
        "/******/ (function(modules) { // webpackBootstrap",
        "/******/ (() => { // webpackBootstrap",
    ],
)
def test_what_a_bundler_joined_is_told_by_its_wrapper_though_its_lines_are_short(head: str) -> None:
    assert file_rejection("docs/assets/tree.js", f"/*! A 1.0 */\n{head}\n".encode()) == "bundled"


@pytest.mark.parametrize(
    "head",
    [
        "(function (root, factory) {\n  if (typeof define === 'function' && define.amd) {",
        "(function (mod) {\n  if (typeof exports == 'object' && typeof module == 'object')",
        "const HEAD = `(function (global, factory) {`;",
        "// Like webpack's bootstrap: (() => { // webpackBootstrap",
    ],
)
def test_a_wrapper_that_people_wrote_is_no_bundle(head: str) -> None:
    assert file_rejection("src/tree.js", f"{head}\n".encode()) is None


def test_truncated_real_code_never_fails() -> None:
    text = Path(__file__).read_bytes()
    for cut in range(0, len(text), 997):
        mine([source("a.py", text[:cut]), source("b.ts", text[cut:]), source("c.go", text[::-1][:cut])])


def test_advice_names_the_setting_when_few_blocks_are_documented() -> None:
    bare = "".join(
        f"def f{i}(a, b):\n    c = a + b * {i}\n    return [c, a, b, max(a, b), min(a, b)]\n" for i in range(9)
    )
    assert "require_docstring" in (mine([source("a.py", bare)]).advice or "")
    assert mine([source("a.py", bare)], MinerSettings(require_docstring=False)).advice is None


def test_progress_counts_files() -> None:
    seen: list[tuple[int, int]] = []
    mine([source("a.py", "x=1"), source("b.py", "y=1")], progress=lambda done, n: seen.append((done, n)))
    assert seen == [(1, 2), (2, 2)]


def test_the_module_runs_as_a_command(make_repository: Callable[[dict[str, str]], Path]) -> None:
    root = make_repository({"a.py": DOCUMENTED})
    command = [sys.executable, "-W", "error", "-m", "ai_forge.data_pipeline.miner"]
    done = subprocess.run([*command, str(root)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["name"] == "area"
    assert json.loads(done.stderr)["subjects"] == 1
    failed = subprocess.run([*command, str(root / "no")], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "does not exist" in failed.stderr
