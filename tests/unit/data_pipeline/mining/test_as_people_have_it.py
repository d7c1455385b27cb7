"""Code as people have it, in forms that parity's packages lack: every definition whole and right, or out and counted."""
# ruff: noqa: E501

import pytest

from ai_forge.data_pipeline.mining.parsing import Unit, parse


def units(language: str, text: str) -> list[Unit]:
    result = parse(text.encode(), language)
    assert result is not None
    return result.units


def sound(language: str, text: str) -> set[tuple[str, int, int]]:
    return {(u.qualified_name, u.first_line, u.last_line) for u in units(language, text) if not u.has_error}


# -- merge conflicts --------------------------------------------------------------------------------------------------

ONE = "<<<<<<< HEAD\n        1{end}\n=======\n        2{end}\n>>>>>>> x\n"
CONFLICTS = {
    "kotlin": ("class A {\n    fun f(): Int {\n@    }\n    fun g(): Int { return 3 }\n}\n", "", {("A.g", 9, 9)}),
    "php": (
        "<?php\nclass A {\n    function f() {\n@    }\n    function g() { return 3; }\n}\n",
        ";",
        {("A.g", 10, 10)},
    ),
    "csharp": ("class A {\n    void F() {\n@    }\n    int G() { return 3; }\n}\n", ";", {("A.G", 9, 9)}),
    "ruby": ("class A\n  def f\n@  end\n  def g\n    3\n  end\nend\n", "", {("A.g", 9, 11)}),
    "rust": ("impl A {\n    fn f(&self) -> u8 {\n@    }\n    fn g(&self) -> u8 { 3 }\n}\n", "", {("A.g", 9, 9)}),
    "scala": ("object A {\n  def f: Int = {\n@  }\n  def g: Int = 3\n}\n", "", {("A.g", 9, 9)}),
    "cpp": ("class A {\n  int f() {\n@  }\n  int g() { return 3; }\n};\n", ";", {("A.g", 9, 9)}),
    "bash": ("f() {\n  a\n@}\ng() { :; }\n", "", {("g", 9, 9)}),
}


@pytest.mark.parametrize("language", CONFLICTS)
def test_a_conflict_is_out_in_every_language(language: str) -> None:
    text, end, expected = CONFLICTS[language]
    assert sound(language, text.replace("@", ONE.replace("{end}", end))) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("scala", 'object A {\n  val s = """\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> x\n"""\n  def f: Int = 1\n}\n', {("A", 1, 10), ("A.f", 9, 9)}),
        ("python", 'def f():\n    return """\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> x\n"""\n', {("f", 1, 8)}),
        ("javascript", "function f() {\n  return `\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> x\n`\n}\n", {("f", 1, 9)}),
    ],
)  # fmt: skip
def test_marks_in_a_string_are_no_conflict(language: str, text: str, expected: set[tuple[str, int, int]]) -> None:
    assert sound(language, text) == expected


# -- where a body ends ------------------------------------------------------------------------------------------------

SCALA = """package a

enum Color(val rgb: Int):
  case Red extends Color(1)
  def hex: String =
    rgb.toHexString
end Color

extension (s: String)
  def shout: String = s.toUpperCase
  def twice: String =
    s + s

class A(using x: Int) extends B, C:
  def f(a: Int)(using Ctx): Int =
    a match
      case 1 => 2
      case _ =>
        3
  def g = 1

given ord: Ordering[Int] with
  def compare(x: Int, y: Int): Int =
    if x < y then -1
    else 1

@main def run(args: String*) =
  for a <- args do
    println(a)
"""


def test_a_body_that_is_told_by_indentation_ends_with_its_last_line() -> None:
    assert sound("scala", SCALA) == {
        ("Color", 3, 7), ("Color.hex", 5, 6), ("shout", 10, 10), ("twice", 11, 12), ("A", 14, 20), ("A.f", 15, 19),
        ("A.g", 20, 20), ("ord", 22, 25), ("ord.compare", 23, 25), ("run", 27, 29),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class C { fun f() = 1 }\n", {"C", "C.f"}),
        ("class W(val a: Int) { fun f() { g() } }\n", {"W", "W.f"}),
        ("fun interface P { fun run(a: Int): Boolean }\n", {"P", "P.run"}),
        ("sealed interface S { data object N : S\n data class D(val a: Int) : S }\n", {"S", "S.N", "S.D"}),
        ("class A { val a = 1; fun f() = 1 }\nfun g() = 2\n", {"A", "A.f", "g"}),
    ],
)
def test_a_class_of_kotlin_may_be_one_line(text: str, expected: set[str]) -> None:
    assert {name for name, _, _ in sound("kotlin", text)} == expected


# -- newer syntax -----------------------------------------------------------------------------------------------------

