"""Kinds of example that were wrong where two hundred of eight further projects were read; what they say now."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline import SourceFile, SymbolGraph, mine, mine_repository
from ai_forge.data_pipeline.examples.families import drafts_for
from ai_forge.data_pipeline.examples.families.base import Subject
from ai_forge.data_pipeline.examples.preferences import commit_kind, mine_preferences
from ai_forge.data_pipeline.examples.project_notes import read_notes
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.source.repository import blob_id, read_repository
from conftest import git


def blocks(files: dict[str, str]) -> list[CodeBlock]:
    sources = [SourceFile(path, text.encode(), blob_id(text.encode())) for path, text in files.items()]
    return mine(sources).documents


def drafts(files: dict[str, str], name: str, *families: str) -> list[tuple[str, str]]:
    """(question, answer) of each draft about the block called `name`."""
    found = blocks(files)
    block = next(block for block in found if block.name == name)
    subject = Subject(block, f"`{name}`", SymbolGraph(found), seed=0)
    return [(draft.question, draft.answer) for draft in drafts_for(subject, families)]


def answers(files: dict[str, str], name: str, *families: str) -> list[str]:
    return [answer for _, answer in drafts(files, name, *families)]


RUST = "pub fn join(a: &str) -> String {\n    let text = a.trim();\n    text.to_string()\n}\n"
RUST_TEST = 'fn {name}({parameters}) {{\n    let said = join(" a");\n    assert_eq!(said, "a");\n}}\n'


@pytest.mark.parametrize(
    ("head", "name", "parameters", "expected"),
    [("#[test]\n", "test_join", "", 1), ("#[test]\n", "join_trims", "", 1), ("", "test_join", "wanted: &str", 0)],
)
def test_a_helper_of_rust_tests_is_no_test(head: str, name: str, parameters: str, expected: int) -> None:
    test = head + RUST_TEST.format(name=name, parameters=parameters)
    assert len(answers({"src/text.rs": RUST, "tests/text.rs": test}, "join", "write_test")) == expected


GO = "package mux\n\nfunc NewRouter() *Router {\n\treturn &Router{}\n}\n\nfunc (r *Router) Name(a string) *Router {\n\treturn r\n}\n"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("func TestNewRouter(t *testing.T) {\n\tif NewRouter() == nil {\n\t\tt.Error()\n\t}\n}\n", 1),
        ("func testNewRouter(t *testing.T, a string) *Router {\n\tr := NewRouter()\n\treturn r\n}\n", 0),
        ("func TestNameTwice(t *testing.T) {\n\tif NewRouter().Name(\"a\") == nil {\n\t\tt.Error()\n\t}\n}\n", 0),
        ("func TestMany(t *testing.T) {\n\tr := NewRouter()\n\tif r.size != 1 {\n\t\tt.Error()\n\t}\n}\n", 0),
    ],
    ids=["of it", "helper", "of another", "only prepared by it"],
)  # fmt: skip
def test_a_test_that_only_prepares_by_a_function_is_not_about_it(test: str, expected: int) -> None:
    files = {"mux.go": GO, "mux_test.go": f'package mux\n\nimport "testing"\n\n{test}'}
    assert len(answers(files, "NewRouter", "write_test")) == expected


def test_tests_of_marked_languages_need_no_name_that_says_so() -> None:
    code = "class Chain {\n  public bool IsChild(Chain other) {\n    return other.Name == Name;\n  }\n}\n"
    test = (
        "class ChainTests {\n  [Fact]\n  public void Is_not_child() {\n"
        "    Chain chain = Make();\n    Assert.False(chain.IsChild(null));\n  }\n}\n"
    )
    assert len(answers({"Chain.cs": code, "tests/ChainTests.cs": test}, "IsChild", "write_test")) == 1
    unmarked = test.replace("  [Fact]\n", "")
    assert answers({"Chain.cs": code, "tests/ChainTests.cs": unmarked}, "IsChild", "write_test") == []


def test_two_conditions_on_a_name_that_changed_between_them_are_not_told_together() -> None:
    code = "def f(a, b):\n    if a is not None:\n        {between}\n        if a < 0:\n            raise ValueError(a)\n    return b\n"
    assert answers({"a.py": code.format(between="a = look_up(a)")}, "f", "edge_case") == []
    assert answers({"a.py": code.format(between="b = look_up(a)")}, "f", "edge_case") == [
        "If `a is not None` and `a < 0`, `f` raises `ValueError`."
    ]


def test_the_only_guard_is_asked_for_where_nothing_else_ends_the_function_early() -> None:
    one = "def f{n}(a):\n    if a is None:\n        return 0\n    return a + 1\n"
    two = "def f{n}(a):\n    if a is None:\n        return 0\n    while a:\n        log(a)\n        return 2\n    return a + 1\n"

    def asked(code: str) -> list[str]:
        """Over many blocks, since which of the two wordings is taken hangs on a block's hash."""
        named = [f"f{n}" for n in range(12)]
        return [drafts({"a.py": code.format(n=n)}, name, "edge_case")[0][0] for n, name in enumerate(named)]

    assert any("a is None" not in question for question in asked(one))
    assert all("a is None" in question for question in asked(two))


