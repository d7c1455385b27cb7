"""MLX pieces of the model in training: weights in 4-bit groups, the adapter layer, attention within segments.

`nf4` means MLX's own 4 bits here: `mx.quantize` in affine groups (a scale and an offset each), the format that Apple's
GPU multiplies without unpacking. Each code stands for `scale · code + offset`; `dense` gives those values in float32,
which is what the product computes with, so that a merge starts from what was really trained on.

mlx-lm's attention asks a cache for its mask, for the offset of its rotary embedding and for the keys so far.
`PackedRow` stands where that cache would and answers for a packed row; nothing of mlx-lm is changed for it, only each
rotary embedding is wrapped (`PositionedRope`) to take a position for every token.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from ai_forge.training.tokens.packing import Batch

BITS = 4
GROUP_SIZES = (32, 64, 128)  # what `mx.quantize` takes


class MLXAlgebra:
    """`pissa.LinearAlgebra` on MLX arrays; products run where the device is."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)  # numpy's, so that every device gets the same sketch

    def normal(self, n_rows: int, n_columns: int, like: mx.array) -> mx.array:
        """A standard normal matrix [n_rows, n_columns]."""
        return mx.array(self.generator.standard_normal((n_rows, n_columns), dtype=np.float32)).astype(like.dtype)

    def uniform(self, n_rows: int, n_columns: int, bound: float, like: mx.array) -> mx.array:
        """Uniform between −bound and bound [n_rows, n_columns]."""
        values = self.generator.uniform(-bound, bound, (n_rows, n_columns)).astype(np.float32)
        return mx.array(values).astype(like.dtype)

    def zeros(self, n_rows: int, n_columns: int, like: mx.array) -> mx.array:
        """Zeros [n_rows, n_columns]."""
        return mx.zeros((n_rows, n_columns), dtype=like.dtype)

    def orthonormal(self, matrix: mx.array) -> mx.array:
        """Q of the reduced QR decomposition."""
        return mx.linalg.qr(matrix, stream=mx.cpu)[0]  # MLX decomposes on the CPU only, QR and SVD alike

    def eigenvalues(self, symmetric: mx.array) -> list[float]:
        """Eigenvalues of a symmetric matrix, rising."""
        # in numpy, as all that asks for float64: Apple's GPU has none
        values: list[float] = np.linalg.eigvalsh(np.array(symmetric, dtype=np.float64)).tolist()
        return values

    def eigenvectors(self, symmetric: mx.array) -> mx.array:
        """Eigenvectors, that of the largest eigenvalue first."""
        vectors = np.linalg.eigh(np.array(symmetric, dtype=np.float64)).eigenvectors
        return mx.array(np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32))

    def svd(self, matrix: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Reduced singular value decomposition."""
        u, s, vt = mx.linalg.svd(matrix, stream=mx.cpu)
        return u[:, : s.size], s, vt[: s.size]

    def norm(self, matrix: mx.array) -> float:
        """Frobenius norm, the rows summed in float64."""
        return float(np.linalg.norm(np.array(mx.linalg.norm(matrix, axis=1), dtype=np.float64)))

    def laid_out(self, matrix: mx.array, rough: bool) -> mx.array:
        """The matrix contiguous, in float32 always."""
        return mx.contiguous(matrix)

    def product(self, matrix: mx.array, block: mx.array) -> mx.array:
        """`matrix` @ `block`."""
        return matrix @ block

    def roughness(self, matrix: mx.array) -> float:
        """Nothing is rounded to less than float32."""
        return 0.0


class FrozenWeight:
    """The weights that are not trained [out, in]: dense, or packed in 4-bit groups with scales and offsets."""

    def __init__(self, arrays: tuple[mx.array, ...], group_size: int | None) -> None:
        self.arrays = arrays
        self.group_size = group_size
        mx.eval(*arrays)

    @classmethod
    def of(cls, weight: mx.array, dtype: mx.Dtype, group_size: int | None) -> "FrozenWeight":
        """`weight` [out, in] (float32) held in `dtype`, or in 4-bit groups of `group_size` input features."""
        weight = weight.astype(dtype)
        if group_size is None:
            return cls((weight,), None)
        return cls(tuple(mx.quantize(weight, group_size=group_size, bits=BITS)), group_size)

    @property
    def shape(self) -> tuple[int, int]:
        """Output and input features."""
        n_out, n_in = self.arrays[0].shape
        if self.group_size is not None:
            n_in *= 32 // BITS  # codes lie packed in words of 32 bits
        return n_out, n_in

    def dense(self) -> mx.array:
        """The values that enter the product, float32 [out, in]."""
        if self.group_size is None:
            return self.arrays[0].astype(mx.float32)
        codes, scales, offsets = self.arrays
        scales, offsets = scales.astype(mx.float32), offsets.astype(mx.float32)  # else the values are rounded to bf16
        return mx.dequantize(codes, scales, offsets, group_size=self.group_size, bits=BITS)

    def product(self, x: mx.array) -> mx.array:
        """x·Wᵀ for x [..., in]."""
        if self.group_size is None:
            return x @ self.arrays[0].T
        codes, scales, offsets = self.arrays
        return mx.quantized_matmul(x, codes, scales, offsets, transpose=True, group_size=self.group_size, bits=BITS)

    def product_plus(self, x: mx.array, addend: mx.array) -> mx.array:
        """x·Wᵀ + addend for x [..., in], in the dtype of x, rounded once."""
        # In bfloat16 a product that is rounded before the addition loses what a fresh adapter adds: it is below half a step
        # of the grid. MLX's `addmm` adds in its accumulator; beside 4-bit groups there is no such kernel, so that product is
        # made in float32.
        if self.group_size is None:
            return mx.addmm(addend, x, self.arrays[0].T)
        return (self.product(x.astype(mx.float32)) + addend).astype(x.dtype)


class FrozenLinear(nn.Module):  # type: ignore[misc]  # mlx.nn has no types
    """y = W·x + bias, W frozen."""

    def __init__(self, frozen: FrozenWeight, bias: mx.array | None) -> None:
        super().__init__()
        self.frozen = frozen
        self.bias = bias

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., in] to y [..., out], in the dtype of x."""
        return self._with_bias(self.frozen.product(x))

    def _with_bias(self, y: mx.array) -> mx.array:
        if self.bias is None:
            return y
        return y + self.bias


class AdapterLinear(FrozenLinear):
    """y = W·x + bias + s·B·(A·x), W frozen; A [rank, in] and B [out, rank] are float32 and trained."""

    def __init__(self, frozen: FrozenWeight, bias: mx.array | None, a: mx.array, b: mx.array, scaling: float) -> None:
        super().__init__(frozen, bias)
        self.scaling = scaling
        self.lora_A = a.astype(mx.float32)
        self.lora_B = b.astype(mx.float32)

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., in] to y [..., out], in the dtype of x."""
        low = x @ self.lora_A.T.astype(x.dtype)
        return self._with_bias(self.frozen.product_plus(x, low @ (self.scaling * self.lora_B).T.astype(x.dtype)))


class Positions(NamedTuple):
    """The position of every token of a row [n_tokens], where mlx-lm would hand over a single offset."""

    of_tokens: mx.array


class PositionedRope(nn.Module):  # type: ignore[misc]  # mlx.nn has no types
    """A rotary embedding of mlx-lm that takes `Positions` as well: each token is then rotated as a row of its own."""

    def __init__(self, rope: Any) -> None:
        super().__init__()
        self.rope = rope

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """x [batch, heads, n_tokens, head_dim] to the same shape; a packed row has batch 1."""
        if isinstance(offset, Positions):
            # MLX rotates by one offset a row of the batch, so tokens and batch change places for it
            rotated: mx.array = self.rope(x.transpose(2, 1, 0, 3), offset=offset.of_tokens).transpose(2, 1, 0, 3)
        else:
            rotated = self.rope(x, offset=offset)
        return rotated


def visible(boundaries: NDArray[np.int32], parents: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which token [n] sees which [n]: those before it in its own segment, itself, and all of its segment's parent.

    >>> visible(np.array([0, 2, 3, 4]), np.array([-1, 0, 0])).astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    segment = np.repeat(np.arange(len(parents)), np.diff(boundaries))
    own = segment[:, None] == segment[None, :]
    through_parent: NDArray[np.bool_] = parents[segment][:, None] == segment[None, :]
    seen: NDArray[np.bool_] = (own & np.tri(len(segment), dtype=np.bool_)) | through_parent
    return seen


class PackedRow:
    """What mlx-lm's attention takes for its cache while a packed row is read; see the module's docstring."""

    def __init__(self, batch: Batch) -> None:
        self.offset = Positions(mx.array(batch.position_ids.astype(np.int32)))
        self._visible = mx.array(visible(batch.boundaries, batch.parents))

    def make_mask(self, *_: Any, window_size: int | None = None, **__: Any) -> mx.array:
        """Mask [n_tokens, n_tokens], True where a token may look; a sliding window counts positions."""
        if window_size is None:
            return self._visible
        positions = self.offset.of_tokens
        return self._visible & (positions[:, None] < positions[None, :] + window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The row's own keys and values: nothing came before."""
        return keys, values


BlockCall = Callable[[int, Any, mx.array, tuple[Any, ...], Mapping[str, Any]], mx.array]
"""(index, block, hidden states, further arguments) to hidden states."""


class _HookedBlock:
    """A block of mlx-lm's model whose call goes through `call`; every other attribute is the block's own."""

    def __init__(self, index: int, block: Any, call: BlockCall) -> None:
        self._index, self._block, self._call = index, block, call

    def __getattr__(self, name: str) -> Any:  # Llama's model asks each of its blocks whether it has a window
        return getattr(self._block, name)

    def __call__(self, hidden: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        return self._call(self._index, self._block, hidden, args, kwargs)


@contextmanager
def hooked_blocks(inner: Any, call: BlockCall) -> Iterator[None]:
    """Within, each block of mlx-lm's inner model is called through `call`."""
    blocks = inner.layers
    inner.layers = [_HookedBlock(index, block, call) for index, block in enumerate(blocks)]
    try:
        yield
    finally:
        inner.layers = blocks
