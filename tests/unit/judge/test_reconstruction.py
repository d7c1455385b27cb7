from collections.abc import Sequence

import numpy as np
import pytest

from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.schemas.code_blocks import BlockMetadata
from ai_forge.data_pipeline.search.embedders.embedding import Matrix, NoEmbedder, Texts
from ai_forge.judge.evaluator import evaluate_reconstruction
from ai_forge.prompting.prompt import Message

SOURCE = 'def add(a, b):\n    """Add."""\n    total = a + b\n    return total'


def block(source: str = SOURCE, language: str = "python") -> CodeBlock:
    facts = BlockMetadata(
        first_line=1,
        last_line=4,
        qualified_name="add",
        signature="def add(a, b):",
        blob_id="0" * 40,
        parameters=("a", "b"),
    )
    return CodeBlock(
        path="sums.py",
        language=language,
        block_type="function",
        name="add",
        docstring="Add.",
        source_code=source,
        metadata=facts,
    )


class Writer:
    """Writes what it learned by heart."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def reply(self, messages: Sequence[Message], max_new_tokens: int = 0) -> str:
        self.asked.append(messages[-1]["content"])
        return self.answers.pop(0)


class ByLength:
    """Texts of equal length are alike."""

    name, weight = "by-length", 1.0

    def embed(self, texts: Texts) -> Matrix:
        return np.eye(2, dtype=np.float32)[[len(text) % 2 for text in texts.written]]


def test_what_is_known_by_heart_is_wholly_alike() -> None:
    model = Writer(f"Here it is:\n```python\n{SOURCE}\n```")
    made = evaluate_reconstruction(model, [block()], embedder=ByLength())
    assert made == pytest.approx(
        {"edit_distance": 0.0, "edit_similarity": 1.0, "semantic_similarity": 1.0, "codebleu": 1.0, "n_blocks": 1.0}
    )


def test_the_model_sees_the_head_and_not_the_body() -> None:
    model = Writer("")
    evaluate_reconstruction(model, [block()], embedder=NoEmbedder())
    (asked,) = model.asked
    assert "def add(a, b):" in asked
    assert "Add." in asked
    assert "total" not in asked


def test_held_out_blocks_are_told_apart() -> None:
    model = Writer(SOURCE, "def add(a, b):\n    return sum((a, b))")
    made = evaluate_reconstruction(model, [block()], [block()], embedder=NoEmbedder())
    assert made["edit_similarity"] == 1.0
    assert 0 < made["held_out_edit_similarity"] < 1
    assert made["held_out_edit_distance"] == pytest.approx(1 - made["held_out_edit_similarity"])
    assert made["semantic_similarity"] is None


def test_a_language_without_codebleu_leaves_it_unscored() -> None:
    made = evaluate_reconstruction(Writer("x"), [block("add() { :; }", "bash")], embedder=NoEmbedder())
    assert made["codebleu"] is None
    with pytest.raises(ValueError, match="at least one block"):
        evaluate_reconstruction(Writer(), [])
