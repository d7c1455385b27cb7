"""A Markdown file's bytes to repaired text, front matter, sections, and the list items, sentences and rows in them.

Structure comes from a CommonMark parser, so a `#` in a code fence is no heading and a `|` in code no table; the text of
a section is its lines as written. Bytes that are not UTF-8 are read line by line as Windows-1252; text that was decoded
wrongly before it was saved ("â€™" for "’") is put right by ftfy, and only that: quotation marks and the like stay.
Invisible control characters are removed. HTML comments are left out. Raw HTML is otherwise kept as written.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ftfy
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ai_forge.data_pipeline.text.words import one_line

__all__ = ["Block", "Section", "decode", "plain_text", "sections", "split_front_matter"]

BlockKind = Literal["item", "paragraph", "row", "code"]
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"^([\w-]+)[ \t]*[:=][ \t]*(.*)$")
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
_MAX_FRONT_MATTER = 16_000
_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """An item of a list, a paragraph, a row of a table or a code block. Lines count from 1, both ends included.

    `text` is as written, without the item's own mark; `ordinal` the number of an item in a numbered list, `cells` the
    headings and cells of a row.
    """

    kind: BlockKind
    text: str
    first_line: int
    last_line: int
    ordinal: int | None = None
    cells: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading's own text, up to the next heading of any level. The text before the first heading has no heading."""

    headings: tuple[str, ...]
    level: int
    text: str
    first_line: int
    last_line: int
    blocks: tuple[Block, ...] = ()
    starts: tuple[int, ...] = field(default=(), repr=False)
    """Lines (counted from 1) where a block of the outermost level begins: here a long text may be cut."""

    @property
    def heading(self) -> str:
        """The innermost heading, or nothing."""
        return self.headings[-1] if self.headings else ""


def decode(content: bytes) -> tuple[str, list[str]]:
    """The text with `\\n` line ends, and the names of the repairs that it needed.

    Raises ValueError where the bytes are no text.

    >>> decode("caf\\u00c3\\u00a9\\r\\n".encode())
    ('café\\n', ['line_ends', 'mojibake'])
    """
    repairs: list[str] = []
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16").encode("utf-8", "replace")
        repairs.append("utf16")
    if b"\0" in content:
        raise ValueError("holds NUL bytes")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\n".join(_decode_line(line) for line in content.split(b"\n"))
        repairs.append("not_utf8")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        repairs.append("line_ends")
    fixed = "\n".join(line if line.isascii() else ftfy.fix_encoding(line) for line in text.split("\n"))
    if fixed != text:
        repairs.append("mojibake")
    clean = _INVISIBLE.sub("", fixed)
    if clean != fixed:
        repairs.append("invisible")
    return clean, repairs


def _decode_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return line.decode("cp1252")
        except UnicodeDecodeError:
            return line.decode("latin-1")


def split_front_matter(text: str) -> tuple[dict[str, str], str, int]:
    """(its plain values, the text after it, the number of lines it took).

    A block between two `---` (or `+++`) lines at the very beginning counts where it is a mapping; what is broken YAML
    but reads `key: value` line by line is read so. Anything else is two rules with a text between them, and stays.

    >>> split_front_matter("---\\ntitle: A\\n---\\n# B\\n")
    ({'title': 'A'}, '# B\\n', 3)
    """
    match = _FRONT_MATTER.match(text)
    if match is None or len(match[2]) > _MAX_FRONT_MATTER:
        return {}, text, 0
    values = _mapping(match[1], match[2])
    if values is None:
        return {}, text, 0
    return values, text[match.end() :], match[0].count("\n")


