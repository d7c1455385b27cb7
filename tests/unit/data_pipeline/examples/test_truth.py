"""Answers say the whole truth of their code, and nothing that is asked for is shown."""

import re
import textwrap
from pathlib import Path

import pytest

from ai_forge.config import SynthesisSettings
from ai_forge.data_pipeline import SourceFile, SymbolGraph, mine, synthesize, verify_example
from ai_forge.data_pipeline.schemas import RAFTExample, content_id
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.data_pipeline.text.words import one_line
from ai_forge.prompting.prompt import FENCE

DOC = "says what it does to those who have to know it in a hurry."


def asked(files: dict[str, str], **settings: object) -> list[RAFTExample]:
    """All examples of some files, each of which verifies."""
    sources = []
    for path, text in files.items():
        content = textwrap.dedent(text).encode()
        sources.append(SourceFile(path=path, content=content, blob_id=blob_id(content)))
    mined = mine(sources)
    chosen = SynthesisSettings.model_validate({"no_oracle_share": 0, "max_per_block": 50, **settings})
    graph = SymbolGraph(mined.documents, mined.imports)
    made = synthesize(mined.blocks, documents=mined.documents, graph=graph, settings=chosen).examples
    assert [problem for example in made for problem in verify_example(example)] == []
    return made


def answers(files: dict[str, str], *families: str) -> list[str]:
    return sorted(example.final_answer for example in asked(files) if example.family in families)


def of_name(name: str, found: list[str]) -> list[str]:
    return [answer for answer in found if re.search(rf"`(?:\w+\.)?{name}`", answer)]


# -- guards, exceptions, results --------------------------------------------------------------------------------------

GUARDS = f'''
def both(first, second):
    """It {DOC}"""
    if first:
        with lock():
            if second:
                raise KeyError(first)
    return save(first, second)


def other_branch(first, second):
    """It {DOC}"""
    if first:
        save(first, second)
    else:
        if second:
            return "second"
    return save(second, first)


def in_handler(first, second):
    """It {DOC}"""
    try:
        save(first, second)
    except OSError:
        if second:
            return "gone"
    return save(second, first)


def in_loop(rows, limit):
    """It {DOC}"""
    for row in rows:
        if row > limit:
            return row
    raise LookupError(limit)
'''


def test_a_guard_is_told_with_what_stands_around_it() -> None:
    found = answers({"a.py": GUARDS}, "edge_case")
    assert of_name("both", found) == ["If `first` and `second`, `both` raises `KeyError`."]
    assert of_name("in_loop", found) == ["If `row > limit` in the loop `for row in rows`, `in_loop` returns `row`."]
    assert not of_name("other_branch", found)
    assert not of_name("in_handler", found)


RAISES = f'''
def caught(text):
    """It {DOC}"""
    try:
        if text == "":
            raise ValueError("empty")
        return parse(text)
    except ValueError:
        return None


def again(call):
    """It {DOC}"""
    try:
        return call(1, 2, 3)
    except (OSError, EOFError) as failure:
        report(failure)
        raise failure


def bare(call):
    """It {DOC}"""
    try:
        return call(1, 2, 3)
    except KeyError:
        report(call)
        raise


def unknown(call, problem):
    """It {DOC}"""
    if call(1, 2, 3):
        raise problem
    raise TypeError(call)


def suppressed(call):
    """It {DOC}"""
    with suppress(KeyError):
        raise KeyError(call)
    return call(1, 2, 3)


def from_finally(call):
    """It {DOC}"""
    try:
        call(1, 2, 3)
    finally:
        raise RuntimeError(call)
'''


def test_only_exceptions_that_leave_a_function_are_told() -> None:
    found = answers({"a.py": RAISES}, "exceptions")
    assert of_name("again", found) == ["`again` raises `OSError` and `EOFError`."]
    assert of_name("bare", found) == ["`bare` raises `KeyError`."]
    assert of_name("from_finally", found) == ["`from_finally` raises `RuntimeError`."]
    for name in ("caught", "unknown", "suppressed"):
        assert not of_name(name, found), name


