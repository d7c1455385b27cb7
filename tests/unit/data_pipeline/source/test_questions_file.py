"""`.ai-forge/questions.yaml`: what is read, what is told with its line, what YAML would make of words."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline.schemas.team_questions import MAX_QUESTIONS, TeamQuestion
from ai_forge.data_pipeline.search.entries import entries_beside_code
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.data_pipeline.source.team_questions import MAX_BYTES, QUESTIONS_FILE, read_team_questions
from ai_forge.errors import InputError


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / QUESTIONS_FILE
    path.parent.mkdir()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def asked(folder: Path, content: str | bytes) -> tuple[TeamQuestion, ...]:
    found = read_team_questions(written(folder, content))
    assert found is not None
    return found.questions


FULL = """\
# ours
questions:
- question: Where is the cache?
  files: [src/cache.py, docs/]
  symbols: Cache.open
  answer: >
    In the folder that
    AI_FORGE_HOME names.
  must: [AI_FORGE_HOME]
  must not:
  - Redis
"""


def test_every_field_is_read_and_a_single_word_stands_for_a_list(tmp_path: Path) -> None:
    (question,) = asked(tmp_path, FULL)
    assert question == TeamQuestion(
        question="Where is the cache?",
        files=("src/cache.py", "docs/"),
        symbols=("Cache.open",),
        answer="In the folder that AI_FORGE_HOME names.",
        must=("AI_FORGE_HOME",),
        must_not=("Redis",),
    )
    assert question.origin == "people"


def test_words_stay_words_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    text = "- question: Which version?\n  files: a.py\n  must: [no, 1.10, 2024-01-02, 0x1f, on]\n  answer: 3\n"
    (question,) = asked(tmp_path, text)
    assert question.must == ("no", "1.10", "2024-01-02", "0x1f", "on")
    assert question.answer == "3"


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_a_field_without_a_value_is_one_that_is_left_out(tmp_path: Path, nothing: str) -> None:
    (question,) = asked(tmp_path, f"- question: Which one?\n  files: a.py\n  answer: {nothing}\n  must: {nothing}\n")
    assert question.answer is None
    assert question.must == ()


@pytest.mark.parametrize("content", [b"", b"# nothing yet\n", b"questions:\n", b"questions: []\n", b"---\n"])
def test_an_empty_file_asks_nothing(tmp_path: Path, content: bytes) -> None:
    assert asked(tmp_path, content) == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_other_editors_are_read(tmp_path: Path, encoding: str) -> None:
    (question,) = asked(tmp_path, "- question: Wo liegt das Lösungsfile?\r\n  files: a.py\r\n".encode(encoding))
    assert question.question == "Wo liegt das Lösungsfile?"


def test_a_repository_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_team_questions(tmp_path) is None


def test_the_state_follows_the_questions_and_nothing_else(tmp_path: Path) -> None:
    states = []
    for place, text in enumerate((FULL, FULL.replace("# ours", "# theirs"), FULL.replace("Redis", "Memcached"))):
        (folder := tmp_path / str(place)).mkdir()
        found = read_team_questions(written(folder, text))
        assert found is not None
        states.append(found.state)
    assert states[0] == states[1] != states[2]


PROBLEMS = [
    ("- question: Where?\n  file: a.py\n", "line 2: 'file' is not a field (did you mean files?)"),
    ("- question: Where?\n  colour: a\n", "line 2: 'colour' is not a field (known are question, files"),
    ("- question: Where?\n", "line 1: it names neither files nor symbols"),
    ("- files: a.py\n", "line 1: question: Field required"),
    ("- question: a\n  files: a.py\n", "line 1: question 'a': String should have at least 3 characters"),
    (f"- question: {'a' * 1001}\n  files: a.py\n", "at most 1000 characters"),
    ("- question: Where?\n  files: a.py\n  files: b.py\n", "line 3: files stands on line 2 already"),
    ("- question: Where?\n  files: a.py\n- question: WHERE?\n  files: b\n", "line 3: 'WHERE?' is asked on line 1"),
    ("- question: Where?\n  files: ../a.py\n", "line 2: files: '../a.py' is not inside the repository"),
    ("- question: Where?\n  files: /etc/passwd\n", "'/etc/passwd' is not inside the repository"),
    ("- question: Where?\n  files: src\\a.py\n", "write 'src/a.py'"),
    ("- question: Where?\n  files: a.py\n  must:\n  - a: b\n", "line 4: must holds a mapping where a text is expected"),
    ("- question:\n  - a\n  files: a.py\n", "line 2: question is a list; a text is expected"),
    ("- Where?\n", "line 1 is the text 'Where?'; a question has"),
    ("hello\n", "line 1 is the text 'hello'; a list of questions is expected"),
    ("question: Where?\n", "holds 'question' on line 1 where `questions:` is expected"),
    ("questions: []\nmore: 1\n", "holds 'more' on line 1"),
    ("- question: How: so?\n", "is no YAML: line 1, column 16: mapping values are not allowed here"),
    ("- question: Where?\n\tfiles: a\n", "is no YAML: line 2"),
    ("a: 1\n---\nb: 2\n", "is no YAML: line 2, column 1: but found another document"),
    ("- !!python/object/apply:os.system [false]\n", "line 1 is a list"),
    ("[" * 5000, "nested deeper"),
    (b"- question: f\xfcr was\n", "is no YAML: unacceptable character"),
    ("- {question: Where, files: a.py}\n" * (MAX_QUESTIONS + 1), f"{MAX_QUESTIONS} are the most"),
    (" " * (MAX_BYTES + 1), "longer than 1,000,000 bytes"),
]


@pytest.mark.parametrize(("content", "told"), PROBLEMS)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, content: str | bytes, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_team_questions(written(tmp_path, content))
    message = str(caught.value)
    assert told in message
    assert QUESTIONS_FILE in message
    assert " Next: " in message


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1: .*line 2: .*line 3 is"):
        read_team_questions(written(tmp_path, "- question: One?\n- question: Two?\n- three\n"))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("- question: Where?\n  files: a.py\n")
    for name, link in (("file", QUESTIONS_FILE), ("folder", ".ai-forge")):
        root = tmp_path / name
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(secret if name == "file" else written_folder(tmp_path))
        with pytest.raises(InputError, match="link"):
            read_team_questions(root)


def written_folder(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    return written(folder / "elsewhere", "- question: Where?\n  files: a.py\n") / ".ai-forge"


def test_the_index_does_not_hold_the_questions(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    (tmp_path / "settings.yaml").write_text("where: is the cache kept and who opens it again\n")
    written(tmp_path, FULL)
    assert {entry.path for entry in entries_beside_code(read_repository(tmp_path))} == {"settings.yaml"}
