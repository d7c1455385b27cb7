"""Gaps of the grammars: what a language knows and its grammar does not, found whole all the same."""
# ruff: noqa: E501

import pytest

from ai_forge.data_pipeline.mining.parsing import Unit, parse


def units(language: str, text: str) -> list[Unit]:
    result = parse(text.encode(), language)
    assert result is not None
    return result.units


GAPS = {
    "members without semicolons": (
        "typescript",
        "interface A {\n  a: string\n  (x: number): string\n  b: T\n  [key: string]: unknown\n  c: U\n  <T>(f: T): T\n}\nfunction f() {}\n",
        {("A", 1, 8), ("f", 9, 9)},
    ),
    "members of a literal type": (
        "typescript",
        "type A = {\n  // note, don't (\n  a: string\n  <T>(f: T): T\n}\nfunction f() {}\n",
        {("A", 1, 5), ("f", 6, 6)},
    ),
    "members of the type of a constant": (
        "typescript",
        "export const f: {\n  (a: { b: C\n    [d: string]: C }): Kind<A, B>\n  <T>(a: T): E<T>\n} = dual(2, (a) => a)\nfunction g() {}\n",
        {("g", 6, 6)},
    ),
    "members that go on in the next line": (
        "typescript",
        "type A<F> = {\n  b: F extends\n    (...args: infer P) => infer R ? P : R\n  c:\n    [string]\n  (): string\n}\nfunction f() {}\n",
        {("A", 1, 7), ("f", 8, 8)},
    ),
    "members of an object stay": (
        "typescript",
        "interface I {\n  a: string\n  (): string\n}\nconst o = {\n  a,\n  [b]: 1,\n  f() {},\n}\nfunction g() {}\n",
        {("I", 1, 4), ("f", 8, 8), ("g", 10, 10)},
    ),
    "backticks in the type of a template": (
        "typescript",
        "type A = `Missing \\`Self\\` of \\`${string}\\``\nfunction f() {}\n",
        {("A", 1, 1), ("f", 2, 2)},
    ),
    "accessor": (
        "typescript",
        "class A {\n  accessor a = 1;\n  static accessor #b: number = 2;\n  accessor(): void {}\n  f() {}\n}\n",
        {("A", 1, 6), ("A.accessor", 4, 4), ("A.f", 5, 5)},
    ),
    "accessor in JavaScript": (
        "javascript",
        "class A {\n  accessor a = 1;\n  f() {}\n}\n",
        {("A", 1, 4), ("A.f", 3, 3)},
    ),
    "typed template": (
        "typescript",
        "function f() {\n  return sql<Map<string, X[]>>`select 1`;\n}\nfunction g() {}\n",
        {("f", 1, 3), ("g", 4, 4)},
    ),
    "var class": ("javascript", "var A = class B {\n  f() {}\n}\n", {("A", 1, 3), ("A.f", 2, 2)}),
    "class in an object": ("javascript", "x = {\n  A: class {\n    f() {}\n  },\n};\n", {("A", 2, 4), ("A.f", 3, 3)}),
    "default class": ("javascript", "export default class {\n  f() {}\n}\n", {("default", 1, 3), ("default.f", 2, 2)}),
    "two in one statement": ("javascript", "let F = class {}, G = function () {}\n", {("F", 1, 1), ("G", 1, 1)}),
    "default of a type parameter": (
        "python",
        "class A[T: (int, str) = int, *Q = *tuple[int, ...]]:\n    def f[K = int](self):\n        return 1\n",
        {("A", 1, 3), ("A.f", 2, 3)},
    ),
    "type alias with a default": ("python", "type A[T = int] = list[T]\ndef f():\n    return 1\n", {("f", 2, 3)}),
    "comments below decorators": (
        "python",
        "class A:\n    @one\n# note\n\n# another\n    @two\n  # third\n    async def f(self):\n        return 1\n",
        {("A", 1, 9), ("A.f", 2, 9)},
    ),
    "keyword as a name": (
        "kotlin",
        "class A {\n    fun suspend(a: Int): Int {\n        return suspend(a) + dynamic\n    }\n    suspend fun f(): Int = 1\n}\n",
        {("A", 1, 6), ("A.suspend", 2, 4), ("A.f", 5, 5)},
    ),
    "body of one line": (
        "kotlin",
        "interface A { fun f(): Int }\nclass B { fun g() = 1 }\n",
        {("A", 1, 1), ("A.f", 1, 1), ("B", 2, 2), ("B.g", 2, 2)},
    ),
    "endless command": (
        "ruby",
        'class A\n  def f = raise E, "no"\n\n  def g(a) = puts a\n\n  def self.h = warn "x", 1\nend\n',
        {("A", 1, 7), ("A.f", 2, 2), ("A.g", 4, 4), ("A.h", 6, 6)},
    ),
    "scoped record pattern": (
        "java",
        "class A {\n  int f(Object o) {\n    return switch (o) {\n      case B.C(int x, D.E(var y, _)) -> x;\n      default -> 0;\n    };\n  }\n"
        "  boolean g(Object o) { return o instanceof B.C(int x, int y) && x > y; }\n}\n",
        {("A", 1, 9), ("A.f", 2, 7), ("A.g", 8, 8)},
    ),
    "here-documents": (
        "bash",
        "f() {\n  cat <<-EOF; date > a\n\tone }\n\tEOF\n  echo\n}\ng() {\n  cat <<'X' 2>&1 | sort\ntwo {\nX\n}\n",
        {("f", 1, 6), ("g", 7, 11)},
    ),
    "explicit object": (
        "cpp",
        "struct A {\n  auto f(this auto&& self, int a) -> int { return a; }\n};\n",
        {("A", 1, 3), ("A.f", 2, 2)},
    ),
    "operators called by name": (
        "cpp",
        "struct A {\n  void operator=(const A &a) && { std::move(*this).operator=(g(a)); }\n  void operator=(const A &a) & { operator=(g(a)); }\n"
        "  int f(A a) { return a.operator()(1) + this->operator[](2); }\n  operator int() const { return 1; }\n};\n",
        {
            ("A", 1, 6),
            ("A.operator=", 2, 2),
            ("A.operator=", 3, 3),
            ("A.f", 4, 4),
            ("A.operator int", 5, 5),
        },
    ),
    "members called through pointers": (
        "cpp",
        "void f(A *a) {\n  (a->b->*(a->c))(1);\n  (a->*d)(2);\n}\nvoid g(int n) { T **t = new T *[n]; }\n",
        {("f", 1, 4), ("g", 5, 5)},
    ),
    "references to pointers": (
        "cpp",
        "struct A {\n  template <class V = void>\n  V *&value() const {\n    return v;\n  }\n  static T *const &own() { return t; }\n};\n",
        {("A", 1, 7), ("A.value", 2, 5), ("A.own", 6, 6)},
    ),
    "pointers to members": (
        "cpp",
        "template <class C, class R, class... A>\nstruct of<R (C::*)(A...) const noexcept> {\n  using type = R(A...);\n};\n"
        "template <class C>\nvoid f(C &c) { c.def(1, (int (C::*)(const A &)) &C::g); }\n",
        {("of<R (C::*)(A...) const noexcept>", 1, 4), ("of<R (C::*)(A...) const noexcept>.type", 3, 3), ("f", 5, 6)},
    ),
    "types of expressions": (
        "cpp",
        "auto f(int a) -> decltype(g(a) << h(a), void()) { }\nstruct B : decltype(g(1)) {\n  int a;\n};\n__typeof__(g(1)) h(int a) { return a; }\n",
        {("f", 1, 1), ("B", 2, 4), ("h", 5, 5)},
    ),
    "defaults without a name": (
        "cpp",
        'int f(int, B = {}) { return 1; }\nint g(const char * = "", A && = {}) { return 1; }\nint h(void (*)(A &) = nullptr) { return 1; }\n',
        {("f", 1, 1), ("g", 2, 2), ("h", 3, 3)},
    ),
    "values of types with two words": (
        "cpp",
        "struct A {\n  enum : unsigned { a = 1 };\n  void f(int s) { d = (d & ~2) | (unsigned(s) << 3); }\n  A &operator=(const A &) = delete;\n};\n",
        {("A", 1, 5), ("A.f", 3, 3), ("A.operator=", 4, 4)},
    ),
    "instantiations and what is deleted": (
        "cpp",
        "extern template class A<int>;\ntemplate <>\nbool is<int>(int) = delete;\nstruct B {\n  operator A() = delete;\n  int f() { return 1; }\n};\n",
        {("B", 4, 7), ("B.f", 6, 6)},
    ),
    "assertions that macros explain": (
        "cpp",
        "struct A {\n  static_assert(!is_pointer<T>::value,\n                POINTERS_ARE_NOT_SUPPORTED);\n  int f() { return 1; }\n};\n",
        {("A", 1, 5), ("A.f", 4, 4)},
    ),
    "conditional attribute": (
        "csharp",
        "class A\n{\n#if X\n    [Old]\n#endif\n    public int F() { return 1; }\n#if Y\n    public void G()\n#else\n    public int G()\n#endif\n    {\n    }\n}\n",
        {("A", 1, 14), ("A.F", 3, 6), ("A.G", 7, 13)},
    ),
}


@pytest.mark.parametrize("name", GAPS)
def test_what_the_grammar_does_not_know_is_found_whole(name: str) -> None:
    language, text, expected = GAPS[name]
    found = units(language, text)
    assert {(unit.qualified_name, unit.code_line, unit.last_line) for unit in found} == expected
    assert not any(unit.has_error for unit in found)


def test_signatures_are_those_of_the_file() -> None:
    (a, f, g) = units(*GAPS["conditional attribute"][:2])
    assert (a.signature, f.signature, g.signature) == ("class A", "public int F()", "public void G()")
    assert units(*GAPS["default of a type parameter"][:2])[1].signature == "def f[K = int](self)"
    assert units(*GAPS["keyword as a name"][:2])[1].signature == "fun suspend(a: Int): Int"
    assert list(units(*GAPS["endless command"][:2])[1].raises) == ["E"]
