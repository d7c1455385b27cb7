"""Rules of a handbook that cannot both be kept: a limit and a minimum above it, two limits, "always x" and "never x".

A model that is trained on both learns neither. What is found is told with both places and left to people: which of the two
holds, nobody here can know. Only what contradicts by its words is found; rules that do so by their meaning are not.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ai_forge.data_pipeline.handbook.agent_folder import HandbookFile
from ai_forge.data_pipeline.handbook.directives import Directive, check_of
from ai_forge.data_pipeline.schemas.probes import FirstStepCheck, LengthCheck, content_words

__all__ = ["Contradiction", "contradictions_in"]

_MINIMUM = re.compile(
    r"\b(?:at least|no (?:fewer|less) than|not (?:fewer|less|shorter) than|minimum(?: length)?(?: of| is)?:?|never (?:under|below))"
    r"\s(\d[\d,]*)\s?-?(lines?|words|characters?|chars)\b",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(
    r"^(?:never|do not|don't|don’t|no|avoid|stop|not)\s+(?:ever\s+)?(?P<first>.+)|"
    r"^(?P<subject>[^.;:]{2,60}?)\s(?:must|should|shall|may|can|do|does)\s?(?:not|never)\s(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_POSITIVE = re.compile(
    r"^(?:always|prefer|use|do|write|keep|every|each|all|make|add|put|ensure)\b\s*.+|^[^.;:]{2,60}?\s(?:must|should|shall)\s(?!not|never).+",
    re.IGNORECASE | re.DOTALL,
)
_INSTEAD = re.compile(r"\s(?:instead of|rather than|over|,? not)\s", re.IGNORECASE)
_END = re.compile(r"(?<=\w)[.;:](?:\s|$)|\s[—–]\s")
# Words that say how strongly, not what
_IDLE = frozenset(
    {
        "never", "always", "do", "not", "don", "t", "must", "should", "shall", "may", "can", "use", "prefer", "write",
        "keep", "make", "add", "put", "have", "has", "be", "is", "are", "no", "avoid", "every", "each", "all", "ensure",
        "we", "you", "i", "it", "stop", "ever",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Contradiction:
    """Two rules and their places."""

    first: str
    second: str
    reason: str

    def __str__(self) -> str:
        return f"{self.first} and {self.second}: {self.reason}"


@dataclass(frozen=True)
class _Stance:
    place: str
    topic: frozenset[str]
    kind: str
    value: str
    """What has to agree where topic and kind do: another value is a contradiction."""


def contradictions_in(rules: Sequence[tuple[HandbookFile, Directive]]) -> tuple[Contradiction, ...]:
    """The pairs of rules that contradict each other, each once, in order of their places."""
    known: dict[tuple[frozenset[str], str], list[_Stance]] = {}
    found: dict[tuple[str, str], Contradiction] = {}
    for file, directive in rules:
        place = f'{file.path}:{directive.first_line} "{directive.plain}"'
        for stance in _stances(directive, place):
            earlier = known.setdefault((stance.topic, stance.kind), [])
            for other in earlier:
                reason = _clash(other, stance)
                if reason and other.place != place:
                    found.setdefault((other.place, place), Contradiction(other.place, place, reason))
            earlier.append(stance)
    return tuple(found.values())


def _clash(first: _Stance, second: _Stance) -> str:
    if first.value == second.value:
        return ""
    if first.kind == "stance":
        return "one asks for what the other forbids"
    if first.kind == "first step":
        return "two different first steps"
    (low_a, high_a), (low_b, high_b) = (map(int, one.value.split("-")) for one in (first, second))
    if max(low_a, low_b) > min(high_a, high_b):
        return "the least is more than the most"
    limits = {high for high in (high_a, high_b) if high < _ENDLESS}
    return "two different limits" if len(limits) == 2 else ""


_ENDLESS = 10**9


def _stances(directive: Directive, place: str) -> Iterator[_Stance]:
    plain = directive.plain
    check = check_of(directive)
    minimum = _MINIMUM.search(plain)
    if isinstance(check, LengthCheck):
        yield _Stance(place, _measured(plain, check.unit), "length", f"0-{check.limit}")
    elif minimum is not None:
        # The units of `LengthCheck`: "chars" and "characters" are one, or the two limits would never meet.
        unit = re.sub("^char(?:acter)?$", "character", minimum[2].lower().rstrip("s")) + "s"
        yield _Stance(place, _measured(plain, unit), "length", f"{minimum[1].replace(',', '')}-{_ENDLESS}")
    # A numbered item is the first step of its own list only.
    if isinstance(check, FirstStepCheck) and directive.ordinal is None:
        yield _Stance(place, frozenset(), "first step", " ".join(sorted(content_words(check.phrase))))
    sentence = _END.split(plain, maxsplit=1)[0]
    negative = _NEGATIVE.match(sentence)
    if negative is not None:
        text = negative["first"] or f"{negative['subject']} {negative['rest']}"
        yield from _about(text, place, "no")
    elif _POSITIVE.match(sentence):
        wanted, *instead = _INSTEAD.split(sentence, maxsplit=1)
        yield from _about(wanted, place, "yes")
        for text in instead:
            yield from _about(text, place, "no")


def _about(text: str, place: str, value: str) -> Iterator[_Stance]:
    topic = frozenset(_stem(word) for word in content_words(text) - _IDLE)
    if topic:
        yield _Stance(place, topic, "stance", value)


_SUBJECTS = ("answer", "reply", "response", "report", "message", "summary", "plan", "review", "note", "line", "function", "method",
             "class", "module", "file", "test", "docstring", "comment", "name")  # fmt: skip


def _measured(plain: str, unit: str) -> frozenset[str]:
    """What a limit is about, with its unit."""
    words = {_stem(word) for word in content_words(plain)}
    if unit == "lines":  # "300 lines" measures in them and is about something else
        words.discard("line")
    subjects = [subject for subject in _SUBJECTS if _stem(subject) in words]
    return frozenset({unit, *subjects[:1]})


def _stem(word: str) -> str:
    if word.endswith(("ies", "y")):
        return re.sub(r"(?:ies|y)$", "i", word)
    return re.sub(r"(?<=\w{3})e?s$", "", word)
