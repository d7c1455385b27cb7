"""Macros of C and C++, known by what surrounds them and blanked, so that a grammar can read the rest.

Their definitions lie in other files. But a declaration has one type and one name: of more words the others are macros.
What cannot be told is left as it is, and the repair is only kept where the tree gets sounder by it (`parsing.py`).
"""

import re

from ai_forge.data_pipeline.languages.declarations import MACRO_LIKE, WITH_ARGUMENTS, Item, Walk, items_of, with_group
from ai_forge.data_pipeline.languages.draft import Draft, Span
from ai_forge.data_pipeline.languages.macro_words import blank_words
from ai_forge.data_pipeline.languages.preprocessor import without_comments

__all__ = ["blank_macros"]

# Types that are words of the language: next to one of them every other word is a specifier, the name or a macro.
_PRIMITIVE = frozenset(
    b"void char short int long float double signed unsigned bool _Bool _Complex auto wchar_t char8_t char16_t char32_t "
    b"__int64 __int128 decltype typeof __typeof__".split()
)
_SPECIFIER = frozenset(
    b"static inline extern const volatile register restrict _Noreturn _Thread_local thread_local virtual explicit friend "
    b"constexpr consteval constinit mutable typedef typename unsigned signed long short export __extension__ __inline "
    b"__inline__ __restrict __restrict__ __forceinline __cdecl __stdcall __fastcall async struct class union enum".split()
)
_TAGS = frozenset((b"struct", b"class", b"union", b"enum"))
_AFTER_PARAMETERS = frozenset(
    b"const volatile noexcept override final throw requires try mutable default delete".split()
)
_STATEMENT = frozenset(
    b"if else for while do switch case default return break continue goto sizeof catch try throw new delete struct class "
    b"union enum typedef using namespace template operator co_return co_await co_yield public private protected "
    b"__asm__ asm __try __except __finally constexpr".split()
)
# A statement begins with these, so a word before one of them is no type.
_AFTER_MACRO = frozenset(b"if for while do switch return goto break continue".split())
_NO_VARIABLE = frozenset(
    b"typedef using friend template operator namespace return goto struct class union enum".split()
)
_ACCESS = frozenset((b"public", b"private", b"protected", b"signals", b"Q_SIGNALS", b"slots", b"Q_SLOTS"))
# Macros that are statements of their own, though no semicolon follows them: what comes next does not take them along.
_OF_A_SCOPE = re.compile(rb"BEGIN|END|NAMESPACE|WARNING|DISABLE|PUSH|POP|LICENSE|MODULE|EXPORT_SYMBOL|DECLARE|DEFINE")
# No type stands before these.
_BEFORE_WORD = re.compile(rb"\s*\n\s*(?:template|using|typedef|namespace|friend)\b")
_TYPE_LIKE = re.compile(rb"\s*(?:const\s+|struct\s+|unsigned\s+)*\w+[\s*&]*")
# What an attribute is told: numbers and strings. A name says that the macro makes something of it.
_OF_ATTRIBUTE = re.compile(rb"(?:printf|scanf|\W|\d\w*)*")


def blank_macros(draft: Draft) -> None:
    """Macros that no grammar can know go: before and around declarations, before the name of a class, as statements.

    >>> draft = Draft(bytearray(b"API int f(int a)\\n{\\n  BEGIN\\n  a = 1;\\n}\\nclass API A { };"))
    >>> blank_macros(draft)
    >>> bytes(draft.text)
    b'    int f(int a)\\n{\\n       \\n  a = 1;\\n}\\nclass     A { };'
    """
    walk = Walk(blank_words(draft))  # of the text as it was: blanks that are put below are not read again
    # Of each open brace the name of the class, empty at a namespace, None where code stands in it: declarations and
    # statements are told apart by it, as `A(b);` is a macro in one and a call in the other. `types`: whether it is a type's.
    scopes: list[bytes | None] = []
    types: list[bool] = []
    head = index = after_type = 0
    while index < len(walk.tokens):
        sign = walk.text(index)
        around = scopes[-1] if scopes else b""
        if sign == b"{":
            inside = None
            if around is not None:
                inside = _opened_scope(walk, draft, head, index, around)
            scopes.append(inside)
            types.append(around is not None and _class_name(items_of(walk, head, index)) is not None)
            head = index + 1
        elif sign == b"}":
            if around is not None:
                _blank_calls(items_of(walk, head, index), draft)
            if scopes:
                scopes.pop()
            head = index + 1
            if types and types.pop():
                after_type = head
        elif sign == b";" and around is not None:
            items = _without_annotations(items_of(walk, head, index), draft)
            is_declared = head == after_type and len(items) == 1  # typedef struct { … } _Name;
            if not is_declared and not _blank_calls(items, draft):
                _mend_head(items, draft, around, None)
            head = index + 1
        elif around is None:
            index = _after_statement_macro(walk, draft, index)
            continue
        elif sign == b":" and walk.text(index - 1) in _ACCESS and walk.text(index + 1) != b":":
            _mend_access(walk, draft, head, index)
            head = index + 1
        elif sign in (b"(", b"["):
            index = walk.close_of(index)
        index += 1
    if not scopes:  # with braces left open, what stands at the end is code that lost its end
        _blank_calls(items_of(walk, head, len(walk.tokens)), draft)


