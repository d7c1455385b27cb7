"""Kinds of example that were wrong or said little where two hundred were read; what they say now."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline import SourceFile, SymbolGraph, mine, mine_repository
from ai_forge.data_pipeline.examples.families.members import overridable
from ai_forge.data_pipeline.examples.families.signatures import optional_parameters
from ai_forge.data_pipeline.examples.project_notes import read_notes
from ai_forge.data_pipeline.examples.splits import split_by_file
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.secrets.masking import scrub
from ai_forge.data_pipeline.source.repository import blob_id, read_repository

DOC = "says what it does to those who have to know it in a hurry."


def blocks(files: dict[str, str]) -> list[CodeBlock]:
    sources = [SourceFile(path, text.encode(), blob_id(text.encode())) for path, text in files.items()]
    return mine(sources).documents


def named(name: str, found: list[CodeBlock]) -> CodeBlock:
    return next(block for block in found if block.name == name)


def calls(files: dict[str, str], caller: str) -> list[str]:
    found = blocks(files)
    return [block.metadata.qualified_name for block in SymbolGraph(found).callees(named(caller, found))]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.ts", "export const f = (a: A, b?: (c: string) => void, d: E = {}) => a", ("b", "d")),
        ("a.ts", "export const f = <T extends A = A>(a: T, { b = 1 }: O, c?: string): T => a", ("c",)),
        ("a.ts", "export const f = (a: A, { b }: O = {}) => a", ()),
        ("a.rs", "fn f(a: impl Iterator<Item = impl Into<B>>) -> usize { 1 }", ()),
        ("a.js", "function f (a, b = { c: (1, 2) }, ...d) { return a }", ("b",)),
        ("a.php", "<?php function f(array $a, ?B $b = null, string $c = 'x, y') { return $a; }", ("b", "c")),
        ("a.cpp", "int f(const T &a, std::function<void(int)> b = nullptr, int c = g(1, 2)) { return 1; }", ("b", "c")),
        ("a.py", "def f(a, b: int = 1, *, c: dict[str, int] | None = None, **d):\n    return a\n", ("b", "c")),
        ("a.kt", 'fun f(a: Int, b: (Int) -> Int = { it }, c: String = ""): Int { return a }', ("b", "c")),
    ],
)
def test_optional_parameters_are_those_that_a_caller_may_leave_out(
    path: str, text: str, expected: tuple[str, ...]
) -> None:
    assert optional_parameters(named("f", blocks({path: text}))) == expected


STORE_RS = """
pub struct Store { rows: Vec<u8> }
impl Store {
    pub fn read_to_end(&mut self) -> usize { self.rows.len() }
    pub fn open_rows(path: &str) -> Store { Store { rows: vec![] } }
}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("let mut file = BufReader::new(path); file.read_to_end()", []),
        ("let mut file = Store::open_rows(path); file.read_to_end()", ["Store.open_rows", "Store.read_to_end"]),
        ("let mut file: Store = make(path); file.read_to_end()", ["Store.read_to_end"]),
        ("let mut file = make(path); file.read_to_end()", []),  # nothing says whose it is
        ("read_to_end(path)", []),  # a method has no bare name
    ],
)
def test_a_method_is_called_where_its_class_is_known(body: str, expected: list[str]) -> None:
    caller = f"fn load(path: &str) -> usize {{\n    {body}\n}}\n"
    assert calls({"store.rs": STORE_RS, "load.rs": caller}, "load") == expected


@pytest.mark.parametrize("declared", ["private Node dest;", "private final List<Node> dest = new ArrayList<>();"])
def test_a_field_of_another_type_calls_another_method(declared: str) -> None:
    element = "class Element {\n  Element appendChild(Element a) { return a; }\n}\n"
    builder = f"class Builder {{\n  {declared}\n  void append(Element a) {{ dest.appendChild(a); }}\n}}\n"
    assert calls({"Element.java": element, "Builder.java": builder}, "append") == []
    own = builder.replace(declared, "private Element dest;")
    assert calls({"Element.java": element, "Builder.java": own}, "append") == ["Element.appendChild"]


def test_a_bare_name_of_go_is_the_function_and_no_method() -> None:
    flags = "package a\n\nfunc MarkFlag(name string) error {\n\treturn nil\n}\n"
    command = (
        "package a\n\nfunc (c *Command) MarkFlag(name string) error {\n\treturn MarkFlag(name)\n}\n\n"
        "func (c *Command) MarkOther(name string) error {\n\treturn MarkFlag(name)\n}\n"
    )
    found = blocks({"flags.go": flags, "command.go": command})
    callees = SymbolGraph(found).callees(named("MarkOther", found))
    assert [block.path for block in callees] in ([], ["flags.go"])
    alone = blocks({"command.go": command})
    assert SymbolGraph(alone).callees(named("MarkOther", alone)) == []


LICENCE = "".join(
    f"// line {n} of a licence that every file of this project begins with, word for word\n" for n in range(9)
)


