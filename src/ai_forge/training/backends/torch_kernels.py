"""Three operations of a training step, with their gradients written out.

Autograd's own gradients of these are right but move much more memory than they compute. Measured on 2 cores with AMX
(SmolLM2-135M, rank 32 on all linear layers, 1,800 tokens in four documents, CPU seconds of a step, see `bench/`):
written out, the adapter product saves the sums of its branches, the attention backward works in bf16 matrix products
block by block instead of PyTorch's flash backward, and the norm keeps one tensor instead of five.

All three are tested against the plain formulas' gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 128
"""Query rows of one block in the attention backward: a block's scores stay in the cache."""


class AdapterProduct(torch.autograd.Function):
    """y = x·Wᵀ + bias + s·(x·Aᵀ)·Bᵀ for x [n, in], W [out, in] frozen, A [rank, in], B [out, rank] float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        """y [n, out]."""
        a_low, b_low = a.to(x.dtype), (scaling * b).to(x.dtype)
        low = x @ a_low.T
        ctx.save_for_backward(x, weight, a_low, b_low, low)
        ctx.scaling = scaling
        return functional.linear(x, weight, bias).addmm_(low, b_low.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, weight, a_low, b_low, low = ctx.saved_tensors
        through_b = grad @ b_low
        grad_x = (grad @ weight).addmm_(through_b, a_low) if ctx.needs_input_grad[0] else None
        grad_a = (through_b.T @ x).float()
        grad_b = (grad.T @ low).float().mul_(ctx.scaling)
        return grad_x, None, None, grad_a, grad_b, None


class CausalAttention(torch.autograd.Function):
    """Causal attention of one document: q [heads, n, d], k and v [kv_heads, n, d]; heads of a group lie together.

    Forward by PyTorch's flash kernel for CPUs. Backward (Dao 2022, arXiv 2205.14135, algorithm 4) by blocks of queries,
    with the heads of a group stacked as rows, so that keys and values are never repeated.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """The output [heads, n, d]."""
        groups = q.shape[0] // k.shape[0]
        wide_k, wide_v = k.repeat_interleave(groups, dim=0), v.repeat_interleave(groups, dim=0)
        out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[None], wide_k[None], wide_v[None], 0.0, True, scale=scale
        )
        ctx.save_for_backward(q, k, v, out[0], log_sum[0])
        ctx.scale = scale
        result: Tensor = out[0]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        q, k, v, out, log_sum = ctx.saved_tensors
        n_kv, n, d = k.shape
        groups = q.shape[0] // n_kv
        q = q * ctx.scale
        delta = (grad * out).sum(-1, dtype=torch.float32)  # [heads, n]
        ones = k.new_ones(n_kv, n, 2)
        q_minus, k_one = _with_offset(q, -log_sum), torch.cat([k, ones], dim=2)
        grad_minus, v_one = _with_offset(grad, -delta), torch.cat([v, ones], dim=2)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros_like(k), torch.zeros_like(v)
        for first in range(0, n, BLOCK):
            last = min(first + BLOCK, n)
            stack = n_kv, groups * (last - first)
            p = torch.bmm(q_minus[:, first:last].reshape(*stack, d + 2), k_one[:, :last].transpose(1, 2)).exp_()
            p.view(n_kv, groups, last - first, last)[..., first:].tril_()
            grad_v[:, :last].baddbmm_(p.transpose(1, 2), grad[:, first:last].reshape(*stack, d))
            grad_p = torch.bmm(grad_minus[:, first:last].reshape(*stack, d + 2), v_one[:, :last].transpose(1, 2))
            grad_s = grad_p.mul_(p)
            grad_q[:, first:last] = torch.bmm(grad_s, k[:, :last]).view(n_kv * groups, last - first, d)
            grad_k[:, :last].baddbmm_(grad_s.transpose(1, 2), q[:, first:last].reshape(*stack, d))
        return grad_q.mul_(ctx.scale), grad_k, grad_v, None


def _with_offset(rows: Tensor, offset: Tensor) -> Tensor:
    """`rows` [heads, n, d] with two more columns that add up to the float32 `offset` [heads, n].

    A product with rows that end in two ones then yields `rows·other + offset`, added before the sum is rounded.
    """
    high = offset.to(rows.dtype)
    low = (offset - high.float()).to(rows.dtype)
    return torch.cat([rows, high.unsqueeze(-1), low.unsqueeze(-1)], dim=2)


class RMSNormProduct(torch.autograd.Function):
    """weight · x / rms(x) over the last dimension of x, weight frozen; the mean square is taken in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The scaled rows."""
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
        inverse = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = x.float().mul_(inverse).to(x.dtype)
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