def _blank_calls(items: list[Item], draft: Draft) -> bool:
    """Whether a declaration, or what stands at the end of a scope, is nothing but macros; they go."""
    are_macros = all(item.is_group or (item.is_word and item.is_macro_like) for item in items)
    if are_macros:
        for item in items:
            draft.blank(item.start, item.end)
    return are_macros


def _without_annotations(items: list[Item], draft: Draft) -> list[Item]:
    """The items of a declaration without the macros that follow its name, which go: `T *a GUARDED_BY(lock)`."""
    items = _before_value(items)
    while len(items) > 3 and items[-1].is_group and items[-2].is_macro_like:
        name = items[-3]
        if not name.is_word or name.text in _SPECIFIER or name.text in _PRIMITIVE or name.is_macro_like:
            break
        if not any(item.text not in _SPECIFIER or item.text in _PRIMITIVE for item in items[:-3]):
            break  # it is the type: extern Status _name(int)
        draft.blank(*with_group(items, len(items) - 2))
        items = items[:-2]
    return items


def _opened_scope(walk: Walk, draft: Draft, first: int, last: int, around: bytes) -> bytes | None:
    """What the brace after a head opens, as in `blank_macros`; the head is mended."""
    items = items_of(walk, first, last)
    words = [item.text for item in items if item.is_word]
    if b"namespace" in words:
        until = next(index for index, item in enumerate(items) if item.text == b"namespace")
        for index, item in enumerate(items[:until]):
            if item.is_word and item.text not in (b"inline", b"export"):
                draft.blank(*with_group(items, index))
        return b""
    if words == [b"extern"]:  # "C"
        return b""
    name = None
    if len(_before_value(items)) == len(items):  # the brace behind `=` is a value, whatever stands before
        name = _class_name(items)
    _mend_head(items, draft, around, name)
    if name is None or b"enum" in words:
        return None
    return items[name].text


def _mend_access(walk: Walk, draft: Draft, first: int, colon: int) -> None:
    """`public slots:` and `signals:`, as Qt has them."""
    is_label = False
    for at in range(first, colon):
        if walk.text(at) in (b"public", b"private", b"protected"):
            is_label = True
        else:
            draft.blank(*walk.tokens[at])
    if not is_label:
        draft.blank(*walk.tokens[colon])


def _class_name(items: list[Item]) -> int | None:
    """The index of the name in the head of a class, struct, union or enum that is defined; None for any other head."""
    tag = next((i for i, item in enumerate(items) if item.text in _TAGS), None)
    if tag is None:
        return None
    stop = next((i for i in range(tag, len(items)) if items[i].text in (b":", b"=", b",")), len(items))
    named = [i for i in range(tag + 1, stop) if items[i].is_word and items[i].text not in (*_TAGS, b"final", b"const")]
    if not named:
        return tag
    if any(item.is_group or item.text in (b"*", b"&") for item in items[named[-1] + 1 : stop]):
        return None  # a function that returns one
    return named[-1]


