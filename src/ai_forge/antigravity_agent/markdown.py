"""Artifacts as Markdown, and the same as a page of HTML: one template each, everything that is filled in escaped.

Values come from repositories, models and people. In Markdown each is escaped so that no viewer takes it for markup, a link, a
mention or a new line; what is code stands in a code span that it cannot end. The HTML is made of the Markdown by a parser that
takes no HTML, so what is escaped once is escaped in both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

__all__ = ["as_code", "as_page", "as_text", "render"]

# what begins or ends something in Markdown, and `@`, `://` and `:name:`, which viewers make mentions, links and pictures of; an
# underscore within a word is none of these, and names are full of them
MARKS = re.compile(r"[\\`*{}\[\]<>#|~!&@$^=]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)")
LINE_START = re.compile(r"^(\s*)([-+]|\d+[.)])(?=\s)")
# control characters, line separators and direction overrides: nothing of them could be shown as it is
UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


class Marked(str):
    """Text that is Markdown already."""

    __slots__ = ()


def as_text(value: object) -> str:
    r"""A value as plain text within a line of Markdown.

    >>> as_text("a [b](http://c) | <i>d</i>\n# e @f")
    'a \\[b\\](http\\://c) \\| \\<i\\>d\\</i\\> \\# e \\@f'
    >>> as_text("1. not a list"), as_text(0.25), as_text(None)
    ('1\\. not a list', '0.25', '–')
    """
    if isinstance(value, Marked):
        return value
    if value is None:
        return "–"
    text = UNSHOWABLE.sub(" ", str(value)).strip()
    text = MARKS.sub(lambda match: f"\\{match[0]}", text)
    # two words that some viewers make links of without any mark
    text = re.sub(r"(?i)\bwww\.", r"www\\.", text)
    return LINE_START.sub(lambda match: f"{match[1]}{match[2][:-1]}\\{match[2][-1]}", text)


def as_code(value: object) -> Marked:
    r"""A value in a code span, also within a table.

    >>> as_code("a`b"), as_code("src/a|b.py\n"), as_code("")
    ('`` a`b ``', '`src/a\\|b.py`', '` `')
    """
    text = UNSHOWABLE.sub(" ", str(value)).strip() or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    # a table's cell ends at a bar also within code; outside of tables nothing here has one
    text = text.replace("|", "\\|")
    return Marked(f"{fence}{space}{text}{space}{fence}")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ai_forge.antigravity_agent", "artifacts_templates"),
        finalize=as_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["code"] = as_code
    return environment


def render(template: str, **values: object) -> str:
    """The Markdown template `NAME.md` filled with `values`."""
    return _environment().get_template(f"{template}.md").render(**values)


def as_page(markdown: str, title: str, *, picture: bytes | None = None, refresh_s: int | None = None) -> str:
    """A page of HTML that stands alone. `picture` (PNG) comes below the text; `refresh_s`: it is loaded again that often."""
    environment = Environment(
        loader=PackageLoader("ai_forge.antigravity_agent", "artifacts_templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
    )
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    encoded = base64.b64encode(picture).decode() if picture else None
    values: Mapping[str, object] = {"title": title, "body": body, "picture": encoded, "refresh_s": refresh_s}
    return environment.get_template("page.html").render(values)
