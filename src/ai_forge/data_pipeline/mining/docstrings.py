"""Documentation of a unit or a file: Python docstrings, doc comments of every style, without their marks.

Which comments document is a row's business (`LanguageSpec.docs`): `/**` alone in Java, `///` too in Rust, any comment
directly above in C. Here they are found, joined and cleaned.
"""

import inspect
import re
from collections.abc import Sequence

from tree_sitter import Node

COMMENT_TYPES = frozenset({"comment", "line_comment", "block_comment"})
# Go, Ruby: comments above the first statement stand outside the list.
_BARE_LISTS = ("statement_list", "body_statement")
_STRING_START = re.compile(r"^[rRuUbBfF]*(\"\"\"|'''|\"|')")
_TOOL_LINE = re.compile(
    r"^(go:|nolint|eslint|@ts-|\+build|prettier-ignore|istanbul|#!|rubocop:|shellcheck |-\*-|frozen_string)"
)
_LICENCE = re.compile(r"copyright|licen[sc]e|SPDX-|\(c\) \d{4}", re.IGNORECASE)
# What a licence says and no documentation of a function does: some read, check or print licences.
_LICENCE_HEADER = re.compile(
    r"copyright\s*(?:\(c\)|©|\d{4}|by\b)|\(c\)\s*(?:copyright\s*)?\d{4}|SPDX-License|all rights reserved|"
    r"licen[sc]ed under|licen[sc]e information|(?:the|see) LICEN[CS]E(?:\.\w+)? file|permission is hereby granted|"
    r"redistribution and use|General Public License|Apache License|MIT licen[sc]e",
    re.IGNORECASE,
)
_XML_PARAMETER = re.compile(r"<(?:type)?param name=\"([^\"]*)\">\s*", re.IGNORECASE)
_XML_EXCEPTION = re.compile(r"<exception cref=\"(?:\w:)?([^\"]*)\"\s*>\s*", re.IGNORECASE)
_XML_REFERENCE = re.compile(r"<(?:see|seealso|paramref|typeparamref)\s+\w+=\"(?:\w:)?([^\"]*)\"\s*/>")
_XML_TAG = re.compile(
    r"</?(?:summary|remarks|para|param|typeparam|returns|value|example|code|c|exception|list|item|description)\b[^>]*>"
)
# Tags by which a comment documents something else: a type of its own, the file, a group.
_NOT_OF_A_UNIT = re.compile(
    r"^\s*[@\\](?:license|copyright|preserve)\b|(?<!\w)[@\\](?:[{}]|(?:typedef|callback|file|fileoverview|overview|"
    r"packageDocumentation|module|namespace|defgroup|addtogroup|mainpage|cond|endcond)\b|section\s*$)|^#?(?:end)?region\b"
)
_OF_SEVERAL = re.compile(
    r"(?:the following|these|below are)\s+(?:\w+\s+){0,2}(?:functions|macros|methods|helpers|routines)\b", re.IGNORECASE
)
_DIVIDER = re.compile(r"[-=*#~_/+<>.\\|\s]{4,}")
_SECTION = re.compile(r"[-=*#~_/+]{3,}.*[-=*#~_/+]{3,}|[-=*#~_/+]{5,}\s*\S.*")
_REMINDER = re.compile(r"(?:TODO|FIXME|XXX|HACK)\b")
# A boxed line of fewer words is the title of a section.
_TITLE_WORDS = 4
# A line that is code, and no sentence: what was commented out.
_CODE_LINE = re.compile(
    r"[\w.\[\]>*&:-]+\s*(?:[-+*/|&]|:)?=(?!=)\s*\S.*|"  # a = b
    r"(?:[\w.:>*-]|\[\w*\])+\(.*\)\s*(?:do\b.*)?|"  # f(a)
    r".*(?:[;{]|\}\s*[;,)]?)|"
    r"(?:if|elif|for|while|with|case)\b.*:|(?:if|unless|while|until)\s+\S+(?:\s*(?:[=!<>]=?|&&|\|\|)\s*\S+)?|"
    r"(?:let|const|var|val|auto|static|public|private)\s.*=.*|(?:def|class|func|fn|fun|function)\s+\w+.*[(:]?.*|"
    r"(?:else|end|fi|done|esac|endif|break|continue|return)\b(?:\s+[\w.()\[\]\"']+)?|"
    r"(?:import|require|include|echo|puts|print|local|export)\s+[\w.\"'$:/]+|from\s+\S+\s+import\b.*|#\s*(?:include|define|if)\w*\b.*"
)


def docstring_of(body: Node | None) -> str | None:
    """The string that opens a Python body, dedented; escape sequences stay as written."""
    if body is None:
        return None
    # Children by index: the list of all of them would be made for every body.
    opening = (body.named_child(index) for index in range(body.named_child_count))
    first = next((child for child in opening if child is not None and child.type != "comment"), None)
    if first is not None and first.type == "expression_statement":
        if first.named_child_count != 1:
            return None
        first = first.named_child(0)
    if first is None or first.type not in ("string", "concatenated_string"):
        return None
    pieces = [first]
    if first.type == "concatenated_string":
        pieces = [piece for piece in first.named_children if piece.type != "comment"]
    texts = [_string_text(piece) for piece in pieces]
    if None in texts:
        return None
    return inspect.cleandoc("".join(text or "" for text in texts)).strip() or None


