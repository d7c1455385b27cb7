"""C, C++ and C# before the preprocessor: comments, conditional branches, and which headers are C++.

A grammar sees the text before the preprocessor does. Two things then break it: branches of `#if` that only make sense
together with what stands around them, and macros in places where the language has no name. Without the definitions
(they lie in other files) both are known by their surroundings: a branch by its brackets, a macro by the words of a
declaration, which has one type and one name.

Asked for only where a grammar stumbles (`parsing.py`), as Python over tokens costs about as much as the parse.
"""

import re
from dataclasses import dataclass

from ai_forge.data_pipeline.languages.draft import Draft, Span

__all__ = ["DIRECTIVE", "blanked", "flatten_conditionals", "is_cpp", "strings_of", "without_comments"]

# Raw strings stand before plain ones, as their quotes close nothing; a digit before `'` is a number's (C++14: 1'000).
_COMMENTS_AND_STRINGS = re.compile(
    rb"//(?:\\\n|[^\n])*|/\*(?s:.*?)(?:\*/|\Z)|"
    rb"\bu?8?[LU]?R\"(?P<mark>[^\s()\\]{0,16})\((?s:.*?)\)(?P=mark)\"|"
    rb"@\"(?:\"\"|[^\"])*\"|"
    rb"\"(?:\\(?s:.)|[^\"\\\n])*\"|(?<![0-9A-Fa-f])'(?:\\(?s:.)|[^'\\\n])*'"
)


def without_comments(text: bytes) -> bytes:
    """The text with blanks in the place of comments, and zeros for what stands in quotes.

    >>> without_comments(b'a = "x;y" + b // c')
    b'a = 00000 + b     '
    """

    def instead(match: re.Match[bytes]) -> bytes:
        # Zeros for strings: something has to stand where a value does.
        is_comment = match.group().startswith((b"//", b"/*"))
        return re.sub(rb"[^\n]", b" " if is_comment else b"0", match.group())

    return _COMMENTS_AND_STRINGS.sub(instead, text)


def strings_of(text: bytes) -> list[Span]:
    """Where the strings of a text stand, quotes included.

    >>> strings_of(b'a("x" /* "y" */ "z")')
    [(2, 5), (16, 19)]
    """
    return [match.span() for match in _COMMENTS_AND_STRINGS.finditer(text) if match.group().endswith(b'"')]


# Conditionals

DIRECTIVE = re.compile(rb"^[ \t]*#[ \t]*(?P<word>\w+)?(?P<rest>(?:\\\n|[^\n])*)", re.MULTILINE)
_OPENING, _MIDDLE = (b"if", b"ifdef", b"ifndef"), (b"else", b"elif", b"elifdef", b"elifndef")
_ACCESS_LABEL = re.compile(rb"\b(?:public|private|protected|signals|\w*slots|\w*SLOTS)\s*:\s*$")
_CONTROL = re.compile(rb"\b(?:if|for|while|switch)\s*\Z")
_ATTRIBUTE = re.compile(rb"(?:__attribute__|__declspec|alignas)\s*\([^;{}]*\)|\[\[[^;{}]*\]\]")
_FALSE = re.compile(rb"\s*(?:0|false|FALSE)\s*")


@dataclass
class _Conditional:
    """`lines` are its directives; between two of them lies a branch. `condition` is what its first line asks."""

    lines: list[Span]
    condition: bytes

    def branches(self) -> list[Span]:
        """The text of each branch."""
        return [(a[1], b[0]) for a, b in zip(self.lines, self.lines[1:], strict=False)]


def flatten_conditionals(draft: Draft) -> None:
    """Of a conditional whose branches are no whole statements, the first branch stays; its directives go.

    >>> draft = Draft(bytearray(b"#if A\\nint f(int a)\\n#else\\nint f(void)\\n#endif\\n{ }"))
    >>> flatten_conditionals(draft)
    >>> bytes(draft.text)
    b'     \\nint f(int a)\\n     \\n           \\n      \\n{ }'
    """
    # The view loses what is not taken, so that an outer conditional is judged by what is left of the inner ones.
    view = bytearray(without_comments(bytes(draft.text)))
    directives = list(DIRECTIVE.finditer(bytes(view)))
    for match in directives:
        blanked(view, *match.span())
    open_ones: list[_Conditional] = []
    for match in directives:
        word = match["word"]
        if word in _OPENING:
            open_ones.append(_Conditional([match.span()], match["rest"]))
        elif word in _MIDDLE and open_ones:
            open_ones[-1].lines.append(match.span())
        elif word == b"endif" and open_ones:
            conditional = open_ones.pop()
            conditional.lines.append(match.span())
            if not _is_structured(conditional, bytes(view)):
                _flatten(conditional, draft, view)


