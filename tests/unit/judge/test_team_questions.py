"""A team's question: what places answer it, where retrieval finds them, what of an answer is right."""

import pytest

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.judge.questions.team_questions import Places, rank_of, score_answer


def entry(path: str, name: str, text: str, first: int = 1, kind: str = "function") -> Entry:
    return Entry(path, first, first + text.count("\n"), name, kind, "python", text)


ENTRIES = [
    entry("src/pool.py", "Pool", "class Pool:\n    sockets = []\n    def close(self):\n        drop(self.sockets)"),
    entry("src/pool.py", "Pool.close", "def close(self):\n        drop(self.sockets)", first=3, kind="method"),
    entry("src/pool.py", "lease", "def lease(seconds):\n    return seconds", first=9),
    entry("src/retry.py", "retry", "def retry(call, pause):\n    '''Call again after a growing pause.'''"),
    entry("docs/retry.md", "Retrying", "A failed call is made again, after a growing pause.", kind="documentation"),
]
INDEX = QuestionIndex.build(ENTRIES)
SHOWN = [e.document() for e in ENTRIES[1:4]]


def places(question: str = "Who drops the sockets?", **fields: object) -> Places:
    return Places.of(TeamQuestion.model_validate({"question": question, **fields}), ENTRIES)


def test_a_symbol_is_the_lines_of_its_definition() -> None:
    found = places(symbols=["Pool.close"])
    assert found.missing == ()
    assert found.answer("src/pool.py", 4, 4)
    assert not found.answer("src/pool.py", 9, 10)
    assert not found.answer("src/retry.py", 3, 4)


def test_a_symbol_may_be_the_end_of_a_name_and_a_file_a_folder() -> None:
    assert places(symbols=["close"]).answer("src/pool.py", 3, 3)
    found = places(files=["docs/"])
    assert found.answer("docs/retry.md", 1, 1)
    assert not found.answer("docs.md", 1, 1)


def test_what_the_index_does_not_hold_is_missing() -> None:
    assert places(files=["src/pool.py", "src/gone.py", "gone/"], symbols=["Pool.opens", "lose"]).missing == (
        *("src/gone.py", "gone/"),
        *("Pool.opens", "lose"),
    )


@pytest.mark.parametrize(
    ("question", "files", "rank"),
    [
        ("Who drops the sockets of the pool?", ["src/pool.py"], 1),
        ("Who drops the sockets of the pool?", ["src/nowhere.py"], None),
        ("How long is the growing pause of the pool's retry call?", ["src/pool.py"], 3),
    ],
)
def test_the_rank_counts_files(question: str, files: list[str], rank: int | None) -> None:
    assert rank_of(places(question, files=files), INDEX) == rank


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("`Pool.close` does [src/pool.py:3-4].", True),
        ("`Pool.close` [src/pool.py:3-4], as `retry` [src/retry.py:1-2] needs.", True),
        ("`retry` does [src/retry.py:1-2].", False),
        ("`lease` does [src/pool.py:9-10].", False),
        ("`Pool.close` does [src/pool.py:3-4] [src/pool.py:90-99].", False),
        ("`Pool.close` does [src/pool.py:3-5].", False),
        ("`Pool.close` does.", False),
    ],
)
def test_a_citation_is_right_that_was_shown_and_answers(answer: str, right: bool) -> None:
    assert score_answer(answer, places(symbols=["Pool.close"]), 1, SHOWN).citation_right is right


@pytest.mark.parametrize(("answer", "right"), [("[src/pool.py:1-9]", True), ("[src/retry.py:1-2]", False), ("", False)])
def test_who_was_shown_nothing_may_name_any_lines_of_the_right_file(answer: str, right: bool) -> None:
    nothing: list[Document] = []
    assert score_answer(answer, places(files=["src/pool.py"]), None, nothing).citation_right is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("A growing\n  Pause, by `retry`.", True),
        ("A growing pause.", False),
        ("A growing pause by retry, in Redis.", False),
        ("A growing pause by retry_all.", False),
        ("A growing pause [retry:1-2].", False),
    ],
)
def test_what_must_and_must_not_be_said(answer: str, right: bool) -> None:
    asked = places(files=["src/retry.py"], must=["growing pause", "retry"], must_not=["redis"])
    assert score_answer(answer, asked, 1, SHOWN).said_right is right


def test_what_is_not_asked_for_is_unscored_and_no_fault() -> None:
    score = score_answer("So [src/pool.py:3-4].", places(files=["src/pool.py"]), 3, SHOWN)
    assert score.said_right is None
    assert score.similarity is None
    assert score.right
    assert (score.found_first, score.found_among) == (False, True)
    said_wrong = places(files=["src/pool.py"], must=["socket"])
    assert not score_answer("So [src/pool.py:3-4].", said_wrong, 4, SHOWN).right


def test_likeness_looks_at_words_and_not_at_citations() -> None:
    asked = places(files=["src/pool.py"], answer="close drops the sockets [src/pool.py:3-4]")
    score = score_answer("close drops the sockets [src/a.py:1-9]", asked, None, SHOWN)
    assert score.similarity == 1.0
    assert (score.found_first, score.found_among) == (False, False)
