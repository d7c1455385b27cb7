"""The languages beyond the first six: units, documentation, imports and behaviour of one fixture each."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline.languages import LANGUAGES, language_of, load
from ai_forge.data_pipeline.mining.parsing import ParsedFile, Unit, parse

FIXTURES = Path(__file__).parents[3] / "fixtures" / "languages"


def parsed(name: str) -> ParsedFile:
    language = language_of(name)
    assert language is not None
    result = parse((FIXTURES / name).read_bytes(), language)
    assert result is not None
    return result


def unit(name: str, qualified_name: str, index: int = 0) -> Unit:
    return [u for u in parsed(name).units if u.qualified_name == qualified_name][index]


def test_every_language_has_a_grammar_a_query_and_a_fixture() -> None:
    assert all(load(name) is not None for name in LANGUAGES)
    assert {language_of(path.name) for path in FIXTURES.iterdir()} == set(LANGUAGES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "stack.rs",
            {
                ("interface", "Area", 8, 18),
                ("method", "Area.area", 12, 13),
                ("method", "Area.twice", 15, 17),
                ("class", "Stack", 20, 24),
                ("type", "Fault", 26, 30),
                ("type", "Names", 32, 32),
                ("method", "Stack.push", 35, 47),
                ("function", "Stack.push.count", 44, 44),
                ("method", "Stack.fmt", 51, 56),
                ("function", "helpers.read", 60, 66),
                ("function", "helpers.read.inner", 62, 64),
                ("function", "square", 69, 72),
            },
        ),
        (
            "buffer.c",
            {
                ("function", "MAX", 6, 7),
                ("class", "buffer", 9, 15),
                ("type", "growth", 17, 18),
                ("class", "word", 20, 20),
                ("class", "point_t", 22, 25),
                ("type", "compare_fn", 27, 27),
                ("function", "buffer_append", 33, 47),
                ("function", "buffer_find", 49, 52),
            },
        ),
        (
            "shapes.cpp",
            {
                ("class", "geo.Shape", 10, 21),
                ("method", "geo.Shape.~Shape", 13, 13),
                ("method", "geo.Shape.sides", 16, 16),
                ("method", "geo.Shape.operator==", 17, 17),
                ("class", "geo.Circle", 23, 40),
                ("method", "geo.Circle.Circle", 27, 31),
                ("class", "geo.Circle.Options", 34, 36),
                ("method", "geo.Circle.area", 42, 47),
                ("function", "geo.Circle.area.square", 45, 45),
                ("type", "geo.Colour", 49, 49),
                ("type", "geo.Shapes", 51, 51),
                ("function", "geo.total", 53, 61),
                ("function", "geo.total", 63, 63),
                ("method", "geo.make", 67, 67),
            },
        ),
        (
            "Orders.cs",
            {
                ("interface", "IPayable", 6, 12),
                ("method", "IPayable.Pay", 10, 11),
                ("class", "Order", 14, 67),
                ("method", "Order.twice", 22, 22),
                ("method", "Order.Order", 24, 28),
                ("method", "Order.Total", 32, 35),
                ("method", "Order.Add", 37, 49),
                ("function", "Order.Add.Inner", 46, 46),
                ("method", "Order.Add", 51, 51),
                ("method", "Order.+", 53, 53),
                ("method", "Order.Pay", 55, 55),
                ("type", "Order.State", 57, 57),
                ("class", "Order.Line", 59, 59),
                ("class", "Order.Key", 61, 64),
                ("type", "Order.Changed", 66, 66),
            },
        ),
        (
            "queue.rb",
            {
                ("module", "Jobs", 6, 56),
                ("class", "Jobs.Queue", 10, 52),
                ("method", "Jobs.Queue.initialize", 17, 20),
                ("method", "Jobs.Queue.push", 22, 33),
                ("method", "Jobs.Queue.load", 35, 37),
                ("method", "Jobs.Queue.default", 40, 42),
                ("method", "Jobs.Queue.==", 45, 45),
                ("method", "Jobs.Queue.full?", 49, 51),
                ("method", "Jobs.TWICE", 55, 55),
                ("function", "run", 58, 61),
                ("function", "dynamic", 63, 63),
            },
        ),
        (
            "Mailer.php",
            {
                ("interface", "Sendable", 13, 20),
                ("method", "Sendable.send", 18, 19),
                ("class", "Logs", 22, 26),
                ("method", "Logs.log", 25, 25),
                ("type", "Status", 28, 33),
                ("method", "Status.label", 32, 32),
                ("class", "Mailer", 35, 71),
                ("method", "Mailer.__construct", 45, 47),
                ("method", "Mailer.send", 49, 70),
                ("function", "Mailer.send.build", 60, 62),
                ("function", "Mailer.send.short", 63, 63),
                ("function", "make_mailer", 73, 77),
                ("function", "handler", 79, 79),
            },
        ),
        (
            "Cart.kt",
            {
                ("interface", "Priced", 8, 12),
                ("method", "Priced.price", 10, 11),
                ("class", "Cart", 14, 52),
                ("method", "Cart.constructor", 27, 27),
                ("method", "Cart.add", 29, 40),
                ("function", "Cart.add.helper", 37, 37),
                ("method", "Cart.price", 42, 42),
                ("method", "Cart.empty", 48, 48),
                ("class", "Cart.Line", 51, 51),
                ("class", "State", 54, 54),
                ("class", "Key", 56, 56),
                ("class", "Registry", 58, 61),
                ("method", "Registry.find", 60, 60),
                ("type", "Items", 63, 63),
                ("method", "String.count", 65, 66),
                ("function", "double", 68, 68),
            },
        ),
        (
            "Tree.scala",
            {
                ("interface", "Sized", 6, 10),
                ("method", "Sized.size", 8, 9),
                ("class", "Tree", 12, 35),
                ("method", "Tree.add", 19, 32),
                ("function", "Tree.add.helper", 28, 28),
                ("function", "Tree.add.twice", 29, 29),
                ("method", "Tree.size", 34, 34),
                ("class", "Tree", 37, 40),
                ("method", "Tree.empty", 39, 39),
                ("class", "Leaf", 42, 42),
                ("class", "Colour", 44, 44),
                ("class", "Red", 45, 45),
                ("type", "Shape", 47, 49),
                ("type", "Names", 51, 51),
            },
        ),
        (
            "deploy.sh",
            {
                ("function", "copy_release", 11, 24),
                ("function", "retry", 26, 29),
                ("function", "retry.inner", 27, 27),
                ("function", "isolated", 31, 34),
            },
        ),
    ],
)
def test_each_language_gives_the_units_of_its_fixture(name: str, expected: set[tuple[str, str, int, int]]) -> None:
    result = parsed(name)
    assert not result.has_error
    assert {(u.kind, u.qualified_name, u.first_line, u.last_line) for u in result.units} == expected


@pytest.mark.parametrize(
    ("name", "qualified_name", "docstring"),
    [
        ("stack.rs", "Area", "Something that has an area.\n\nNever negative."),
        ("stack.rs", "Stack", "A stack of values."),  # an attribute stands between the comment and the struct
        ("stack.rs", "Fault", "What can go wrong."),
        ("stack.rs", "Stack.push", "Put a value on top.\n\nFails when the stack is full."),
        ("buffer.c", "MAX", "The larger of two values."),
        ("buffer.c", "buffer_append", "Append bytes to a buffer.\n\n@return 0 if there is no room"),
        ("buffer.c", "buffer_find", "Finds a byte."),
        ("shapes.cpp", "geo.Circle.area", "Computes the area."),  # above `template <typename T>`
        ("shapes.cpp", "geo.total", "Sums all areas.\nEmpty gives zero."),
        ("Orders.cs", "Order", "An order of a customer."),
        ("Orders.cs", "Order.Add", "Adds a line.\n@param line what is bought"),
        ("queue.rb", "Jobs.Queue", "A queue of jobs.\n\nNot safe for threads."),
        ("Mailer.php", "Mailer.send", "Sends one mail.\n\n@throws MailException"),
        ("Cart.kt", "Cart.add", "Adds an item."),
        ("Tree.scala", "Tree.add", "Adds a child.\n\n@param child what to add"),
        ("deploy.sh", "copy_release", "Copies a release.\n\nArguments: the version."),
        ("deploy.sh", "retry", None),
    ],
)
def test_documentation_stands_without_its_marks(name: str, qualified_name: str, docstring: str | None) -> None:
    assert unit(name, qualified_name).docstring == docstring


def test_what_the_file_says_about_itself_is_its_docstring() -> None:
    assert parsed("stack.rs").docstring == "A stack with a limit."
    assert parsed("Mailer.php").docstring == "Sending mail."
    assert parsed("deploy.sh").docstring == "Puts a release on a host."
    assert parsed("store.go").docstring == "Package store keeps values."
    assert parsed("Cart.kt").docstring is None
    licence = b"// Copyright 2026 The Authors.\n\n// Package a adds.\npackage a\n"
    result = parse(licence, "go")
    assert result is not None
    assert result.docstring == "Package a adds."


@pytest.mark.parametrize(
    ("name", "qualified_name", "parameters"),
    [
        ("stack.rs", "Stack.push", ["value"]),
        ("buffer.c", "buffer_append", ["buf", "bytes", "n"]),
        ("shapes.cpp", "geo.total", ["shapes", "start"]),
        ("Orders.cs", "Order.Add", ["line", "counts"]),
        ("queue.rb", "Jobs.Queue.initialize", ["name", "limit", "rest", "block"]),
        ("Mailer.php", "Mailer.__construct", ["logger", "rest"]),
        ("Cart.kt", "Cart.add", ["item", "count"]),
        ("Tree.scala", "Tree.empty", ["value"]),
    ],
)
def test_parameters(name: str, qualified_name: str, parameters: list[str]) -> None:
    assert list(unit(name, qualified_name).parameters) == parameters


@pytest.mark.parametrize(
    ("name", "qualified_name", "raises", "guard"),
    [
        ("shapes.cpp", "geo.Circle.Circle", ["std::invalid_argument"], "radius < 0"),
        ("Orders.cs", "Order.Add", ["ArgumentNullException"], "line == null"),
        ("queue.rb", "Jobs.Queue.push", ["FullError"], "full?"),
        ("Mailer.php", "Mailer.send", ["MailException"], "$to === ''"),
        ("Cart.kt", "Cart.add", ["CartException"], "items.size >= limit"),
        ("Tree.scala", "Tree.add", ["IllegalArgumentException"], "count < 0"),
    ],
)
def test_exceptions_and_the_guards_that_raise_them(
    name: str, qualified_name: str, raises: list[str], guard: str
) -> None:
    found = unit(name, qualified_name)
    assert list(found.raises) == raises
    assert [(g.condition, g.action) for g in found.guards] == [(guard, "raise")]


def test_guards_that_return() -> None:
    assert [(g.condition, g.outcome) for g in unit("stack.rs", "Stack.push").guards] == [
        ("self.items.len() >= LIMIT", "return Err(Fault::Full)")
    ]
    assert [g.outcome for g in unit("buffer.c", "buffer_append").guards] == ["return 0"]


def test_calls_are_named_as_written() -> None:
    assert list(unit("Mailer.php", "Mailer.send").calls) == [
        "MailException",
        "self::check",
        "$this->logger->info",
        "strlen",
    ]
    assert list(unit("stack.rs", "Stack.push").calls) == ["self.items.len", "Err", "self.items.push", "Ok", "count"]
    assert list(unit("shapes.cpp", "geo.total").calls) == ["shape->area"]
    assert list(unit("queue.rb", "Jobs.Queue.load").calls) == ["new", "JSON.parse", "File.read"]
    assert list(unit("deploy.sh", "copy_release").calls) == ["echo", "return", "scp", "retry", "log_info"]


def test_bases_decorators_and_branches() -> None:
    assert list(unit("shapes.cpp", "geo.Circle").bases) == ["Shape", "Logged"]
    assert list(unit("Orders.cs", "Order").bases) == ["Entity", "IPayable"]
    assert list(unit("queue.rb", "Jobs.Queue").bases) == ["Base", "Enumerable"]
    assert list(unit("Mailer.php", "Mailer").bases) == ["Base", "Sendable"]
    assert list(unit("Cart.kt", "Cart").bases) == ["Entity", "Priced"]
    assert list(unit("Tree.scala", "Tree").bases) == ["Node", "Sized"]
    assert list(unit("stack.rs", "Stack.push").decorators) == ["inline", "must_use"]
    assert list(unit("Orders.cs", "Order").decorators) == ["Serializable", 'Obsolete("old")']
    assert list(unit("Mailer.php", "Mailer.send").decorators) == ["Route('/send')"]
    assert list(unit("Cart.kt", "Cart").decorators) == ["Serializable"]
    assert unit("buffer.c", "buffer_append").complexity == 3
    assert unit("deploy.sh", "retry").complexity == 3


def test_signatures_end_before_the_body() -> None:
    assert unit("stack.rs", "helpers.read").signature == "pub async fn read(path: &str) -> String"
    assert unit("buffer.c", "MAX").signature == "#define MAX(a, b)"
    assert unit("shapes.cpp", "geo.Circle.area").signature == "double Circle<T>::area() const"
    assert unit("queue.rb", "Jobs.Queue").signature == "class Queue < Base"
    assert unit("Cart.kt", "String.count").signature == "fun String.count(): Int"


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("stack.rs", ("Show", "std::fmt", "Display")),
        ("shapes.cpp", ("string", "std", "string")),
        ("Orders.cs", ("Lists", "System.Collections.Generic", None)),
        ("Mailer.php", ("Logger", "Psr\\Log\\LoggerInterface", "LoggerInterface")),
        ("Cart.kt", ("StoreItem", "shop.store.Item", None)),
        ("Tree.scala", ("JList", "java.util", "List")),
        ("Tree.scala", ("mutable", "scala.collection.mutable", None)),
    ],
)
def test_imports_bind_local_names(name: str, imported: tuple[str, str, str | None]) -> None:
    assert imported in parsed(name).imports


def test_modules_and_constants() -> None:
    assert parsed("buffer.c").modules == ["stdio.h", "buffer.h"]
    assert parsed("queue.rb").modules == ["json", "store"]
    assert parsed("deploy.sh").modules == ["./common.sh", "lib/log.sh"]
    for name in ("stack.rs", "buffer.c", "shapes.cpp", "queue.rb", "Mailer.php", "Cart.kt", "deploy.sh"):
        assert "LIMIT" in parsed(name).constants
