"""Three operations of a training step, with their gradients written out.

Autograd's own gradients of these are right but move much more memory than they compute. Measured on 2 cores with AMX
(SmolLM2-135M, rank 32 on all linear layers, 1,800 tokens in four documents, CPU seconds of a step, see `bench/`):
written out, the adapter product saves the sums of its branches, attention works in bf16 matrix products block by block
instead of PyTorch's flash kernel, and the norm keeps one tensor instead of five.

All three are tested against the plain formulas' gradients.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

SDPA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
BLOCK = 128  # query rows of one block of attention: a block's scores stay in the cache


class Frozen(Protocol):
    """A weight that is not trained; see `torch_layers.FrozenWeight`."""

    def dense(self) -> Tensor:
        """Its values [out, in] as they enter the product."""


class AdapterProduct(torch.autograd.Function):
    """y = x·Wᵀ + bias + s·(x·Aᵀ)·Bᵀ for x [n, in], W [out, in] frozen, A [rank, in], B [out, rank] float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, frozen: Frozen, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        """y [n, out]."""
        low = x @ a.to(x.dtype).T
        ctx.save_for_backward(x, low, a, b)
        ctx.frozen, ctx.scaling = frozen, scaling
        # What the adapter adds is added in the product's accumulator, so that in bf16 the sum is rounded once. Added to an
        # x·Wᵀ that is rounded already, what lies below half a step of bf16's grid would be lost, not rounded up as often as
        # down: a LoRA that starts from zero then learns more slowly. The bias follows for the same reason.
        y = torch.addmm(low @ (scaling * b).to(x.dtype).T, x, frozen.dense().T)
        if bias is not None:
            y.add_(bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, low, a, b = ctx.saved_tensors
        through_b = grad @ (ctx.scaling * b).to(grad.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:  # the first layer's input comes from frozen embeddings
            grad_x = torch.addmm(through_b @ a.to(grad.dtype), grad, ctx.frozen.dense())
        grad_a = (through_b.T @ x).float()
        grad_b = (grad.T @ low).float().mul_(ctx.scaling)
        return grad_x, None, None, grad_a, grad_b, None


def rows(x: Tensor, *spans: range) -> Tensor:
    """The rows of x [heads, n, d] at `spans`, one after the other; a view where there is only one."""
    pieces = [x[:, span.start : span.stop] for span in spans if span]
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat(pieces, dim=1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None, softcap: float | None = None
) -> Tensor:
    """Causal attention of q [heads, n, d], which are the last n of the positions of k and v [kv_heads, m, d].

    A position sees the last `window` positions, itself among them; `softcap` bounds the scores to ±softcap (Gemma 2,
    arXiv 2408.00118, section 2).
    """
    if window is not None and window >= k.shape[1]:
        window = None
    if softcap is not None:  # torch's own attention cannot bound its scores
        groups = q.shape[0] // k.shape[0]
        scores = torch.matmul(q * scale, k.repeat_interleave(groups, dim=0).transpose(1, 2))
        scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~_last_rows_mask(q, k, window), float("-inf"))
        weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
        return torch.matmul(weights, v.repeat_interleave(groups, dim=0))
    is_square, mask = q.shape[1] == k.shape[1] and window is None, None
    if not is_square:
        mask = _last_rows_mask(q, k, window)
    grouped = q.shape[0] != k.shape[0]
    if grouped and q.is_cuda:
        # grouped heads with a mask are cuDNN's alone, whose gradients were no numbers in one batch of some forty (H200)
        groups, grouped = q.shape[0] // k.shape[0], False
        k, v = k.repeat_interleave(groups, dim=0), v.repeat_interleave(groups, dim=0)
    with sdpa_kernel(SDPA_BACKENDS):
        return functional.scaled_dot_product_attention(
            q[None],
            k[None],
            v[None],
            attn_mask=mask,
            is_causal=is_square,  # torch counts its causal mask from the top left, which is right for squares only
            scale=scale,
            enable_gqa=grouped,
        )[0]


def _last_rows_mask(q: Tensor, k: Tensor, window: int | None) -> Tensor:
    """Which of the m keys each of the last n positions sees [n, m]."""
    n, m = q.shape[1], k.shape[1]
    seen = torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)
    if window is not None:
        seen = seen.triu(m - n - window + 1)
    return seen


