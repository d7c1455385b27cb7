"""C and C++ before the preprocessor: macros, conditionals, and headers that are C++."""
# ruff: noqa: E501

import pytest

from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.mining.parsing import Unit, parse


def units(text: str, language: str = "c") -> list[Unit]:
    result = parse(text.encode(), language)
    assert result is not None
    assert not any(unit.has_error for unit in result.units)
    return result.units


def spans(text: str, language: str = "c") -> list[tuple[str, int, int]]:
    return [(unit.qualified_name, unit.code_line, unit.last_line) for unit in units(text, language)]


@pytest.mark.parametrize(
    "head",
    [
        "API int f(int a)",
        "static ALWAYS_INLINE int __checked f(int a)",
        "EXPORT(int) f(int a)",
        "EXPORT(const char *)\nf(int a)",
        'SECTION("x")\nstatic int f(int a)',
        "int f(int a) __attribute__((cold))",
        "int f(int a) ACQUIRES(lock)",
        "HOT\nstruct node *f(const int *RESTRICT a)",
        "JNIEXPORT jlong JNICALL f(JNIEnv *env, jobject self)",
        "_Check_ HRESULT WINAPI f(_In_ HANDLE a, _Out_ DWORD *b)",
        "static unsigned long INIT f(void)",
        "f_t API f(void)",
        "int f(const void *a QUIET_UNUSED, int b[] QUIET_UNUSED)",
        "int f(sock_t __unused a, const void __unused *b)",
    ],
)
def test_macros_around_a_function_are_part_of_it(head: str) -> None:
    text = f"int before;\n/* Doc. */\n{head}\n{{\n    if (a)\n        return g(a);\n    return 0;\n}}\n\nint h(void)\n{{\n    return 1;\n}}\n"
    f, h = units(text)
    assert (f.name, f.code_line, f.docstring, h.name) == ("f", 3, "Doc.", "h")
    assert f.signature == " ".join(head.split())


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN_THREADS\n    a = g(a);\n    END_THREADS\n    if (a) {\n        a = 1;\n    }",
        "BEGIN_THREADS a->b = g(a);\n    END_THREADS if (a) {\n        a = 1;\n    }",
        "for_each_node(a, list) {\n        g(a);\n    }",
        "CHECK_OK(a)\n    g(a);",
        "a = va_arg(ap, unsigned long);\n    b = va_arg(ap, struct node *);",
        'static const TABLE("small") int t[2] = { 1, 2 };',
        'say("at " __FILE__ ":" TEXT(__LINE__), "%" PRIu64);',
        'compare("lt", <), compare("eq", ==, a);',
        "start(NODE_ b);",
        "CONSTEXPR size_t size = g(a);\n    CONSTEXPR void *p = h(a);",
        "__m128i const lanes = g(a);\n    switch (a) {\n    case 1 ... 3:\n        break;\n    }",
        "if MAYBE_CONST (a > 1) {\n        g(a);\n    }",
        "struct type t = {\n        HEAD_INIT(NULL, 0)\n        .name = 1,\n    };",
    ],
)
def test_macros_as_statements_cost_nothing(statement: str) -> None:
    text = f"static int f(int a)\n{{\n    {statement}\n    return a;\n}}\n\nint h(void)\n{{\n    return 1;\n}}\n"
    assert [unit.name for unit in units(text)] == ["f", "h"]
    assert units(text)[0].last_line == text.splitlines().index("}") + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "int f(void)\n{\n#ifdef A\n    if (a) {\n#else\n    if (b) {\n#endif\n        g();\n    }\n    return 0;\n}\n",
            [("f", 1, 11)],
        ),
        (
            "#ifdef A\nint f(int a)\n#elif B\nint f(long a)\n#else\nint f(void)\n#endif\n{\n    return 0;\n}\n",
            [("f", 1, 10)],
        ),
        ("int f(int a)\n{\n    return a\n#ifdef A\n        + 1\n#endif\n        ;\n}\n", [("f", 1, 8)]),
        (
            "int f(int a)\n{\n    if (a\n#if A\n        && b\n#endif\n    ) {\n        g();\n    }\n    return 1;\n}\n",
            [("f", 1, 11)],
        ),
        (
            '#ifdef __cplusplus\nextern "C" {\n#endif\nAPI int f(void) { return 1; }\n#ifdef __cplusplus\n}\n#endif\n',
            [("f", 4, 4)],
        ),
        ("#if 0\nint f(void) {\n#else\nint g(void) {\n#endif\n    return 1;\n}\n", [("g", 1, 7)]),
        ("#ifdef A\nint f(void) { return 1; }\n#else\nint f(void) { return 2; }\n#endif\n", [("f", 2, 2), ("f", 4, 4)]),
    ],
)
def test_conditionals_through_statements(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans(text) == expected


@pytest.mark.parametrize(
    "head", ["class API A", "class API A final : public B", "struct EXPORT(x) A", "BEGIN_API\nclass A"]
)
def test_classes_behind_macros_keep_their_members(head: str) -> None:
    text = f"namespace n {{\n{head} {{\npublic:\n  int f() {{ return 1; }}\n}};\nenum class API E {{ a, b }};\n}}\n"
    assert [unit.qualified_name for unit in units(text, "cpp")] == ["n.A", "n.A.f", "n.E"]


@pytest.mark.parametrize(
    "member",
    [
        "A &operator++() { return *this; }",
        "const T *operator->() const { return p; }",
        "API bool operator<(const A &other) const { return p < other.p; }",
        "explicit operator bool() const { return p; }",
        "template <class U, ENABLE_IF(!is_same<U, int>::value || (sizeof(U) > 2))>\n  API U get(U u) { return u; }",
        'OLD("use get")\n  bool check() const { return p; }',
        "A() : p(0), is_operator(false) {}",
    ],
)
def test_members_behind_macros_keep_their_types(member: str) -> None:
    """A class with another member that only a repair reads, so that all are tried on it."""
    text = f"class API A {{\n  {member}\n  API void last(int a) {{ p = a; }}\n}};\n"
    last_line = text.count("\n")
    (a, own, last) = units(text, "cpp")
    assert (a.name, a.code_line, a.last_line) == ("A", 1, last_line)
    assert (own.code_line, own.last_line, last.code_line) == (2, last_line - 2, last_line - 1)
    assert member.partition(" {")[0].partition(" : ")[0].splitlines()[-1].strip() in own.signature


@pytest.mark.parametrize(
    "text",
    [
        "typedef struct _box {\n    int a;\n} _Box ;",
        "typedef enum _kind { ONE, TWO }\n    _Kind_ty;",
        "struct flags {\n    int a : 1;\n    unsigned int : 24;\n    uint32_t :0;\n};",
        "extern Status _Init(_Runtime *a);\nextern Status _Reset(_Runtime *a);",
        "API_DATA(const unsigned char) _table[];\nPy_DATA(const unsigned char) _spaces[];",
        "typedef struct base {\n    Object_HEAD\n    Object *(*init)(void);\n    int (*m)(int);\n} Base;",
        "int g(void)\n{\n    int a __attribute__((unused)) = h();\n    return 1;\n}",
        'int before;\n#if A\n__attribute__((no_sanitize("x")))\n#else\n__attribute__((cold))\n#endif\nstatic int g(void)\n{\n    return 1;\n}',
        "int g(int a)\n{\n    if (a == 1)\n#if A\n        return 1;\n#else\n        ;\n#endif\n    return 2;\n}",
    ],
)
def test_declarations_cost_the_function_behind_them_nothing(text: str) -> None:
    found = spans(f"{text}\n\nstatic int f(void)\n{{\n    return 1;\n}}\n")
    first = text.count("\n") + 3
    assert found[-1] == ("f", first, first + 3)


@pytest.mark.parametrize(
    "text",
    [
        "Box(Box&& o) NOEXCEPT\n      : Box() {\n    swap(o);\n  }",
        "~Box() {\n    b.~List<T>();\n  }",
        "#ifdef X\n  Box(int a, bool b)\n#else\n  Box(int a, bool)\n#endif\n      : a_(a) {}",
    ],
)
def test_members_with_their_initialisers(text: str) -> None:
    names = [unit.name for unit in units(f"class Box {{\n  {text}\n  int f() {{ return 1; }}\n}};\n", "cpp")]
    assert names == ["Box", "~Box" if text.startswith("~") else "Box", "f"]


def test_types_in_code_are_no_macros() -> None:
    text = (
        "template <class T, class P = const T *>\nCONSTEXPR T f(P p) {\n  constexpr T limit = T(g());\n  struct A {\n"
        "    inline auto fall(int res) -> bool { return res == 0; }\n  };\n  return limit;\n}\n"
    )
    assert spans(text, "cpp") == [("f", 1, 8), ("f.A", 4, 6), ("f.A.fall", 5, 5)]


def test_annotations_behind_a_variable_leave_it_its_type() -> None:
    text = (
        "class A {\n  Table *old_ GUARDED_BY(lock_);\n  Table *const now_ GUARDED_BY(lock_) = nullptr;\n  Stats stats_[n::count] GUARDED_BY(lock_);\n"
        "  void f() LOCKS_EXCLUDED(lock_);\n  int g() { return 1; }\n};\n\nvoid h() {\n  struct B {\n    static void none(void *) {}\n  };\n}\n"
    )
    assert [name for name, _, _ in spans(text, "cpp")] == ["A", "A.g", "h", "h.B", "h.B.none"]


def test_a_macro_that_declares_something_is_no_part_of_the_next_member() -> None:
    text = "class API A {\n  MAKE(A, base, is_a)\n  A(int a) : p(a) {}\n  PURE(1)\n  int f() { return p; }\n};\n"
    assert spans(text, "cpp") == [("A", 1, 6), ("A.A", 3, 3), ("A.f", 4, 5)]


@pytest.mark.parametrize("arguments", ["()", "(code)", ""])
def test_macros_on_lines_of_their_own_end_no_declaration(arguments: str) -> None:
    text = (
        f"PKG_WARNING_PUSH\nPKG_WARNING_OFF(4554)\nPKG_NAMESPACE_BEGIN{arguments}\n\ntemplate <class T>\nusing of = T;\n\n"
        f"int f() {{ return 1; }}\nPKG_NAMESPACE_END{arguments}\n"
    )
    assert spans(text, "cpp") == [("of", 5, 6), ("f", 8, 8)]


def test_macros_of_a_framework_in_a_class() -> None:
    text = "class A : public B {\n  Q_OBJECT\npublic slots:\n  void f() { g(); }\nsignals:\n  void changed();\n};\n"
    assert spans(text, "cpp") == [("A", 1, 7), ("A.f", 4, 4)]


def test_namespaces_that_macros_open() -> None:
    text = "PKG_NAMESPACE_BEGIN(pkg)\n\nstruct A {\n  API A() : a(1) {}\n  int a;\n};\n\nPKG_NAMESPACE_END(pkg)\n"
    assert spans(text, "cpp") == [("A", 3, 6), ("A.A", 4, 4)]


def test_tests_made_by_macros_have_their_own_names() -> None:
    text = "TEST(Suite, Adds) {\n  EXPECT_EQ(add(1), 2);\n}\nTYPED_TEST_P(Other, Works) {\n  f();\n}\nBOOST_AUTO_TEST_CASE(reads) {\n  f();\n}\n"
    assert [name for name, _, _ in spans(text, "cpp")] == ["Suite.Adds", "Other.Works", "reads"]


@pytest.mark.parametrize(
    "text", ["DEFINE_CALL(read) {\n  f();\n}\n", "HANDLER(a, b) {\n  f();\n}\n", "MAKE_IT(int, c) {\n  f();\n}\n"]
)
def test_what_a_macro_makes_has_no_name_and_is_out(text: str) -> None:
    result = parse(text.encode(), "c")
    assert result is not None
    assert all(unit.has_error for unit in result.units)


def test_specialisations_are_called_by_their_class() -> None:
    text = "template <class T>\nstruct traits<T, std::pair<a::b, c>> : base {\n  int f() { return 1; }\n};\n"
    assert units(text, "cpp")[0].name == "traits<T, std::pair<a::b, c>>"
    assert units("int a::b<c::d>::f() { return 1; }\n", "cpp")[0].qualified_name == "a.b.f"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("#pragma once\ntemplate <class T> T f(T a) { return a; }\n", "cpp"),
        ("namespace a::b {\nint f();\n}\n", "cpp"),
        ("#include <vector>\nint f(void);\n", "cpp"),
        ("class A : public B {\n};\n", "cpp"),
        ("PKG_BEGIN\ninline int f(handle a, const std::type_info *b) { return 1; }\nPKG_END\n", "cpp"),
        ("inline int f(int a) { return static_cast<long>(a); }\n", "cpp"),
        ('/* a::b */\nint f(void) { puts("a::b"); return a ? b :c; }\n', "c"),
        ("struct A {\npublic:\n  int a;\n};\n", "cpp"),
        ('#ifdef __cplusplus\nextern "C" {\n#endif\nint f(void);\n#ifdef __cplusplus\n}\nclass A;\n#endif\n', "c"),
        ("/* class A { */\nstruct b { int c; };\n", "c"),
        ("#include <string.h>\nint f(int class);\n", "c"),
    ],
)
def test_a_header_is_cpp_by_what_only_cpp_has(text: str, language: str) -> None:
    assert language_of("a/b.h", text.encode()) == language
    assert language_of("a/b.c", text.encode()) == "c"
