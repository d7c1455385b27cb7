"""`ai-forge questions`: what is found for each, added, checked and suggested; `ask --wrong` keeps what is right."""

from pathlib import Path

import pytest
import yaml

from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE
from ai_forge.serving.ask_log import AskLog
from ai_forge.workspace import Workspace
from cli_runs import TinyRun, ai_forge, copy_of, flags


@pytest.fixture
def run(finished: TinyRun, tmp_path: Path) -> TinyRun:
    return copy_of(finished, tmp_path)


def at(run: TinyRun) -> list[object]:
    return [run.repo, "--home", run.home, *flags(training__base_model=run.base)]


def add(run: TinyRun, question: str, *words: object) -> None:
    outcome = ai_forge("questions", "add", question, *words, "--repo", run.repo)
    assert outcome.code == 0, outcome.err


def test_questions_are_added_and_listed_with_what_is_found(run: TinyRun) -> None:
    add(run, "How do I keep a list sorted while I insert?", "--file", "bisect.py", "--must", "insort")
    add(run, "Who splits a shell command into words?", "--symbol", "shlex", "--answer", "shlex does.")
    add(run, "How is text wrapped?", "--file", "json/")
    listed = ai_forge("questions", *at(run)).json
    assert [(row["rank"], row["missing"]) for row in listed["questions"]] == [(1, []), (1, []), (2, [])]
    assert (listed["first"], listed["among"], listed["n"]) == (2, 3, 3)
    shown = ai_forge("questions", "list", *at(run), on_terminal=True)
    assert "2 of 3 found first, 3 among the first 3 files." in shown.out
    assert "file 2  How is text wrapped?" in shown.out


def test_a_file_that_is_not_there_is_told_with_the_nearest(run: TinyRun) -> None:
    outcome = ai_forge("questions", "add", "How is it?", "--file", "bisectt.py", "--repo", run.repo)
    assert outcome.code == 2
    assert "has no file bisectt.py. Next: did you mean bisect.py?" in outcome.complaint
    assert not (run.repo / QUESTIONS_FILE).exists()


def test_a_question_without_what_answers_it_is_refused(run: TinyRun) -> None:
    outcome = ai_forge("questions", "add", "How is it?", "--repo", run.repo)
    assert (outcome.code, "neither files nor symbols" in outcome.complaint) == (2, True)


def test_no_file_yet_is_told_with_what_to_do(run: TinyRun) -> None:
    outcome = ai_forge("questions", *at(run))
    assert outcome.code == 2
    assert f"There is no {run.repo / QUESTIONS_FILE}. Next: write one: ai-forge questions add" in outcome.complaint


def test_check_finds_what_moved(run: TinyRun) -> None:
    add(run, "How do I keep a list sorted?", "--file", "bisect.py")
    fine = ai_forge("questions", "check", *at(run))
    assert (fine.code, fine.json) == (0, {"questions": 1, "problems": []})
    path = run.repo / QUESTIONS_FILE
    (run.repo / "picture.bin").write_bytes(b"1")
    path.write_text(path.read_text() + "  - gone.py\n  - picture.bin\n  symbols: [no_such_name]\n")
    broken = ai_forge("questions", "check", *at(run))
    assert broken.code == 2
    told = {row["name"]: row["problem"] for row in broken.json["problems"]}
    assert list(told) == ["gone.py", "picture.bin", "no_such_name"]
    assert told["picture.bin"].startswith("there, but nothing of it can be found")
    assert {row["line"] for row in broken.json["problems"]} == {2}


def test_a_correction_is_kept_and_offered_as_a_question(run: TinyRun) -> None:
    words = ("--repo", run.repo, "--home", run.home, *flags())
    asked = ai_forge("ask", "What does `heappush` do?", *words)
    assert asked.code == 0, asked.err
    right = "It puts a value into the heap, in heapq.py."
    outcome = ai_forge("ask", "What does `heappop` do?", "--wrong", right, *words)
    assert outcome.code == 0, outcome.err
    assert outcome.json["correction"]["right"] == right
    log = AskLog(Workspace.open(run.home), "repo")
    # the last two: other tests asked in this home before
    assert [row.question for row in log.asked()][-2:] == ["What does `heappush` do?", "What does `heappop` do?"]
    assert log.preferences.is_file()
    suggested = yaml.safe_load(ai_forge("questions", "suggest", *at(run)).out)
    assert (suggested[0]["question"], suggested[0]["answer"]) == ("What does `heappop` do?", right)
    assert "heapq.py" in suggested[0]["files"]
    assert "What does `heappush` do?" in [row["question"] for row in suggested[1:]]


def test_nothing_is_kept_where_that_is_turned_off(run: TinyRun) -> None:
    words = ("--repo", run.repo, "--home", run.home, *flags(runtime__keep_questions=False))
    log = AskLog(Workspace.open(run.home), "repo")
    before = log.asked()
    assert ai_forge("ask", "What does `heappush` do?", *words).code == 0
    assert log.asked() == before


def test_the_deployed_model_is_asked_and_scored(run: TinyRun) -> None:
    add(run, "How do I keep a list sorted while I insert?", "--file", "bisect.py", "--must", "no such word")
    add(run, "Who splits a shell command into words?", "--file", "shlex.py", "--answer", "The shlex class does.")
    asked = ai_forge("questions", "ask", run.repo, "--home", run.home, *flags())
    assert asked.code == 0, asked.err
    told = asked.json
    assert told["model"].startswith("repo:")
    assert [row["score"]["said_right"] for row in told["answers"]] == [False, None]
    assert told["answers"][1]["score"]["similarity"] is not None
    assert told["shares"]["found first"]["value"] == 1.0
    assert (told["shares"]["cited"]["value"], told["shares"]["right"]["value"]) == (
        0.0,
        0.0,
    )  # random weights cite nothing
    assert told["shares"]["said"]["n"] == 1
    shown = ai_forge("questions", "ask", run.repo, "--home", run.home, *flags(), on_terminal=True).out
    assert "cited                0%  (0% to " in shown
    assert "first" in shown
