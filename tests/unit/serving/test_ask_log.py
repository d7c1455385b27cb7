"""What was asked and corrected: kept by model, masked, bounded, readable by a second phase of training."""

import pytest

from ai_forge.data_pipeline.datasets.formats import read_dataset
from ai_forge.data_pipeline.schemas import Document
from ai_forge.errors import InputError
from ai_forge.prompting.prompt import Message
from ai_forge.serving import ask_log
from ai_forge.serving.ask_log import AskLog
from ai_forge.workspace import Workspace

PROMPT: list[Message] = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Question: Who?"}]


def document(path: str) -> Document:
    return Document(block_id=path, name="f", citation=f"{path}:1-9", language="python", text="…", path=path)


@pytest.fixture
def log(tmp_path: object) -> AskLog:
    return AskLog(Workspace(tmp_path), "demo")  # type: ignore[arg-type]


def test_questions_are_kept_with_their_places_and_without_their_answers(log: AskLog) -> None:
    log.record("Who calls\u2028it?", [document("a.py"), document("b.py")], [document("b.py")])
    log.record("And who else?", [], [])
    first, second = log.asked()
    assert (first.question, first.found, first.cited) == ("Who calls\u2028it?", ("a.py:1-9", "b.py:1-9"), ("b.py:1-9",))
    assert (second.question, second.found) == ("And who else?", ())


def test_secrets_are_masked(log: AskLog) -> None:
    log.record("Why is AWS_SECRET_KEY=wJalrXUtnFEMI7K3MDENGbPxRfiCYzKqLp refused?", [], [])
    log.correct("Why?", PROMPT, [], "No.", "Because password = 'k3J9xQ2vTz81' is old.")
    assert "wJalrXUtnFEMI7K3MDENGbPxRfiCYzKqLp" not in (log.folder / "asked.jsonl").read_text()
    assert not any("k3J9xQ2vTz81" in path.read_text() for path in log.folder.iterdir())


def test_a_correction_is_a_pair_that_training_reads(log: AskLog) -> None:
    made = log.correct("Who?", PROMPT, [document("a.py"), document("b.py")], "You.", "b.py does, in [c.py:3-4].")
    assert made.files == ("c.py", "b.py")
    assert log.corrections() == [made]
    (pair,) = read_dataset(log.preferences, "preference").records
    assert pair.model_dump()["chosen"] == "b.py does, in [c.py:3-4]."
    assert pair.model_dump()["rejected"] == "You."
    assert pair.model_dump()["kind"] == "correction"
    assert [turn["content"] for turn in pair.model_dump()["prompt"]] == ["Answer.", "Question: Who?"]


def test_a_correction_that_names_no_file_keeps_what_was_shown(log: AskLog) -> None:
    assert log.correct("Who?", PROMPT, [document("a.py")], "", "The caller does.").files == ("a.py",)
    assert log.correct("Who?", PROMPT, [], "You.", "The caller does.").files == ()


@pytest.mark.parametrize(("right", "told"), [("  ", "holds nothing"), (" You. ", "is what the model answered")])
def test_a_correction_says_something_else_than_the_answer(log: AskLog, right: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        log.correct("Who?", PROMPT, [], "You.", right)
    assert log.corrections() == []


def test_a_torn_line_is_passed_over(log: AskLog) -> None:
    log.record("One?", [], [])
    with (log.folder / "asked.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-\n')
    log.record("Two?", [], [])
    assert [row.question for row in log.asked()] == ["One?", "Two?"]


def test_the_oldest_go_when_there_are_many(log: AskLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_log, "MAX_ASKED_BYTES", 2000)
    monkeypatch.setattr(ask_log, "MAX_ASKED", 10)
    for number in range(40):
        log.record(f"Question {number}?", [], [])
    kept = [row.question for row in log.asked()]
    assert kept[-1] == "Question 39?"
    assert len(kept) < 30
