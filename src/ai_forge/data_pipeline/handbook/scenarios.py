"""Situations that a rule applies to, asked about without naming the rule; and prompts that probe whether it is kept.

A situation is made from the rule's own sentence: its condition ("when X, do Y"), the opposite of what it asks ("never
X" → "I want to X"), what it replaces ("Y instead of X" → "I used X"), or a task of ours where it demands a first step, a
length or a closing part. The answer is always the rule as the handbook has it. What no pattern fits gets no situation:
nothing is guessed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from ai_forge.data_pipeline.handbook.directives import Directive, check_of, subject_of
from ai_forge.data_pipeline.schemas.code_blocks import content_id
from ai_forge.data_pipeline.schemas.probes import Check, FirstStepCheck, LengthCheck

__all__ = ["EVERY_ANSWER", "probe_prompts", "situations"]

_TASKS = (
    "add a CSV export to the report page",
    "fix the login test that fails on Mondays",
    "rename the `user` table to `account`",
    "make the search twice as fast",
    "add a `--verbose` flag to the command line",
    "upgrade the HTTP client to its next major version",
)
# Others than those of the pairs, so that no probe is trained on
_PROBE_TASKS = (
    "let customers download their invoices as PDF",
    "find out why the nightly backup stopped",
    "move the settings from JSON to TOML",
)
EVERY_ANSWER = tuple(f"Please {task}." for task in _PROBE_TASKS)
"""The probes of a rule about every answer: they ask for nothing in particular."""
_FILES = ("report_export", "payments", "session_store", "importer", "mailer")
_PROBE_FILES = ("inventory", "scheduler", "audit_trail")
_CONDITION = re.compile(
    r"^(if|when|whenever|once|as soon as|after|before)\s+([^,;]{6,140}),\s+(?:then\s+)?\S", re.IGNORECASE
)
_CONDITION_LAST = re.compile(
    r"^[^.;]{8,140}?\s(if|when|whenever|(?:after|before)(?=\s(?:\w+ing|you|we)\b))\s+([^,.;]{6,120})[.]?$",
    re.IGNORECASE,
)
_PROHIBITED = re.compile(r"^(?:never|do not|don't|don’t)\s+(?:ever\s+)?([a-z][^.;:—–]{3,140})", re.IGNORECASE)
_NO = re.compile(r"^no\s+((?!more\b|longer\b|less\b)[^.;:—–]{4,120})", re.IGNORECASE)
_AVOID = re.compile(r"^avoid\s+([^.;:—–]{4,120})", re.IGNORECASE)
_REPLACED = re.compile(
    r"\b(?:instead of|rather than|over|,\s+(?:not|never))\s+(`[^`]+`|[\w ]{3,60}?)(?=[.;:,()—–]|\s(?:for|in|when|so|because)\b|$)",
    re.I,
)
_ALWAYS = re.compile(r"^always\s+([a-z][^.;:—–]{3,140})", re.IGNORECASE)
_MUST = re.compile(
    r"^((?:an?|the|every|each|all|any)?\s?[\w` /-]{2,60}?)\s(?:must|shall|should)\s(not\s|never\s)?"
    r"((?!be\b|not\b|never\b)[a-z][^.;:—–]{3,120})",
    re.IGNORECASE,
)
_MUST_BE = re.compile(r"^([\w` /-]{2,60}?)\s(?:must|shall|should)\s(not\s|never\s)?be\s([a-z][^.;:—–]{2,120})", re.I)
# A clause of its own is no subject: "amounts are the one thing that (must never be wrong)"
_CLAUSE = re.compile(r"\b(?:is|are|was|were)\b", re.IGNORECASE)
_IN_MY_CHANGE = ("My change has this in it: {}. {}", ("Can it be merged?", "Is that fine?", "Any objection?"))
_BROKEN = (
    (_PROHIBITED, "I want to {}. {}", ("Any objection?", "Is that fine?", "May I go ahead?")),
    (_NO, *_IN_MY_CHANGE),
    (_AVOID, *_IN_MY_CHANGE),
    (_ALWAYS, "Would it be all right not to {}, just this once?{}", ("",)),
)
_PREFERS = re.compile(r"^(?:prefer|use|choose|write)\b", re.IGNORECASE)
_ADDED = re.compile(r",\s+(?:not even|even|also|and never|nor|ever|including)\b.*$", re.IGNORECASE | re.DOTALL)
_YOURS = (
    (re.compile(r"\byour\b", re.I), "my"),
    (re.compile(r"\byou are\b", re.I), "I am"),
    (re.compile(r"\byou\b", re.I), "I"),
)


@dataclass(frozen=True)
class _Chooser:
    """Draws fixed by the rule's text."""

    text: str

    def one(self, options: tuple[str, ...], salt: str) -> str:
        return options[int(content_id(self.text, salt), 16) % len(options)]


