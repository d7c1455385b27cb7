"""Which held-out questions are asked: a seeded choice spread over the files."""

from collections import Counter

from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.judge.questions.held_out import spread
from tiny_training import raft_examples


def spread_over(examples: list[RAFTExample], n: int, seed: int = 0) -> Counter[str]:
    return Counter(example.subject_path for example in spread(examples, n, seed))


def test_a_large_file_does_not_drown_the_others() -> None:
    small = raft_examples(3)
    large = [
        e.model_copy(update={"subject_path": "big.py", "question": f"What is {i}?"})
        for i, e in enumerate(raft_examples(40))
    ]
    assert spread_over([*large, *small], 4) == Counter({"big.py": 1} | {e.subject_path: 1 for e in small})
    assert spread_over([*large, *small], 8)["big.py"] == 5


def test_the_spread_is_a_seeded_choice_without_repetition() -> None:
    examples = raft_examples(8)
    chosen = spread(examples, 5, seed=1)
    assert spread(list(reversed(examples)), 5, seed=1) == chosen
    assert len({e.id for e in chosen}) == 5
    assert {e.id for e in spread(examples, 5, seed=2)} != {e.id for e in chosen}
    assert {e.id for e in spread(examples, 99, seed=1)} == {e.id for e in examples}
    assert spread(examples, 0, seed=1) == []
    assert spread([], 3, seed=1) == []
