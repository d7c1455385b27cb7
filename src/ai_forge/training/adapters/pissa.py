"""The mathematics of PiSSA (arXiv 2404.02948): W ≈ B·A + W_res from the leading singular triplets.

    W = U S Vᵀ;   B = U_r √S_r / √s   [out, rank],   A = √S_r V_rᵀ / √s   [rank, in],   W_res = W − s·B·A

with s = alpha / rank, so that the forward pass s·B·A·x + W_res·x is W·x at the start. QPiSSA then holds W_res in NF4,
whose error is smaller than that of NF4(W), because the large directions have been taken out.

The triplets come from a randomised block Krylov range finder (Musco and Musco, arXiv 1504.05477): the rows' space is
spanned block by block by Ω, WᵀWΩ, (WᵀW)²Ω …, each block orthonormalised against all before it, and the best rank-r part
within the span is taken. It needs fewer products with W than power iterations, which keep the last block only: the
spectra of real weights fall slowly. The error is measured as the span grows, ‖W‖² − Σ s²; growing stops when what is
still to be gained, extrapolated from the last two gains, is below `tolerance` of the error.

The functions are written for any array library: `LinearAlgebra` is all they ask of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Array = Any
"""A 2-d float32 array of numpy, torch or MLX: `@`, `.T`, `*`, slicing."""

MIN_BLOCK = 16
MAX_SPAN = 10  # columns of the span for each of the rank, at the most: none of the spectra measured needed 6
SLOWEST_DECAY = 0.9  # from one check to the next; two gains that are equal by chance would promise gains without end
ROUNDING = 1e-8  # share of ‖W‖² below which a gain is rounding: the span of a low-rank matrix would grow to its limit


class LinearAlgebra(Protocol):
    """What the decomposition asks of an array library."""

    def normal(self, n_rows: int, n_columns: int, like: Array) -> Array:
        """A seeded standard normal matrix [n_rows, n_columns] on the device of `like`."""

    def uniform(self, n_rows: int, n_columns: int, bound: float, like: Array) -> Array:
        """A seeded matrix [n_rows, n_columns], uniform between −bound and bound."""

    def zeros(self, n_rows: int, n_columns: int, like: Array) -> Array:
        """Zeros [n_rows, n_columns], contiguous row by row, whose slices can be assigned to."""

    def orthonormal(self, matrix: Array) -> Array:
        """An orthonormal basis of the columns, which are at most as many as the rows."""

    def eigenvalues(self, symmetric: Array) -> Sequence[float]:
        """The eigenvalues of a symmetric matrix, rising, found in float64."""

    def eigenvectors(self, symmetric: Array) -> Array:
        """Its eigenvectors as columns in float32, found in float64, that of the largest eigenvalue first."""

    def svd(self, matrix: Array) -> tuple[Array, Array, Array]:
        """Reduced U, S, Vᵀ with S in falling order."""

    def norm(self, matrix: Array) -> float:
        """Frobenius norm, to float64's precision."""

    def laid_out(self, matrix: Array, rough: bool) -> Array:
        """The matrix row by row; `rough`: in the type whose products are fastest, bf16 where the hardware has it."""

    def product(self, matrix: Array, block: Array) -> Array:
        """`matrix` @ `block`, computed in the type of `matrix`, as float32."""

    def roughness(self, matrix: Array) -> float:
        """Square of the relative rounding of products that are laid out roughly; 0 where they are those of float32."""


@dataclass(frozen=True)
class Factors:
    """`b` [out, rank] and `a` [rank, in]; the span took `n_iterations` products with WᵀW (0: exact SVD)."""

    b: Array
    a: Array
    n_iterations: int