def _mend_head(items: list[Item], draft: Draft, around: bytes, name: int | None) -> None:
    """Blank what is too much in the head of a declaration: one type and one name are enough.

    `around` is the name of the class that it stands in, `name` the index of the name of the class that it defines.
    """
    items = _before_value(items)
    n_calls = _leading_calls(items)
    leading = [with_group(items, index) for index in range(n_calls) if items[index].is_word]
    along = [span for span in leading if _is_attribute(draft, *span)]
    for span in leading:
        draft.blank(*span)
    items = items[n_calls:]
    n_bare = _bare_macros(items, draft)
    for item in items[:n_bare]:
        draft.blank(*item.span)
    items = items[n_bare:]
    if name is not None:
        name -= n_calls + n_bare
        gone = [
            with_group(items, index)
            for index, item in enumerate(items[:name])
            if item.is_word and item.text not in _SPECIFIER and item.text not in WITH_ARGUMENTS
        ]
    else:
        name = _pointer_to_function(items, draft)
        if name is None:
            name = _function_name(items)
        if name is None:
            name = _variable_name(items)
        if name is None:
            return
        # Constructors, destructors and conversions have no type: all words before their names are too many.
        is_initialised = any(item.text == b":" for item in items[name + 2 : name + 3])
        is_made = items[name].text == around or items[name].text.startswith(b"~") or is_initialised
        is_made = is_made or _is_conversion(items, name)
        gone = _too_much_before(items[:name], draft, has_type=is_made)
        for index in _macros_after(items, name + 2):
            draft.blank(*with_group(items, index))
    along += [span for span in gone if _is_attribute(draft, *span)]
    for span in gone:
        draft.blank(*span)
    _take_along(items, name, leading + gone, along, draft)


def _leading_calls(items: list[Item]) -> int:
    """How many items at the beginning are macros that end no declaration: `NAMESPACE_BEGIN(a)`."""
    n = 0
    while n + 2 < len(items) and items[n].is_macro_like:
        after = items[n + 2]
        if items[n + 1].is_macro_like and after.is_group:  # WARNING_PUSH, and on the next line WARNING_DISABLE(x)
            n += 1
            continue
        if not items[n + 1].is_group:
            break
        is_name = n + 3 < len(items) and items[n + 3].is_group and not after.is_macro_like  # PyAPI_FUNC(int) name(…)
        if not after.is_word or is_name or after.text in _AFTER_PARAMETERS:
            break
        n += 2
    return n


def _bare_macros(items: list[Item], draft: Draft) -> int:
    """How many items at the beginning are macros on lines of their own that no declaration takes: `BEGIN_NAMESPACE`."""
    n = 0
    while n + 1 < len(items) and items[n].is_macro_like and not items[n + 1].is_group:
        after = without_comments(bytes(draft.text[items[n].end : items[n + 1].end]))
        is_alone = after.lstrip(b" \t").startswith(b"\n")
        if not _BEFORE_WORD.match(after) and not (is_alone and _OF_A_SCOPE.search(items[n].text)):
            break
        n += 1
    return n


def _is_attribute(draft: Draft, start: int, end: int) -> bool:
    """Whether a macro belongs to what follows it, and does not declare something of its own."""
    name, bracket, arguments = bytes(draft.text[start:end]).partition(b"(")
    if not bracket:
        return True
    is_before = re.match(rb"[ \t]*\n", draft.text[end : end + 200]) is None
    return not _OF_A_SCOPE.search(name) and (
        is_before or _OF_ATTRIBUTE.fullmatch(without_comments(arguments)) is not None
    )


def _take_along(items: list[Item], name: int, gone: list[Span], along: list[Span], draft: Draft) -> None:
    """Macros that went from before a declaration still belong to it, unless a blank line is between."""
    first = start = next(item.start for item in items if not any(a <= item.start < b for a, b in gone))
    for before, end in reversed([span for span in gone if span[1] <= first]):
        if (before, end) not in along or re.search(rb"\n[ \t]*\n", draft.text[end:start]):
            break
        start = before
    if start < first:
        draft.whole.append((start, items[name].end))


def _macros_after(items: list[Item], first: int) -> list[int]:
    """The indices of macros between a function's parameters and its body."""
    found: list[int] = []
    for index in range(first, len(items)):
        item = items[index]
        if item.text in (b":", b"->", b"=", b"requires", b"try"):
            break
        is_known = item.text in _AFTER_PARAMETERS or item.text in WITH_ARGUMENTS
        if item.is_word and item.is_macro_like and not is_known:
            found.append(index)
    return found


def _before_value(items: list[Item]) -> list[Item]:
    """The items of a head up to the `=` before a value."""
    for index, item in enumerate(items):
        if item.text == b"=" and not (
            index
            and (items[index - 1].is_operator or items[index - 1].text.endswith((b"=", b"!", b"<", b">", b"+", b"-")))
        ):
            return items[:index]
    return items


