"""Writing `.ai-forge/questions.yaml`, and suggesting what could stand in it.

A question is added below the others, in their form, and nothing else of the file is touched: what is written is read again
first and must be the old questions and the new one. Suggestions are for a person to choose from and reword: what was corrected
and asked comes first, then headings of the documentation, then what commits explain.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import ValidationError

from ai_forge.data_pipeline.examples.asked import asks_the_same
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.source.history import Commit
from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE, parse_team_questions, read_team_questions
from ai_forge.data_pipeline.text.words import subwords
from ai_forge.errors import InputError
from ai_forge.serving.ask_log import Asked, Correction
from ai_forge.workspace import atomic_write

__all__ = ["Suggestion", "add_question", "as_yaml", "suggestions"]

_MAX_FILES_OF_COMMIT = 4
_MIN_BODY_WORDS = 8
_QUESTION = re.compile(r"^(?:how|why|what|when|where|which|who|can|do|does|is|are|should)\b", re.I)
# what headings of guides begin with; another verb may be a noun as well ("Report", "Index", "Design")
_VERBS = frozenset(
    subwords(
        """add ask build change check choose clean compare configure connect convert create customise customize
        debug define delete deploy disable download enable export extend find fix generate get handle import
        install limit load log make migrate override parse pass print publish read remove rename replace reset
        restore retry roll run save send serve set share skip start stop store tell train turn update upgrade use
        validate write"""
    )
)


class Suggestion(NamedTuple):
    """A question that may be worth asking, and where it comes from."""

    question: TeamQuestion
    source: str


def as_yaml(questions: Sequence[TeamQuestion]) -> str:
    """Questions as they stand in the file, each an item of a list."""
    rows = []
    for question in questions:
        values = question.model_dump(mode="json", exclude_defaults=True)
        rows.append(yaml.safe_dump([values], allow_unicode=True, sort_keys=False, width=1_000_000))
    return "".join(rows)


def add_question(root: Path, question: TeamQuestion) -> int:
    """Put a question below the others in the repository at `root`; returns how many there are now.

    Raises:
        InputError: the file is not as it must be, asks the same already, or is written in a form that cannot be continued.
    """
    known = read_team_questions(root)
    path = root / QUESTIONS_FILE
    before: tuple[TeamQuestion, ...] = ()
    text = ""
    if known is not None:
        before = known.questions
        text = path.read_bytes().decode("utf-8-sig")
    for number, other in zip(known.lines if known else (), before, strict=True):
        if asks_the_same(other.question, question.question):
            raise InputError(
                f"{other.question!r} on line {number} of {path} asks the same.", "change that one, or ask for more."
            )
    new = _continued(text, as_yaml([question]))
    try:
        now: tuple[TeamQuestion, ...] | None = parse_team_questions(path, new.encode()).questions
    except InputError:
        now = None
    if now != (*before, question):
        raise InputError(
            f"{path} is written in a form that cannot be continued.", f"add this by hand:\n{as_yaml([question])}"
        )
    atomic_write(path, new)
    return len(before) + 1


def _continued(text: str, item: str) -> str:
    """The file's text with one more item, as deep as the others."""
    if not text.strip():
        return f"questions:\n{item}"
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(top, yaml.MappingNode):
        top = top.value[0][1]
    if not isinstance(top, yaml.SequenceNode) or not top.value:
        # nothing but comments, or `questions:` and nothing below it
        head = "" if re.search(r"^questions:", text, re.M) else "questions:\n"
        text = re.sub(r"^questions:[ \t]*(?:\[\s*\]|~|null)", "questions:", text, flags=re.M)
        return f"{_ended(text)}{head}{item}"
    indent = " " * (top.value[0].start_mark.column - 2)
    return _ended(text) + "".join(f"{indent}{line}\n" for line in item.splitlines())


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


# -- suggestions --------------------------------------------------------------------------------------------------------


