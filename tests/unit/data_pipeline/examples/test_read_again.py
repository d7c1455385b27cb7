"""Kinds of example that were wrong where two hundred of projects in other languages were read; what they say now."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.data_pipeline import SourceFile, SymbolGraph, mine, mine_repository
from ai_forge.data_pipeline.examples.families import drafts_for
from ai_forge.data_pipeline.examples.families.base import Subject
from ai_forge.data_pipeline.examples.preferences import commit_kind, mine_preferences
from ai_forge.data_pipeline.examples.project_notes import read_notes
from ai_forge.data_pipeline.examples.references import references_to
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.source.repository import blob_id, read_repository

DOC = "says what it does to those who have to know it in a hurry."


def blocks(files: dict[str, str]) -> list[CodeBlock]:
    sources = [SourceFile(path, text.encode(), blob_id(text.encode())) for path, text in files.items()]
    return mine(sources).documents


def git_in(folder: Path, *init: str) -> Callable[..., str]:
    """A command of git in a new repository."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q", *init)
    return git


def named(name: str, found: list[CodeBlock]) -> CodeBlock:
    return next(block for block in found if block.name == name)


def answers(files: dict[str, str], name: str, *families: str) -> list[str]:
    found = blocks(files)
    subject = Subject(named(name, found), f"`{name}`", SymbolGraph(found), seed=0)
    return [draft.answer for draft in drafts_for(subject, families)]


KOTLIN = f"""
/** This {DOC} */
fun report(text: String) {{
    println(text)
}}

fun direct(text: String) {{
    report(text)
}}

fun given(report: (String) -> Unit, text: String) {{
    report(text)
}}

fun held(text: String) {{
    val report = {{ it: String -> print(it) }}
    report(text)
}}
"""


def test_what_a_parameter_or_a_variable_holds_is_not_the_function_of_its_name() -> None:
    found = blocks({"Report.kt": KOTLIN})
    graph = SymbolGraph(found)
    called = {name: [b.name for b in graph.callees(named(name, found))] for name in ("direct", "given", "held")}
    assert called == {"direct": ["report"], "given": [], "held": []}
    go = "package a\n\nfunc Run(a int) int {\n\treturn a\n}\n\nfunc Use(Run func(int) int) int {\n\treturn Run(1)\n}\n"
    found = blocks({"a.go": go})
    assert SymbolGraph(found).callees(named("Use", found)) == []
    scala = "object A {\n  def run(a: Int): Int = a\n  def use(a: Int): Int = {\n    val run = (b: Int) => b\n    run(a)\n  }\n}\n"
    found = blocks({"A.scala": scala})
    assert SymbolGraph(found).callees(named("use", found)) == []


LONG = "Func<TFirst, TSecond, TThird, TFourth, TFifth, TReturn> func"


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        (
            "A.cs",
            f'class A {{\n  int Read({LONG}, string splitOn = "a, b", bool all = true) {{ return 1; }}\n'
            "  int Read(int a) { return a; }\n}\n",
            {f"`A.Read({LONG}, …)` in `A.cs`", "`A.Read(int a)` in `A.cs`"},
        ),
        (
            "A.cs",
            "class A {\n  A With<T>() where T : B, new() { return this; }\n  A With(int a) { return this; }\n}\n",
            {"`A.With()` in `A.cs`", "`A.With(int a)` in `A.cs`"},
        ),
        (
            "A.kt",
            "class A {\n  fun read(a: Map<String, List<Int>>, by: (Map<String, Int>) -> String = { it.keys.joinToString() }) = 1\n"
            "  fun read(a: Int) = a\n}\n",
            {"`A.read(a: Map<String, List<Int>>, …)` in `A.kt`", "`A.read(a: Int)` in `A.kt`"},
        ),
    ],
)
def test_overloads_are_told_apart_by_whole_parameters(path: str, text: str, expected: set[str]) -> None:
    found = [block for block in blocks({path: text}) if block.block_type == "method"]
    assert set(references_to(found).values()) == expected