def _variable_name(items: list[Item]) -> int | None:
    """The index of the word that a declaration without parameters names: the last, if two words stand before it."""
    if not items or any(item.text in _NO_VARIABLE or item.text in (b":", b",") for item in items):
        return None
    named = [index for index, item in enumerate(items) if item.is_word and item.text not in _SPECIFIER]
    if len(named) > 2 and named[-1] == len(items) - 1:
        return named[-1]
    return None


def _pointer_to_function(items: list[Item], draft: Draft) -> int | None:
    """The index of the brackets that hold the name of a pointer to a function: `HEAD T *(*name)(void)`."""
    for index in range(len(items) - 1):
        is_pair = items[index].is_group and items[index + 1].is_group
        if is_pair and draft.text[items[index].start + 1 : items[index].end].lstrip().startswith(b"*"):
            return index
    return None


def _function_name(items: list[Item]) -> int | None:
    """The index of the word that is the function's name: the first before a group that is no macro's."""
    operator = next((index for index, item in enumerate(items) if item.is_operator), None)
    if operator is not None:
        return operator
    items = items[: next((at for at, item in enumerate(items) if item.text == b":"), None)]  # initialisers follow
    calls = [
        i
        for i in range(len(items) - 1)
        if items[i].is_word and items[i + 1].is_group and items[i].text not in WITH_ARGUMENTS
    ]
    for place, index in enumerate(calls):
        before = [
            item
            for at, item in enumerate(items[:index])
            if item.is_word and item.text not in WITH_ARGUMENTS and not items[at + 1].is_group
        ]
        has_type = any(item.text not in _SPECIFIER or item.text in _PRIMITIVE for item in before)
        is_last = place == len(calls) - 1
        is_followed = False
        if index + 2 < len(items):
            follows = items[index + 2]
            is_other_word = follows.is_word and follows.text not in _AFTER_PARAMETERS
            is_followed = is_other_word or follows.text in (b"*", b"&")
            is_variable = not follows.is_macro_like or (not has_type and follows.text.startswith(b"_"))
            if is_last and is_followed and is_variable:
                return None  # API(x) type name, API(x) _name[]
        # Brackets that another word follows are a macro's arguments, unless a type stands before them.
        if is_last or has_type or not is_followed:
            return index
    return None


def _is_conversion(items: list[Item], name: int) -> bool:
    """Whether the name is `operator` and a type follows it."""
    if not items[name].is_operator or name + 1 >= len(items) or items[name].text.endswith(b"0"):
        return False
    return items[name + 1].is_word and items[name + 1].text not in (b"new", b"delete", b"co_await")


def _too_much_before(items: list[Item], draft: Draft, *, has_type: bool) -> list[Span]:
    """Of the words before a name its specifiers and, unless it `has_type`, one type stay; the spans of the others."""
    words: list[int] = []
    is_tagged = False
    for index, item in enumerate(items):
        if item.text in _PRIMITIVE:
            has_type = True
        elif item.text in _TAGS:
            is_tagged = True
        elif item.is_word and is_tagged:
            has_type, is_tagged = True, False  # struct NAME
        elif item.is_word and item.text not in _SPECIFIER and item.text not in WITH_ARGUMENTS:
            words.append(index)
    plain = [index for index in words if index + 1 == len(items) or not items[index + 1].is_group]
    called = [index for index in words if index not in plain]
    if not has_type and plain:
        # The type is what no macro would be called; of several the last, as macros come first by habit.
        plain.remove(next((i for i in reversed(plain) if not items[i].is_macro_like), plain[-1]))
        has_type = True
    gone = [(items[index].start, items[index].end) for index in plain]
    for index in called:
        group = items[index + 1]
        inside = bytes(draft.text[group.start + 1 : group.end - 1])
        if not has_type and _TYPE_LIKE.fullmatch(inside):  # PyAPI_FUNC(int)
            gone += [(items[index].start, group.start + 1), (group.end - 1, group.end)]
        else:
            gone.append(with_group(items, index))
    return sorted(gone)


