"""Units and spans against Python's own parser, and each language's fixture."""

import ast
import sysconfig
import warnings
from pathlib import Path

import pytest

from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.mining.identifiers import CodeNames
from ai_forge.data_pipeline.mining.parsing import ParsedFile, parse
from ai_forge.data_pipeline.text.words import LineTokens, approximate_tokens

FIXTURES = Path(__file__).parents[3] / "fixtures" / "languages"
LIBRARY = Path(sysconfig.get_path("stdlib"))
SAMPLE = [path for folder in ("asyncio", "email", "http", "json") for path in sorted((LIBRARY / folder).glob("*.py"))]


def parsed(name: str) -> ParsedFile:
    language = language_of(name)
    assert language is not None
    result = parse((FIXTURES / name).read_bytes(), language)
    assert result is not None
    return result


def ast_units(source: bytes) -> set[tuple[str, int, int, tuple[str, ...]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            names: tuple[str, ...] = ()
            if not isinstance(node, ast.ClassDef):
                a = node.args
                every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs]
                names = tuple(p.arg for p in [*every, *([a.kwarg] if a.kwarg else [])])
            assert node.end_lineno is not None
            found.add((node.name, first, node.end_lineno, names))
    return found


def test_python_units_equal_what_ast_finds_in_the_standard_library() -> None:
    n_units = 0
    wrong: list[object] = []
    for path in SAMPLE:
        source = path.read_bytes()
        result = parse(source, "python")
        assert result is not None
        units = [unit for unit in result.units if unit.definition.type != "lambda" and not unit.has_error]
        expected = ast_units(source)
        n_units += len(expected)
        spans = {(name, first, last) for name, first, last, _ in expected}
        wrong += [(path.name, d) for d in spans ^ {(u.name, u.first_line, u.last_line) for u in units}]
        parameters = {(name, first): names for name, first, _, names in expected}
        for unit in units:
            names = parameters.get((unit.name, unit.first_line), ())
            if unit.kind == "method" and names[:1] in (("self",), ("cls",), ("metacls",)):
                names = names[1:]
            if unit.kind in ("method", "function") and tuple(unit.parameters) != names:
                wrong.append((path.name, unit.name, unit.first_line, unit.parameters, names))
    assert n_units > 1_500
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "shapes.py",
            {
                ("function", "square", 9, 9),
                ("function", "cached", 12, 14),
                ("class", "Shape", 17, 42),
                ("method", "Shape.area", 20, 23),
                ("method", "Shape.parse", 25, 39),
                ("function", "Shape.parse.fail", 36, 37),
                ("class", "Shape.Meta", 41, 42),
                ("function", "walk", 46, 50),
                ("function", "conditional", 56, 60),
            },
        ),
        (
            "server.js",
            {
                ("function", "app.listen", 13, 26),
                ("function", "Server.close", 28, 34),
                ("function", "helper", 36, 36),
                ("method", "onError", 39, 41),
                ("function", "retry", 42, 44),
                ("class", "Router", 47, 61),
                ("method", "Router.create", 50, 52),
                ("method", "Router.size", 54, 56),
                ("method", "Router.walk", 58, 60),
                ("function", "default", 63, 63),
            },
        ),
        (
            "shapes.ts",
            {
                ("interface", "Shape", 6, 11),
                ("type", "Style", 13, 14),
                ("type", "Colour", 16, 19),
                ("function", "parseColour", 21, 22),
                ("function", "parseColour", 23, 23),
                ("function", "parseColour", 24, 32),
                ("class", "Circle", 34, 60),
                ("method", "Circle.constructor", 40, 42),
                ("method", "Circle.area", 44, 47),
                ("method", "Circle.scale", 49, 49),
                ("method", "Circle.onResize", 51, 53),
                ("method", "Circle.steps", 55, 59),
                ("function", "totalArea", 62, 66),
                ("function", "totalArea.add", 64, 64),
                ("function", "describe", 68, 70),
            },
        ),
        (
            "Button.tsx",
            {
                ("interface", "ButtonProps", 3, 6),
                ("function", "Button", 8, 16),
                ("function", "Button.handleClick", 11, 14),
            },
        ),
        (
            "store.go",
            {
                ("class", "Store", 16, 21),
                ("interface", "Getter", 23, 27),
                ("type", "Key", 29, 30),
                ("type", "Handler", 32, 32),
                ("method", "Store.Put", 34, 48),
                ("function", "Store.Put.normalise", 43, 45),
                ("method", "List.Len", 50, 50),
                ("function", "New", 52, 55),
            },
        ),
        (
            "Account.java",
            {
                ("class", "Account", 6, 56),
                ("method", "Account.fee", 11, 11),
                ("method", "Account.Account", 14, 17),
                ("method", "Account.withdraw", 19, 31),
                ("method", "Account.withdraw", 33, 36),
                ("method", "Account.getBalance", 38, 40),
                ("class", "Account.Entry", 42, 47),
                ("method", "Account.Entry.text", 44, 46),
                ("class", "Account.Kind", 49, 49),
                ("class", "Account.Transfer", 51, 51),
                ("interface", "Account.Listener", 53, 55),
                ("method", "Account.Listener.changed", 54, 54),
            },
        ),
    ],
)
def test_each_language_gives_the_units_of_its_fixture(name: str, expected: set[tuple[str, str, int, int]]) -> None:
    assert {(u.kind, u.qualified_name, u.first_line, u.last_line) for u in parsed(name).units} == expected