@pytest.mark.parametrize(
    ("path", "text", "name", "expected"),
    [
        ("a.php", "<?php\nfunction has(array $a, string $b): bool\n{\n    return isset($a[$b]);\n}\n", "has", []),
        ("A.cs", "class A {\n  string F(int a) { return nameof(a); }\n}\n", "F", []),
        ("A.cs", "class A {\n  string F(int a) { return G(nameof(a)); }\n}\n", "F", ["`F` calls `G`."]),
        ("A.java", "class A {\n  int f(int a) { return f(a, 1); }\n  int f(int a, int b) { return b; }\n}\n", "f", []),
        ("A.scala", "object A {\n  def f(a: Int): Int = f(a, 1)\n  def f(a: Int, b: Int): Int = a\n}\n", "f", []),
        ("a.py", "def f(a):\n    return f(a - 1) if a else g()\n", "f", ["`f` calls `f` and `g`."]),  # itself indeed
    ],
)
def test_what_is_called_is_a_function_and_no_overload(path: str, text: str, name: str, expected: list[str]) -> None:
    assert answers({path: text}, name, "dependencies") == expected


TWICE = """
fn end(a: usize, b: usize) -> usize {
    if a == 0 {
        return 1;
    }
    let a = next(a);
    if a == 0 {
        return 2;
    }
    if b == 0 {
        return 3;
    }
    4
}
"""


def test_a_condition_that_is_checked_twice_is_no_question() -> None:
    assert answers({"a.rs": TWICE}, "end", "edge_case") == ["If `b == 0`, `end` returns `3`."]


REMARKS = """
def f(rows):
    for row in rows:
        if row.a:
            # this one is of no use here
            break
        # the newest one is wanted
        last = row.last
    for row in rows:
        # this is the first one of them all
        use(row)
    for row in rows:
        use(row)
    return last
"""


def test_a_remark_is_asked_about_where_its_line_says_which() -> None:
    said = answers({"a.py": REMARKS}, "f", "why")
    assert said == ['At `last = row.last` the comment in `f` says: "the newest one is wanted"']


@pytest.mark.parametrize(
    "text",
    [
        "/** Objective-C definition:\n  * {{{\n  * extern A f(B c, const void * d);\n  * }}}\n  */\ndef f(a: Int): Int = a\n",
        "/** As it is used in most places:\n  * ```\n  * val a = f(1)\n  * ```\n  */\ndef f(a: Int): Int = a\n",
    ],
)
def test_documentation_that_goes_over_to_code_is_no_purpose(text: str) -> None:
    assert answers({"A.scala": f"object A {{\n{text}}}\n"}, "f", "purpose") == []


def test_a_property_is_called_so_and_an_attribute_is_written_as_in_its_language() -> None:
    code = "public class A\n{\n    public bool Value { get; set; }\n    public int Size { get; set; }\n}\n"
    said = answers({"A.cs": code}, "A", "members")
    assert "`A` declares the properties `Value` and `Size`." in said
    mixed = code.replace("public int Size { get; set; }", "public int size;")
    assert [one for one in answers({"A.cs": mixed}, "A", "members") if "declares" in one] == []
    php = "<?php\nclass A {\n    #[Deprecated]\n    public function f(int $a): int { return $a; }\n}\n"
    assert answers({"a.php": php}, "f", "pattern") == [
        "`f` is decorated with `#[Deprecated]`, so new code should not use it."
    ]


def test_a_call_is_quoted_without_the_remark_behind_it() -> None:
    code = "def f(a):\n    return a\n\n\ndef g(a):\n    b = f(a)  # noqa: it is needed\n    c = f('# a')\n    return b, c\n"
    assert answers({"a.py": code}, "f", "usage") == ["`g` uses `f`: `b = f(a)`."]


