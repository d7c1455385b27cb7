"""A second try for text that a grammar refuses and its language does not: the stumbling block blanked or reworded.

Each function mends one gap and is kept where the tree then holds less that is no syntax (`parsing.py`). No wheel of the
grammars is newer than those pinned; what upstream mends can go. Measured on CPython's library and npm packages: the
repairs are asked for in 1 file of 200.
"""

import io
import re
import tokenize

from ai_forge.data_pipeline.languages.draft import Draft
from ai_forge.data_pipeline.languages.preprocessor import without_comments

_VARIANCE = re.compile(rb"(?<=[<,\n])\s*(in out|in|out)(?=\s+[A-Za-z_$]\w*\s*(?:extends\b|[=,>]))")
CONFLICT = re.compile(
    rb"^<{7}(?: [^\n]*)?\n(?P<ours>(?s:.*?))^(?:\|{7}[^\n]*\n(?s:.*?))?^={7}\n(?P<theirs>(?s:.*?))^>{7}(?: [^\n]*)?$",
    re.MULTILINE,
)
_STRAY_MARK = re.compile(rb"^(?:<{7}|>{7}|\|{7})(?: [^\n]*)?$|^={7}$", re.MULTILINE)
_TEMPLATE_LINE = re.compile(
    rb"^[ \t]*(?:(?:\{%(?:(?!%\}).)*%\}|\{#(?:(?!#\}).)*#\}|<%(?:(?!%>).)*%>|\{\{(?:(?!\}\}).)*\}\})[ \t]*)+$",
    re.MULTILINE,
)
_TEMPLATE_INLINE = re.compile(rb"\{\{[^{}\n]*\}\}|\{%[^\n]*?%\}|<%[^\n]*?%>")


def keep_one_side(draft: Draft) -> None:
    """Any language: of a merge conflict our side stays; what holds one is broken.

    >>> draft = Draft(bytearray(b"<<<<<<< HEAD\\na = 1\\n=======\\na = 2\\n>>>>>>> other\\n"))
    >>> keep_one_side(draft)
    >>> draft.text.split(), draft.broken
    ([bytearray(b'a'), bytearray(b'='), bytearray(b'1')], [(0, 46)])
    """
    for match in CONFLICT.finditer(bytes(draft.text)):
        draft.blank(match.start(), match.start("ours"))
        draft.blank(match.end("ours"), match.end())
        draft.broken.append(match.span())
    for match in _STRAY_MARK.finditer(bytes(draft.text)):
        draft.blank(*match.span())
        draft.broken.append(match.span())


def blank_templates(draft: Draft) -> None:
    """Any language: the lines of a template engine go; a name or a value that it fills in becomes a word."""
    for match in _TEMPLATE_LINE.finditer(bytes(draft.text)):
        draft.blank(*match.span())
        draft.broken.append(match.span())
    for match in _TEMPLATE_INLINE.finditer(bytes(draft.text)):
        draft.put(match.start(), b"x" * len(match.group()))  # a word, which fits where a name and a value do
        draft.broken.append(match.span())


def join_bracketed_lines(draft: Draft) -> None:
    """Python: line ends inside brackets become blanks, because a continuation line may be indented less than its block.

    >>> draft = Draft(bytearray(b"f(a.\\nb)\\n"))
    >>> join_bracketed_lines(draft)
    >>> bytes(draft.text)
    b'f(a. b)\\n'
    """
    text = bytes(draft.text)
    starts = [0, *(match.end() for match in re.finditer(rb"\n", text))]
    ends: list[int] = []
    previous = tokenize.ENCODING
    try:
        for token in tokenize.tokenize(io.BytesIO(text).readline):
            if token.type == tokenize.NL and previous not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE):
                ends.append(starts[token.start[0]] - 1)
            previous = token.type
    except (tokenize.TokenError, SyntaxError):  # no Python 3: which brackets belong together is not known
        return
    for end in ends:
        draft.put(end, b" ")


_COMMENT_AFTER_DECORATOR = re.compile(
    rb"(?<=\n)[ \t]*@[^\n]*\n((?:[ \t]*(?:#[^\n]*)?\n)+)(?=[ \t]*(?:@|(?:async +)?def\b|class\b))"
)
_TYPE_PARAMETERS = re.compile(rb"^[ \t]*(?:class|(?:async[ \t]+)?def|type)[ \t]+\w+[ \t]*\[", re.MULTILINE)