def suggestions(
    known: Sequence[TeamQuestion],
    *,
    corrections: Iterable[Correction] = (),
    asked: Iterable[Asked] = (),
    entries: Sequence[Entry] = (),
    commits: Iterable[Commit] = (),
    n: int = 10,
) -> list[Suggestion]:
    """At most `n` questions that none of `known` asks, of each source in turn; those that people asked come first."""
    paths = {entry.path for entry in entries}
    people = chain(_corrected(corrections), _asked(asked, paths))
    others = (_headings(entries), _commits(commits, paths))
    in_turn = chain.from_iterable(zip_longest(*others))
    chosen: list[Suggestion] = []
    for suggestion in chain(people, in_turn):
        if len(chosen) == n:
            break
        if suggestion is None:  # one source has no more
            continue
        before = chain(known, (one.question for one in chosen))
        if not any(asks_the_same(other.question, suggestion.question.question) for other in before):
            chosen.append(suggestion)
    return chosen


def _made(source: str, **values: object) -> Iterator[Suggestion]:
    """One suggestion, or none where what was found makes no question."""
    try:
        yield Suggestion(TeamQuestion.model_validate(values), source)
    except ValidationError:
        return


def _corrected(corrections: Iterable[Correction]) -> Iterator[Suggestion]:
    for one in reversed(list(corrections)):
        yield from _made("correction", question=one.question, files=one.files, answer=one.right)


def _asked(asked: Iterable[Asked], paths: set[str]) -> Iterator[Suggestion]:
    """What was asked most often, with the files that the answers cited, or else that were found first."""
    rows = list(asked)
    times = Counter(row.question for row in rows)
    newest = {row.question: row for row in rows}
    for question, n in times.most_common():
        places = newest[question].cited or newest[question].found[:1]
        files = dict.fromkeys(place.rpartition(":")[0] for place in places)
        known = tuple(file for file in files if file in paths)
        yield from _made(f"asked {n} times" if n > 1 else "asked", question=question, files=known)


def _headings(entries: Sequence[Entry]) -> Iterator[Suggestion]:
    for entry in entries:
        if entry.kind == "documentation":
            question = question_of_heading(entry.name.rpartition(" › ")[2])
            if question:
                yield from _made(entry.citation, question=question, files=[entry.path])


def question_of_heading(heading: str) -> str | None:
    """The question that a section answers, where its heading tells.

    >>> question_of_heading("Add a language"), question_of_heading("Adding a language")
    ('How do I add a language?', 'How do I add a language?')
    >>> question_of_heading("Why is it slow"), question_of_heading("Architecture")
    ('Why is it slow?', None)
    """
    words = heading.strip().rstrip(".:?!").split()
    if len(words) < 2:
        return None
    first = words[0].lower()
    if [first, words[1].lower()] == ["how", "to"]:
        return f"How do I {' '.join(words[2:])}?" if len(words) > 2 else None
    if _QUESTION.match(first):
        return f"{' '.join(words)}?"
    verb = _verb(first)
    return f"How do I {' '.join([verb, *words[1:]])}?" if verb else None


def _verb(word: str) -> str | None:
    """The verb that a heading begins with, as an imperative or in its -ing form."""
    if word in _VERBS:
        return word
    if not word.endswith("ing"):
        return None
    stem = word.removesuffix("ing")
    forms = (stem, f"{stem}e", stem[:-1])  # "adding", "writing", "running"
    return next((form for form in forms if form in _VERBS), None)


def _commits(commits: Iterable[Commit], paths: set[str]) -> Iterator[Suggestion]:
    """Commits that explain themselves and changed few files that are still there."""
    for commit in commits:
        subject, _, body = commit.message.strip().partition("\n")
        paragraph = " ".join(body.strip().split("\n\n")[0].split())
        files = [change.path for change in commit.changes if change.path in paths]
        is_small = files and len(commit.changes) <= _MAX_FILES_OF_COMMIT
        if is_small and len(paragraph.split()) >= _MIN_BODY_WORDS and not re.search(r"^\S+-by:|\S+@\S+", paragraph):
            question = f"Why was this done: {subject.strip().rstrip('.')}?"
            yield from _made(f"commit {commit.id[:12]}", question=question, files=files, answer=paragraph)
