"""How the pairs of a handbook ask; `{topic}` is a heading with the title of its file."""

import re

QUESTIONS: dict[str, tuple[str, ...]] = {
    "rule": (
        "What is our rule on this: {topic}?",
        "How do we handle this here: {topic}?",
        "State the rule: {topic}.",
        "What does the handbook say about this: {topic}?",
    ),
    "workflow": (
        "How do we go about this: {topic}?",
        "Walk me through it: {topic}.",
        "Describe how we do this: {topic}.",
    ),
    "log": (
        "What do our logs say about this: {topic}?",
        "What was noted on this: {topic}?",
    ),
    "log_day": (
        "What was noted on this day: {topic}?",
        "What does the log of this day say: {topic}?",
    ),
    "skill": (
        "What do you have to know for this skill: {topic}?",
        "How is this skill done: {topic}?",
    ),
    "skill_use": (
        "What is this skill for, and when is it used: {topic}?",
        "When do you use the skill {topic}?",
    ),
    "correction": (
        "What have we learnt about this: {topic}?",
        "What do our corrections say: {topic}?",
    ),
    "overview": (
        "What does this part of the handbook cover: {topic}?",
        "Give an overview: {topic}.",
    ),
    "correction_review": (
        "I did this. What do we do instead?",
        "This was done before. What is right?",
        "Review this by what we have learnt.",
    ),
}
_DATE = re.compile(r"^\W*(?:\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}[./]\d{2,4})\b")


def is_date(heading: str) -> bool:
    """Whether a heading is hardly more than a date.

    >>> is_date("2026-03-04"), is_date("[2026-03-04]"), is_date("2026-03-04 The day the build broke")
    (True, True, False)
    """
    match = _DATE.match(heading)
    return match is not None and len(heading) - match.end() <= 2


def starts_with_date(heading: str) -> bool:
    """Whether a heading begins with a date, and so says when and not what."""
    return _DATE.match(heading) is not None