def blank_comments_below_decorators(draft: Draft) -> None:
    """Python: a comment between a decorator and its definition may stand in any column."""
    draft.blank_all(_COMMENT_AFTER_DECORATOR.finditer(bytes(draft.text)), 1)


def blank_type_defaults(draft: Draft) -> None:
    """Python (PEP 696): the default of a type parameter goes.

    >>> draft = Draft(bytearray(b"class A[T: (int, str) = int, *Q = *tuple[int, ...]]: pass"))
    >>> blank_type_defaults(draft)
    >>> bytes(draft.text)
    b'class A[T: (int, str)      , *Q                   ]: pass'
    """
    text = bytes(draft.text)
    for match in _TYPE_PARAMETERS.finditer(text):
        depth, default = 1, None
        for at in range(match.end(), len(text)):
            sign = text[at : at + 1]
            depth += (sign in b"([{") - (sign in b")]}")
            # A comma inside of brackets belongs to the default: `*Q = *tuple[int, ...]`.
            if default is not None and (depth == 0 or (depth == 1 and sign == b",")):
                draft.blank(default, at)
                default = None
            elif depth == 1 and sign == b"=" and default is None:
                default = at
            if depth == 0:
                break


def blank_variance(draft: Draft) -> None:
    """TypeScript: the words `in` and `out` before a type parameter go.

    >>> draft = Draft(bytearray(b"interface Box<out T, in U = T> {}"))
    >>> blank_variance(draft)
    >>> bytes(draft.text)
    b'interface Box<    T,    U = T> {}'
    """
    draft.blank_all(_VARIANCE.finditer(bytes(draft.text)), 1)


_ACCESSOR_FIELD = re.compile(
    rb"(?<![\w$.])accessor(?=[ \t]+[\w$#\[\"'])|"  # a keyword: `static accessor count = 0`
    rb"(?<![\w$.])(accessor)(?=[ \t]*[<(])"  # a method of that name
)
_TYPED_TEMPLATE = re.compile(rb"(?<=[\w$])<[^<>()`;{}=]*(?:<[^<>()`;{}=]*>[^<>()`;{}=]*)*>(?=`)")
_MEMBERS = re.compile(rb"(?:\binterface\b[^{;]*|[:=&|<(,?]\s*|\bextends\s+)\{")
_BRACKET = re.compile(rb"(?<=\n)[ \t]+[<(\[]|[{}()\[\]]")
# After these a member is not at its end.
_GOES_ON = re.compile(
    rb"(?:[,;{(\[<|&=:?.+*/-]|=>|\b(?:extends|implements|is|as|in|keyof|typeof|infer|new|abstract|readonly))\Z"
)
_ESCAPED_BACKTICK = re.compile(rb"\\`")


def reword_accessors(draft: Draft) -> None:
    """JavaScript, TypeScript: `accessor` before a field goes; a method called so gets a name that is no keyword."""
    for match in _ACCESSOR_FIELD.finditer(bytes(draft.text)):
        if match.group(1):  # of the same length, as every repair is
            draft.put(match.start(), b"accesso_")
        else:
            draft.blank(*match.span())


def blank_template_types(draft: Draft) -> None:
    """TypeScript: the type arguments of a tagged template go."""
    draft.blank_all(_TYPED_TEMPLATE.finditer(bytes(draft.text)))


def reword_backticks(draft: Draft) -> None:
    """TypeScript: an escaped backtick, which the grammar does not know in types, becomes two letters."""
    for match in _ESCAPED_BACKTICK.finditer(bytes(draft.text)):
        draft.put(match.start(), b"xx")