NEWER = {
    "kotlin contexts": (
        "kotlin",
        "context(log: Logger, _: (Int) -> Db)\nprivate fun q() = 1\n\ncontext(Logger)\nfun r() = 1\n\n"
        "fun s(a: Any) = when (a) {\n    is Int if a > 1 -> 2\n    else if a == b -> 3\n    else -> 4\n}\n\n"
        'fun t() = $$"""a $b $$c"""\n',
        {("q", 1, 2), ("r", 4, 5), ("s", 7, 11), ("t", 13, 13)},
    ),
    "csharp 14": (
        "csharp",
        "namespace A;\npublic class P(int a) : Q(a)\n{\n    public string Y { get; set => field = value; }\n"
        "    int F(int[] d) => d is [1, .. var r] ? r[0] : 2;\n    void G() { a?.b = 1; a?.c[0] ??= 2; }\n}\n"
        "file class H<T> where T : notnull, allows ref struct { int F() => 1; }\n"
        "public static class E\n{\n    extension<T>(List<T> s) where T : class\n    {\n        public int Len() => s.Count;\n    }\n"
        "    public static int Old(this string s) => 1;\n}\n",
        {("P", 2, 7), ("P.Y", 4, 4), ("P.F", 5, 5), ("P.G", 6, 6), ("H", 8, 8), ("H.F", 8, 8), ("E", 9, 16), ("E.Len", 13, 13), ("E.Old", 15, 15)},
    ),
    "cpp 23": (
        "cpp",
        "class A {\n public:\n  auto g(this auto&& self) { if consteval { return 1; } if !consteval { return 2; } return 3; }\n"
        "  int x : 3 = 1, y : 4{2};\n  int f() { return [x = 1, ...a = b]<class Q>(Q q) mutable { return q; }(1); }\n};\n",
        {("A", 1, 6), ("A.g", 3, 3), ("A.f", 5, 5)},
    ),
    "c of 1978": (
        "c",
        "int add(a, b)\nint a;\nint b;\n{\n    return a + b;\n}\n\nstatic char *name(p, n)\n    char *p;\n    register int n;\n{\n"
        "    return p + n;\n}\n\nstruct s *make(a, g)\n    struct s *a; int (*g)();\n{\n    return a;\n}\n\nint last(void) { return 1; }\n",
        {("add", 1, 6), ("name", 8, 13), ("make", 15, 19), ("last", 21, 21)},
    ),
    "python 3.12 to 3.14": (
        "python",
        'class A[T: (int, str), *Ts, **P]:\n    def f[U = int](self, a: T) -> U: ...\n\ndef g(a):\n    return f"{a!r:>{w}} {\'a\' + f"{a["b"]}"}" + t"{a}"\n\n'
        "def h():\n    try:\n        pass\n    except* A:\n        pass\n\ndef k():\n    try:\n        pass\n    except A, B:\n        pass\n",
        {("A", 1, 2), ("A.f", 2, 2), ("g", 4, 5), ("h", 7, 11), ("k", 13, 17)},
    ),
    "java 21 to 25": (
        "java",
        "sealed interface S permits A, B {}\nrecord A(int x, int y) implements S {\n    A {\n        if (x < 0) throw new E();\n    }\n"
        "    int sum() { return x + y; }\n}\nnon-sealed class B implements S {\n    int f(Object o) {\n        return switch (o) {\n"
        "            case A(int x, var _) when x > 0 -> x;\n            case null, default -> 0;\n        };\n    }\n    void g() {\n"
        "        for (var _ : list) { }\n        list.forEach(_ -> f(1));\n    }\n}\nvoid main() { }\n",
        {("S", 1, 1), ("A", 2, 7), ("A.A", 3, 5), ("A.sum", 6, 6), ("B", 8, 19), ("B.f", 9, 14), ("B.g", 15, 18), ("main", 20, 20)},
    ),
    "typescript 5": (
        "typescript",
        "const a = { b: 1 } satisfies C;\nexport const enum Dir { Up = 1 }\ndeclare module 'x' {\n    export function f(a: string): void;\n}\n"
        "function over(a: string): string;\nfunction over(a: any): any { return a; }\nabstract class K<in out T, const U> {\n"
        "    abstract f(): void;\n    static { init(); }\n    accessor x = 1;\n    [Symbol.iterator]() { return 1; }\n}\n"
        "type Ctor = abstract new (...a: any[]) => object;\nusing r = open();\nfunction last() { return 1 }\n",
        {("Dir", 2, 2), ("f", 4, 4), ("over", 6, 6), ("over", 7, 7), ("K", 8, 13), ("K.f", 9, 9), ("K.[Symbol.iterator]", 12, 12), ("Ctor", 14, 14), ("last", 16, 16)},
    ),
    "go 1.25": (
        "go",
        "package a\n\ntype Number interface {\n\t~int | ~float64\n}\n\ntype List[T any, K interface{ comparable; String() string }] struct {\n\tv T\n}\n\n"
        "func (l *List[T, _]) Push(v T) { l.v = v }\n\nfunc Map[T, U any](s []T) (out []U) {\n\tfor range 10 {\n\t}\n\treturn\n}\n",
        {("Number", 3, 5), ("List", 7, 9), ("List.Push", 11, 11), ("Map", 13, 17)},
    ),
    "rust 2024": (
        "rust",
        "pub macro m2($a:expr) { $a }\n\ntrait T {\n    async fn f(&self) -> u8;\n    fn g(&self) -> impl Iterator<Item = u8> + use<'_>;\n}\n\n"
        "impl<const N: usize> T for A<N> {\n    async fn f(&self) -> u8 {\n        let Some(x) = y else { return 0 };\n"
        "        if let Some(a) = b && a > 1 { return a }\n        x\n    }\n}\n",
        {("T", 3, 6), ("T.f", 4, 4), ("T.g", 5, 5), ("A.f", 9, 13)},
    ),
    "ruby 3": (
        "ruby",
        "module M\n  refine String do\n    def shout = upcase + '!'\n  end\nend\nclass A\n  class << self\n    def make(...) = new(...)\n    private def hid = 1\n"
        "  end\n  def self.[](k) = k\n  def m(a, *, k:, **nil, &)\n    1\n  end\n  def ==(o) = true\nend\n",
        {("M", 1, 5), ("M.shout", 3, 3), ("A", 6, 16), ("A.make", 8, 8), ("A.hid", 9, 9), ("A.[]", 11, 11), ("A.m", 12, 14), ("A.==", 15, 15)},
    ),
    "php 8.4": (
        "php",
        "<?php\nfinal class P {\n    public function __construct(public private(set) string $a) {}\n    public string $full {\n        get => $this->a . 'x';\n"
        "        set(string $v) { $this->a = $v; }\n    }\n    public function f(): static { return $this; }\n}\n"
        "enum Suit: string {\n    case H = 'h';\n    public static function of(): self { return self::H; }\n}\n",
        {("P", 2, 9), ("P.__construct", 3, 3), ("P.f", 8, 8), ("Suit", 10, 13), ("Suit.of", 12, 12)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
def test_newer_and_older_forms_are_whole(name: str) -> None:
    language, text, expected = NEWER[name]
    assert sound(language, text) == expected


def test_what_is_made_by_macros_is_out_or_whole() -> None:
    text = (
        "#define COLORS X(RED) X(GREEN)\n\nenum color {\n#define X(name) name,\n    COLORS\n#undef X\n};\n\n"
        "int after(void) { return 1; }\n\n#ifdef A\nint f(int a) {\n#else\nint f(int a, int b) {\n#endif\n    return a;\n}\n\n"
        "int g(int a) {\n    if (a) {\n#ifdef B\n        return 1;\n    } else {\n#endif\n        return 2;\n    }\n}\n"
    )
    found = sound("c", text)
    assert found - {("color", 3, 7)} == {("after", 9, 9), ("f", 11, 17), ("g", 19, 27)}


def test_a_macro_that_brings_its_comma_along_is_no_word_of_a_head() -> None:
    text = (
        "#ifdef THREADS\n#define MTa , PTI\n#define MTd , Info **PTI\n#else\n#define MTa /*nothing*/\n#define MTd /*nothing*/\n#endif\n\n"
        " static Bigint *\nresize(Bigint *b, int k MTd)\n{\n    if (k)\n        drop(b MTa);\n    return b;\n    }\n\n"
        " void\nlast(int k MTd)\n{\n    }\n"
    )
    found = {(name, first, last) for name, first, last in sound("c", text) if not name.startswith("MT")}
    assert found == {("resize", 9, 15), ("last", 17, 20)}


@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_a_semicolon_before_a_bracket_does_not_take_its_line_along(language: str) -> None:
    text = "const f = () => {\n  return 1\n}\n\n;(a).b = {\n  c: 1,\n}\n\nclass K {\n  g = () => {\n    h()\n  }\n  ;[d]() {}\n}\n"
    found = sound(language, text)
    assert {("f", 1, 3), ("K", 9, 14)} <= found
    assert all(last != 5 for _, _, last in found)


def test_a_semicolon_on_a_line_of_its_own_stays() -> None:
    text = "interface I {\n    I F(int a)\n#if DEFAULTS\n        => G(a)\n#endif\n    ;\n    I G(int a);\n}\n"
    assert {("I.F", 2, 6), ("I.G", 7, 7)} <= sound("csharp", text)