def unit(name: str, qualified_name: str, index: int = 0):  # type: ignore[no-untyped-def]
    return [u for u in parsed(name).units if u.qualified_name == qualified_name][index]


def test_documentation_is_attached_without_its_marks() -> None:
    assert unit("shapes.py", "Shape.parse").docstring == "Make a shape from its text.\n\nFails on unknown kinds."
    assert unit("shapes.py", "walk").docstring == "Yield all shapes, depth first."
    assert unit("server.js", "app.listen").docstring.startswith("Listen for connections on a port.\n\n@param")
    assert unit("server.js", "Server.close").docstring is None
    assert unit("shapes.ts", "Circle.area").docstring == "Area of the circle, never negative."
    assert unit("store.go", "Store.Put").docstring == "Put stores value under key.\n\nIt fails when the store is full."
    assert unit("Account.java", "Account.Entry").docstring == "One line of the ledger."


def test_parameters_leave_out_receivers_and_resolve_patterns() -> None:
    assert list(unit("shapes.py", "Shape.parse").parameters) == ["text", "strict", "options"]
    assert list(unit("shapes.py", "conditional").parameters) == ["a", "b"]
    assert list(unit("server.js", "helper").parameters) == ["a", "b", "c", "rest"]
    assert list(unit("shapes.ts", "Circle.steps").parameters) == ["from", "to", "rest"]
    assert list(unit("store.go", "Store.Put").parameters) == ["key", "value"]
    assert list(unit("Account.java", "Account.withdraw", 1).parameters) == ["amount", "reason"]


def test_exceptions_returns_and_guards_are_the_units_own() -> None:
    shape = unit("shapes.py", "Shape.parse")
    assert list(shape.raises) == ["ValueError"]  # KeyError belongs to the nested function
    assert [(g.condition, g.action, g.outcome) for g in shape.guards] == [
        ("not text", "raise", 'raise ValueError("empty text")'),
        ('text == "unit"', "return", "return registry.unit()"),
    ]
    assert list(unit("shapes.ts", "describe").raises) == []  # the callback throws, not the function
    assert list(unit("server.js", "Server.close").return_values) == ["done()"]
    assert unit("server.js", "Server.close").guards == []
    assert list(unit("Account.java", "Account.withdraw").raises) == ["InsufficientFundsException"]


def test_signatures_are_whole_and_on_one_line() -> None:
    assert unit("shapes.py", "walk").signature == "async def walk(shapes, /, depth=1, *rest)"
    assert unit("shapes.ts", "Circle.steps").signature.endswith("AsyncGenerator<number>")
    assert unit("store.go", "Store").signature == "type Store struct"
    assert unit("shapes.ts", "totalArea").signature == "const totalArea = (shapes: Shape[]): number"


def test_bases_decorators_generators_and_members() -> None:
    assert list(unit("shapes.ts", "Circle").bases) == ["EventEmitter", "Shape"]
    assert list(unit("store.go", "Store").bases) == ["clock.Clock", "Options"]
    assert list(unit("Account.java", "Account").bases) == ["Entity", "Closeable", "Comparable<Account>"]
    assert list(unit("shapes.py", "Shape.area").decorators) == ["property", "abstractmethod"]
    assert list(unit("Account.java", "Account.withdraw").decorators) == ["Override"]
    assert unit("store.go", "Getter").members == dict.fromkeys(["Get", "Len"])
    assert unit("shapes.ts", "Shape").members.keys() == {"area", "scale"}
    assert unit("shapes.py", "walk").is_generator
    assert unit("server.js", "Router.walk").is_generator
    assert not unit("server.js", "Server.close").is_generator


def test_imports_bind_local_names_to_modules() -> None:
    assert ("Iter", "collections.abc", "Iterator") in parsed("shapes.py").imports
    assert ("absolute", "path", "resolve") in parsed("server.js").imports
    assert ("http", "node:http", None) in parsed("server.js").imports
    assert ("Log", "./logger", "Logger") in parsed("shapes.ts").imports
    assert ("str", "strings", None) in parsed("store.go").imports
    assert ("List", "java.util.List", None) in parsed("Account.java").imports


def test_what_is_counted_once_for_a_file_equals_what_is_counted_for_each_unit() -> None:
    content = "def f():\n    naïve = 'ünder'  # é\n    def g(größe):\n\n        return größe.x + naïve\n".encode()
    result = parse(content, "python")
    assert result is not None
    names = CodeNames(result)
    assert [names.of(u) for u in result.units] == [
        ["def", "f", "naïve", "g", "größe", "return"],
        ["def", "g", "größe", "return", "naïve"],
    ]
    for path in SAMPLE[::3]:
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")
        tokens = LineTokens(text.encode(), range(0, len(lines), 10))
        for first in range(1, len(lines), 7):
            last = min(first + 20, len(lines))
            assert tokens.text(first, last) == "\n".join(lines[first - 1 : last])
            assert tokens.of((first, last)) == approximate_tokens(tokens.text(first, last))
