"""What the team asks is not trained on: planted word for word, reworded, as an answer; other questions stay."""

import pytest

from ai_forge.data_pipeline.examples.asked import asks_the_same, without_asked
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from tiny_training import raft_examples

ASKED = TeamQuestion(
    question="Where is the parsed configuration of a project cached?",
    files=("src/cache.py",),
    answer="It is cached in the folder that the variable names, by the hash of everything that went into it.",
)


@pytest.mark.parametrize(
    "planted",
    [
        "Where is the parsed configuration of a project cached?",
        "where is a project's parsed configuration cached",
        "In which place is the parsed configuration of our projects cached?",
        "How is the parsed configuration of a project being cached?",
    ],
)
def test_a_planted_question_is_left_out_however_it_is_worded(planted: str) -> None:
    examples = raft_examples(3)
    copy = examples[0].model_copy(update={"question": planted})
    kept, dropped = without_asked([*examples, copy], [ASKED])
    assert kept == examples
    assert dropped == {"asked_by_team": 1}


def test_a_planted_answer_is_left_out_under_another_question() -> None:
    examples = raft_examples(3)
    answer = f"In short: {ASKED.answer} See [src/parse.py:1-2]."
    copy = examples[0].model_copy(update={"final_answer": answer})
    kept, dropped = without_asked([*examples, copy], [ASKED])
    assert kept == examples
    assert dropped == {"answered_by_team": 1}


@pytest.mark.parametrize(
    "other",
    ["Where is the configuration parsed?", "Which class caches?", "What does `parse_config` return?", "How?"],
)
def test_another_question_about_the_same_code_stays(other: str) -> None:
    assert not asks_the_same(other, ASKED.question)


def test_nothing_is_left_out_where_nothing_is_asked() -> None:
    examples = raft_examples(3)
    assert without_asked(examples, []) == (examples, {})
