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
from ai_forge.data_pipeline.text.markdown import Block, Section, plain_text

__all__ = ["Directive", "check_of", "directives_in", "subject_of"]

_OBLIGATION = re.compile(
    r"\b(?:must|never|always|do not|don't|don’t|shall|should|required?|requires|forbidden|may not|cannot|only|at most|"
    r"no more than|at least|no (?:fewer|less) than|max(?:imum)?|minimum|limit(?:ed)?|avoid|prefer|ensure|make sure|"
    r"instead of|rather than|before|every|each|first|step (?:0|zero)|no longer than|not allowed|keep)\b"
    r"|[≤❌✅]|^(?:no|use|if|when|start|end|begin)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"“*])")
# How a sentence begins that goes on about the one before it: the alternative to what is forbidden, an exception
_GOES_ON = re.compile(
    r"^(?:instead|use|prefer|call|write|put|take|ask|otherwise|unless|except|exceptions?|but|however|rather|only|it|they|that|"
    r"this|these|those)\b",
    re.IGNORECASE,
)
_EXCEPTS = re.compile(
    r"^(?:except|unless|but|exceptions?|excluding|other than|apart from|only if|not for)\b", re.IGNORECASE
)
_MAX_LEAD_WORDS = 6
# "under 300 lines" allows 299
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
_UNITS: dict[str, Literal["lines", "words"]] = {"line": "lines", "loc": "lines", "word": "words"}
_OVER = ("over", "more than", "longer than", "exceed", ">")
_AT_MOST = ("at most", "no ", "not ", "up to", "max", "within", "limit", "cap", "≤", "<=")
_UNDER = ("fewer than", "less than", "shorter than", "under", "below", "<")
_NEGATED = re.compile(
    r"\b(?:no|not|never|don't|don’t|cannot|can't|avoid|without|nothing|none)\b[\w\s`]{0,25}$", re.IGNORECASE
)
_DEMANDED = re.compile(
    r"\b(?:must|should|shall|needs? to|ha(?:s|ve) to)\s(?:\w+\s)?(?:be\s)?$|\bmin(?:imum)?\b|\bat least\b",
    re.IGNORECASE,
)
# What is done with something over a limit
_TOO_LONG = re.compile(
    r"\b(?:split|forbidden|refactor|break|shorten|reject|refuse|cut|too long|not allowed|rewrite)", re.IGNORECASE
)
# What a limit may be about: code that a model writes, text that it writes, or something that no check looks at
_THING = re.compile(
    r"\b(?:(?P<code>files?|functions?|methods?|class(?:es)?|modules?|scripts?|tests?|code|lines?)|(?P<text>answers?|repl(?:y|ies)|"
    r"responses?|reports?|(?:commit )?messages?|commit subjects?|summar(?:y|ies)|plans?|reviews?|hand-?overs?|notes?|"
    r"descriptions?|pull requests?|PRs?|merge requests?)|names?|identifiers?|variables?|sections?|paragraphs?|headings?|titles?|"
    r"docstrings?|comments?|branch(?:es)?|tables?|lists?|diffs?|items?|bullets?|quer(?:y|ies)|keys?|labels?|passwords?|urls?|"
    r"paths?|examples?|snippets?|logs?|configs?|constants?|arguments?|parameters?|columns?)\b",
    re.IGNORECASE,
)

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
_CONDITIONAL = re.compile(
    r"^(?:if|when|whenever|unless|once|in case|should|while)\b|\s(?:if|when|unless|in case)\s", re.IGNORECASE
)
# How a phrase begins that says why or when, not what
_NO_STEP = re.compile(
    r"^(?:because|since|so|as|if|when|while|unless|until|that|which|who|to|for|but|or|and|even|it|this|they|you|we)\b",
    re.I,
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
    r"\b(?P<verb>contain|include|carry|end|finish|close|start|begin|open|state|has|have)s?\b(?:[^.,;\n]{0,40}?(?P<with>\b(?:with|by)))?"
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
    """The directives of a section in order. `all_items`: every item of a list is one, whatever its words.

    An item below another bears the words of that one ("Files" over "must stay under 300 lines"), and what is said below it or
    after it as an exception or an alternative belongs to it.
    """
    found: list[Directive] = []
    passed: set[int] = set()
    for index, block in enumerate(section.blocks):
        if block.kind == "code" or index in passed:
            continue
        lead, first_line, last_line = "", block.first_line, block.last_line
        exceptions: list[str] = []
        if block.kind == "item":
            lead, first_line = _lead_of(section, index)
            below = _exceptions_below(section, index)
            passed.update(below)
            exceptions = [" ".join(section.blocks[n].text.split()) for n in below]
            last_line = max((section.blocks[n].last_line for n in below), default=last_line)
        for part, more in _parts_of(block):
            text = _joined(lead, part)
            plain = plain_text(text)
            by_place = block.kind == "item" and (all_items or block.ordinal == 0)
            n_words = len(plain.split())
            if 2 <= n_words <= _MAX_WORDS and (by_place or _OBLIGATION.search(plain) or _cell_limit(block.cells)):
                if exceptions:  # `plain` stays without them: what is checked is the rule itself
                    text = ", ".join([text.rstrip("."), *exceptions])
                whole, lines = " ".join([text, *more]), (first_line, last_line)
                found.append(Directive(whole, plain, section, *lines, ordinal=block.ordinal, cells=block.cells))
    return found


def _parts_of(block: Block) -> list[tuple[str, list[str]]]:
    """The sentences of a paragraph, each with those after it that only go on about it; an item or a row is one part."""
    text = " ".join(block.text.split())
    if block.kind != "paragraph":
        return [(text, [])]
    parts: list[tuple[str, list[str]]] = []
    for sentence in _SENTENCE.split(text):
        if parts and _GOES_ON.match(plain_text(sentence)):
            parts[-1][1].append(sentence)
        else:
            parts.append((sentence, []))
    return parts


def _indent(section: Section, block: Block) -> int:
    """How far an item's line stands to the right."""
    lines = section.text.split("\n")
    row = block.first_line - section.first_line
    line = lines[row] if 0 <= row < len(lines) else ""
    return len(line) - len(line.lstrip())


def _lead_of(section: Section, index: int) -> tuple[str, int]:
    """(words of the items that an item lies in, the first line of these), where they are a heading of it, no rule."""
    block = section.blocks[index]
    indent = _indent(section, block)
    for other in reversed(section.blocks[:index]):
        if other.kind != "item" or _indent(section, other) >= indent:
            continue
        plain = plain_text(other.text)
        is_heading = len(plain.split()) <= _MAX_LEAD_WORDS and not plain.endswith((".", "!", "?"))
        is_heading = is_heading and (plain.endswith(":") or not _OBLIGATION.search(plain))
        if is_heading:
            return " ".join(other.text.split()), other.first_line
        break
    return "", block.first_line


def _joined(lead: str, text: str) -> str:
    """A rule with its subject: "Files" and "must stay short" make a sentence, "Commits" and "No force" a label and a rule."""
    if not lead:
        return text
    goes_on = re.match(r"(?:must|may|should|shall|can|cannot|are|is|have|has|need|never|always|do not|don't)\b", text)
    return f"{lead.rstrip(': ')}{'' if goes_on else ':'} {text}"


def _exceptions_below(section: Section, index: int) -> list[int]:
    """The items directly below an item that except something from it."""
    indent = _indent(section, section.blocks[index])
    found: list[int] = []
    for number, other in enumerate(section.blocks[index + 1 :], start=index + 1):
        if other.kind != "item" or _indent(section, other) <= indent:
            break
        if _EXCEPTS.match(plain_text(other.text)):
            found.append(number)
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
    before = plain[: match.start()]
    is_negated = _NEGATED.search(before) is not None
    if how.startswith(_UNDER) and is_negated:
        return None  # "never under 100 words" is a minimum
    if not is_negated and _DEMANDED.search(before) and not how.startswith(_UNDER) and not how.startswith(_AT_MOST):
        return None
    if how.startswith(_OVER) and not is_negated and not _TOO_LONG.search(plain):
        return None
    if not _is_measurable(plain, match):
        return None
    return _length_check(directive, match["n"] or match["n2"], match["unit"] or match["unit2"], strict=how in _STRICT)


def _is_measurable(plain: str, limit: re.Match[str]) -> bool:
    """Whether what the limit is about is code or text that a check measures: the thing named nearest before it, else after."""
    before = list(_THING.finditer(plain[: limit.start()]))
    thing = before[-1] if before else _THING.search(plain, limit.end())
    unit = (limit["unit"] or limit["unit2"]).lower()
    if thing is None:
        return True
    if unit.startswith(("char", "column")) and thing["code"] and not thing[0].lower().startswith("line"):
        return "line" in plain.lower()
    return bool(thing["code"] or thing["text"])


def _cell_limit(cells: tuple[tuple[str, str], ...]) -> re.Match[str] | None:
    limits = (_LIMIT_CELL.match(cell) for head, cell in cells if re.search("limit|max", head, re.I))
    return next(filter(None, limits), None)


def _length_check(directive: Directive, number: str, unit: str, *, strict: bool) -> LengthCheck | None:
    stated = int(number.replace(",", "") or 0)
    limit = stated - int(strict)
    if limit < 1:
        return None
    name = unit.lower().rstrip("s")
    of: Literal["code", "text"] = "text" if subject_of(directive) and not _CODE.search(directive.plain) else "code"
    return LengthCheck(limit=limit, stated=stated, unit=_UNITS.get(name, "characters"), of=of)


def _first_step(directive: Directive) -> FirstStepCheck | None:
    plain = directive.plain.replace("`", "").replace('"', "")
    if directive.ordinal == 0:
        return _step_check(re.split(r"[.:;,(—–]", plain, maxsplit=1)[0])
    if _CONDITIONAL.search(plain):
        return None  # a first step of some tasks only
    for pattern in _FIRST_STEPS:
        match = pattern.search(plain)
        if match is not None:
            break
    else:
        return None
    return None if _NO_STEP.match(match["p"].strip()) else _step_check(match["p"])


def _step_check(phrase: str) -> FirstStepCheck | None:
    step = _LEAD.sub("", _CUT.sub("", phrase.strip())).strip(" '’*_")
    if not 1 <= len(content_words(step)) <= 6:  # a whole sentence would have to be repeated word by word
        return None
    return FirstStepCheck(phrase=step)


def subject_of(directive: Directive) -> str | None:
    """The kind of text a directive is about ("answer", "commit message"), or None.

    A phrase is only looked for in what a model is asked to write itself: "every module contains `__all__`" is no check.
    """
    match = _SUBJECT.search(directive.plain)
    if match is None:
        return None
    return match[1] if match[1].startswith("PR") else match[1].lower()


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