def _flatten(conditional: _Conditional, draft: Draft, view: bytearray) -> None:
    branches = conditional.branches()
    kept = 0
    if _FALSE.fullmatch(conditional.condition):
        kept = 1  # nobody compiles the first one
    elif b"__cplusplus" in conditional.condition and not _is_balanced(bytes(view), *branches[0]):
        kept = -1  # `extern "C" {`: its end is in another conditional, and nothing is lost without both
    for index, (start, end) in enumerate(branches):
        if index != kept:
            draft.hide(start, end)
            blanked(view, start, end)
    for start, end in conditional.lines:
        draft.hide(start, end)
    draft.whole.append((conditional.lines[0][0], conditional.lines[-1][1]))


def _is_structured(conditional: _Conditional, view: bytes) -> bool:
    """Whether each branch is a number of whole statements or members, as the grammars want it."""
    start, end = conditional.lines[0][0], conditional.lines[-1][1]
    # A conditional inside an expression, a list or a head follows none of these signs.
    before, after = view[:start].rstrip()[-1:], view[end : end + 400].lstrip()[:1]
    if before not in (b"", b";", b"{", b"}", b":", b")"):
        return False
    if before == b")" and _CONTROL.search(_up_to_bracket(view, start)):
        return False  # if (a), whose statement is in the branches
    if before == b":" and not _ACCESS_LABEL.search(view, max(0, start - 200), start):
        return False  # after `case 1:` the grammars want a statement
    for first, last in conditional.branches():
        words = view[first:last].strip()
        if not words:
            continue
        if (
            not _is_balanced(view, first, last)
            or words.startswith((b"else", b"{"))
            or _ATTRIBUTE.fullmatch(words)
            or not words.endswith((b";", b"}", b":", b")"))
        ):
            return False
        if words.endswith(b")") and after in (b"{", b":"):  # heads of one body
            return False
        if before == b")" and not words.endswith((b";", b"}")):  # the rest of a head
            return False
    return True


def _up_to_bracket(view: bytes, end: int) -> bytes:
    """What stands before the round bracket that is closed last before `end`."""
    at = view.rfind(b")", 0, end)
    depth, stop = 1, max(0, at - 2000)  # a condition is shorter
    while depth and at > stop:
        at -= 1
        depth += (view[at : at + 1] == b")") - (view[at : at + 1] == b"(")
    return view[max(0, at - 20) : at]


def _is_balanced(view: bytes, start: int, end: int) -> bool:
    depth = 0
    for sign in re.findall(rb"[{}()]", view[start:end]):
        depth += (sign in b"{(") - (sign in b"})")
        if depth < 0:  # it closes what another branch opened
            return False
    return depth == 0


def blanked(view: bytearray, start: int, end: int) -> None:
    """Put blanks in the place of all but line ends."""
    view[start:end] = re.sub(rb"[^\n]", b" ", bytes(view[start:end]))


# Headers

_CPLUSPLUS_ONLY = re.compile(
    rb"^[ \t]*#[ \t]*if(?:def)?\b[^\n]*__cplusplus(?s:.*?)^[ \t]*#[ \t]*(?:else|endif)", re.MULTILINE
)
_CPP_SIGN = re.compile(
    rb"^[ \t]*(?:template\s*<|(?:inline\s+)?namespace\s+[\w:]*\s*\{|using\s+(?:namespace\s|\w+\s*=)|"
    rb"class\s+\w[\w\s:<>,()]*[{;]|(?:public|private|protected)\s*:|enum\s+class\s|constexpr\s|"
    # Nothing of C stands so: a name of a scope, a cast by name.
    rb"[^\n#]*?\b(?:[A-Za-z_]\w*::~?[A-Za-z_]|(?:static|dynamic|const|reinterpret)_cast\s*<)|"
    rb"#[ \t]*include\s*"
    rb"<(?:vector|string|memory|utility|functional|iostream|optional|array|map|string_view|type_traits|cstdint)>)",
    re.MULTILINE,
)


def is_cpp(header: bytes) -> bool:
    """Whether a `.h` file is C++: what only C++ has, outside of `#ifdef __cplusplus`.

    >>> is_cpp(b"template <class T> T f(T);"), is_cpp(b"#ifdef __cplusplus\\nclass A;\\n#endif\\nint f(void);")
    (True, False)
    """
    return _CPP_SIGN.search(_CPLUSPLUS_ONLY.sub(b"", without_comments(header))) is not None