def test_a_caught_exception_of_java_is_not_told() -> None:
    java = f"""
    class Reader {{
      /** It {DOC} */
      int read(String text) {{
        try {{
          if (text.isEmpty()) {{ throw new IllegalStateException("empty"); }}
          return text.length() + 1;
        }} catch (IllegalStateException e) {{ return 0; }}
      }}
      /** It {DOC} */
      int other(String text) {{
        if (text.isEmpty()) {{ throw new IllegalArgumentException("empty"); }}
        return text.length() + 2;
      }}
    }}
    """
    assert answers({"Reader.java": java}, "exceptions") == ["`other` throws `IllegalArgumentException`."]


RETURNS = f'''
def whole(key):
    """It {DOC}"""
    if key in CACHE:
        return CACHE[key]
    else:
        return load(key)


def falls(keys):
    """It {DOC}"""
    for key in keys:
        if key in CACHE:
            return CACHE[key]


def early(key):
    """It {DOC}"""
    if key in CACHE:
        return
    save(key, CACHE)
    return CACHE[key]


def endless(queue):
    """It {DOC}"""
    while True:
        item = queue.get(timeout=10)
        if item is not None:
            return item


def with_inner(keys):
    """It {DOC}"""
    def order(key):
        return CACHE[key]
    return sorted(keys, key=order)
'''


def test_what_is_returned_at_the_end_is_told() -> None:
    found = answers({"a.py": RETURNS}, "returns")
    nothing = ", or None where it ends without one of these."
    assert of_name("whole", found) == ["`whole` returns `CACHE[key]` or `load(key)`."]
    assert of_name("falls", found) == [f"`falls` returns `CACHE[key]`{nothing}"]
    assert of_name("early", found) == [f"`early` returns `CACHE[key]`{nothing}"]
    assert of_name("endless", found) == ["`endless` returns `item`."]
    assert of_name("with_inner", found) == ["`with_inner` returns `sorted(keys, key=order)`."]


# -- classes and interfaces -------------------------------------------------------------------------------------------

CLOSED = {
    "A.java": f"/** It {DOC} */\npublic final class A {{ public int size() {{ return this.hashCode() + 1; }} }}",
    "B.java": f"/** It {DOC} */\nenum B {{ ONE; public int size() {{ return this.hashCode() + 1; }} }}",
    "C.java": f"/** It {DOC} */\nrecord C(int a) {{ public int size() {{ return this.hashCode() + 1; }} }}",
    "d.cs": f"/// <summary>It {DOC}</summary>\npublic sealed class D {{ public int Size() {{ return this.GetHashCode() + 1; }} }}",
    "e.kt": f"/** It {DOC} */\nclass E {{\n  fun size(): Int {{\n    return this.hashCode() + 1 + 2 + 3\n  }}\n}}",
    "f.py": f'class F(Enum):\n    """It {DOC}"""\n    ONE = 1\n    def size(self):\n        return len(self.name)',
    "g.cpp": f"/// It {DOC}\nclass G final {{ public: virtual int size() {{ return 1 + 2 + 3 + 4 + 5; }} }};",
    "h.php": f"<?php\n/** It {DOC} */\nfinal class H {{ public function size() {{ return strlen('abc') + 1; }} }}",
}


@pytest.mark.parametrize("path", CLOSED)
def test_nobody_is_told_to_extend_what_cannot_be_extended(path: str) -> None:
    made = asked({path: CLOSED[path]})
    assert made
    assert not [example.final_answer for example in made if example.family == "extend"]


OPEN = {
    "A.java": (
        f"/** It {DOC} */ public class A {{ public A() {{}} public static A of() {{ return new A(); }} "
        "private int own() { return 1; } public final int fixed() { return 2; } protected int size() { return 3; } }",
        "Subclass `A` and override `size` as needed.",
    ),
    "a.ts": (
        f"/** It {DOC} */\nexport class A {{ constructor(private n: number) {{}} static of() {{ return new A(1); }}\n"
        "  private own() { return 1; }\n  size(): number { return this.n + 1; } }",
        "Subclass `A` and override `size` as needed.",
    ),
    "a.py": (
        f'class A:\n    """It {DOC}"""\n    def __init__(self):\n        self.n = 1\n    @staticmethod\n'
        "    def of():\n        return A()\n"
        "    def _own(self):\n        return 1\n    def size(self):\n        return self.n",
        "Subclass `A` and override `size` as needed.",
    ),
    "a.cs": (
        f"/// <summary>It {DOC}</summary>\npublic class A {{ public int Fixed() {{ return 1 + 2 + 3; }} "
        "public virtual int Size() { return 1; } public static A Of() { return new A(); } }",
        "Subclass `A` and override `Size` as needed.",
    ),
}


