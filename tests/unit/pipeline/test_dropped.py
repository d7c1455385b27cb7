"""Examples that a person threw out stay out of training, and stay in the judging."""

from collections import Counter
from pathlib import Path

import pytest

from ai_forge.data_pipeline.dataset import Dataset
from ai_forge.data_pipeline.examples.splits import Split
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import InputError
from ai_forge.pipeline.dropped import drop_example, dropped_examples
from ai_forge.workspace import Workspace


def example(question: str) -> RAFTExample:
    return RAFTExample(
        question=question,
        oracle_documents=(),
        distractor_documents=(),
        reasoning="",
        final_answer="It does.",
        difficulty="easy",
        family="purpose",
        subject_id="0" * 16,
        subject_path="a.py",
    )


def test_dropping_is_kept_by_model_and_can_be_taken_back(tmp_path: Path) -> None:
    workspace, one = Workspace.open(tmp_path), example("What is it?").id
    assert dropped_examples(workspace, "demo") == frozenset()
    drop_example(workspace, "demo", one)
    drop_example(workspace, "demo", one)
    assert dropped_examples(workspace, "demo") == {one}
    assert dropped_examples(workspace, "other") == frozenset()
    drop_example(workspace, "demo", one, keep=True)
    assert dropped_examples(workspace, "demo") == frozenset()


@pytest.mark.parametrize("wrong", ["", "../../x", "0" * 15, "Z" * 16])
def test_what_is_no_id_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="no example's id"):
        drop_example(Workspace.open(tmp_path), "demo", wrong)


@pytest.mark.parametrize("damaged", ["{", "", "null", '"abc"', '{"a": 1}', "[7]", '["abc"]', "\0\0"])
def test_a_damaged_list_is_told_and_not_passed_over(tmp_path: Path, damaged: str) -> None:
    workspace = Workspace.open(tmp_path)
    drop_example(workspace, "demo", "0" * 16)
    (tmp_path / "dropped" / "demo.json").write_text(damaged)
    with pytest.raises(InputError, match="dropped examples, cannot be read"):
        dropped_examples(workspace, "demo")


def test_training_goes_without_them_and_judging_does_not() -> None:
    first, second = example("What is it?"), example("Where is it?")
    sides = {"train": [first, second], "valid": [first], "test": [first]}
    left = Dataset(sides, Split((), (), (), {}, ()), Counter()).without({first.id})
    assert left.sides == {"train": [second], "valid": [], "test": [first]}
    assert left.rejected["dropped_by_hand"] == 2