def test_a_macro_of_rust_is_no_function_that_is_called() -> None:
    code = "pub fn f(a: u32) -> u32 {{\n    if {} {{\n        g(a)\n    }} else {{\n        h(a)\n    }}\n}}\n"
    assert answers({"a.rs": code.format('cfg!(target_endian = "big")')}, "f", "dependencies") == []
    assert answers({"a.rs": code.format("a > 1")}, "f", "dependencies") == ["`f` calls `g` and `h`."]


def test_what_the_head_of_a_constructor_calls_is_not_left_out() -> None:
    code = "class E : X {{\n  public E(string a){head} {{\n    Add(a);\n  }}\n}}\n"
    found = [block for block in blocks({"E.cs": code.format(head=" : base(a)")}) if block.block_type == "method"]
    subject = Subject(found[0], "`E`", SymbolGraph(found), seed=0)
    assert drafts_for(subject, ("dependencies",)) == []


def test_callers_of_what_calls_itself_are_not_listed_without_it() -> None:
    code = "def walk(a):\n    for b in a:\n        {}(b)\n\n\ndef first(a):\n    walk(a)\n\n\ndef second(a):\n    walk(a)\n"
    assert answers({"a.py": code.format("walk")}, "walk", "callers") == []
    assert answers({"a.py": code.format("show")}, "walk", "callers") == [
        "In these documents `walk` is called by `first` and `second`."
    ]


@pytest.mark.parametrize(
    ("comment", "code", "expected"),
    [
        ("/** Patches of JSON, see RFC 6902. */\n\n", "static int apply(int a)\n{\n\treturn a;\n}\n", None),
        ("/** Applies a patch of JSON. */\n", "static int apply(int a)\n{\n\treturn a;\n}\n", "Applies a patch of JSON."),
        ("/* The following helper functions are fast. */\n", "static int apply(int a)\n{\n\treturn a;\n}\n", None),
        ("/* Stuff for decoding. */\n", "#define apply(a) ((a) + 1)\n#define other(a) ((a) + 2)\n", None),
        ("/* Adds one to a. */\n", "#define apply(a) ((a) + 1)\n\n#define other(a) ((a) + 2)\n", "Adds one to a."),
    ],
    ids=["stands off", "directly above", "of several", "opens a list", "of one macro"],
)  # fmt: skip
def test_a_comment_of_a_file_or_of_several_documents_none_of_them(
    comment: str, code: str, expected: str | None
) -> None:
    found = blocks({"patch.c": f"#include <a.h>\n\n{comment}{code}"})
    assert next(block for block in found if block.name == "apply").docstring == expected


def test_where_a_doc_comment_is_marked_as_one_it_may_stand_off() -> None:
    found = blocks(
        {"a.js": "import b from 'b'\n\n/** Adds one to a. */\n\nexport function add(a) {\n  return a + 1\n}\n"}
    )
    assert next(block for block in found if block.name == "add").docstring == "Adds one to a."


CODE = "def read_rows(path, sep):\n    lines = open(path).readlines()\n    return [line.split(sep) for line in lines]\n"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Tox GH Action (#286)", None),
        ("Various clean-ups pointed out by sonarcloud.io", None),
        ("Add some return type hints", None),
        ("Exercise `read_rows` for posterity", None),
        ("Convert the reader to Java 11", None),
        ("Add accessors to pave the way for opaque rows.\nUpdate the docs and suggest what to use instead.",
         "Add accessors to pave the way for opaque rows."),
        ("Add a tracker of rows that uses an\ninternal histogram", None),
        ("Rows may be separated by any sign", "Rows may be separated by any sign"),
    ],
)  # fmt: skip
def test_why_is_not_answered_by_what_a_commit_did_besides(tmp_path: Path, message: str, expected: str | None) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "rows.py").write_text(CODE)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", message)
    repository = read_repository(tmp_path)
    said = read_notes(repository, mine_repository(repository).documents).said
    assert [one.quotation for one in said] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    "subject", ["Some build fixes", "fixed compilation errors", "Fix errors with current rust nightly"]
)
def test_a_fix_of_the_build_prefers_nothing(subject: str) -> None:
    assert commit_kind(subject) is None
    assert commit_kind("Fix errors of an empty name in Parser.read") == "fix"


def test_another_docstring_is_no_better_code(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    documented = CODE.replace("\n", '\n    """{}"""\n', 1)
    for text, message in (("Reads.", "Add"), ("Reads all rows.", "Fix what it says")):
        (tmp_path / "rows.py").write_text(documented.format(text))
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", message)
    assert mine_preferences(tmp_path).pairs == ()
    (tmp_path / "rows.py").write_text(documented.format("Reads all rows.").replace("split(sep)", "rstrip().split(sep)"))
    git(tmp_path, "commit", "-q", "-a", "-m", "Fix line ends")
    assert len(mine_preferences(tmp_path).pairs) == 1


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("{\n\tdelay?: number;\n\treadonly code: string;\n}", ["`Retry` declares the properties `delay` and `code`."]),
        ("{delay: number} & Base", []),
        ("{delay: number} | {code: string}", []),
        ("{[key in Name]: number}", []),
        ("Array<{delay: number}>", []),
    ],
    ids=["whole", "joined", "one of two", "mapped", "inside"],
)
def test_a_type_that_is_an_object_has_properties_as_an_interface_has(type_: str, expected: list[str]) -> None:
    code = f"/** How long to wait and why a request is sent again. */\nexport type Retry = {type_};\n"
    found = answers({"retry.ts": code}, "Retry", "members")
    assert [answer for answer in found if "declares" in answer] == expected
    assert bool(found) == bool(expected)