def _mapping(mark: str, inner: str) -> dict[str, str] | None:
    loaded: Any = None
    if mark == "---":
        try:
            loaded = yaml.safe_load(inner)
        except (yaml.YAMLError, ValueError, RecursionError):
            loaded = None
    if isinstance(loaded, dict):
        return {str(k): one_line(str(v)) for k, v in loaded.items() if isinstance(v, str | int | float)}
    lines = [line for line in inner.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    keys = [_KEY.match(line) for line in lines]
    whole = all(key or line.startswith((" ", "\t", "-", "[")) for key, line in zip(keys, lines, strict=True))
    if not whole or (lines and not any(keys)):
        return None
    return {key[1]: one_line(key[2]).strip("\"'") for key in keys if key}


def plain_text(inline: str) -> str:
    """Inline Markdown without emphasis, links and images, on one line; code keeps its backticks.

    >>> plain_text("**Never** commit [secrets](x.md) or `.env`")
    'Never commit secrets or `.env`'
    """
    words: list[str] = []
    for token in _PARSER.parseInline(inline)[0].children or []:
        if token.type == "code_inline":
            words.append(f"`{token.content}`")
        elif token.type in ("text", "image", "html_inline"):
            words.append(token.content if token.type != "html_inline" else "")
        elif token.type in ("softbreak", "hardbreak"):
            words.append(" ")
    return one_line("".join(words))


def sections(text: str, line_offset: int = 0) -> list[Section]:
    """The sections of a text in order, those without text of their own too. `line_offset` lines stood before it."""
    lines = text.split("\n")
    tokens = _PARSER.parse(text)
    for token in tokens:
        if token.type == "html_block" and token.map and token.content.lstrip().startswith("<!--"):
            lines[token.map[0] : token.map[1]] = _without_comment(token.content, token.map[1] - token.map[0])
    heads = [n for n, token in enumerate(tokens) if token.type == "heading_open" and token.level == 0]
    found: list[Section] = []
    path: list[tuple[int, str]] = []
    for start, end in zip([-1, *heads], [*heads, len(tokens)], strict=True):
        stop = (tokens[end].map or [len(lines)])[0] if end < len(tokens) else len(lines)
        if start < 0:
            first, level, inner = 0, 0, tokens[:end]
        else:
            level = int(tokens[start].tag[1:])
            path = [(at, title) for at, title in path if at < level]
            path.append((level, plain_text(tokens[start + 1].content)))
            first, inner = (tokens[start].map or [0, 0])[1], tokens[start + 3 : end]
        own = _trimmed(lines, first, stop)
        if own is None and start < 0:
            continue
        first, stop = own or (first, first + 1)
        found.append(
            Section(
                headings=tuple(title for _, title in path if title),
                level=level,
                text="\n".join(lines[first:stop]) if own else "",
                first_line=first + 1 + line_offset,
                last_line=stop + line_offset,
                blocks=tuple(_blocks(inner, line_offset)) if own else (),
                starts=tuple(t.map[0] + 1 + line_offset for t in inner if t.level == 0 and t.map and t.nesting >= 0),
            )
        )
    return found


def _without_comment(content: str, n_lines: int) -> list[str]:
    """The lines of an HTML block with comments blanked and their number kept."""
    kept = re.sub(r"<!--.*?(?:-->|\Z)", lambda m: "\n" * m[0].count("\n"), content, flags=re.DOTALL).split("\n")
    return [*kept, *[""] * n_lines][:n_lines]


def _trimmed(lines: Sequence[str], first: int, stop: int) -> tuple[int, int] | None:
    while first < stop and not lines[first].strip():
        first += 1
    while stop > first and not lines[stop - 1].strip():
        stop -= 1
    return (first, stop) if first < stop else None


def _blocks(tokens: Sequence[Token], line_offset: int) -> Iterator[Block]:
    """The blocks in order. An item's text is its first paragraph: nested items and code are blocks of their own."""
    numbers: list[int | None] = []
    ordinal: int | None = None
    pending = False  # an item was opened whose first paragraph has not come yet
    heads: list[str] = []
    cells: list[str] = []
    in_head, row_span = False, (1, 1)
    for n, token in enumerate(tokens):
        span = ((token.map or [0, 0])[0] + 1 + line_offset, max((token.map or [0, 1])[1], 1) + line_offset)
        if token.type == "ordered_list_open":
            numbers.append(int(token.attrs.get("start", 1)))
        elif token.type == "bullet_list_open":
            numbers.append(None)
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            numbers.pop()
        elif token.type == "list_item_open":
            ordinal, pending = numbers[-1], True
            numbers[-1] = ordinal + 1 if ordinal is not None else None
        elif token.type == "list_item_close":
            pending = False
        elif token.type in ("fence", "code_block"):
            yield Block("code", token.content.rstrip("\n"), *span)
        elif token.type in ("thead_open", "thead_close"):
            in_head = token.type == "thead_open"
            heads = [] if in_head else heads
        elif token.type == "tr_open":
            cells, row_span = [], span
        elif token.type == "tr_close" and not in_head and any(cells):
            pairs = tuple(zip(heads, cells, strict=False))
            text = "; ".join(f"{head}: {cell}" if head else cell for head, cell in pairs if cell)
            yield Block("row", text, *row_span, cells=pairs)
        elif token.type == "inline" and tokens[n - 1].type in ("th_open", "td_open"):
            (heads if in_head else cells).append(plain_text(token.content))
        elif token.type == "inline" and tokens[n - 1].type == "paragraph_open":
            kind: BlockKind = "item" if pending else "paragraph"
            yield Block(kind, token.content, *span, ordinal=ordinal if pending else None)
            pending = False
