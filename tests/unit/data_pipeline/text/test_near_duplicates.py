"""Near-duplicates: the exact join against counting every pair."""

import random
import re

import pytest

from ai_forge.data_pipeline.text.near_duplicates import jaccard, near_duplicate_pairs, shingle


def collection(seed: int, n_words: int, n_texts: int = 40) -> list[str]:
    """Texts from a small vocabulary, and of each some versions with more and more words changed."""
    rng = random.Random(seed)
    texts = []
    for _ in range(n_texts):
        words = [rng.choice("abcdefghij") + str(rng.randrange(50)) for _ in range(rng.randrange(1, n_words))]
        texts.append(" ".join(words))
        for n_changes in (1, 3, 12):
            changed = list(words)
            for _ in range(n_changes):
                changed[rng.randrange(len(words))] = "new" + str(rng.randrange(1000))
            texts.append(" ".join(changed))
    return [*texts, texts[0]]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
@pytest.mark.parametrize(("width", "n_words"), [(1, 8), (3, 30), (5, 120)])
def test_pairs_and_similarities_equal_brute_force(threshold: float, width: int, n_words: int) -> None:
    for seed in range(4):
        texts = collection(seed, n_words)
        sets = [shingle(text, width) for text in texts]
        expected = [
            (i, j, jaccard(sets[i], sets[j]))
            for i in range(len(texts))
            for j in range(i + 1, len(texts))
            if jaccard(sets[i], sets[j]) >= threshold
        ]
        assert near_duplicate_pairs(texts, threshold, width=width) == expected
        assert expected


def test_shingles_are_runs_of_words_and_signs() -> None:
    texts = ["x = f(a, b_2)\n\treturn x", "größe → 3.14; λ", "", "one", "a.b", "a . b", "\x00\x1f!", "ab"]
    for text in texts:
        tokens = re.findall(r"[\w\u0080-\U0010ffff]+|[^\w\s]", text)
        for width in (1, 2, 3):
            runs = {tuple(tokens[i : i + width]) for i in range(max(1, len(tokens) - width + 1))} if tokens else set()
            assert len(shingle(text, width)) == len(runs), (text, width)
    assert jaccard(shingle("a.b", 2), shingle("a . b", 2)) == 1.0
    assert jaccard(shingle("ab c", 2), shingle("a bc", 2)) == 0.0


def test_texts_longer_than_a_batch_are_split_as_short_ones_are() -> None:
    long = " ".join(f"word{n}" for n in range(60_000))
    texts = ["before it", long, "after it", f"{long} end", "before it"]
    pairs = near_duplicate_pairs(texts, 0.9, width=2)
    assert [(a, b) for a, b, _ in pairs] == [(0, 4), (1, 3)]
    assert pairs[1][2] == pytest.approx(59_999 / 60_000)


def test_empty_and_equal_texts() -> None:
    assert near_duplicate_pairs([], 0.8) == []
    assert near_duplicate_pairs(["", " \n", "a"], 0.8) == []
    assert near_duplicate_pairs(["a b", "a b", "", "a b"], 0.8) == [(0, 1, 1.0), (0, 3, 1.0), (1, 3, 1.0)]
    assert jaccard(shingle("", 3), shingle("", 3)) == 0.0


def test_of_very_many_equal_texts_each_is_paired_with_the_first() -> None:
    assert near_duplicate_pairs(["a"] * 300, 0.8) == [(0, n, 1.0) for n in range(1, 300)]
    near = ["a b c d e f g h i j k l"] * 300 + ["a b c d e f g h i j k m"] * 300
    pairs = near_duplicate_pairs(near, 0.5, width=2)
    assert {b for a, b, _ in pairs} == set(range(1, 600))
    assert len(pairs) < 2000
