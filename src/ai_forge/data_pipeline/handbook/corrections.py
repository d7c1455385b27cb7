"""What `memory/corrections.md` holds: mistakes, and what is right instead.

Three ways of writing them are read, also mixed: labels ("Mistake: … / Rule: …", as items, lines or over code blocks),
a table with such headings, and one line with an arrow or a mark ("❌ x → ✅ y", "Instead of x, y", "Don't x; y"). What is
none of these is left for the caller, as `unread` blocks.
"""

import re
from dataclasses import dataclass, field

from ai_forge.data_pipeline.text.markdown import Block, Section, plain_text

__all__ = ["Correction", "corrections_in"]

_MISTAKE_WORDS = (
    "mistake", "wrong", "error", "problem", "what happened", "what went wrong", "bad", "before", "incorrect", "issue", "did",
    "i did", "❌", "✗", "✘", "🚫", "don't", "don’t", "not like this",
)  # fmt: skip
_RULE_WORDS = (
    "rule", "correction", "fix", "right", "correct", "lesson", "good", "after", "instead", "do", "do this instead",
    "corrected", "solution", "takeaway", "new rule", "like this", "✅", "✓", "✔", "lesson learned",
)  # fmt: skip
_MORE_WORDS = ("why", "reason", "because", "cause", "root cause", "impact", "context")
_SKIP_WORDS = ("date", "when", "id", "author", "by", "status", "source", "file", "severity", "tags", "#")
_ROLES = {"mistake": _MISTAKE_WORDS, "rule": _RULE_WORDS, "more": _MORE_WORDS, "skip": _SKIP_WORDS}
_LABEL = re.compile(
    r"^(?P<mark>[❌✗✘🚫✅✓✔])?\s*(?P<label>[A-Za-z’' ]{2,24}?)?\s*(?:\([^)]{0,40}\))?\s*[:–—]\s*(?P<text>.*)$",
    re.DOTALL,
)
_MARKED = re.compile(r"^(?P<mark>[❌✗✘🚫✅✓✔])\s*(?P<text>.+)$", re.DOTALL)
_ARROW = re.compile(
    r"^(?:[❌✗✘🚫]|(?:wrong|mistake|bad|before)\s*:)?\s*(?P<m>.{3,300}?)\s*"
    r"(?:→|⇒|->|=>|[✅✓✔]|[.;,]?\s(?:right|rule|correct|correction|instead|better|good)\s*:)\s*[✅✓✔]?\s*(?P<r>.{3,600})$",
    re.IGNORECASE | re.DOTALL,
)
_BOTH_LABELS = re.compile(
    r"^(?:[❌✗✘🚫]|(?:wrong|mistake|bad|before)\s*:)\s*(?P<m>.{3,300}?)\s*"
    r"(?:[✅✓✔]|[.;,]?\s(?:right|rule|correct|correction|instead|better|good)\s*:)\s*(?P<r>.{3,600})$",
    re.IGNORECASE | re.DOTALL,
)
_INSTEAD = re.compile(r"^instead of (?P<m>[^,;]{3,200})[,;:]\s*(?P<r>.{3,400})$", re.IGNORECASE | re.DOTALL)
_DONT = re.compile(
    r"^(?:do not|don't|don’t|never|stop)\s(?P<m>[^;.!]{3,200})[;.!]\s*(?P<r>(?!$).{5,400})$", re.IGNORECASE | re.DOTALL
)


@dataclass
class Correction:
    """A mistake and the rule, as written; `more` is what was said besides (why, impact)."""

    mistake: str
    rule: str
    first_line: int
    last_line: int
    more: list[str] = field(default_factory=list)


def corrections_in(section: Section, *, labelled_only: bool = False) -> tuple[list[Correction], list[Block]]:
    """(corrections in order, blocks that hold none). `labelled_only`: an arrow or a "don't" alone makes none."""
    found: list[Correction] = []
    unread: list[Block] = []
    labelled = _Labelled()
    for block in section.blocks:
        if block.cells:
            row = _from_row(block)
            if row is not None:
                found.append(row)
            else:
                unread.append(block)
            continue
        if block.kind == "code":
            if not labelled.take_code(block):
                unread.append(block)
            continue
        single = None
        if not labelled_only or _labels(block):
            single = _from_line(block)
        if single is not None:
            found.append(single)
        elif not labelled.take(block):
            unread.append(block)
    whole, rest = labelled.finished()
    return sorted([*found, *whole], key=lambda c: c.first_line), sorted([*unread, *rest], key=lambda b: b.first_line)