@pytest.mark.parametrize("path", OPEN)
def test_only_what_can_be_overridden_is_told(path: str) -> None:
    text, expected = OPEN[path]
    assert answers({path: text}, "extend") == [expected]


REQUIRED = {
    "a.go": (
        f"package a\n\n// Store {DOC}\ntype Store interface {{\n\tGet(key string) string\n\tPut(key string, value string) error\n}}\n",
        ["Implement `Store` with its methods `Get` and `Put`."],
    ),
    "embeds.go": (
        f"package a\n\n// Store {DOC}\ntype Store interface {{\n\tio.Closer\n\tGet(key string, other int) string\n}}\n",
        [],
    ),
    "a.ts": (
        f"/** It {DOC} */\nexport interface Store {{ readonly size: number; note?: string; get(key: string): string; more?(): void }}",
        ["Implement `Store` with its method `get` and its property `size`."],
    ),
    "extends.ts": (
        f"/** It {DOC} */\nexport interface Store extends Base {{ get(key: string, n: number): string }}",
        [],
    ),
    "called.ts": (f"/** It {DOC} */\nexport interface Store {{ (key: string): void; get(key: string): string }}", []),
    "A.java": (
        f"/** It {DOC} */\npublic interface A {{ int LIMIT = 3; String get(String key); default int size() {{ return 0; }} }}",
        ["Implement `A` with its method `get`."],
    ),
    "a.rs": (
        f"/// It {DOC}\npub trait Store {{ fn get(&self, key: &str) -> String; fn size(&self) -> usize {{ 0 }} }}",
        ["Implement `Store` with its method `get`."],
    ),
}


@pytest.mark.parametrize("path", REQUIRED)
def test_an_implementation_has_all_it_needs_or_is_not_asked_for(path: str) -> None:
    text, expected = REQUIRED[path]
    assert answers({path: text}, "extend") == expected


def test_overloads_are_named_by_their_parameters_without_annotations_and_comments() -> None:
    java = f"""
    class Money {{
      /** It {DOC} */
      @Deprecated(since = "2") // too long a story (see there)
      public int add(@Nullable Integer cents, final String name) {{ return cents + name.length(); }}
      /** It {DOC} */
      @SuppressWarnings({{"unchecked"}}) /* really (yes) */
      public int add(Money other) {{ return other.hashCode() + 17; }}
    }}
    """
    questions = [e.question for e in asked({"Money.java": java}) if ".add" in e.question]
    assert questions
    for question in questions:
        assert re.search(r"`Money\.add\((?:Integer cents, final String name|Money other)\)`", question), question


def test_a_list_of_callers_is_made_only_where_a_search_finds_no_more() -> None:
    def file(extra: str) -> dict[str, str]:
        code = f'def charge(n):\n    """It {DOC}"""\n    return n * 2 + compute(n)\n'
        users = "".join(f'def {name}(n):\n    """It {DOC}"""\n    return charge(n) + 1\n' for name in ("pay", "bill"))
        return {"money.py": f"{code}\n\n{users}\n\n{extra}"}

    by_value = f'def later(n):\n    """It {DOC}"""\n    return schedule(charge, n, 1)\n'
    by_method = f'def member(box, n):\n    """It {DOC}"""\n    return box.charge(n, 1)\n'
    in_comment = (
        f'def note(n):\n    """It {DOC} It is charge that does it."""\n    # charge comes later\n    return n\n'
    )
    for extra, is_asked in (("", True), (in_comment, True), (by_value, False), (by_method, False)):
        found = answers(file(extra), "callers")
        assert bool(of_name("charge", found)) == is_asked, extra


# -- documentation ----------------------------------------------------------------------------------------------------

