"""`.ai-forge/questions.yaml` is continued in its own form and never spoilt; what is suggested comes from people first."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.source.history import Change, Commit
from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE, read_team_questions
from ai_forge.errors import InputError
from ai_forge.pipeline.question_file import add_question, as_yaml, question_of_heading, suggestions
from ai_forge.serving.ask_log import AskLog
from ai_forge.workspace import Workspace

NEW = TeamQuestion(
    question="Where: is the cache?",
    files=("src/cache.py", "docs/"),
    answer="In two\nplaces: one #1.",
    must=("no", "1.10", "~"),
)
OLD = TeamQuestion(question="Who opens it?", files=("x.py",))


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 1),
        ("# ours\n", 1),
        ("questions:\n", 1),
        ("questions: []\n", 1),
        ("- question: Who opens it?\n  files: x.py", 2),
        ("questions:\n- question: Who opens it?\n  files: x.py\n", 2),
        ("questions:\n    - question: Who opens it?\n      files: x.py  # all of it\n# the end\n", 2),
        ("\ufeffquestions:\r\n- question: Who opens it?\r\n  files: x.py\r\n", 2),
    ],
)
def test_a_question_is_added_and_the_rest_stays_as_it_was(tmp_path: Path, text: str, n: int) -> None:
    path = tmp_path / QUESTIONS_FILE
    path.parent.mkdir()
    path.write_bytes(text.encode())
    assert add_question(tmp_path, NEW) == n
    found = read_team_questions(tmp_path)
    assert found is not None
    assert found.questions == (OLD, NEW)[2 - n :]
    if n == 2:
        assert path.read_bytes().decode().startswith(text.removeprefix("\ufeff").rstrip())


def test_the_first_question_makes_the_file(tmp_path: Path) -> None:
    assert add_question(tmp_path, NEW) == 1
    assert (tmp_path / QUESTIONS_FILE).read_text() == f"questions:\n{as_yaml([NEW])}"


@pytest.mark.parametrize(
    "text",
    ["[{question: Who opens it?, files: x}]\n".replace("?,", ","), "---\n- question: Who opens it?\n  files: x\n...\n"],
)
def test_a_form_that_cannot_be_continued_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / QUESTIONS_FILE
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError, match=r"(?s)cannot be continued.*add this by hand:.*Where: is the cache"):
        add_question(tmp_path, NEW)
    assert path.read_text() == text


def test_the_same_question_in_other_words_is_refused(tmp_path: Path) -> None:
    add_question(tmp_path, TeamQuestion(question="Where is the registry kept?", files=("a.py",)))
    again = TeamQuestion(question="In which file is the registry kept?", files=("b.py",))
    with pytest.raises(InputError, match=r"'Where is the registry kept\?' on line 2 of .* asks the same"):
        add_question(tmp_path, again)


@pytest.mark.parametrize(
    ("heading", "question"),
    [
        ("How to deploy a model", "How do I deploy a model?"),
        ("Running the tests", "How do I run the tests?"),
        ("Writing a plug-in.", "How do I write a plug-in?"),
        ("Using hooks", "How do I use hooks?"),
        ("What survives a crash", "What survives a crash?"),
        ("Build", None),
        ("Getting started", "How do I get started?"),
        ("Release notes", None),
        ("How to", None),
        ("", None),
    ],
)
def test_a_heading_is_a_question_where_it_tells(heading: str, question: str | None) -> None:
    assert question_of_heading(heading) == question


def entry(path: str, name: str, kind: str = "documentation") -> Entry:
    return Entry(path, 1, 2, name, kind, "markdown", "some words that say what is to be done here")


def commit(message: str, *paths: str) -> Commit:
    return Commit("a" * 40, "b" * 40, message, tuple(Change(path, path, "1", "2") for path in paths))


EXPLAINED = "Wait before a retry\n\nThe server bans whoever asks again within a second of a failure.\n\nMore.\n"
DOCUMENT = Document(
    block_id="1", name="retry", citation="src/retry.py:1-9", language="python", text="…", path="src/retry.py"
)


def test_what_people_asked_comes_first_and_nothing_twice(tmp_path: Path) -> None:
    log = AskLog(Workspace(tmp_path), "demo")
    for question in ("Who bans us?", "How long is the pause?", "How long is the pause?", "Where is nothing?"):
        log.record(question, [DOCUMENT], [DOCUMENT] if "pause" in question else [])
    log.correct("Who waits?", [{"role": "user", "content": "Who waits?"}], [DOCUMENT], "You.", "retry does")
    found = suggestions(
        [TeamQuestion(question="Where is nothing?", files=("src/retry.py",))],
        corrections=log.corrections(),
        asked=log.asked(),
        entries=[entry("docs/a.md", "Guide › Adding a pause"), entry("src/retry.py", "retry", "function")],
        commits=[commit(EXPLAINED, "src/retry.py"), commit("Fix it", "src/retry.py"), commit(EXPLAINED, "gone.py")],
    )
    assert [(one.source, one.question.question, one.question.files) for one in found] == [
        ("correction", "Who waits?", ("src/retry.py",)),
        ("asked 2 times", "How long is the pause?", ("src/retry.py",)),
        ("asked", "Who bans us?", ("src/retry.py",)),
        ("docs/a.md:1-2", "How do I add a pause?", ("docs/a.md",)),
        ("commit aaaaaaaaaaaa", "Why was this done: Wait before a retry?", ("src/retry.py",)),
    ]
    assert found[0].question.answer == "retry does"
    assert found[-1].question.answer == "The server bans whoever asks again within a second of a failure."


def test_no_more_is_suggested_than_was_asked_for() -> None:
    entries = [entry("docs/a.md", f"Add a {word}") for word in ("pause", "hook", "stage")]
    assert len(suggestions([], entries=entries, n=2)) == 2
    assert suggestions([]) == []