def documentation(comment: str, marks: Sequence[str]) -> str | None:
    """What a comment says about the definition below it; None where that is nothing, or it speaks of something else.

    >>> documentation("// Total adds up the rows.", ["//"])
    'Total adds up the rows.'
    >>> documentation("// int old_tax(void) { return 0; }", ["//"]), documentation("/** @typedef {Object} A */", ["/**"])
    (None, None)
    """
    text = clean_comment(comment, marks)
    if text is None or _NOT_OF_A_UNIT.search(text) or _OF_SEVERAL.match(text):
        return None
    lines = _without_box(text.split("\n"))
    words = [line.strip() for line in lines if line.strip()]
    if not words or all(_SECTION.fullmatch(line) or _REMINDER.match(line) for line in words):
        return None
    if _LICENCE_HEADER.search(" ".join(line for line in words if not line.startswith("@"))):
        return None
    n_code = sum(1 for line in words if _CODE_LINE.fullmatch(line))
    if _CODE_LINE.fullmatch(words[0]) and 2 * n_code > len(words):  # an example begins with a sentence
        return None
    return "\n".join(lines)


def _without_box(lines: list[str]) -> list[str]:
    """Lines without dividers at both ends, and without the title of a section that stands between two."""
    if _DIVIDER.fullmatch(lines[0]):
        end = next((at for at in range(1, len(lines)) if _DIVIDER.fullmatch(lines[at])), None)
        if end is not None and len(" ".join(lines[1:end]).split()) < _TITLE_WORDS:
            lines = lines[end:]
    while lines and (not lines[0].strip() or _DIVIDER.fullmatch(lines[0])):
        lines = lines[1:]
    while lines and (not lines[-1].strip() or _DIVIDER.fullmatch(lines[-1])):
        lines = lines[:-1]
    return lines


def _string_text(node: Node) -> str | None:
    """What stands between a string's quotes; None for a format string, bytes, and what is no string."""
    raw = (node.text or b"").decode("utf-8", "replace")
    start = _STRING_START.match(raw)
    if node.type != "string" or start is None or set("fFbB") & set(start.group(0)):
        return None
    return raw[start.end() : -len(start.group(1))]


def comments_above(node: Node, marks: Sequence[str], row: int) -> list[Node]:
    """The comments that document `node`, which begins in `row`, top first.

    That is one block comment with one of `marks`, with at most one blank line between if it is a `/**` (a common
    JavaScript style; where any comment documents, one that stands off is about the file or opens a section), or a run of
    line comments with one of `marks` directly above. Other line comments may stand between.
    """
    line_marks = tuple(mark.encode() for mark in marks if not mark.startswith("/*"))
    block_marks = tuple(mark.encode() for mark in marks if mark.startswith("/*"))
    found: list[Node] = []
    line = row
    previous = node.prev_sibling
    if previous is None and node.parent is not None and node.parent.type in _BARE_LISTS:
        previous = node.parent.prev_sibling
    while previous is not None and previous.type in COMMENT_TYPES:
        text = previous.text or b""
        last_line = previous.end_point[0] - (previous.end_point[1] == 0)  # some grammars count the line end to it
        may_stand_off = not found and "/*" not in marks and text.startswith((b"/**", b"///"))
        if line - last_line > 1 + may_stand_off:
            break
        before = previous.prev_sibling
        if (
            before is not None
            and before.type not in COMMENT_TYPES
            and before.end_point.column
            and (before.end_point.row == previous.start_point.row)
        ):
            break  # the comment trails the statement before
        is_block = text.startswith(b"/*")
        is_plain = text.startswith(b"/**/") or (text.startswith(b"/***") and "//!" in marks)  # Rust: three are no mark
        if is_block and not found and block_marks and text.startswith(block_marks) and not is_plain:
            return [previous]
        if is_block and (found or not block_marks):
            break
        if line_marks and text.startswith(line_marks) and not text.startswith((b"#!", b"////")):
            found.append(previous)
        line = previous.start_point[0]
        previous = before
    return found[::-1]


def file_comment(root: Node, marks: Sequence[str], first_unit: int) -> str | None:
    """What the comments at the top of a file say about it, before byte `first_unit`; a licence is passed over."""
    run: list[Node] = []
    for child in root.named_children:
        is_comment = child.type in COMMENT_TYPES
        if run and (not is_comment or child.start_point[0] - run[-1].end_point[0] > 1):
            text = clean_comment(b"\n".join(node.text or b"" for node in run).decode("utf-8", "replace"), marks)
            if text and not _LICENCE.search(text):
                return text
            run = []  # a licence: the file's own words may stand below it
        if is_comment and child.end_byte <= first_unit:
            run.append(child)
        elif child.type not in ("php_tag", "preproc_ifdef"):
            return None
    return None


def clean_comment(text: str, marks: Sequence[str]) -> str | None:
    """A comment's words: no `/**`, `*`, `//` or `#` marks; directives and tool lines are left out, XML tags resolved."""
    is_hash = "#" in marks  # in a Ruby or Bash comment `*` is a list's bullet
    mark = r"#+(?!!)" if is_hash else r"/\*[*!]*(?!/)|//[/!]*|\*(?!/)"
    lines: list[str] = []
    for raw in text.splitlines():
        line = re.sub(rf"^\s*({mark})?\s?", "", raw)
        if not is_hash:
            line = re.sub(r"\s*\*+/\s*$", "", line)
        if _TOOL_LINE.match(line):
            continue
        lines.append(line.rstrip())
    words = inspect.cleandoc("\n".join(lines)).strip()
    if "<summary>" in words or ("</" in words and "///" in marks):
        words = _XML_EXCEPTION.sub(r"@throws \1 ", words)
        words = _XML_REFERENCE.sub(r"\1", _XML_PARAMETER.sub(r"@param \1 ", words).replace("<returns>", "@return "))
        words = "\n".join(line for line in _XML_TAG.sub("", words).splitlines() if line.strip())
    return words.strip() or None