def close_members(draft: Draft) -> None:
    """TypeScript: a semicolon before a call or index signature that follows a member without one.

    >>> draft = Draft(bytearray(b"interface A {\\n  a: string\\n  <T>(f: T): T\\n}\\nlet b: {\\n  (): A\\n  [c: string]: A\\n}"))
    >>> close_members(draft)
    >>> bytes(draft.text)
    b'interface A {\\n  a: string\\n ;<T>(f: T): T\\n}\\nlet b: {\\n  (): A\\n ;[c: string]: A\\n}'
    """
    text = without_comments(bytes(draft.text))
    of_types = {match.end() for match in _MEMBERS.finditer(text)}
    inside: list[bool] = []  # of each open bracket, whether it may hold the members of a type
    for match in _BRACKET.finditer(text):
        sign, at = match.group()[-1:], match.end() - 1
        begins_line = len(match.group()) > 1
        if begins_line and inside and inside[-1] and sign in b"<([":
            end = at
            while text[end - 1 : end].isspace():
                end -= 1
            if not _GOES_ON.search(text, max(0, end - 12), end):
                draft.put(at - 1, b";")
        if sign in b"{([":
            inside.append(match.end() in of_types)
        elif sign in b"})]" and inside:
            inside.pop()


_KOTLIN_NAME = re.compile(
    rb"(?<![\w`])(?:suspend|dynamic|vararg|noinline|crossinline)"
    rb"(?=\(|[ \t]*[=:,).?\]}+*/-]|[ \t]*\n\s*(?:\}|(?:return|val|var|if)\b))"
)
_KOTLIN_LAST = re.compile(rb"(?<=[^\s;{(,])[ \t](?=\})")


def reword_soft_keywords(draft: Draft) -> None:
    """Kotlin: a keyword that is used as a name gets another first letter.

    >>> draft = Draft(bytearray(b"suspend fun suspend(a: suspend () -> Int) = a()"))
    >>> reword_soft_keywords(draft)
    >>> bytes(draft.text)
    b'suspend fun _uspend(a: suspend () -> Int) = a()'
    """
    for match in _KOTLIN_NAME.finditer(bytes(draft.text)):
        draft.put(match.start(), b"_")


def close_last_members(draft: Draft) -> None:
    """Kotlin: a semicolon after the last member of a body that is one line."""
    for match in _KOTLIN_LAST.finditer(bytes(draft.text)):
        draft.put(match.start(), b";")


_KOTLIN_CONTEXT = re.compile(
    rb"^[ \t]*(context\((?:[^()\n]|\([^()\n]*\))*\))(?=\s*(?:@\w+(?:\([^()\n]*\))?\s+|[a-z]+\s+)*(?:fun|class|val|var)\b)",
    re.MULTILINE,
)
_KOTLIN_NEW = (
    re.compile(
        rb"(?:^|(?<=[;{]))[ \t]*(?:!?is|!?in|else|[A-Z\"\d][\w.]*)\b[^\n;{}]*?([ \t]+if[ \t][^\n;{}]*?)(?=[ \t]*->)",
        re.MULTILINE,
    ),
    re.compile(rb"(\${2,})(?=\")"),
)


def reword_new_kotlin(draft: Draft) -> None:
    """Kotlin 2.2: guards in `when` and the dollars before a string go, context parameters become an annotation.

    >>> draft = Draft(bytearray(b'context(a: A)\\nfun f() = when (b) {\\n  is C if c > 1 -> $$"d"\\n}'))
    >>> reword_new_kotlin(draft)
    >>> bytes(draft.text)
    b'@contex      \\nfun f() = when (b) {\\n  is C          ->   "d"\\n}'
    """
    for match in _KOTLIN_CONTEXT.finditer(bytes(draft.text)):  # which the definition keeps
        draft.blank(*match.span(1))
        draft.put(match.start(1), b"@contex")
    for gap in _KOTLIN_NEW:
        draft.blank_all(gap.finditer(bytes(draft.text)), 1)


_CSHARP_NEW = (
    re.compile(rb"(,[ \t]*allows[ \t]+ref[ \t]+struct)\b|\bwhere[ \t]+\w+[ \t]*:[ \t]*allows[ \t]+ref[ \t]+struct\b"),
    re.compile(rb"(\?)\.\w+(?:\.\w+|\[[^\[\]\n]*\])*[ \t]*(?:\?\?|[-+*/|&^%])?=(?![=>])"),  # a?.b = c
    re.compile(rb"\.\.[ \t]*(var[ \t]+\w+)(?=\s*[,\]])"),  # [1, .. var rest]
)
_EXTENSION = re.compile(rb"\bextension[ \t]*(?:<[^<>\n]*>)?[ \t]*\([^()]*\)\s*(?:where\s[^{};]*)?\{")


