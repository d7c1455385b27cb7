"""Weights in 4-bit groups, the adapter layer, positions, visibility and the decomposition, against plain products."""

import itertools

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'ai-forge[mlx]'")

from mlx import nn  # noqa: E402

from ai_forge.training.adapters.pissa import pissa_factors  # noqa: E402
from ai_forge.training.backends.mlx_layers import (  # noqa: E402
    AdapterLinear,
    FrozenWeight,
    MLXAlgebra,
    PackedRow,
    PositionedRope,
    Positions,
    visible,
)
from ai_forge.training.tokens.packing import TokenizedExample, collate  # noqa: E402
from tiny_training import random_examples  # noqa: E402

RANDOM = np.random.default_rng(0)
WEIGHT = (RANDOM.standard_normal((96, 256)) * 0.05).astype(np.float32)
INPUT = RANDOM.standard_normal((2, 7, 256)).astype(np.float32)


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_dense_holds_what_the_product_multiplies_by(group_size: int) -> None:
    frozen = FrozenWeight.of(mx.array(WEIGHT), mx.float32, group_size)
    dense = np.array(frozen.dense())
    assert frozen.shape == dense.shape == WEIGHT.shape
    assert len(np.unique(dense.reshape(-1, group_size)[0])) <= 16
    np.testing.assert_allclose(np.array(frozen.product(mx.array(INPUT))), INPUT @ dense.T, atol=1e-5)
    step = np.ptp(WEIGHT.reshape(-1, group_size), axis=1).max() / 15
    np.testing.assert_allclose(dense, WEIGHT, atol=step)  # MLX puts zero on the grid, so one end may be a step off
    assert np.abs(dense - WEIGHT).mean() < step / 3


def test_four_bits_take_a_quarter_of_sixteen() -> None:
    frozen = FrozenWeight.of(mx.array(WEIGHT), mx.bfloat16, 64)
    assert sum(part.nbytes for part in frozen.arrays) == WEIGHT.size * 4.5 / 8


def test_without_groups_the_weights_are_as_given() -> None:
    assert np.array_equal(np.array(FrozenWeight.of(mx.array(WEIGHT), mx.float32, None).dense()), WEIGHT)


@pytest.mark.parametrize("group_size", [None, 64])
def test_the_adapter_layer_is_the_formula(group_size: int | None) -> None:
    a, b = RANDOM.standard_normal((4, 256)).astype(np.float32), RANDOM.standard_normal((96, 4)).astype(np.float32)
    bias = RANDOM.standard_normal(96).astype(np.float32)
    frozen = FrozenWeight.of(mx.array(WEIGHT), mx.float32, group_size)
    layer = AdapterLinear(frozen, mx.array(bias), mx.array(a), mx.array(b), 1.5)
    expected = INPUT @ (np.array(frozen.dense()) + 1.5 * b @ a).T + bias
    np.testing.assert_allclose(np.array(layer(mx.array(INPUT))), expected, atol=1e-4, rtol=1e-5)


def test_in_bfloat16_what_a_fresh_adapter_adds_is_not_rounded_away() -> None:
    a, b = RANDOM.standard_normal((4, 256)).astype(np.float32), RANDOM.standard_normal((96, 4)).astype(np.float32)
    x, frozen = mx.array(INPUT).astype(mx.bfloat16), FrozenWeight.of(mx.array(WEIGHT), mx.bfloat16, 64)
    without = x.astype(mx.float32) @ frozen.dense().T
    added = 3e-5 * x.astype(mx.float32) @ mx.array(b @ a).T
    assert mx.abs(added).mean() < mx.abs(without).mean() / 2**9  # half a step of the grid
    layer = AdapterLinear(frozen, None, mx.array(a), mx.array(3e-5 * b), 1.0)
    moved = np.array(layer(x).astype(mx.float32) - without.astype(mx.bfloat16).astype(mx.float32))
    kept = (moved * np.array(added)).sum() / np.square(np.array(added)).sum()
    assert abs(kept - 1) < 0.3


def test_each_token_is_rotated_by_its_own_position() -> None:
    rope = nn.RoPE(16)
    x = mx.array(RANDOM.standard_normal((1, 4, 6, 16)).astype(np.float32))
    positions = [5, 0, 1, 2, 9, 3]
    rotated = PositionedRope(rope)(x, offset=Positions(mx.array(positions)))
    for token, position in enumerate(positions):
        alone = rope(x[:, :, token : token + 1], offset=position)
        np.testing.assert_allclose(np.array(rotated[:, :, token : token + 1]), np.array(alone), atol=1e-6)
    assert np.array_equal(np.array(PositionedRope(rope)(x, offset=3)), np.array(rope(x, offset=3)))


def test_a_token_sees_its_own_example_only() -> None:
    shared = [TokenizedExample((*range(3, 90), 100 + n, 7, 8), 88) for n in range(3)]
    batch = collate([*random_examples(2), *shared])
    assert (batch.parents >= 0).sum() == 3
    seen = visible(batch.boundaries, batch.parents)
    spans = [range(a, b) for a, b in itertools.pairwise(batch.boundaries.tolist())]
    for span, parent in zip(spans, batch.parents, strict=True):
        for token in span:
            expected = {*range(span.start, token + 1), *(spans[parent] if parent >= 0 else ())}
            assert set(np.flatnonzero(seen[token])) == expected


def test_a_sliding_window_counts_positions() -> None:
    batch = collate([TokenizedExample(tuple(range(3, 9)), 1)] * 2)
    seen = np.array(PackedRow(batch).make_mask(window_size=2))
    assert [set(np.flatnonzero(row)) for row in seen[[0, 1, 5, 6, 7]]] == [{0}, {0, 1}, {4, 5}, {6}, {6, 7}]


@pytest.mark.parametrize(("n_out", "n_in", "rank"), [(96, 256, 40), (300, 500, 8)], ids=["exact", "by a span"])
def test_factors_are_the_leading_singular_triplets(n_out: int, n_in: int, rank: int) -> None:
    left, _ = np.linalg.qr(RANDOM.standard_normal((n_out, n_out)))
    right, _ = np.linalg.qr(RANDOM.standard_normal((n_in, n_out)))
    spectrum = 1 / np.arange(1, n_out + 1)
    weight = ((left * spectrum) @ right.T).astype(np.float32)
    factors = pissa_factors(mx.array(weight), rank, 2.0, MLXAlgebra(0))
    assert (factors.n_iterations > 0) is (rank == 8)
    left_over = weight - 2.0 * np.array(factors.b) @ np.array(factors.a)
    assert np.linalg.norm(left_over) <= 1.001 * np.linalg.norm(spectrum[rank:])


def test_random_numbers_follow_the_seed() -> None:
    like = mx.zeros((1, 1))
    drawn = [np.array(MLXAlgebra(seed).normal(50, 40, like)) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    uniform = np.array(MLXAlgebra(1).uniform(50, 40, 0.5, like))
    assert 0.49 < np.abs(uniform).max() <= 0.5
    assert abs(float(uniform.mean())) < 0.02
