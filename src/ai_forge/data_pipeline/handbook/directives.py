"""The single rules inside a section, and which of them a machine can check.

A directive is a list item, a row or a sentence that says what is to be done: it holds a word of obligation ("must",
"never", "at most" …) or is an item of a rule file. English only. A directive is checkable where it states a length
limit, a first step, or a phrase or section that must be there; what is not clearly one of these is left alone.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ai_forge.data_pipeline.schemas.probes import (
    Check,
    FirstStepCheck,
    LengthCheck,
    PhraseCheck,
    SectionCheck,
    content_words,
)
from ai_forge.data_pipeline.text.markdown import Section, plain_text

__all__ = ["Directive", "check_of", "directives_in", "subject_of"]

_OBLIGATION = re.compile(
    r"\b(?:must|never|always|do not|don't|don’t|shall|should|required?|requires|forbidden|may not|cannot|only|at most|"
    r"no more than|max(?:imum)?|limit(?:ed)?|avoid|prefer|ensure|make sure|instead of|rather than|before|every|each|first|"
    r"step (?:0|zero)|no longer than|not allowed|keep)\b|[≤❌✅]|^(?:no|use|if|when|start|end|begin)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"“*])")
_STRICT = ("fewer than", "less than", "under", "below", "<", "shorter than")
_LIMIT = re.compile(
    r"(?P<how>at most|no more than|not (?:to )?(?:exceed|be longer than|go over)|no longer than|up to|"
    r"max(?:imum|\.)?(?: length)?(?: of| is)?:?|(?:limit|cap)(?:ped|ed)?(?: of| to| is| at)?:?|fewer than|less than|shorter than|"
    r"within|under|below|over|more than|longer than|exceed(?:s|ing)?|<=|≤|<|>)"
    r"\s{0,3}(?P<n>\d[\d,]{0,6})\s?-?(?P<unit>lines?|loc|characters?|chars|columns|words)\b"
    r"|(?P<n2>\d[\d,]{0,6})[ -](?P<unit2>lines?|loc|characters?|chars|columns|words)"
    r"(?=[ -](?:limit|max(?:imum)?|cap|ceiling|or (?:fewer|less))\b)",
    re.IGNORECASE,
)
_LIMIT_CELL = re.compile(r"^(?:≤|<=|<)?\s?(\d[\d,]{0,6}) (lines?|characters?|chars|columns|words)$", re.IGNORECASE)
_NEEDS_NO = ("over", "more than", "longer than", "exceed", ">")
_NO = re.compile(r"\b(?:never|no|not|must|don't|don’t|split|forbidden|avoid)\b", re.IGNORECASE)

_PHRASE = r"(?P<p>(?:[^.;:,()\n—–]|\.(?=\w)){3,60})"
_WORK = r"(?:session|task|conversation|job|turn|change|ticket|day|issue|request|assignment|mission|piece of work)s?"
_FIRST_STEPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:step\s?(?:0|zero)|first step|very first (?:thing|step))\b[^.:\n]{{0,40}}?(?:\bis\b|:|—|–|\s-\s)\s*{_PHRASE}",
        rf"{_PHRASE}\s(?:is|as|comes as)\s(?:always\s)?(?:the\s)?(?:very\s)?(?:step\s(?:0|zero)|first step)\b",
        rf"\b(?:every|each|any|all)\s(?:[\w-]+\s)?{_WORK}\s(?:must\s|should\s)?(?:start|begin)s?\s(?:with|by)\s{_PHRASE}",
        rf"\balways\s(?:start|begin)\s(?:with|by)\s{_PHRASE}",
        rf"\b(?:start|begin)\s(?:every|each|any|all)\s(?:[\w-]+\s)?{_WORK}\s(?:with|by)\s{_PHRASE}",
        rf"\bbefore (?:anything else|any other step|every task|each task|any task),?\s{_PHRASE}",
    )
)
_CUT = re.compile(
    r"\s+(?:-\s|(?:that|which|before|and then|so that|because|to make|in order|when|who|where)\b).*", re.DOTALL
)
_LEAD = re.compile(
    r"^(?:(?:always|run|do|perform|make|doing|running|performing|making|an|a|the|your|our|its)\s+)+", re.I
)

_SUBJECT = re.compile(
    r"\b(answer|reply|response|report|(?:commit )?message|commit subject|summary|plan|review|hand-?over|note|"
    r"(?:pull request|PR|merge request)(?: description)?)(?:s|ies)?\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"\b(?:file|function|method|class|module|script|test|code)(?:s|es)?\b", re.IGNORECASE)
_REQUIRED = re.compile(
    r"\b(?P<verb>contain|include|carry|end|finish|close|start|begin|open|state|has|have)s?\b(?:[^.\n]{0,20}?(?P<with>\b(?:with|by)))?"
    r"\s+(?:(?:a|an|the|this|its own|its)\s+)?(?P<before>(?:section|heading|line|phrase|sentence|words?|block)\s+)?"
    r"(?:(?:called|titled|named|headed)\s+)?(?P<open>[\"“`*]{1,2})(?P<p>[^\"“”`*\n]{2,60})[\"”`*]{1,2}"
    r"(?P<after>\s+(?:section|heading|block))?",
    re.IGNORECASE,
)
_REQUIRED_BARE = re.compile(
    r"\b(?P<verb>contain|include|carry|end|finish|close|start|begin|open|has|have)s?\b(?:[^.\n]{0,20}?(?P<with>\bwith))?"
    r"\s+(?:a|an|the)\s+(?P<p>[A-Za-z][\w -]{2,40}?)(?P<after>\s+(?:section|heading|block))?"
    r"(?=[.,:;(—–]|\s+(?:that|which|of|listing|with)\b|$)",
    re.IGNORECASE,
)
_PLACES: dict[str, Literal["start", "end"]] = {
    **dict.fromkeys(("end", "finish", "close"), "end"),
    **dict.fromkeys(("start", "begin", "open"), "start"),
}
_MAX_WORDS = 60


@dataclass(frozen=True)
class Directive:
    """One rule: `text` as written, on one line; `plain` without markup; where it stands."""

    text: str
    plain: str
    section: Section
    first_line: int
    last_line: int
    ordinal: int | None = None
    cells: tuple[tuple[str, str], ...] = ()


def directives_in(section: Section, *, all_items: bool) -> list[Directive]:
    """The directives of a section in order. `all_items`: every item of a list is one, whatever its words."""
    found: list[Directive] = []
    for block in section.blocks:
        if block.kind == "code":
            continue
        text = " ".join(block.text.split())
        parts = [text] if block.kind != "paragraph" else _SENTENCE.split(text)
        for part in parts:
            plain = plain_text(part)
            by_place = block.kind == "item" and (all_items or block.ordinal == 0)
            n_words = len(plain.split())
            if 2 <= n_words <= _MAX_WORDS and (by_place or _OBLIGATION.search(plain) or _cell_limit(block.cells)):
                where = (block.first_line, block.last_line)
                found.append(Directive(part, plain, section, *where, ordinal=block.ordinal, cells=block.cells))
    return found


def check_of(directive: Directive) -> Check | None:
    """What a machine can check of a directive, or None."""
    return _length(directive) or _first_step(directive) or _required(directive)


def _length(directive: Directive) -> LengthCheck | None:
    cell = _cell_limit(directive.cells)
    if cell is not None:
        return _length_check(directive, cell[1], cell[2], strict=bool(re.match("<[^=]", cell[0])))
    plain = directive.plain.replace("`", "")
    match = _LIMIT.search(plain)
    if match is None:
        return None
    how = (match["how"] or "").lower().rstrip(":")
    if how.startswith(_NEEDS_NO) and not _NO.search(plain):
        return None
    return _length_check(directive, match["n"] or match["n2"], match["unit"] or match["unit2"], strict=how in _STRICT)


def _cell_limit(cells: tuple[tuple[str, str], ...]) -> re.Match[str] | None:
    return next(
        (m for head, cell in cells if re.search("limit|max", head, re.I) and (m := _LIMIT_CELL.match(cell))), None
    )


def _length_check(directive: Directive, number: str, unit: str, *, strict: bool) -> LengthCheck | None:
    stated = int(number.replace(",", "") or 0)
    limit = stated - 1 if strict else stated
    if limit < 1:
        return None
    name = unit.lower().rstrip("s")
    of: Literal["code", "text"] = "text" if subject_of(directive) and not _CODE.search(directive.plain) else "code"
    if name in ("line", "loc"):
        return LengthCheck(limit=limit, stated=stated, unit="lines", of=of)
    return LengthCheck(limit=limit, stated=stated, unit="words" if name == "word" else "characters", of=of)


def _first_step(directive: Directive) -> FirstStepCheck | None:
    plain = directive.plain.replace("`", "").replace('"', "")
    if directive.ordinal == 0:
        return _step_check(re.split(r"[.:;,(—–]", plain, maxsplit=1)[0])
    for pattern in _FIRST_STEPS:
        match = pattern.search(plain)
        if match is not None:
            return _step_check(match["p"])
    return None


def _step_check(phrase: str) -> FirstStepCheck | None:
    step = _LEAD.sub("", _CUT.sub("", phrase.strip())).strip(" '’*_")
    return FirstStepCheck(phrase=step) if 1 <= len(content_words(step)) <= 6 else None


def subject_of(directive: Directive) -> str | None:
    """The kind of text a directive is about ("answer", "commit message"), or None.

    A phrase is only looked for in what a model is asked to write itself: "every module contains `__all__`" is no check.
    """
    match = _SUBJECT.search(directive.plain)
    return None if match is None else match[1] if match[1].startswith("PR") else match[1].lower()


def _required(directive: Directive) -> PhraseCheck | SectionCheck | None:
    if subject_of(directive) is None or re.search(r"\b(?:never|not|no|don't|don’t)\b", directive.plain, re.IGNORECASE):
        return None
    match = _REQUIRED.search(directive.text)
    if match is not None:
        is_section = bool(match["after"]) or (match["before"] or "").strip().lower() in ("section", "heading", "block")
    else:
        match = _REQUIRED_BARE.search(directive.plain)
        if match is None or not (match["after"] or (match["verb"].lower() in _PLACES and match["with"])):
            return None
        is_section = True
    place = _PLACES.get(match["verb"].lower(), "anywhere") if match["with"] else "anywhere"
    phrase = match["p"].strip(" .:!")
    if not content_words(phrase):
        return None
    if is_section:
        return SectionCheck(title=phrase, place=place)
    return PhraseCheck(phrase=phrase, place=place)