def test_who_documents_a_function_did_not_write_it(tmp_path: Path) -> None:
    git = git_in(tmp_path)
    file = tmp_path / "area.kt"
    file.write_text("fun area(a: Int): Int {\n    return a * a\n}\n")
    git("add", "."), git("commit", "-qm", "Compute areas so that nobody has to do it by hand")
    lines = "".join(f" * Line {n} of what is said about it.\n" for n in range(9))
    file.write_text(f"/**\n{lines} */\n{file.read_text()}")
    git("add", "."), git("commit", "-qm", "Tell what area gives because many people asked")
    repository = read_repository(tmp_path)
    (said,) = read_notes(repository, mine_repository(repository).documents).said
    assert said.quotation == "Compute areas so that nobody has to do it by hand"
    assert "It wrote 3 of the 3 lines of code of `area`" in said.document.text


@pytest.mark.parametrize(
    "subject",
    [
        "Renamed A to B in all files",
        "Move everything into a package",
        "Add kdocs for all types",
        "Update the docs of it",
    ],
)
def test_a_commit_that_moves_or_documents_is_no_reason(tmp_path: Path, subject: str) -> None:
    git = git_in(tmp_path)
    (tmp_path / "area.kt").write_text("fun area(a: Int): Int {\n    return a * a\n}\n")
    git("add", "."), git("commit", "-qm", subject)
    repository = read_repository(tmp_path)
    assert read_notes(repository, mine_repository(repository).documents).said == ()


RELEASES = """# Releases

## 2.0.151

Adds a setting that `FetchRows` reads before anything else.

## Reading

- reading all of it at once by `FetchRows`
- `FetchRows` reads all rows of a table at once.
- The block that is passed to `FetchRows`
- Wrappers of all kinds (`FetchRows`, `Rows`, etc.)
"""


def test_what_a_release_brought_and_half_sentences_are_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "a.cs").write_text(f"/// {DOC}\npublic class FetchRows {{\n  int F(int a) {{ return a; }}\n}}\n")
    (tmp_path / "index.md").write_text(RELEASES)
    repository = read_repository(tmp_path)
    said = read_notes(repository, mine_repository(repository).documents).said
    assert [one.quotation for one in said] == ["`FetchRows` reads all rows of a table at once."]


@pytest.mark.parametrize(
    "subject", ["Fix tests", "fix WatchServiceWatcher tests", "Fixed the build.", "Fix compilation"]
)
def test_a_fix_of_tests_says_nothing_about_the_code(subject: str) -> None:
    assert commit_kind(subject) is None
    assert commit_kind("Fix tests of an empty name in Parser.read") == "fix"


def test_ruby_raises_and_its_yield_calls_a_block() -> None:
    code = f"# It {DOC}\ndef each_row(rows)\n  raise KeyError if rows.nil?\n  rows.each {{ |row| yield row }}\nend\n"
    said = answers({"a.rb": code}, "each_row", "exceptions", "edge_case", "pattern")
    assert said == ["`each_row` raises `KeyError`.", "If `rows.nil?`, `each_row` raises `KeyError`."]


def test_an_exception_of_xml_documentation_is_said_with_its_type() -> None:
    code = (
        'class A {\n  /// <summary>Reads a row.</summary>\n  /// <exception cref="IOException">When it is <c>null</c></exception>\n'
        "  int F(int a) { return a; }\n}\n"
    )
    assert named("F", blocks({"A.cs": code})).docstring == "Reads a row.\n@throws IOException When it is null"


SUPER = """
class Base
  # Adds one.
  def add(row)
    @rows << row
  end

  def before(row)
    add(row)
  end
end

class Loud < Base
  def add(row)
    super
  end
end
"""


def test_who_overrides_it_and_calls_super_depends_on_it() -> None:
    assert answers({"a.rb": SUPER}, "add", "change_impact", "callers") == []
    alone = SUPER.partition("class Loud")[0]
    assert answers({"a.rb": alone}, "add", "change_impact") == [
        "In these documents `before` calls `add`, so look at it when it changes."
    ]


CSHARP = """public class A : B<A>
{
    public int Size
    {
        get { return size; }
        set { size = value; }
    }
    public int this[int i] { get { if (i < 0) throw new E(); return size + i; } }
    public event Action Changed { add { Register(value); } remove { Drop(value); } }
    public static A Make(int a) { return new A(); }
}
"""