class SegmentAttention(torch.autograd.Function):
    """Causal attention inside each segment and over its parent: q [heads, n, d], k and v [kv_heads, n, d].

    `segments` are those of `packing.Batch`; heads of a group lie together. Forward and backward (Dao 2022, arXiv
    2205.14135, algorithms 1 and 4) go by blocks of queries, with the heads of a group stacked as rows, so that keys and
    values are never repeated; what is kept for the backward pass does not grow with the square of the length.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: list[tuple[range, range]], scale: float) -> Tensor:
        """The output [heads, n, d]."""
        out, log_sum = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        scaled, wide_k = (q * scale).float(), k.float()
        for parent, own in segments:
            _segment_forward(
                rows(scaled, own), rows(wide_k, parent, own), rows(v, parent, own), rows(out, own), rows(log_sum, own)
            )
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.segments, ctx.scale = segments, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        q, k, v, out, log_sum = ctx.saved_tensors
        delta = (grad * out).sum(-1, dtype=torch.float32)  # [heads, n]
        q_minus, k_one = _with_offset(q * ctx.scale, -log_sum), _with_ones(k)
        grad_minus, v_one = _with_offset(grad, -delta), _with_ones(v)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for parent, own in ctx.segments:
            part_k, part_v = _segment_backward(
                rows(q_minus, own), rows(grad_minus, own), rows(k_one, parent, own), rows(v_one, parent, own),
                rows(grad_q, own),
            )  # fmt: skip
            for total, part in ((grad_k, part_k), (grad_v, part_v)):
                if parent:
                    rows(total, parent).add_(part[:, : len(parent)])
                rows(total, own).add_(part[:, len(parent) :])
        return grad_q.mul_(ctx.scale), grad_k, grad_v, None, None


def _segment_forward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor) -> None:
    """Write the output [heads, n, d] and the logarithm of the sum of exp(scores) [heads, n], float32.

    Queries are the last n of the m positions of `k` and `v` [kv_heads, m, d]; q and k are float32.
    """
    heads, n, d = q.shape
    n_kv, m, _ = v.shape
    groups, ahead = heads // n_kv, m - n
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        size, seen = last - first, ahead + last
        # q and k hold values of v's type, so a product in that type loses nothing, and as float32 the scores are not rounded
        # before the largest is taken off
        with _products_in(v.dtype):
            scores = torch.bmm(q[:, first:last].reshape(n_kv, groups * size, d), k[:, :seen].transpose(1, 2))
        unseen = scores.new_full((size, size), float("-inf")).triu_(1)
        scores.view(n_kv, groups, size, seen)[..., ahead + first :].add_(unseen)
        largest = scores.amax(-1, keepdim=True)
        p = scores.sub_(largest).exp_()
        total = p.sum(-1, keepdim=True)
        out[:, first:last] = torch.bmm(p.to(v.dtype), v[:, :seen]).div_(total).view(heads, size, d)
        log_sum[:, first:last] = total.log_().add_(largest).view(heads, size)


@contextlib.contextmanager
def _products_in(dtype: torch.dtype) -> Iterator[None]:
    """float32 products multiply in `dtype` and add in float32; a switch of oneDNN's, without effect elsewhere."""
    onednn: Any = torch.backends.mkldnn
    matmul = onednn.matmul
    before = matmul.fp32_precision
    if dtype == torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _segment_backward(
    q_minus: Tensor, grad_minus: Tensor, k_one: Tensor, v_one: Tensor, grad_q: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of k and v [kv_heads, m, d]; that of q is written into `grad_q` [heads, n, d].

    The inputs carry their offsets (`_with_offset`); queries are the last n of the m positions.
    """
    heads, n, d = grad_q.shape
    n_kv, m, _ = k_one.shape
    groups, ahead = heads // n_kv, m - n
    grad_k, grad_v = (k_one.new_zeros(n_kv, m, d) for _ in range(2))
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        stack, seen = (n_kv, groups * (last - first)), ahead + last
        queries = q_minus[:, first:last].reshape(*stack, d + 2)
        grads = grad_minus[:, first:last].reshape(*stack, d + 2)
        p = torch.bmm(queries, k_one[:, :seen].transpose(1, 2)).exp_()
        p.view(n_kv, groups, last - first, seen)[..., ahead + first :].tril_()
        grad_v[:, :seen].baddbmm_(p.transpose(1, 2), grads[..., :d])
        grad_s = torch.bmm(grads, v_one[:, :seen].transpose(1, 2)).mul_(p)
        grad_q[:, first:last] = torch.bmm(grad_s, k_one[:, :seen, :d]).view(heads, last - first, d)
        grad_k[:, :seen].baddbmm_(grad_s.transpose(1, 2), queries[..., :d])
    return grad_k, grad_v


def _with_offset(rows: Tensor, offset: Tensor) -> Tensor:
    """`rows` [heads, n, d] with two more columns that add up to the float32 `offset` [heads, n].

    A product with rows that end in two ones (`_with_ones`) then yields `rows·other + offset`, added before the sum is rounded.
    """
    high = offset.to(rows.dtype)
    low = (offset - high.float()).to(rows.dtype)  # what bf16 rounds off: one column would hold 8 bits of the offset
    return torch.cat([rows, high.unsqueeze(-1), low.unsqueeze(-1)], dim=2)


def _with_ones(rows: Tensor) -> Tensor:
    """`rows` [heads, n, d] with two more columns of ones, the counterpart of `_with_offset`."""
    return torch.cat([rows, rows.new_ones(*rows.shape[:2], 2)], dim=2)


class RMSNormProduct(torch.autograd.Function):
    """weight · x / rms(x) over the last dimension of x, weight frozen; the mean square is taken in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The scaled rows."""
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
        inverse = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = torch.mul(x, inverse).to(x.dtype)
        ctx.save_for_backward(normed, weight, inverse.to(x.dtype))
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x."""
        normed, weight, inverse = ctx.saved_tensors
        grad = grad * weight
        along = torch.linalg.vecdot(grad, normed).unsqueeze(-1).div_(-normed.shape[-1])
        return torch.addcmul(grad, normed, along).mul_(inverse), None, None


class FrozenRMSNorm(nn.Module):
    """A model's RMS norm with frozen weight, by `RMSNormProduct`."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach(), persistent=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] to the same shape."""
        result: Tensor = RMSNormProduct.apply(x, self.weight, self.eps)
        return result