def blank_new_csharp(draft: Draft) -> None:
    """C# 13 and 14: the anti-constraint, conditional assignment, a named slice and the block around extension members.

    >>> draft = Draft(bytearray(b"static class A { extension(B b) { int F() => 1; } void G() { a?.b = 1; } }"))
    >>> blank_new_csharp(draft)
    >>> bytes(draft.text)
    b'static class A {                  int F() => 1;   void G() { a .b = 1; } }'
    """
    for gap in _CSHARP_NEW:
        for match in gap.finditer(bytes(draft.text)):
            draft.blank(*match.span(1 if match[1] else 0))
    code = _code(draft)
    for match in _EXTENSION.finditer(code):
        end = _closed(code, match.end(), b"{}")
        draft.blank(*match.span())  # its members are those of the class around it
        draft.blank(end - 1, end)


_OLD_PARAMETERS = re.compile(
    rb"(?<=\))[ \t]*\n((?:[ \t]*[A-Za-z_][\w \t*,\[\]]*(?:\([ \t]*\*[ \t]*\w+\)[ \t]*\([^()\n]*\))?;[ \t]*\n?)+)(?=\s*\{)"
)


def blank_old_parameters(draft: Draft) -> None:
    """C before 1989: the declarations between a function's head and its body go, where it gives a pointer."""
    draft.blank_all(_OLD_PARAMETERS.finditer(bytes(draft.text)), 1)


_ENDLESS_COMMAND = re.compile(
    rb"^[ \t]*(?:\w+[ \t]+)?def[ \t]+[\w.]+[?!]?(?:\([^\n]*?\))?[ \t]*=[ \t]+"
    rb"(?P<command>[a-z_][\w.]*[?!]?)(?P<gap>[ \t]+)(?P<first>[\w:\"'][^\n,]*?)(?P<rest>,[^\n]*)?$",
    re.MULTILINE,
)


def bracket_endless_commands(draft: Draft) -> None:
    """Ruby: a command call as the body of an endless method gets brackets around its first argument, if they fit.

    >>> draft = Draft(bytearray(b"def f = raise E, 'no'"))
    >>> bracket_endless_commands(draft)
    >>> bytes(draft.text)
    b'def f = raise(E)     '
    """
    for match in _ENDLESS_COMMAND.finditer(bytes(draft.text)):
        if match["rest"]:  # the place of its comma is needed for the closing bracket
            draft.blank(*match.span("rest"))
            draft.put(match.end("gap") - 1, b"(")
            draft.put(match.end("first"), b")")
        else:
            draft.blank(*match.span("first"))


_SCOPED_RECORD = re.compile(rb"(?:\binstanceof\s+(?:final\s+)?|\bcase\s+|[(,]\s*)((?:\w+\s*\.\s*)+)(?=[A-Z]\w*\s*\()")


def blank_record_scopes(draft: Draft) -> None:
    """Java: what stands before the last dot of a record pattern's type goes.

    >>> draft = Draft(bytearray(b"case Shape.Box(A.Point(int x, _)) -> x;"))
    >>> blank_record_scopes(draft)
    >>> bytes(draft.text)
    b'case       Box(  Point(int x, _)) -> x;'
    """
    draft.blank_all(_SCOPED_RECORD.finditer(bytes(draft.text)), 1)


_HEREDOC = re.compile(rb"(?<!<)<<(-?)[ \t]*(['\"]?)(\w+)\2(?P<rest>[^\n]*)\n")


def blank_heredocs(draft: Draft) -> None:
    """Bash: a here-document goes, so that what follows on its line is read."""
    text, end = bytes(draft.text), 0
    for match in _HEREDOC.finditer(text):
        tabs = rb"\t*" if match[1] else b""  # `<<-` lets tabs, and nothing else, stand before the closing word
        close = re.compile(rb"^" + tabs + re.escape(match[3]) + rb"$", re.MULTILINE).search(text, match.end())
        if close is None or match.start() < end:
            continue
        end = close.end()
        draft.blank(match.start(), match.start("rest"))  # the rest of its line is the command's
        draft.blank(match.end(), end)


