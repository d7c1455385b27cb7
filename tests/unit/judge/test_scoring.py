"""What counts as a right citation, a right fact, a similar answer."""

import pytest

from ai_forge.data_pipeline.schemas import Fact, RAFTExample
from ai_forge.judge.scoring import citation_is_right, facts_are_right, facts_asked, rouge_l
from tiny_training import document, raft_examples


@pytest.fixture
def example() -> RAFTExample:
    return raft_examples(1)[0]  # oracle [src/parse.py:1-2], fact parse_all, wrong load_all


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("See [src/parse.py:1-2].", True),
        ("[src/parse.py:1-2] and again [src/parse.py:1-2]", True),
        ("See [src/parse.py:1-3].", False),
        ("See [src/parse.py:2-2].", False),
        ("See [parse.py:1-2].", False),
        ("See [src/load.py:1-2].", False),
        ("[src/parse.py:1-2] [src/load.py:1-2]", False),
        ("See src/parse.py:1-2.", False),
        ("See [src/parse.py].", False),
        ("", False),
    ],
)
def test_only_the_oracles_path_and_lines_are_right(example: RAFTExample, answer: str, right: bool) -> None:
    assert citation_is_right(answer, example) is right


def test_any_of_several_oracles_may_be_cited(example: RAFTExample) -> None:
    both = example.model_copy(update={"oracle_documents": (*example.oracle_documents, document("load"))})
    assert citation_is_right("[src/load.py:1-2]", both)
    assert citation_is_right("[src/load.py:1-2] [src/parse.py:1-2]", both)
    none = example.model_copy(update={"oracle_documents": ()})
    assert not citation_is_right("[src/parse.py:1-2]", none)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It calls `parse_all`.", True),
        ("parse_all, of course", True),
        ("It calls parse_all_now.", False),
        ("It calls my_parse_all.", False),
        ("It calls PARSE_ALL.", False),
        ("It calls parse_all and load_all.", False),
        ("[src/parse_all.py:1-2]", False),
        ("It calls parse_all [src/load_all.py:1-2].", True),
        ("", False),
    ],
)
def test_every_fact_must_be_said_and_no_distractors(example: RAFTExample, answer: str, right: bool) -> None:
    assert facts_are_right(answer, example) is right


def test_all_of_several_facts_are_needed(example: RAFTExample) -> None:
    two = example.model_copy(update={"facts": (Fact(kind="call", value="a.b"), Fact(kind="parameter", value="limit"))})
    assert facts_are_right("a.b takes limit", two)
    assert not facts_are_right("a.b", two)
    assert not facts_are_right("axb takes limit", two)  # a dot is a dot


def test_one_of_several_wrong_facts_is_enough(example: RAFTExample) -> None:
    wrong = (Fact(kind="call", value="load_all"), Fact(kind="call", value="trim_all"))
    several = example.model_copy(update={"wrong_facts": wrong})
    assert facts_are_right("parse_all", several)
    assert not facts_are_right("parse_all, trim_all", several)


def test_what_the_question_says_is_no_achievement(example: RAFTExample) -> None:
    given = example.model_copy(update={"facts": (Fact(kind="name", value="parse"), Fact(kind="location", value="a:1"))})
    assert facts_asked(given) == []
    assert facts_are_right("parse", given) is None
    assert facts_are_right("x", example.model_copy(update={"facts": ()})) is None


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("the cat sat on the mat", "the cat is on the mat", 10 / 12),
        ("police kill the gunman", "police killed the gunman", 6 / 8),  # Lin 2004, S1 and S2
        ("the gunman kill police", "police killed the gunman", 4 / 8),  # Lin 2004, S3: order counts
        ("a b", "c d", 0.0),
        ("A, b!", "a b", 1.0),
        ("", "a", 0.0),
        ("a", "", 0.0),
    ],
)
def test_rouge_l_is_lins(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score)
