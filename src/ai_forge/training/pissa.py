"""The mathematics of PiSSA (arXiv 2404.02948): W ≈ B·A + W_res from the leading singular triplets.

    W = U S Vᵀ;   B = U_r √S_r / √s   [out, rank],   A = √S_r V_rᵀ / √s   [rank, in],   W_res = W − s·B·A

with s = alpha / rank, so that the forward pass s·B·A·x + W_res·x is W·x at the start. QPiSSA then holds W_res in NF4,
whose error is smaller than that of NF4(W), because the large directions have been taken out.

The triplets come from a randomised range finder with oversampling and power iterations (Halko, Martinsson and Tropp,
arXiv 0909.4061, algorithms 4.4 and 5.1), orthonormalised at each half step. Iterations stop when the captured energy
grows by less than `tolerance`. Where the sketch would be as wide as the matrix, the exact decomposition is taken.

The functions are written for any array library: `LinearAlgebra` is all they ask of it.
"""

from dataclasses import dataclass
from typing import Any, Protocol

Array = Any
"""A 2-d float32 array of numpy, torch or MLX: `@`, `.T`, `*`, slicing."""

MAX_POWER_ITERATIONS = 16


class LinearAlgebra(Protocol):
    """What the decomposition asks of an array library."""

    def normal(self, n_rows: int, n_columns: int, like: Array) -> Array:
        """A seeded standard normal matrix [n_rows, n_columns] on the device of `like`."""

    def orthonormal(self, matrix: Array) -> Array:
        """Q of the reduced QR decomposition."""

    def svd(self, matrix: Array) -> tuple[Array, Array, Array]:
        """Reduced U, S, Vᵀ with S in falling order."""

    def norm(self, matrix: Array) -> float:
        """Frobenius norm."""


@dataclass(frozen=True)
class Factors:
    """`b` [out, rank] and `a` [rank, in]; `n_iterations` power iterations were made (0: exact SVD)."""

    b: Array
    a: Array
    n_iterations: int


def leading_triplets(
    weight: Array, rank: int, algebra: LinearAlgebra, *, oversampling: int, tolerance: float
) -> tuple[Array, Array, Array, int]:
    """U [out, rank], S [rank], Vᵀ [rank, in] of `weight` [out, in], and how many power iterations they took.

    Raises:
        ValueError: rank is not between 1 and the smaller side of the matrix.
    """
    n_out, n_in = weight.shape
    if not 1 <= rank <= min(n_out, n_in):
        raise ValueError(f"rank {rank} is not between 1 and {min(n_out, n_in)}, the smaller side of [{n_out}, {n_in}]")
    width = rank + oversampling
    if width >= min(n_out, n_in) // 2:  # the sketch saves nothing
        u, s, vt = algebra.svd(weight)
        return u[:, :rank], s[:rank], vt[:rank], 0
    q = algebra.orthonormal(weight @ algebra.normal(n_in, width, like=weight))
    energy, n_iterations = 0.0, 0
    while n_iterations < MAX_POWER_ITERATIONS:
        q = algebra.orthonormal(weight @ algebra.orthonormal(weight.T @ q))
        n_iterations += 1
        captured = algebra.norm(q.T @ weight) ** 2
        if captured - energy <= tolerance * captured:
            break
        energy = captured
    u, s, vt = algebra.svd(q.T @ weight)
    return (q @ u)[:, :rank], s[:rank], vt[:rank], n_iterations


def pissa_factors(
    weight: Array, rank: int, scaling: float, algebra: LinearAlgebra, *, oversampling: int = 16, tolerance: float = 1e-3
) -> Factors:
    """The PiSSA adapter of `weight` [out, in] (float32); the residual is `weight - scaling * b @ a`."""
    u, s, vt, n_iterations = leading_triplets(weight, rank, algebra, oversampling=oversampling, tolerance=tolerance)
    root = (s / scaling) ** 0.5
    return Factors(b=u * root[None, :], a=root[:, None] * vt, n_iterations=n_iterations)