_EXPLICIT_OBJECT = re.compile(rb"\(\s*(this)(?=\s+(?:const\s+)?[A-Za-z_][\w:<>]*[\s&*]+\w+\s*[,)])")
_EXPORT = re.compile(
    rb"^[ \t]*(export)(?=[ \t]+(?:template|class|struct|enum|union|namespace|inline|constexpr|using|[a-z]\w*[ \t]))",
    re.MULTILINE,
)
_GAPS = (
    re.compile(rb"\bnew\s+(?:const\s+)?[\w:]+(?:<[^<>]*>)?\s*(\*+)(?=\s*[\[(;,){])"),
    re.compile(rb"\)\s*(\.\.\.)(?=\s*[,)}])"),
    re.compile(rb"\btypeid\s*\(\s*(typename)\b"),
    re.compile(rb"\b(extern)(?=\s+template\b)"),
    re.compile(rb"(?:\.|->)\s*~\w+(<[^<>;(){}]*>)(?=\s*\()"),  # a destructor that is called: a.~A<T>()
    re.compile(rb"\benum\s*(:\s*[\w:]+(?:[ \t]+\w+)*)(?=\s*\{)"),  # of an enumeration without a name
    re.compile(rb"\(\s*((?:[A-Za-z_]\w*(?:<[^<>()]*>)?\s*::\s*)+)(?=\*)"),  # a pointer to a member: (A::*f)(int)
    re.compile(rb"\btemplate\s*<\s*>[^;{}()#]*\([^;{}]*\)\s*=\s*delete\s*;"),
)
_MEMBER_ACCESS = re.compile(rb"->\*")
_OPERATOR_CALL = re.compile(
    rb"(?:(?<=\.)|(?<=->)|(?<=[;{}(,=])|(?<=\breturn)(?=\s))(?P<gap>\s*)operator"
    rb"(?P<of>\s+[A-Za-z_][\w:<>]*\s*[&*]*(?=\s*\(\s*\))|\s*(?:\(\s*\)|\[\s*\]|[-+*/%^&|~!=<>]+)(?=\s*[(<]))"
)
_CONSTEVAL = re.compile(rb"\bif\s*(!?[ \t]*consteval)\b")
_BITS_WITH_VALUE = re.compile(rb"\w\s*:\s*\d+\s*(=\s*[^;,(){}]+|\{[^{};]*\})(?=\s*[;,])")
_EMPTY_DEFAULT = re.compile(rb"=\s*(\{\s*\})(?=\s*[,)])")
_NAMELESS_DEFAULT = re.compile(rb"(?<=[&*])[ ](?==(?!=|\s*(?:delete|default)))")
_DELETED_CONVERSION = re.compile(rb"\boperator\s+[A-Za-z_][\w:<>]*\s*[&*]*\s*\(\s*\)\s*(?:const\s*)?(=\s*delete)")
_FUNCTION_DEFAULT = (
    re.compile(rb"\(\s*\*\s*\)\s*\([^()]*\)\s*(=\s*\w+)(?=\s*[,)])"),  # void (*)(int) = nullptr
    re.compile(rb"=\s*[\w:]+\s*(\(\s*\*\s*\)\s*\([^()]*\))(?=\s*[,>])"),  # F = void (*)()
    re.compile(rb"=\s*(const)\s+[A-Za-z_][\w:]*\s*[*&]*(?=\s*[,>])"),  # P = const T *
    re.compile(rb"=\s*(?:const\s+)?[A-Za-z_][\w:]*\s*([*&]+)(?=\s*[,>])"),  # P = const T *
)
# unsigned(a) << 3: a value, written as a type is
_PRIMITIVE_CALL = re.compile(
    rb"(?:(?<=[=(,|&+*/<>?:!~^-])|(?<=\breturn))\s*\b((?:un)?signed|long|short)\s*\((?!\s*[*&])"
)
_ASSERTION = re.compile(rb"\bstatic_assert\s*\(")
_TYPE_OF = re.compile(rb"\b(decltype|typeof|__typeof__)\s*\((?!\s*auto\s*\))")
_NAMELESS_BITS = re.compile(
    rb"(?<=[;{}\n])[ \t]*((?:(?:const|volatile|signed|unsigned|int|char|short|long|bool|_Bool|\w+_t|_*[us]\d+)\s+)*"
    rb"(?:signed|unsigned|int|char|short|long|bool|_Bool|\w+_t|_*[us]\d+)\s*:\s*\w+\s*;)"
)
_ATTRIBUTED = re.compile(rb"(?<=\w)\s+(__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\))(?=\s*=)")
_CASE_RANGE = re.compile(rb"\bcase\s+[\w']+\s*(\.\.\.\s*[\w']+)(?=\s*:)")