TAGGED = [
    ("a.js", "/**\n * Opens the file for the reader\n * @since 1.2\n * @param {string} path\n */\n"
             "function open(path) { return read(path + 'x'); }"),
    ("a.php", "<?php\n/**\n * Opens the file for the reader\n * @throws IOException\n */\n"
              "function open($path) { return read($path . 'x') + 1; }"),
    ("a.py", 'def open(path):\n    """Opens the file for the reader\n    :param path: where\n    """\n    return read(path, 1, 2)'),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text"), TAGGED, ids=[path for path, _ in TAGGED])
def test_a_sentence_ends_before_a_tag(path: str, text: str) -> None:
    assert answers({path: text}, "purpose") == ['The documentation of `open` says: "Opens the file for the reader"']


DOCUMENTED = sorted((Path(__file__).parents[3] / "fixtures" / "documented").iterdir())
"""One file a language: a function (or method) of several statements that calls another, both documented in two lines."""


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.suffix)
def test_code_questions_occur_in_every_language_and_show_no_line_of_their_answer(path: Path) -> None:
    made = asked({path.name: path.read_text(encoding="utf-8")})
    families = [example.family for example in made]
    assert families.count("write_docstring") >= 1
    assert families.count("fill_in_the_middle") == 1
    for example in made:
        if example.family != "write_docstring":
            continue
        shown = one_line(" ".join(document.text for document in example.shown_documents))
        (written,) = FENCE.findall(example.final_answer)
        assert all(one_line(line) not in shown for line in written.strip().split("\n"))


def test_an_example_that_shows_a_line_of_the_documentation_asked_for_does_not_verify() -> None:
    path = next(path for path in DOCUMENTED if path.suffix == ".py")
    made = asked({path.name: path.read_text(encoding="utf-8")})
    example = next(e for e in made if e.family == "write_docstring")
    oracle = example.oracle_documents[0]
    leaking = oracle.model_copy(update={"text": f"# It {DOC}\n{oracle.text}"})
    told = verify_example(example.model_copy(update={"oracle_documents": (leaking, *example.oracle_documents[1:])}))
    assert "a line of the documentation that is asked for is shown" in told


# -- fields, types, long subjects -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.go", f"package a\n\n// Route {DOC}\ntype Route struct {{\n\tPath string\n\tUp, Down *int\n}}\n",
         "`Route` declares the fields `Path`, `Up` and `Down`."),
        ("a.rs", f"/// It {DOC}\npub struct Route {{ pub path: String, up: Option<u8> }}",
         "`Route` declares the fields `path` and `up`."),
        ("A.java", f"/** It {DOC} */ class A {{ private final int n = 3; String name; int size() {{ return n; }} }}",
         "`A` declares the fields `n` and `name`."),
    ],
)  # fmt: skip
def test_fields_are_asked_about(path: str, text: str, expected: str) -> None:
    assert expected in answers({path: text}, "members")


def test_a_struct_that_embeds_another_is_not_listed() -> None:
    go = f"package a\n\n// Route {DOC}\ntype Route struct {{\n\tBase\n\tPath string\n\tOther string\n}}\n"
    assert not [answer for answer in answers({"a.go": go}, "members") if "fields" in answer]


def test_long_subjects_are_asked_about_by_an_excerpt() -> None:
    story = "\n".join(
        f"    Paragraph {n} tells one more thing that few will ever need to know about.\n" for n in range(40)
    )
    body = "\n".join(f"    value = step_{n}(value, {n})" for n in range(120))
    python = (
        f'def long_story(value):\n    """It {DOC}\n\n{story}\n    """\n    return value + compute(value)\n\n\n'
        f'def long_body(value, limit=3):\n    """It {DOC}"""\n    if value < limit:\n        raise ValueError(value)\n'
        f"{body}\n    return value\n"
    )
    made = asked({"a.py": python}, max_context_tokens=400)
    by_subject = {name: [e for e in made if f"`{name}`" in e.question] for name in ("long_story", "long_body")}
    assert {"purpose", "parameters", "returns"} <= {e.family for e in by_subject["long_story"]}
    assert {"purpose", "parameters", "edge_case", "exceptions"} <= {e.family for e in by_subject["long_body"]}
    for example in (e for found in by_subject.values() for e in found if e.family != "write_docstring"):
        assert any("…" in document.text for document in example.oracle_documents)


