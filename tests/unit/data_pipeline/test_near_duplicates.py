"""MinHash candidates, exact decisions."""

import random

from ai_forge.data_pipeline.near_duplicates import jaccard, near_duplicate_pairs, shingle


def test_pairs_equal_brute_force_at_the_threshold() -> None:
    rng = random.Random(0)
    texts = []
    for _ in range(60):
        words = [rng.choice("abcdefghij") + str(rng.randrange(50)) for _ in range(60)]
        texts.append(" ".join(words))
        for n_changes in (1, 3, 12):
            changed = list(words)
            for _ in range(n_changes):
                changed[rng.randrange(60)] = "new" + str(rng.randrange(1000))
            texts.append(" ".join(changed))
    sets = [shingle(text, 5) for text in texts]
    expected = {(i, j) for j in range(len(texts)) for i in range(j) if jaccard(sets[i], sets[j]) >= 0.8}
    found = {(i, j) for i, j, _ in near_duplicate_pairs(texts, 0.8)}
    assert len(expected) > 40
    assert found == expected


def test_empty_and_equal_texts() -> None:
    assert near_duplicate_pairs(["", "", "a"], 0.8) == []
    assert near_duplicate_pairs(["a"] * 300, 0.8)[0] == (0, 1, 1.0)
