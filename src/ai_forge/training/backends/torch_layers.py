"""Torch pieces of the model in training: NF4 weights, the adapter layer, attention within boundaries.

NF4 is bitsandbytes' own quantiser. On CUDA the frozen weights stay packed (4 bits and a scale per block); on the CPU,
where bitsandbytes' NF4 product is about three times slower than a bf16 one (40 ms against 12 ms for 512 tokens), they
are dequantised once: the same values, for two bytes a weight.
"""

from typing import Any

import bitsandbytes.functional as bnb
import torch
from bitsandbytes import matmul_4bit
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ai_forge.training.backends.torch_kernels import AdapterProduct, SegmentAttention, attend, rows

PACKED_ATTENTION = "ai_forge_packed"
CACHED_ATTENTION = "ai_forge_cached"


class FrozenWeight(nn.Module):
    """The weights that are not trained [out, in]: dense, or NF4 packed with its scales."""

    def __init__(self, weight: Tensor, dtype: torch.dtype, nf4_block_size: int | None, packed: bool) -> None:
        super().__init__()
        self._state: Any = None
        if nf4_block_size is None:
            held = weight.to(dtype)
        else:
            codes, state = bnb.quantize_4bit(weight.float().contiguous(), blocksize=nf4_block_size, quant_type="nf4")
            state.dtype = dtype
            held = codes if packed else bnb.dequantize_4bit(codes, state)
            self._state = state if packed else None
        self._tensor = nn.Parameter(held, requires_grad=False)

    def dense(self) -> Tensor:
        """The weights as they enter the product."""
        weight: Tensor = self._tensor if self._state is None else bnb.dequantize_4bit(self._tensor, self._state)
        return weight

    def if_dense(self) -> Tensor | None:
        """The weights where they are held dense, None where they are packed."""
        return self._tensor if self._state is None else None

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x·Wᵀ + bias for x [..., in]."""
        if self._state is None:
            return functional.linear(x, self._tensor, bias)
        result: Tensor = matmul_4bit(x, self._tensor.t(), quant_state=self._state, bias=bias)
        return result


class AdapterLinear(nn.Module):
    """y = W·x + bias + s·B·(A·x), W frozen; A [rank, in] and B [out, rank] are float32 and trained."""

    def __init__(self, frozen: FrozenWeight, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float) -> None:
        super().__init__()
        self.frozen = frozen
        self.bias = bias
        self.scaling = scaling
        self.lora_A = nn.Parameter(a.float().contiguous())
        self.lora_B = nn.Parameter(b.float().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] to y [..., out], in the dtype of x."""
        dense = self.frozen.if_dense()
        if dense is not None:
            flat = x.reshape(-1, x.shape[-1])
            product: Tensor = AdapterProduct.apply(flat, dense, self.bias, self.lora_A, self.lora_B, self.scaling)
            return product.view(*x.shape[:-1], -1)
        low = functional.linear(x, self.lora_A.to(x.dtype))
        return self.frozen.product(x, self.bias) + functional.linear(low, (self.scaling * self.lora_B).to(x.dtype))


def _attend_within_segments(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: list[tuple[range, range]],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment of a packed row and over its parent: query [1, heads, n_tokens, head_dim]."""
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if query.device.type == "cpu":
        row = SegmentAttention.apply(query[0], key[0], value[0], segments, scaling)
    else:
        pieces = [
            attend(rows(query[0], own), rows(key[0], parent, own), rows(value[0], parent, own), scaling)
            for parent, own in segments
        ]
        row = torch.cat(pieces, dim=1)
    return row.transpose(0, 1)[None], None


def _attend_with_cache(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a padded batch over its cache: query [batch, heads, n, head_dim], mask True where it may look.

    A single query a row (decoding) is multiplied group by group, so that keys and values are read once and never
    repeated for the heads that share them: that copy is most of what decoding a long prompt on a CPU costs.
    """
    batch, heads, n, width = query.shape
    if n > 1 or attention_mask is None:
        grouped = heads != key.shape[1]
        out = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            is_causal=attention_mask is None and n > 1,  # no mask is made where nothing is padded
            scale=scaling,
            enable_gqa=grouped,
        )
        return out.transpose(1, 2), None
    rows = query.reshape(batch, key.shape[1], -1, width) * (width**-0.5 if scaling is None else scaling)
    scores = torch.matmul(rows, key.transpose(2, 3)).masked_fill_(~attention_mask, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).reshape(batch, 1, heads, width), None


AttentionInterface.register(CACHED_ATTENTION, _attend_with_cache)
AttentionMaskInterface.register(CACHED_ATTENTION, sdpa_mask)
AttentionInterface.register(PACKED_ATTENTION, _attend_within_segments)
AttentionMaskInterface.register(PACKED_ATTENTION, lambda *_, **__: None)