def situations(directive: Directive) -> list[str]:
    """What a user might say where the directive applies, each a question; none where no pattern fits."""
    choose = _Chooser(directive.plain)
    check = check_of(directive)
    if check is not None:
        return _for_check(check, directive, choose, _TASKS, _FILES)
    found = (pattern(directive.plain, choose) for pattern in _PATTERNS)
    return list(islice(filter(None, found), 1))


def probe_prompts(directive: Directive, check: Check) -> list[str]:
    """Prompts on which a model that knows the rule passes its check; no pair has them."""
    choose = _Chooser(directive.plain)
    if isinstance(check, LengthCheck):
        return _length_prompts(check, directive, choose, _PROBE_FILES, _PROBE_TASKS)
    task = choose.one(_PROBE_TASKS, "probe")
    if isinstance(check, FirstStepCheck):
        return [f"Your task: {task}. List the steps you take, in order.", f"Please {task}. How do you begin?"]
    subject = subject_of(directive) or "answer"
    if subject in ("answer", "reply", "response"):  # of every one: it is asked for nothing in particular
        return list(EVERY_ANSWER)
    return [f"Write the {subject} with which you hand over this finished work: {task}."]


def _for_check(
    check: Check, directive: Directive, choose: _Chooser, tasks: tuple[str, ...], files: tuple[str, ...]
) -> list[str]:
    if isinstance(check, LengthCheck):
        return _length_prompts(check, directive, choose, files, tasks)
    first, second = choose.one(tasks[::2], "first"), choose.one(tasks[1::2], "second")
    if isinstance(check, FirstStepCheck):
        return [
            f"New task: {first}. What is the very first thing you do?",
            f"I would like to {second}. Can we go straight to the code?",
        ]
    subject = subject_of(directive) or "answer"
    return [
        f"I did this: {first}. My {subject} says what I changed. Does it lack anything?",
        f"The work is done: {second}. What must I not forget when I write the {subject}?",
    ]


def _length_prompts(
    check: LengthCheck, directive: Directive, choose: _Chooser, files: tuple[str, ...], tasks: tuple[str, ...]
) -> list[str]:
    number = int(content_id(directive.plain, *files), 16)
    over = check.stated + 1 + check.stated // 4 + number % max(2, check.stated // 4)
    name = choose.one(files, "file")
    what = next((w for w in ("function", "method", "class", "module") if w in directive.plain.lower()), None)
    if check.unit == "lines" and check.of == "code":
        thing = f"The {what} `{name}`" if what else f"`{name}.py`"
        return [
            f"{thing} has grown to {over} lines. Is that all right?",
            f"I plan to put all of it into one {what or 'file'}, about {over + 17} lines. Any objection?",
        ]
    if check.of == "code":
        what = what or ("line" if check.unit == "characters" else "docstring")
        return [f"One {what} in `{name}.py` is {over} {check.unit} long. May it stay?"]
    subject = subject_of(directive) or "text"
    if files is _PROBE_FILES:
        return [f"Write the {subject} for this change: {choose.one(tasks, 'length')}."]
    return [f"My {subject} has {over} {check.unit}. Is that all right?"]


def _condition(plain: str, _: _Chooser) -> str | None:
    match = _CONDITION.match(plain) or _CONDITION_LAST.match(plain)
    if match is None:
        return None
    word, text = match[1].lower(), _mine(match[2])
    if word == "before":
        return f"Up next: {text}. Is there anything to do first?"
    if word == "after":
        return f"Just behind us: {text}. What now?"
    return f"{text[0].upper()}{text[1:]}. What do we do?"


def _broken(plain: str, choose: _Chooser) -> str | None:
    """A wish to do what the rule forbids, or not to do what it always asks."""
    for pattern, sentence, asks in _BROKEN:
        match = pattern.match(plain)
        if match is not None:
            # "never X, not even in Y": who wants X says nothing of Y
            return sentence.format(_mine(_ADDED.sub("", match[1])), choose.one(asks, "ask"))
    return None


def _replaced(plain: str, _: _Chooser) -> str | None:
    match = _REPLACED.search(plain) if _PREFERS.match(plain) else None
    return f"Here I went for {_mine(match[1])}. Is there anything to change?" if match else None


def _must(plain: str, _: _Chooser) -> str | None:
    match = _MUST.match(plain) or _MUST_BE.match(plain)
    if match is None or _CLAUSE.search(match[1]):
        return None
    subject = match[1].strip()
    if not subject.isupper():  # an acronym stays one inside the sentence
        subject = subject[0].lower() + subject[1:]
    if match.re is _MUST_BE:
        asked = f"be {_mine(match[3])}"
        return f"May {subject} {asked}, just this once?" if match[2] else f"Must {subject} really {asked}?"
    return f"What if {subject} did {'' if match[2] else 'not '}{_mine(match[3])}?"


_PATTERNS: tuple[Callable[[str, _Chooser], str | None], ...] = (_condition, _broken, _replaced, _must)


def _mine(text: str) -> str:
    """A rule's words in the mouth of who asks."""
    text = text.strip().rstrip(".!,")
    for pattern, mine in _YOURS:
        text = pattern.sub(mine, text)
    return text
