"""Half definitions in every language: whole and right, or out; a member never without its class."""
# ruff: noqa: E501

import pytest

from ai_forge.data_pipeline.mining.parsing import Unit, parse


def units(language: str, text: str) -> list[Unit]:
    result = parse(text.encode(), language)
    assert result is not None
    return result.units


def sound(language: str, text: str) -> set[tuple[str, int, int]]:
    return {
        (unit.qualified_name, unit.code_line, unit.last_line) for unit in units(language, text) if not unit.has_error
    }


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "python",
            "def f(a):\n    b = a\n<<<<<<< HEAD\n    b += 1\n=======\n    b += 2\n>>>>>>> x\n    return b\n\n"
            "def g():\n    return 1\n",
            {("g", 10, 11)},
        ),
        (
            "python",
            "class A:\n    def f(self):\n        return 1\n\n<<<<<<< HEAD\n    def g(self):\n        return 2\n"
            "||||||| base\n    def g(self):\n        return 0\n=======\n    def g(self):\n        return 3\n>>>>>>> x\n\n"
            "    def h(self):\n        return 4\n",
            {("A.f", 2, 3), ("A.h", 16, 17)},
        ),
        (
            "javascript",
            "class A {\n  f() {\n<<<<<<< HEAD\n    if (a) {\n=======\n    if (b) {\n>>>>>>> x\n      g();\n    }\n  }\n"
            "  h() { return 2; }\n}\n",
            {("A.h", 11, 11)},
        ),
        (
            "go",
            "package a\n\nfunc F() int {\n<<<<<<< HEAD\n\treturn 1\n=======\n\treturn 2\n>>>>>>> x\n}\n\nfunc G() int { return 3 }\n",
            {("G", 11, 11)},
        ),
        (
            "java",
            "class A {\n  int f() {\n<<<<<<< HEAD\n    return 1;\n=======\n    return 2;\n>>>>>>> x\n  }\n  int g() { return 3; }\n}\n",
            {("A.g", 9, 9)},
        ),
    ],
)
def test_what_holds_a_conflict_is_out_and_the_rest_is_whole(
    language: str, text: str, expected: set[tuple[str, int, int]]
) -> None:
    assert sound(language, text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "python",
            "def f(a):\n    b = 1\n{% if x %}\n    b = 2\n{% endif %}\n    return b\n\ndef g():\n    return 1\n",
            {("g", 8, 9)},
        ),
        ("python", "def f(a):\n    b = 1\n{{ body }}\n    return b\n\ndef g():\n    return 1\n", {("g", 6, 7)}),
        (
            "python",
            "{# note #}\nclass {{ name }}:\n    def f(self):\n        return 1\n\ndef g():\n    return 1\n",
            {("g", 6, 7)},
        ),
        (
            "java",
            "class {{ name }} {\n  int f() { return 1; }\n}\nclass B {\n  int g() { return 1; }\n}\n",
            {("B", 4, 6), ("B.g", 5, 5)},
        ),
        (
            "javascript",
            "function f() {\n  <% if (x) { %>\n  g();\n  <% } %>\n}\nfunction h() { return 1; }\n",
            {("h", 6, 6)},
        ),
        (
            "go",
            "package a\n\n{{- if .X }}\nfunc F() int { return 1 }\n{{- end }}\n\nfunc G() int { return {{ .N }} }\n",
            {("F", 4, 4)},
        ),
    ],
)
def test_templates_cost_what_they_stand_in(language: str, text: str, expected: set[tuple[str, int, int]]) -> None:
    assert sound(language, text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "def f(a):\n    b = 1\n$$$ what\n    return b\n\ndef g():\n    return 1\n", {("g", 6, 7)}),
        ("python", "def f(a):\n    b = 1\nTODO\n    return b\n\ndef g():\n    return 1\n", {("g", 6, 7)}),
        (
            "python",
            "class A:\n    def f(self):\n        b = 1\n    TODO\n        return b\n\n    def g(self):\n        return 1\n",
            {("A.g", 7, 8)},
        ),
        (
            "python",
            "class A\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n\ndef h():\n    return 3\n",
            {("h", 8, 9)},
        ),
        (
            "javascript",
            "class A extends {\n  f() { return 1; }\n  g() { return 2; }\n}\nfunction h() { return 1; }\n",
            set(),
        ),
        ("javascript", "class A {\n  f() {\n    @#$ odd\n  }\n  g() { return 2; }\n}\n", {("A.g", 5, 5)}),
        (
            "typescript",
            "export class A<T extends {\n  f(): void {\n    x();\n  }\n}\nfunction h() { return 1 }\n",
            {("h", 6, 6)},
        ),
        ("go", "package a\n\nfunc F() int {\n??? odd\n\treturn 1\n}\n\nfunc G() int { return 1 }\n", {("G", 8, 8)}),
        (
            "php",
            "<?php\nclass A {\n  function f() {\n    return 1 +;\n  }\n  function g() { return 1; }\n}\n",
            {("A.g", 6, 6)},
        ),
        (
            "c",
            "int f(void)\n{\n    return 1;\n    }\n    return 2;\n}\n\nint g(void)\n{\n    return 2;\n}\n",
            {("g", 8, 11)},
        ),
    ],
)
def test_one_odd_line_costs_the_definition_around_it(
    language: str, text: str, expected: set[tuple[str, int, int]]
) -> None:
    assert sound(language, text) == expected


def test_definitions_below_a_condition_are_whole() -> None:
    text = "if a:\n    def f():\n        return 1\nelse:\n    def f():\n        return 2\nx = 1; y = 2\n"
    assert sound("python", text) == {("f", 2, 3), ("f", 5, 6)}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (
            "python",
            'class A:\n    """Fills in:\n\n    {{ name }}\n    {% if x %}\n    """\n\n    def f(self):\n        return 1\n',
        ),
        ("javascript", "function f() {\n  return `\n{{ name }}\n`;\n}\n"),
        ("go", "package a\n\nfunc F() string {\n\treturn `\n{{ .Name }}\n`\n}\n"),
    ],
)
def test_a_template_in_a_string_is_a_string(language: str, text: str) -> None:
    assert not any(unit.has_error for unit in units(language, text))
