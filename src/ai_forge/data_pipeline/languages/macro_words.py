"""Macros of C and C++ that a few signs around them tell: beside strings, among parameters, in directives.

Those of declarations and statements need the whole head: `macros.py`.
"""

import itertools
import re

from ai_forge.data_pipeline.languages.draft import Draft
from ai_forge.data_pipeline.languages.preprocessor import DIRECTIVE, blanked, strings_of, without_comments

__all__ = ["blank_words"]

_BLOCK_COMMENT = re.compile(rb"/\*(?s:.*?)\*/")
# Between a star and a name stand only qualifiers; a parameter has a type and a name, so a word before both is a macro.
_AFTER_STAR = re.compile(rb"[*&]\s*([A-Z][A-Z0-9_]+|__?restrict(?:__)?)(?=\s+(?:const\s+)?[A-Za-z_])")
_BEFORE_PARAMETER = re.compile(
    rb"(?<=[(,])\s*(_?[A-Z][A-Za-z0-9]*_|[A-Z][A-Z0-9_]+)(?=\s+(?:const\s+)?[A-Za-z_]\w*[\s*&]+[A-Za-z_]\w*\s*[,)\[])"
)
# A parameter's type and name stand before it; or it is called after what it says; or it brings its comma along.
_IN_PARAMETER = (
    re.compile(rb"(?<=[\w*&>])[\s*&]+\b\w+(?:\[\])?\s+([A-Z_][A-Z0-9_]*[A-Z])(?=\s*[,)])"),
    re.compile(rb"(?<=[\w*&>])\s+(_*(?:\w+_)?(?:unused|UNUSED)_*)(?=\s*[*&]?\s*\w+\s*[,)])"),
    re.compile(rb"(?<=[(,])\s*([A-Z][A-Z0-9_]*_)(?=[ \t]+\w)"),
)
_TEMPLATE = re.compile(rb"\btemplate\s*<")
_TEMPLATE_MACRO = re.compile(rb"[A-Z][A-Z0-9_]{2,}\s*\(")
# `#define REST , void *rest`: it brings its comma along, wherever it stands
_WITH_COMMA = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+,", re.MULTILINE)
# "at " __FILE__ ":" STR(__LINE__): between two strings only macros stand.
_MACRO = rb"\b[A-Za-z_]\w*+(?:\s*+\([^()]*+\))?+"
_BETWEEN_STRINGS = re.compile(rb"\s*+" + _MACRO + rb"(?:\s*+" + _MACRO + rb")*+\s*+")
_AFTER_STRING = re.compile(rb"\s*+(" + _MACRO + rb")(?=\s*[,);])")
# COMPARE("lt", <): a sign alone is no argument that a grammar knows.
_SIGN_ARGUMENT = re.compile(rb"(?<=\()\s*([-+/%^|~!<>=]+)\s*(?=[,)])|(?<=,)\s*([-+*/%^&|~!<>=]+)\s*(?=[,)])")


def blank_words(draft: Draft) -> bytes:
    """These macros go; returns the text without comments, directives and what went, with zeros for strings.

    >>> draft = Draft(bytearray(b'f("%" PRIu64, <); int g(int a UNUSED);'))
    >>> blank_words(draft)
    b'f(000       , <); int g(int a       );'
    >>> bytes(draft.text)
    b'f("%"       , 0); int g(int a       );'
    """
    _blank_beside_strings(draft)
    view = bytearray(without_comments(bytes(draft.text)))
    for match in DIRECTIVE.finditer(bytes(view)):
        start = match.start()
        if match["word"] in (b"define", b"if", b"elif"):  # a comment ends it for the grammars, whatever line it is on
            last_line = max(start, draft.text.rfind(b"\n", start, match.end()))
            for comment in _BLOCK_COMMENT.finditer(bytes(draft.text[start:last_line])):
                draft.blank(start + comment.start(), start + comment.end())
        if not match["word"] and not match["rest"].strip():  # `#` alone says nothing
            draft.blank(*match.span())
        # __has_include(<optional>), HAS_INCLUDE("b.h"): its argument is no expression of the grammar
        if match["word"] in (b"if", b"elif") and re.search(rb"__has_|\(\s*(?:[<0]|\w+\s*::)", match["rest"]):
            draft.blank(*match.span("rest"))
            draft.put(match.start("rest"), b" 1")
        blanked(view, *match.span())
    for match in _SIGN_ARGUMENT.finditer(bytes(view)):
        at = match.start(match.lastindex or 0)
        draft.blank(at, match.end())
        draft.put(at, b"0")
    _blank_in_templates(draft, view)
    with_comma = [
        re.compile(rb"\b(" + re.escape(name) + rb")\b") for name in set(_WITH_COMMA.findall(bytes(draft.text)))
    ]
    for pattern in (_AFTER_STAR, _BEFORE_PARAMETER, *_IN_PARAMETER, *with_comma):
        for match in pattern.finditer(bytes(view)):
            draft.blank(*match.span(1))
            blanked(view, *match.span(1))
    return bytes(view)


def _blank_in_templates(draft: Draft, view: bytearray) -> None:
    """Macros with arguments among the parameters of a template: `ENABLE_IF(!is_same<A, B>::value)` becomes a type."""
    text = bytes(view)
    for head in _TEMPLATE.finditer(text):
        at, depth, brackets = head.end(), 1, 0
        while depth and at < len(text) and text[at] not in b";{":
            match = _TEMPLATE_MACRO.match(text, at)
            if match is not None and text[at - 1] not in b"_" and not text[at - 1 : at].isalnum():
                end, inside = match.end(), 1
                while inside and end < len(text):
                    inside += (text[end] == ord("(")) - (text[end] == ord(")"))
                    end += 1
                for one in (draft.text, view):
                    blanked(one, at, end)
                    one[at : at + 3] = b"int"
                at = end
                continue
            brackets += (text[at] == ord("(")) - (text[at] == ord(")"))
            if not brackets:
                depth += (text[at] == ord("<")) - (text[at] == ord(">"))
            at += 1


def _blank_beside_strings(draft: Draft) -> None:
    """Macros that are strings, next to a string that is written as one."""
    text = bytes(draft.text)
    view = without_comments(text)
    strings = strings_of(text)
    for (_, end), (start, _) in itertools.pairwise([*strings, (len(text), len(text))]):
        if start < len(text) and _BETWEEN_STRINGS.fullmatch(view, end, start):
            draft.blank(end, start)
        elif (match := _AFTER_STRING.match(view, end)) is not None:
            draft.blank(*match.span(1))