def test_code_that_nests_deep_is_asked_about() -> None:
    words = ["".join(chr(97 + int(digit, 16)) for digit in content_id(str(n))[:5]) for n in range(400)]
    bodies = {
        "nested": "\n".join(f"{' ' * (n + 4)}if value > x{words[n]}:" for n in range(80))
        + f"\n{' ' * 84}return value\n",
        "chained": "    return (value\n" + "\n".join(f"        .step_{word}()" for word in words[:40]) + ")",
        "summed": "    return (value\n" + "\n".join(f"        + x{word}" for word in words) + ")",
    }
    files = {f"{name}.py": f'def {name}(value):\n    """It {DOC}"""\n{body}\n' for name, body in bodies.items()}
    questions = " ".join(e.question for e in asked(files, max_context_tokens=6000))
    assert all(f"`{name}`" in questions for name in bodies)


# -- what was found by reading ----------------------------------------------------------------------------------------


def test_a_guard_that_is_compiled_somewhere_only_is_not_told() -> None:
    code = f"""
    /* It {DOC} */
    int count(int n, int known)
    {{
    #ifdef BUILTIN
        if (known > 32)
            return builtin(n);
    #endif
        if (n < 0)
            return -1;
        return slow(n);
    }}
    """
    found = answers({"a.c": code}, "edge_case")
    assert found == ["If `n < 0`, `count` returns `-1`."]


def test_who_calls_a_context_manager_gets_no_generator() -> None:
    code = f"""
    @contextlib.contextmanager
    def opened(path):
        \"\"\"It {DOC}\"\"\"
        yield open(path, "rb", buffering=0)


    def rows(path):
        \"\"\"It {DOC}\"\"\"
        yield from read(path, 1, 2)
    """
    found = answers({"a.py": code}, "pattern")
    assert of_name("rows", found) == ["`rows` is a generator: it yields its results one at a time."]
    assert not any("generator" in answer for answer in of_name("opened", found))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("a.py", "return load(first)(second)"),
        ("a.js", "return load(first).with(second)"),
        ("a.php", "return $this->handlers[0](load($first), $second);"),
    ],
)
def test_calls_are_listed_only_where_all_have_names(path: str, body: str) -> None:
    heads = {
        "a.py": f'def f(first, second):\n    """It {DOC}"""\n    ',
        "a.js": f"/** It {DOC} */\nfunction f (first, second) {{\n  ",
        "a.php": f"<?php\n/** It {DOC} */\nfunction f($first, $second) {{\n    ",
    }
    tail = "" if path == "a.py" else "\n}\n"
    plain = {
        "a.py": "return load(first) + 1",
        "a.js": "return load(first) + 1",
        "a.php": "return $second(load($first));",
    }
    assert not any(" calls " in answer for answer in answers({path: heads[path] + body + tail}, "dependencies"))
    listed = answers({path: heads[path] + plain[path] + tail}, "dependencies")
    assert any(" calls " in answer for answer in listed)


def test_documentation_of_tags_alone_is_not_asked_for() -> None:
    head = "/**\n * @param {string} first the first of the two\n * @returns {string} both of them together\n */\n"
    code = head + "function f (first, second) {\n  return join(first, second, 1)\n}\n"
    assert answers({"a.js": code}, "write_docstring") == []


def test_an_excerpt_of_a_class_shows_where_its_members_are_defined() -> None:
    fill = "\n".join(f"    n{n} = call(n{n}, other{n}, 'a longer word {n}');" for n in range(60))
    code = (
        f"/** It {DOC} */\nclass Runner extends Base {{\n  execute() {{\n    this.close(1);\n{fill}\n  }}\n\n"
        "  close(code) {\n    return this.client.end(code);\n  }\n\n  client() {\n    return 1;\n  }\n}\n"
    )
    made = [one for one in asked({"a.js": code}, max_context_tokens=500) if one.family == "members"]
    assert made
    for line in ("execute() {", "close(code) {", "client() {"):
        assert f"\n  {line}" in made[0].oracle_documents[0].text