def test_a_licence_in_every_file_does_not_tie_them() -> None:
    words = ("alpha", "beta", "gamma", "delta", "omega")
    files = {
        f"{word}.go": f'{LICENCE}\npackage a\n\nimport "{word}"\n\n// {word.title()} {DOC}\n'
        f"func {word.title()}({word} int) int {{\n\treturn {' + '.join(f'{word}.F{n}({word})' for n in range(12))}\n}}\n"
        for word in words
    }
    sources = [SourceFile(path, text.encode(), blob_id(text.encode())) for path, text in files.items()]
    mined = mine(sources)
    split = split_by_file(mined.blocks, documents=mined.documents)
    assert {len(split.train) > 0, len(split.valid) > 0, len(split.test) > 0} == {True}


def test_what_is_called_is_no_secret() -> None:
    code = b"add(convertIPv4MappedIPv6ToIPv4(address))\nimport { convertIPv4MappedIPv6ToIPv4 } from 'a'\n"
    assert scrub(code).content == code
    assert b"q8Zr2LmX0vTy5KdJ3bWe" not in scrub(b"key = q8Zr2LmX0vTy5KdJ3bWe9\nget(key)\n").content


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.c", "static const char *f(int a)\n{\n    return g(a);\n}\n", "const char *"),
        ("a.c", "struct node **f(void) {\n    return 0;\n}\n", "struct node **"),
        ("a.c", "static unsigned long f(int a) {\n    return 1;\n}\n", "unsigned long"),
        ("a.cpp", "std::vector<int> f(int a) {\n  return {};\n}\n", "std::vector<int>"),
        ("a.cpp", "auto f(int a) {\n  return a;\n}\n", None),
    ],
)
def test_c_says_before_the_name_what_it_returns(path: str, text: str, expected: str | None) -> None:
    assert named("f", blocks({path: text})).metadata.returns == expected


def test_what_is_deleted_or_no_type_is_no_member_and_no_base() -> None:
    found = blocks(
        {"a.cpp": "class Box {\n public:\n  Box& operator=(const Box&) = delete;\n  int* get() { return &a; }\n};\n"}
    )
    assert named("Box", found).metadata.method_names == ("get",)
    policy = (
        "class Policy : public Filter {\n public:\n  const char* Name() const override;\n"
        "  Rows& rows() override;\n  bool May(int a) const override;\n};\n"
    )
    assert overridable(named("Policy", blocks({"a.h": policy + "namespace a {}\n"}))) == ("Name", "rows", "May")
    found = blocks({"a.rs": "pub trait Flag: Debug + Send + 'static {\n    fn name(&self) -> u8;\n}\n"})
    assert named("Flag", found).metadata.bases == ("Debug", "Send")


NOTES = """# Requests

`get_path` reads the path of a request from its address.

Use `Store.getRows` or `getRows` of a `Store` to read all of them at once.

`getPath` no longer supports wildcard expressions in its paths.

This can be changed by building it with `GlobBuilder` beforehand.

If this is the case you may prefer `GlobBuilder` to the function.

See the documentation of `GlobBuilder` for many other options.
"""


def test_documentation_speaks_of_a_method_only_beside_its_class(tmp_path: Path) -> None:
    code = (
        f'class Store:\n    """It {DOC}"""\n\n    def getRows(self):\n        """It {DOC}"""\n        return list(self.rows)\n\n'
        f'    def getPath(self):\n        """It {DOC}"""\n        return self.path\n\n\n'
        f'def get_path(a):\n    """It {DOC}"""\n    return a.path\n\n\nclass GlobBuilder:\n    """It {DOC}"""\n'
    )
    (tmp_path / "store.py").write_text(code, encoding="utf-8")
    (tmp_path / "README.md").write_text(NOTES, encoding="utf-8")
    (tmp_path / "UPGRADING.md").write_text("# 2.0\n\n`get_path` no longer takes a name of a file.\n", encoding="utf-8")
    repository = read_repository(tmp_path)
    documents = mine_repository(repository).documents
    names = {block.id: block.name for block in documents}
    said = {(names[one.block_id], one.document.path) for one in read_notes(repository, documents).said}
    assert said == {("get_path", "README.md"), ("getRows", "README.md"), ("Store", "README.md")}


def test_a_go_type_is_not_what_documentation_calls(tmp_path: Path) -> None:
    code = f"package a\n\n// RouteContext {DOC}\ntype RouteContext struct {{\n\ta int\n\tb string\n}}\n"
    (tmp_path / "a.go").write_text(code, encoding="utf-8")
    said = []
    for span in ("RouteContext()", "RouteContext"):
        (tmp_path / "README.md").write_text(
            f"# A\n\nThe middleware sets the `{span}` of a request.\n", encoding="utf-8"
        )
        repository = read_repository(tmp_path)
        said.append(len(read_notes(repository, mine_repository(repository).documents).said))
    assert said == [0, 1]


def test_a_head_is_quoted_whole_where_a_parameter_has_a_literal_type() -> None:
    (block,) = (
        b
        for b in blocks({"a.d.ts": "export function mk(path: string, o?: { deep?: boolean }): Promise<void>\n"})
        if b.name == "mk"
    )
    assert block.metadata.signature == "function mk(path: string, o?: { deep?: boolean }): Promise<void>"