class _Labelled:
    """Collects labelled blocks to corrections: a mistake opens one, a rule completes it."""

    def __init__(self) -> None:
        self._entries: list[dict[str, list[str]]] = []
        self._blocks: list[list[Block]] = []
        self._open: str | None = None

    def take(self, block: Block) -> bool:
        """Whether the block bears labels."""
        lines = _labels(block)
        if not lines:
            self._open = None
            return False
        for role, text in lines:
            # A second mistake opens the next entry only where this one has its rule: some write several in a row.
            if not self._entries or (role == "mistake" and {"mistake", "rule"} <= self._entries[-1].keys()):
                self._entries.append({})
                self._blocks.append([])
            if role != "skip":
                self._entries[-1].setdefault(role, []).extend(filter(None, [text]))
            self._open = role if not text else None
            if block not in self._blocks[-1]:
                self._blocks[-1].append(block)
        return True

    def take_code(self, block: Block) -> bool:
        """Whether the code stands under a label that has no text of its own."""
        if self._open is None or self._open == "skip":
            return False
        # Fenced again: a block's text comes without its fence, and the model has to answer with code as code.
        self._entries[-1].setdefault(self._open, []).append(f"```\n{block.text}\n```")
        self._blocks[-1].append(block)
        self._open = None
        return True

    def finished(self) -> tuple[list[Correction], list[Block]]:
        """The complete corrections, and the blocks of those that lack a side."""
        whole: list[Correction] = []
        rest: list[Block] = []
        for entry, blocks in zip(self._entries, self._blocks, strict=True):
            mistake, rule = "\n".join(entry.get("mistake", [])), "\n".join(entry.get("rule", []))
            if mistake and rule and mistake != rule:
                lines = (blocks[0].first_line, blocks[-1].last_line)
                whole.append(Correction(mistake, rule, *lines, entry.get("more", [])))
            else:
                rest += blocks
        return whole, rest


def _role(label: str) -> str | None:
    word = label.strip().strip("*_` ").lower()
    return next((role for role, words in _ROLES.items() if word in words), None)


def _labels(block: Block) -> list[tuple[str, str]]:
    """(role, text) of each labelled line of a block; empty unless its first line bears a label."""
    found: list[tuple[str, str]] = []
    for line in block.text.split("\n"):
        bare = re.sub(r"^\*\*(.+?)\*\*", r"\1", line.strip())
        match = _LABEL.match(bare)
        if match is None and not _ARROW.match(bare):  # "❌ x → ✅ y" holds both sides and is no label of one
            match = _MARKED.match(bare)
        groups = match.groupdict() if match is not None else {}
        role = _role(groups.get("label") or groups.get("mark") or "")
        if role is not None:
            found.append((role, groups["text"].strip()))
        elif found:
            role, text = found[-1]
            found[-1] = (role, f"{text} {line.strip()}".strip())
        else:
            return []
    return found


def _from_row(block: Block) -> Correction | None:
    sides: dict[str, str] = {}
    more = []
    for head, cell in block.cells:
        role = _role(head)
        if role in ("mistake", "rule") and cell:
            sides.setdefault(role, cell)
        elif role == "more" and cell:
            more.append(cell)
    if len(sides) < 2 or sides["mistake"] == sides["rule"]:
        return None
    return Correction(sides["mistake"], sides["rule"], block.first_line, block.last_line, more)


def _from_line(block: Block) -> Correction | None:
    text = " ".join(block.text.split())
    is_labelled = bool(_labels(block))
    match = None
    if not is_labelled:
        match = _ARROW.match(text)
    elif "\n" not in block.text:  # labels on lines of their own are `_Labelled`'s
        match = _BOTH_LABELS.match(text)
    if match is not None:
        mistake, rule = match["m"].strip(" *.;,"), match["r"].strip()
    else:
        plain = plain_text(text)
        match = _INSTEAD.match(plain) or _DONT.match(plain)
        if match is None or is_labelled:
            return None
        mistake, rule = match["m"].strip(), text
    if mistake == rule:
        return None
    return Correction(mistake, rule, block.first_line, block.last_line)