def blank_new_words(draft: Draft) -> None:
    """C++: what the grammar does not know yet goes or becomes a word.

    `export` before a declaration (C++20), `this` before an explicit object parameter (C++23), `extern` before `template`,
    the class of a pointer to a member, calls of operators by name, defaults of parameters without a name, `decltype`,
    `->*`, a pack that is expanded after brackets, and `typename` below `typeid`.

    A `static_assert` says nothing that a unit is made of, so it loses what it asserts.

    >>> draft = Draft(bytearray(b"auto f(R (A::*p)(), B = {}) -> decltype(g(), p) { return a.operator+(b); }"))
    >>> blank_new_words(draft)
    >>> bytes(draft.text)
    b'auto f(R (   *p)(), B = 0 ) -> decltype_        { return a.operato_ (b); }'
    """
    for gap in _GAPS:
        draft.blank_all(gap.finditer(bytes(draft.text)), 1 if gap.groups else 0)
    for match in _MEMBER_ACCESS.finditer(bytes(draft.text)):
        draft.put(match.start(), b"-  ")
    for match in _OPERATOR_CALL.finditer(bytes(draft.text)):
        is_call = match["gap"] == b"" or not match["of"][:1].isspace()  # `; operator bool()` declares a conversion
        if is_call:
            draft.blank(match.end("gap"), match.end())
            draft.put(match.end("gap"), b"operato_")
    for match in _CONSTEVAL.finditer(bytes(draft.text)):
        draft.blank(*match.span(1))
        draft.put(match.start(1), b"(1)")
    draft.blank_all(_BITS_WITH_VALUE.finditer(bytes(draft.text)), 1)
    for match in _EMPTY_DEFAULT.finditer(bytes(draft.text)):
        draft.blank(*match.span(1))
        draft.put(match.start(1), b"0")
    for gap in (_DELETED_CONVERSION, *_FUNCTION_DEFAULT):
        draft.blank_all(gap.finditer(_code(draft)), 1)
    for match in _PRIMITIVE_CALL.finditer(_code(draft)):
        draft.put(match.start(1), b"_")
    for match in _NAMELESS_DEFAULT.finditer(bytes(draft.text)):
        draft.put(match.start(), b"a")
    _word_for_calls(draft, _ASSERTION, b"static_assert(0)")
    _word_for_calls(draft, _TYPE_OF, b"decltype_")
    draft.blank_all(_EXPLICIT_OBJECT.finditer(bytes(draft.text)), 1)
    draft.blank_all(_EXPORT.finditer(bytes(draft.text)), 1)


def _code(draft: Draft) -> bytes:
    return without_comments(bytes(draft.text))


def _closed(text: bytes, at: int, brackets: bytes) -> int:
    """Behind the bracket that closes what is open before `at`."""
    depth = 1
    while depth and at < len(text):
        depth += (text[at] == brackets[0]) - (text[at] == brackets[1])
        at += 1
    return at


def _word_for_calls(draft: Draft, opening: re.Pattern[bytes], word: bytes) -> None:
    """`word` in the place of what `opening` begins, up to the bracket that closes it, as far as it fits."""
    text = _code(draft)
    end = 0
    for match in opening.finditer(text):
        if match.start() < end:  # it went with the one around it
            continue
        end = _closed(text, match.end(), b"()")
        if end - match.start() >= len(word):
            draft.blank(match.start(), end)
            draft.put(match.start(), word)


def blank_c_gaps(draft: Draft) -> None:
    """C, C++: a bit field without a name, the attributes of a variable with a value, the upper end of `case 1 ... 3:`.

    >>> draft = Draft(bytearray(b"struct A { int a:1; unsigned int :24; };"))
    >>> blank_c_gaps(draft)
    >>> bytes(draft.text)
    b'struct A { int a:1;                   };'
    """
    code = _code(draft)
    for gap in (_NAMELESS_BITS, _ATTRIBUTED, _CASE_RANGE):
        draft.blank_all(gap.finditer(code), 1)