def test_a_property_is_no_method_and_a_class_raises_nothing() -> None:
    found = blocks({"A.cs": CSHARP})
    assert answers({"A.cs": CSHARP}, "A", "members", "edge_case")[0] == "`A` defines the method `Make`."
    assert answers({"A.cs": CSHARP}, "A", "edge_case") == []
    parameters = [
        d.answer for b in found for d in drafts_for(Subject(b, b.name, SymbolGraph(found), 0), ("parameters",))
    ]
    assert not any("`Size`" in answer for answer in parameters)
    code = "export class K extends L {\n  get size() { return this.a }\n  set size(v) { this.a = v }\n  run(a) { return a }\n}\n"
    assert answers({"a.js": code}, "K", "members", "extend") == [
        "Subclass `K` and override `run` as needed.", "`K` defines the method `run`."
    ]  # fmt: skip


def test_a_class_of_kotlin_builds_on_what_it_delegates_to() -> None:
    code = "class A(val a: Int) : B(a), C by d, E<F> {\n    fun f(): Int { return a }\n}\n"
    assert answers({"a.kt": code}, "A", "pattern") == ["`A` builds on `B`, `C` and `E<F>`."]
    with_companion = code.replace("}\n}", "}\n    companion object { fun of() = A(1) }\n}")
    assert answers({"a.kt": with_companion}, "A", "members") == []
    assert len(answers({"a.kt": with_companion}, "A", "pattern")) == 1
    of_its_own = with_companion.replace("companion object {", "companion object Maker : F {")
    assert answers({"a.kt": of_its_own}, "A", "pattern") == []


RUBY = """
class A
  def each(rows)
    raise KeyError if rows.nil?
    check(rows)
  end

  private def sum(rows)
    rows
  end

  def last(rows)
    rows
  end
  private :last

  private

  def check(rows)
    fail TypeError
  end

  public

  def first(rows)
    rows
  end
end
"""


def test_what_ruby_keeps_private_is_not_overridden_and_raising_is_no_call() -> None:
    assert answers({"a.rb": RUBY}, "A", "extend") == ["Subclass `A` and override `each` and `first` as needed."]
    assert answers({"a.rb": RUBY}, "check", "dependencies") == []
    assert answers({"a.rb": RUBY}, "each", "dependencies") == ["`each` calls `rows.nil?` and `check`."]


def test_what_else_a_commit_brought_is_no_reason(tmp_path: Path) -> None:
    git = git_in(tmp_path)
    (tmp_path / "area.kt").write_text("fun area(a: Int): Int {\n    return a * a\n}\n")
    body = "Users may want another one.\n\nWe also add a second volume, so that others can compare it."
    git("add", "."), git("commit", "-qm", f"Introduce squares of all sizes\n\n{body}")
    repository = read_repository(tmp_path)
    (said,) = read_notes(repository, mine_repository(repository).documents).said
    assert said.quotation == "Introduce squares of all sizes"


@pytest.mark.parametrize("form", ["sha256", "crlf", "a missing blob"])
def test_fixes_are_read_from_every_kind_of_repository(tmp_path: Path, form: str) -> None:
    git = git_in(tmp_path, *(["--object-format=sha256"] if form == "sha256" else []))
    if form == "crlf":
        (tmp_path / ".gitattributes").write_text("*.py text eol=crlf\n")
    code = "def area(width, height):\n    return width {} height + width - width + height - height\n"
    for name, sign, message in (
        ("old", "-", "Add"),
        ("a", "+", "Move and change it"),
        ("a", "*", "Fix the area of all"),
    ):
        (tmp_path / "old.py").unlink(missing_ok=True)
        (tmp_path / f"{name}.py").write_text(code.format(sign))
        git("add", "-A"), git("commit", "-qm", message)
    gone = git("rev-parse", "HEAD~2:old.py")
    if form == "a missing blob":
        (tmp_path / ".git" / "objects" / gone[:2] / gone[2:]).unlink()
    (pair,) = mine_preferences(tmp_path).pairs
    assert ("width * height" in pair.chosen, "width + height" in pair.rejected) == (True, True)
