"""PiSSA's mathematics against numpy's exact decomposition (Eckart–Young: no rank-r matrix is closer)."""

import numpy as np
import pytest
import torch

from ai_forge.model_files.base import Base
from ai_forge.training.adapters.pissa import leading_triplets, pissa_factors
from ai_forge.training.backends.torch_algebra import TorchAlgebra
from ai_forge.training.backends.torch_backend import full_precision_weights


def matrix_with_spectrum(n_out: int, n_in: int, decay: float, seed: int = 0) -> torch.Tensor:
    """Singular values k^-decay, random directions."""
    generator = torch.Generator().manual_seed(seed)
    n = min(n_out, n_in)
    u = torch.linalg.qr(torch.randn(n_out, n, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n_in, n, generator=generator, dtype=torch.float64)).Q
    s = torch.arange(1, n + 1, dtype=torch.float64) ** -decay
    return ((u * s) @ v.T).float()


def optimal_error(weight: torch.Tensor, rank: int) -> float:
    tail = np.linalg.svd(weight.double().numpy(), compute_uv=False)[rank:]
    return float(np.sqrt((tail**2).sum()))


@pytest.mark.parametrize("decay", [0.3, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(768, 512), (512, 768)])
def test_the_error_is_within_a_thousandth_of_the_best_rank_r_error(shape: tuple[int, int], decay: float) -> None:
    weight = matrix_with_spectrum(*shape, decay)
    factors = pissa_factors(weight, 32, 2.0, TorchAlgebra(0))
    error = float(torch.linalg.norm(weight.double() - 2.0 * (factors.b.double() @ factors.a.double())))
    assert factors.n_iterations > 0
    assert error <= 1.001 * optimal_error(weight, 32)


def test_a_small_matrix_is_decomposed_exactly() -> None:
    weight = matrix_with_spectrum(64, 48, 0.5)
    factors = pissa_factors(weight, 16, 0.5, TorchAlgebra(0))
    error = float(torch.linalg.norm(weight - 0.5 * (factors.b @ factors.a)))
    assert factors.n_iterations == 0
    assert error == pytest.approx(optimal_error(weight, 16), rel=1e-5)


@pytest.mark.parametrize("scaling", [0.5, 1.0, 4.0])
def test_adapter_times_scaling_plus_residual_is_the_weight(scaling: float) -> None:
    weight = matrix_with_spectrum(256, 192, 0.6)
    factors = pissa_factors(weight, 16, scaling, TorchAlgebra(0))
    assert factors.b.shape == (256, 16)
    assert factors.a.shape == (16, 192)
    residual = weight - scaling * (factors.b @ factors.a)
    torch.testing.assert_close(residual + scaling * (factors.b @ factors.a), weight, atol=1e-5, rtol=0)
    # what was taken out are the leading triplets: the residual's largest singular value is the weight's 17th
    largest = float(torch.linalg.matrix_norm(residual, 2))
    assert largest == pytest.approx(17**-0.6, rel=1e-3)


def test_both_factors_carry_the_root_of_the_singular_values() -> None:
    weight = matrix_with_spectrum(96, 80, 0.6)
    factors = pissa_factors(weight, 4, 2.0, TorchAlgebra(0))
    expected = torch.diag(torch.arange(1, 5) ** -0.6 / 2.0)
    torch.testing.assert_close(factors.b.T @ factors.b, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(factors.a @ factors.a.T, expected, atol=1e-5, rtol=0)


def test_singular_values_fall_and_vectors_are_orthonormal() -> None:
    weight = matrix_with_spectrum(300, 260, 0.6)
    u, s, vt, n_iterations = leading_triplets(weight, 24, TorchAlgebra(1), oversampling=16, tolerance=1e-3)
    assert n_iterations > 0
    assert bool((s[:-1] >= s[1:]).all())
    torch.testing.assert_close(u.T @ u, torch.eye(24), atol=1e-5, rtol=0)
    torch.testing.assert_close(vt @ vt.T, torch.eye(24), atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_factors() -> None:
    weight = matrix_with_spectrum(300, 260, 0.6)
    one, two = (pissa_factors(weight, 8, 1.0, TorchAlgebra(3)) for _ in range(2))
    assert torch.equal(one.a, two.a)
    assert torch.equal(one.b, two.b)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [16, 32, 64])
def test_real_weights_are_decomposed_well(smollm2: Base, rank: int) -> None:
    read = full_precision_weights(smollm2.folder)
    parts = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    for name in (f"model.layers.{layer}.{part}.weight" for layer in (0, 3, 11, 18, 26, 29) for part in parts):
        weight = read(name)
        u, s, vt, _ = leading_triplets(weight, rank, TorchAlgebra(0), oversampling=16, tolerance=1e-3)
        best = float(torch.linalg.svdvals(weight)[rank:].double().square().sum().sqrt())
        assert float((weight - (u * s) @ vt).double().norm()) <= 1.001 * best, name


@pytest.mark.parametrize("rank", [0, -1, 49])
def test_a_rank_that_the_matrix_does_not_have_is_named(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"^rank {rank} is not between 1 and 48, the smaller side of \[64, 48\]$"):
        pissa_factors(torch.ones(64, 48), rank, 1.0, TorchAlgebra(0))
