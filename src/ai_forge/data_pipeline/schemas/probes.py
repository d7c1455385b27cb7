"""`ComplianceProbe`: a prompt that a rule applies to, and a check of the answer that a machine can make.

A check knows nothing of models: `passes(answer)` looks at the text. It is made to be hard to pass by chance and says
nothing about the quality of the answer beyond the one rule.
"""

import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_forge.data_pipeline.schemas.code_blocks import content_id

# One that is never closed runs to the end, as Markdown has it: an answer that was cut off still holds code.
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^\s*(?:[-*+]\s|\d+[.)]\s|#{1,6}\s|\W*step\s*\d)", re.IGNORECASE)
_HEADING = re.compile(r"^\s*(?:#{1,6}\s+(.+)|\*\*(.+?)\*\*(.*)|__(.+?)__(.*)|([^\n:]{1,60}):(.*))$")
_WORD = re.compile(r"[\w'-]+")
_PLACE_TOLD = {"start": " at its start", "end": " at its end", "anywhere": ""}
_MAX_HEAD_WORDS = 60
_SMALL = frozenset(
    {
        "a", "an", "and", "any", "at", "before", "by", "for", "from", "in", "is", "it", "my", "of", "on", "or", "our",
        "the", "this", "to", "with", "your",
    }
)  # fmt: skip


class _Check(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def told(self) -> str:
        """What an answer has to be like, in a sentence for people."""
        raise NotImplementedError


class LengthCheck(_Check):
    """A limit on how long something may be. `stated` is the number in the rule, `limit` the longest that is allowed.

    Of a `text` that the model writes: all its lines or words are counted, or the characters of its first line. Of
    `code`: the answer names `stated`, and every fenced block keeps the limit (its lines, its words, or each line's
    characters).
    """

    kind: Literal["length"] = "length"
    limit: int = Field(ge=1)
    stated: int = Field(ge=1)
    unit: Literal["lines", "characters", "words"]
    of: Literal["code", "text"]

    def told(self) -> str:
        """See `_Check`."""
        if self.of == "text":
            of = "its first line" if self.unit == "characters" else "the answer"
            return f"if {of} has at most {self.limit} {self.unit}"
        each = "each line of its code" if self.unit == "characters" else "each piece of its code"
        return f"if it names {self.stated} and {each} has at most {self.limit} {self.unit}"

    def passes(self, answer: str) -> bool:
        """Whether the answer keeps the limit."""
        if self.of == "text":
            lines = _lines(answer)
            if self.unit == "characters":
                lines = lines[:1]
            return bool(lines) and self._length(lines) <= self.limit
        # Without code the number alone decides: who says "at most 300" knows the rule.
        blocks = [body.rstrip("\n").split("\n") for _, body in _FENCE.findall(answer)]
        numbers = {number.replace(",", "") for number in re.findall(r"\d[\d,]*", answer)}
        return str(self.stated) in numbers and all(self._length(block) <= self.limit for block in blocks)

    def _length(self, lines: list[str]) -> int:
        if self.unit == "lines":
            return len(lines)
        if self.unit == "words":
            return len(_WORD.findall(" ".join(lines)))
        return max(map(len, lines))


class FirstStepCheck(_Check):
    """The answer begins with the step: its words stand before or in the first item of a list (or first sentence)."""

    kind: Literal["first_step"] = "first_step"
    phrase: str = Field(min_length=2)

    def told(self) -> str:
        """See `_Check`."""
        return f'if its first step is "{self.phrase}"'

    def passes(self, answer: str) -> bool:
        """Whether the step comes first."""
        return content_words(self.phrase) <= content_words(_head(answer))


class PhraseCheck(_Check):
    """The answer holds the phrase, in any case and spacing, at its place."""

    kind: Literal["phrase"] = "phrase"
    phrase: str = Field(min_length=2)
    place: Literal["start", "end", "anywhere"] = "anywhere"

    def told(self) -> str:
        """See `_Check`."""
        return f'if it holds "{self.phrase}"{_PLACE_TOLD[self.place]}'

    def passes(self, answer: str) -> bool:
        """Whether the phrase is there."""
        lines = _lines(answer)
        where = {"start": lines[:1], "end": lines[-1:], "anywhere": lines}[self.place]
        return _plain(self.phrase) in _plain("\n".join(where))


class SectionCheck(_Check):
    """The answer has a section of that title: a heading, or a label in bold or before a colon, and something after it.

    `start`: it is the first line; `end`: no other `#` heading follows.
    """

    kind: Literal["section"] = "section"
    title: str = Field(min_length=2)
    place: Literal["start", "end", "anywhere"] = "anywhere"

    def told(self) -> str:
        """See `_Check`."""
        return f'if it has a section "{self.title}"{_PLACE_TOLD[self.place]}'

    def passes(self, answer: str) -> bool:
        """Whether the section is there and not empty."""
        lines = _lines(_FENCE.sub("CODE\n", answer))  # a comment in code begins with `#`, too
        titles = [self._after_title(line) for line in lines]
        found = [n for n, after in enumerate(titles) if after is not None]
        if not found or (found[-1] == len(lines) - 1 and not titles[-1]):
            return False
        if self.place == "start":
            return found[0] == 0
        if self.place == "end":
            return not any(re.match(r"\s*#{1,6}\s", line) for line in lines[found[-1] + 1 :])
        return True

    def _after_title(self, line: str) -> str | None:
        """What follows on the line of the title; None on every other line."""
        match = _HEADING.match(line)
        if match is None:
            return None
        title, *rest = [group for group in match.groups() if group is not None]
        if _plain(self.title) not in _plain(title):
            return None
        return "".join(rest).strip(" :")


Check = Annotated[LengthCheck | FirstStepCheck | PhraseCheck | SectionCheck, Field(discriminator="kind")]


class ComplianceProbe(BaseModel):
    """A prompt to be answered without a system prompt, the rule it is about, and the check of the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    check: Check
    rule: str = Field(min_length=1, description="the rule as the handbook has it")
    rule_id: str
    path: str
    first_line: int = Field(ge=1)

    @cached_property
    def id(self) -> str:
        """Content hash: equal for equal probes in every run."""
        return content_id(self.prompt, self.check.model_dump_json(), self.rule_id)

    def passes(self, answer: str) -> bool:
        """Whether the answer keeps the rule."""
        return self.check.passes(answer)


def content_words(text: str) -> set[str]:
    """Lower-case words of a text without articles, prepositions and the like.

    >>> sorted(content_words("Run the identity-audit"))
    ['audit', 'identity', 'run']
    """
    return set(re.findall(r"\w+", text.lower())) - _SMALL


def _lines(text: str) -> list[str]:
    return [line for line in text.strip().split("\n") if line.strip()]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`#]", "", text).lower().split())


def _head(answer: str) -> str:
    """What stands up to and in the first step; without a list, the first sentence; at most 60 words."""
    lines = _lines(answer)
    first = next((n for n, line in enumerate(lines) if _STEP.match(line)), None)
    if first is None:
        head = re.split(r"(?<=[.!?;])\s|\b(?:then|afterwards|finally)\b", " ".join(lines), maxsplit=1)[0]
    else:
        end = first + 1
        if lines[first].lstrip().startswith("#"):  # "## Step 1": what it is stands below
            end += 1
        head = " ".join(lines[:end])
    return " ".join(head.split()[:_MAX_HEAD_WORDS])