def _after_statement_macro(walk: Walk, draft: Draft, index: int) -> int:
    """The index after the token at `index` in code; a macro that is a statement without a semicolon goes."""
    word = walk.text(index)
    before = walk.text(index - 1)
    if before in (b"(", b","):
        return _after_type_argument(walk, draft, index)
    is_word = word[:1].isalpha() or word[:1] == b"_"
    if is_word and before == b"if" and walk.text(index + 1) == b"(" and word != b"constexpr":  # if MAYBE_CONSTEXPR (a)
        draft.blank(*walk.tokens[index])
        return index + 1
    is_name = is_word and word not in _STATEMENT and word not in _PRIMITIVE
    is_first = before in (b";", b"{", b"}", b":", b")") or index == walk.fresh
    is_capital = MACRO_LIKE.fullmatch(word) is not None
    is_specifier = is_capital and before in _SPECIFIER and before not in _TAGS
    is_statement = is_name and is_first and word not in _SPECIFIER
    if not is_specifier and not is_statement:
        return index + 1
    last = index
    if walk.text(index + 1) == b"(":
        last = walk.close_of(index + 1)
    follows = walk.text(last + 1)
    # constexpr T a = 1: what stands before the last word is its type
    is_specifier = is_specifier and (last > index or walk.text(last + 2)[:1].isalpha() or walk.text(last + 2) == b"*")
    if is_specifier and follows[:1].isalpha() and follows not in _STATEMENT:  # static const MODEL("small") int a
        draft.blank(walk.tokens[index][0], walk.tokens[last][1])
        return last + 1
    if not is_statement:
        return index + 1
    is_field = follows == b"." and before == b"{"  # HEAD(NULL) .a = 1
    starts = follows[:1].isalnum() or follows[:1] == b"_" or follows == b"}" or is_field
    is_alone = starts and walk.begins_line(last + 1)
    is_loop = follows == b"{" and last > index and before != b":"
    is_before = False
    if last == index:  # END if (a) …, CONSTANT static int a, BEGIN a->b = 1
        is_member = follows[:1].isalpha() and walk.text(last + 2) in (b"->", b".")
        is_type = follows in (b"const", b"volatile") and not walk.text(last + 3)[:1].isalpha()  # __m128i const a = …
        is_specifier = follows in _SPECIFIER or follows in _PRIMITIVE or follows == b"{"
        words = [walk.text(last + n)[:1].isalpha() for n in (1, 2)]
        is_whole = all(words) and follows not in _SPECIFIER and walk.text(last + 3) in (b"=", b";", b"{", b"(")
        is_specifier = is_specifier or (is_whole and follows not in _STATEMENT)  # CONSTEXPR size_t size = 1
        is_before = follows in _AFTER_MACRO or (is_capital and is_specifier and not is_type) or is_member
    if (is_alone and walk.begins_line(index)) or is_loop or is_before:
        draft.blank(walk.tokens[index][0], walk.tokens[last][1])
        walk.fresh = last + 1
        return last + 1
    return index + 1


def _after_type_argument(walk: Walk, draft: Draft, index: int) -> int:
    """The index after a type that a macro takes as an argument, which becomes a number; else after one token."""
    at, n_names, n_signs, last = index, 0, 0, b""
    while walk.text(at)[:1].isalpha() or walk.text(at)[:1] in (b"_", b"*"):
        token = walk.text(at)
        n_signs += token == b"*" or token in _PRIMITIVE
        n_names += token != b"*" and token not in _PRIMITIVE and token not in _SPECIFIER
        last = token
        at += 1
    is_type = n_signs and n_names <= 1 and walk.text(index) != b"*" and walk.text(at) in (b",", b")")
    if not is_type:  # asked first: to look for the bracket around every argument would cost its square
        return index + 1
    opening = walk.open_of(index)
    called = walk.text(opening - 1)
    follows = walk.text(walk.close_of(opening) + 1)
    is_named = last != b"*" and last not in _PRIMITIVE  # f(void **data) {
    before = walk.text(opening - 2)
    is_typed = before in (b"*", b"&") or (before[:1].isalpha() and before not in _STATEMENT)  # void f(void *) {
    is_declared = follows[:1].isalpha() or (follows in (b"{", b"->") and (is_named or is_typed))
    if is_declared or not (called[:1].isalpha() or called[:1] == b"_") or called in _STATEMENT:
        return index + 1
    draft.blank(walk.tokens[index][0], walk.tokens[at - 1][1])
    draft.put(walk.tokens[index][0], b"0")
    return at
