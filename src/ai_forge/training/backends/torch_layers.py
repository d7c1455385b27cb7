"""Torch pieces of the model in training: NF4 weights, the adapter layer, attention within boundaries.

NF4 is bitsandbytes' own quantizer, with double quantization. On CUDA the frozen weights stay packed (4.13 bits a weight); on
the CPU they are dequantized once: the same values, for two bytes a weight.
"""

import functools
from collections.abc import Callable
from typing import Any

import bitsandbytes.functional as bnb
import torch
from bitsandbytes.functional import QuantState
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ai_forge.training.backends.torch_kernels import AdapterProduct, SegmentAttention, attend, rows

PACKED_ATTENTION = "ai_forge_packed"
CACHED_ATTENTION = "ai_forge_cached"
CODES = "codes"


class FrozenWeight(nn.Module):
    """The weights that are not trained [out, in]: dense, or packed: NF4 codes, scales by block, double quantization."""

    def __init__(self, weight: Tensor, dtype: torch.dtype, nf4_block_size: int | None, packed: bool) -> None:
        super().__init__()
        self._codes: tuple[Tensor, Any] | None = None
        self._dense: nn.Parameter | None = None
        if nf4_block_size is None:
            self._dense = frozen(weight.to(dtype))
            return
        codes, state = bnb.quantize_4bit(
            weight.float().contiguous(), blocksize=nf4_block_size, quant_type="nf4", compress_statistics=True
        )
        state.dtype = dtype
        if packed:
            self._codes = codes, state
        else:  # on a CPU bitsandbytes' product is three times slower than bf16's: 40 ms against 12 ms for 512 tokens
            self._dense = frozen(bnb.dequantize_4bit(codes, state))

    @classmethod
    def from_packed(cls, tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> "FrozenWeight":
        """What `packed` gave.

        Raises:
            ValueError: it is something else; CUDA would read past the end of parts that are too short.
        """
        weight, codes = cls(torch.empty(0), dtype, None, packed=False), tensors.get(CODES, torch.empty(0))
        try:
            state = QuantState.from_dict({k: v for k, v in tensors.items() if k != CODES}, device)
            n, n_blocks = state.shape.numel(), -(-state.shape.numel() // state.blocksize)
            expected = (torch.uint8, torch.uint8, n - n // 2, n_blocks, 16, -(-n_blocks // state.state2.blocksize), 256)
            scales = state.absmax, state.code, state.state2.absmax, state.state2.code
            found = (codes.dtype, state.absmax.dtype, codes.numel(), *(part.numel() for part in scales))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"not NF4 with double quantization ({error!r})") from error
        if found != expected or state.quant_type != "nf4":
            raise ValueError(f"{state.quant_type} of {list(state.shape)} with parts of {found} instead of {expected}")
        state.dtype = dtype
        weight._dense, weight._codes = None, (codes.to(device), state)
        return weight

    def packed(self) -> dict[str, Tensor]:
        """The codes and their scales, by name; empty where the weights are held dense."""
        if self._codes is None:
            return {}
        codes, state = self._codes
        return {CODES: codes, **state.as_dict(packed=True)}

    def dense(self) -> Tensor:
        """The weights as they enter the product."""
        if self._codes is not None:
            weight: Tensor = bnb.dequantize_4bit(*self._codes)
            return weight
        assert self._dense is not None
        return self._dense.detach()


def frozen(weight: Tensor) -> nn.Parameter:
    """A parameter that is not trained."""
    return nn.Parameter(weight, requires_grad=False)


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
        flat = x.reshape(-1, x.shape[-1])
        product: Tensor = AdapterProduct.apply(flat, self.frozen, self.bias, self.lora_A, self.lora_B, self.scaling)
        return product.view(*x.shape[:-1], -1)


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
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment of a packed row and over its parent: query [1, heads, n_tokens, head_dim]."""
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if sliding_window is not None and sliding_window >= max(len(parent) + len(own) for parent, own in segments):
        sliding_window = None
    # The written-out gradients know neither windows that are shorter than a segment nor soft-capped scores: there autograd
    # takes over.
    if query.device.type == "cpu" and sliding_window is None and softcap is None:
        row: Tensor = SegmentAttention.apply(query[0], key[0], value[0], segments, scaling)
        return row.transpose(0, 1)[None], None
    attention: Callable[..., Tensor] = attend
    if softcap is not None:  # capped scores are made again in the backward pass instead of kept
        attention = functools.partial(checkpoint, attend, use_reentrant=False)
    pieces = []
    for parent, own in segments:
        seen = rows(key[0], parent, own), rows(value[0], parent, own)
        pieces.append(attention(rows(query[0], own), *seen, scaling, sliding_window, softcap))
    return torch.cat(pieces, dim=1).transpose(0, 1)[None], None


def _attend_with_cache(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a padded batch over its cache: query [batch, heads, n, head_dim], mask True where it may look.

    Windows are in the mask.
    """
    batch, heads, n, width = query.shape
    if scaling is None:
        scaling = width**-0.5
    if softcap is None and (n > 1 or attention_mask is None):
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
    # A single query a row (decoding) is multiplied group by group, so that keys and values are read once and never repeated
    # for the heads that share them: that copy is most of what decoding a long prompt on a CPU costs.
    queries = query.reshape(batch, key.shape[1], -1, width) * scaling
    scores = torch.matmul(queries, key.transpose(2, 3))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is None:
        attention_mask = scores.new_ones(n, key.shape[2], dtype=torch.bool).tril(key.shape[2] - n)[None, None]
    nothing = torch.finfo(scores.dtype).min  # not −inf: the rows of padding may look nowhere, and NaN would spread
    scores.view(batch, key.shape[1], -1, n, key.shape[2]).masked_fill_(~attention_mask[:, :, None], nothing)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).reshape(batch, heads, n, width).transpose(1, 2), None


AttentionInterface.register(CACHED_ATTENTION, _attend_with_cache)
AttentionMaskInterface.register(CACHED_ATTENTION, sdpa_mask)
AttentionInterface.register(PACKED_ATTENTION, _attend_within_segments)
AttentionMaskInterface.register(PACKED_ATTENTION, lambda *_, **__: None)