def leading_triplets(
    weight: Array, rank: int, algebra: LinearAlgebra, *, oversampling: int, tolerance: float
) -> tuple[Array, Array, Array, int]:
    """U [out, rank], S [rank], Vᵀ [rank, in] of `weight` [out, in], and how many iterations they took.

    `oversampling` is by how many columns the span exceeds the rank at the least; the error of the rank-r part is meant to
    be within (1 + `tolerance`) of the smallest possible.

    Raises:
        ValueError: rank is not between 1 and the smaller side of the matrix.
    """
    n_out, n_in = weight.shape
    if not 1 <= rank <= min(n_out, n_in):
        raise ValueError(f"rank {rank} is not between 1 and {min(n_out, n_in)}, the smaller side of [{n_out}, {n_in}]")
    least = rank + oversampling
    if max(least, 2 * rank) >= min(n_out, n_in) // 2:  # half as wide as the matrix: such a span saves nothing
        u, s, vt = algebra.svd(weight)
        return u[:, :rank], s[:rank], vt[:rank], 0
    squared, roughness = algebra.norm(weight) ** 2, algebra.roughness(weight)
    attempts = [False]
    if roughness:
        attempts = [True, False]
    for rough in attempts:
        basis, n_iterations = _krylov_basis(weight, rank, algebra, least, tolerance, rough)
        # However the span was found, the triplets come from one product with W in float32, never from the rough ones.
        image = weight @ basis
        leading = algebra.eigenvectors(image.T @ image)[:, :rank]
        u_s = image @ leading
        s = (u_s * u_s).sum(0) ** 0.5
        if roughness * squared <= tolerance * (squared - float((s * s).sum())):
            break  # else the spectrum falls so fast that rounding would be seen in what is left
    return u_s / s[None, :], s, (basis @ leading).T, n_iterations


def _krylov_basis(
    weight: Array, rank: int, algebra: LinearAlgebra, least: int, tolerance: float, rough: bool
) -> tuple[Array, int]:
    """Orthonormal Z [in, least] whose span holds nearly what the Krylov space captures, and the number of iterations.

    The rounding of `rough` products turns the basis a little, which costs the square of the angle.
    """
    n_out, n_in = weight.shape
    width, stride = max(rank // 4, MIN_BLOCK), max(rank // 2, MIN_BLOCK)
    most = min(n_out, n_in, max(MAX_SPAN * rank, least + 3 * stride))
    forward, back = (algebra.laid_out(matrix, rough) for matrix in (weight, weight.T))  # half the time of a stride
    total = algebra.norm(weight) ** 2
    rows, image = algebra.zeros(n_in, most, like=weight), algebra.zeros(n_out, most, like=weight)
    gram = algebra.zeros(most, most, like=weight)
    block = algebra.orthonormal(algebra.normal(n_in, width, like=weight))
    captured: list[float] = []
    n, next_check = 0, max(2 * rank, least) + 2 * stride
    while True:
        last, before = algebra.product(forward, block), n
        n += width
        rows[:, before:n], image[:, before:n] = block, last
        with_all = image[:, :n].T @ last  # the Gram matrix grows by a border: what it holds already is not made again
        gram[:n, before:n], gram[before:n, :n] = with_all, with_all.T
        full = n + width > most
        if n >= next_check or full:
            sizes = [n]
            if not captured:  # the first check looks back: two gains take three spans
                sizes = [n - 2 * stride, n - stride, n]
            captured += [sum(algebra.eigenvalues(gram[:m, :m])[-rank:]) for m in sizes]
            # 2 · tolerance of the squared error would do, were the extrapolation exact: it falls short by up to a third
            missing = max(tolerance * (total - captured[-1]), ROUNDING * total)
            if full or to_be_gained(captured) <= missing:
                return rows[:, :n] @ algebra.eigenvectors(gram[:n, :n])[:, :least], n // width - 1
            next_check += stride
        block = algebra.product(back, algebra.orthonormal(last))
        for _ in range(2):  # once is not enough where the spectrum falls fast
            block = algebra.orthonormal(block - rows[:, :n] @ (rows[:, :n].T @ block))


def to_be_gained(captured: Sequence[float]) -> float:
    """What further growth will add to the last of `captured`, if gains go on to fall as the last two did.

    >>> round(to_be_gained([0.0, 8.0, 12.0]), 6)  # 8, 4, then 2 + 1 + ½ …
    4.0
    """
    first, second = captured[-2] - captured[-3], captured[-1] - captured[-2]
    if not first > 0:  # rounding alone: there is nothing to extrapolate from
        return 0.0
    gain = max(second, 0.0)
    decay = min(gain / first, SLOWEST_DECAY)
    return gain * decay / (1 - decay)


def pissa_factors(
    weight: Array, rank: int, scaling: float, algebra: LinearAlgebra, *, oversampling: int = 16, tolerance: float = 1e-3
) -> Factors:
    """The PiSSA adapter of `weight` [out, in] (float32); the residual is `weight - scaling * b @ a`."""
    u, s, vt, n_iterations = leading_triplets(weight, rank, algebra, oversampling=oversampling, tolerance=tolerance)
    root = (s / scaling) ** 0.5
    return Factors(b=u * root[None, :], a=root[:, None] * vt, n_iterations=n_iterations)
