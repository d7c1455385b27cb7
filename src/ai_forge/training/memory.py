"""Will a training fit: memory by component, from the base's shapes, before anything is loaded; one model for each backend.

    component               torch                                        MLX
    frozen weights          as they are held: exact                      4-bit groups where there is an adapter, else 16 bits
    adapters and gradients  float32 values and gradients: exact          and the sum that gradients are added to
    optimizer               two bytes a trained value (8-bit): exact     AdamW's moments in float32
    activations             calibrated: `memory_of`                      `kept_bytes`, `recomputed_bytes`
    attention scores        never kept                                   of one block: `score_bytes`
    logits                  one chunk and its gradient                   the same
    program                 Python, torch and its libraries              Python and MLX

Torch: activations of a micro batch of the longest examples were measured on SmolLM2-135M (rank 32 on all linear layers, 256 to
2,048 tokens, CPU): in float32 6 % below, in bfloat16 6 % above the formula. `low` and `high` allow for four times that. With
gradient checkpointing, logits and gradients included, a step of 1,024 tokens in bfloat16 took 281 to 647 MB in five runs and one
of 2,048 567 MB, by how the heap lay; the formula says 358 and 577 (without: 919 to 1,204 MB of 1,024 tokens; 1,239).

MLX: computed, not measured, for no Apple machine was at hand. The activations' factors are read off MLX's own counter on a CPU,
in float32, and the tests compare the two.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.architectures import completed, named_layers
from ai_forge.training.adapters.initialisation import chosen_layers, rank_of, require_fitting_patterns

UNCERTAINTY = {
    "activations": (0.75, 1.25),
    "attention scores": (0.75, 1.25),
    "logits": (0.5, 1.5),
    "program": (0.7, 1.6),
}
"""By how much a component may be smaller or larger than expected; those not named are exact."""
# What one layer keeps, so many times, is what computing it again and its backward pass take together. That of torch's own
# allocations is about one; the rest is memory that a CPU's allocator does not use again.
RECOMPUTED_LAYERS = 5
LOGIT_CHUNK = 256  # positions whose logits over the whole vocabulary exist at a time
TORCH_PROGRAM_BYTES = 900_000_000
MLX_PROGRAM_BYTES = 500_000_000


@dataclass(frozen=True)
class MemoryRange:
    """Bytes of a component, or of all: at the least, as expected, at the most."""

    low: int
    expected: int
    high: int


@dataclass(frozen=True)
class Sizes:
    """The numbers of a training that memory depends on, of its base and of its adapters."""

    hidden: int
    inner: int
    heads: int
    vocabulary: int
    n_layers: int
    n_embedding: int
    n_adapted: int
    n_other_linear: int
    n_trainable: int
    sum_of_ranks: int
    n_tokens: int

    @classmethod
    def of(cls, shape: Mapping[str, Any], config: FineTuneConfig) -> "Sizes":
        """From the content of a `config.json` and the settings; tokens are those of a micro batch of the longest examples.

        Raises:
            InputError: the settings name a layer that the base does not have.
        """
        shape = completed(shape)
        hidden, vocabulary, n_layers = shape["hidden_size"], shape["vocab_size"], shape["num_hidden_layers"]
        linear = named_layers(shape)
        chosen = chosen_layers(list(linear), config.target_modules)
        require_fitting_patterns(config, chosen)
        ranks = {name: rank_of(config, name) for name in chosen}
        n_linear = sum(n_out * n_in for n_out, n_in in linear.values())
        n_adapted = sum(linear[name][0] * linear[name][1] for name in chosen)
        n_vocabularies = 1 if shape.get("tie_word_embeddings") else 2
        return cls(
            hidden=hidden,
            inner=shape["intermediate_size"],
            heads=shape["num_attention_heads"],
            vocabulary=vocabulary,
            n_layers=n_layers,
            n_embedding=vocabulary * hidden * n_vocabularies,
            n_adapted=n_adapted,
            n_other_linear=n_linear - n_adapted,
            n_trainable=sum(rank * sum(linear[name]) for name, rank in ranks.items()),
            sum_of_ranks=sum(ranks.values()),
            n_tokens=config.micro_batch_size * config.max_seq_len,
        )


def shape_in(folder: Path) -> JsonObject:
    """The content of a base's `config.json`."""
    shape: JsonObject = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return shape


# -- torch --------------------------------------------------------------------------------------------------------------


def memory_of(
    folder: Path, config: FineTuneConfig, *, packed_nf4: bool = False, dtype_bytes: int = 2
) -> dict[str, int]:
    """Bytes by component at the peak of a training step on torch, of the base in `folder`.

    Activations are for a token and layer 12 values of the hidden width, 7 of the inner width and each adapter's rank. With
    gradient checkpointing it is one value of the hidden width, and `RECOMPUTED_LAYERS` times what one layer keeps; `auto`
    counts so, because it makes do with that. A sharded base lies in pieces in `config.nproc` processes, but for the vocabulary
    and two layers at a time. `packed_nf4` is how CUDA holds the frozen weights; `dtype_bytes` are those of a value where the
    model computes.
    """
    sizes = Sizes.of(shape_in(folder), config)
    adapted_bytes = sizes.n_adapted * dtype_bytes
    if packed_nf4 and config.quantization == "nf4":
        adapted_bytes = sizes.n_adapted * 33 // 64  # 4.125 bits: codes, and one double-quantized scale for each 64
    in_layers = sizes.n_other_linear * dtype_bytes + adapted_bytes
    if config.sharded:  # this process's piece, the layer that computes and the one that is fetched for it meanwhile
        in_layers = in_layers // config.nproc + 2 * in_layers // sizes.n_layers
    kept = sizes.n_layers * (12 * sizes.hidden + 7 * sizes.inner) + sizes.sum_of_ranks
    if config.gradient_checkpointing != "off":  # each layer's input, and one layer at a time
        kept = sizes.n_layers * sizes.hidden + RECOMPUTED_LAYERS * kept // sizes.n_layers
    return {
        "frozen weights": sizes.n_embedding * dtype_bytes + in_layers,
        "adapters and gradients": sizes.n_trainable * 8,
        "optimizer (8-bit)": sizes.n_trainable * 2,
        "activations": sizes.n_tokens * kept * dtype_bytes,
        "logits": 2 * LOGIT_CHUNK * sizes.vocabulary * 4,
        "program": TORCH_PROGRAM_BYTES,
    }


# -- MLX ----------------------------------------------------------------------------------------------------------------


def kept_bytes(*, n_layers: int, hidden: int, inner: int, heads: int, n_tokens: int, value_bytes: int) -> int:
    """Bytes kept from forward to backward pass by `n_layers` blocks that are not computed again.

    For each token about ten values of the hidden width and six of the inner width, and the attention probabilities: read
    off MLX's own counter on a CPU, 0–15 % above it. Metal's attention may keep less.
    """
    return n_layers * n_tokens * (10 * hidden + 6 * inner + heads * n_tokens) * value_bytes


def recomputed_bytes(*, n_layers: int, hidden: int, inner: int, n_tokens: int, value_bytes: int) -> int:
    """Bytes of the same where every block is computed again: about six values of the hidden width for each token and block,
    and twice what one block keeps."""
    return n_tokens * (n_layers * 6 * hidden + 2 * (10 * hidden + 6 * inner)) * value_bytes


def score_bytes(*, heads: int, n_tokens: int) -> int:
    """Bytes of one block's attention scores in its backward pass: about three float32 arrays [heads, n_tokens, n_tokens]."""
    return 3 * heads * n_tokens**2 * 4


def mlx_memory_of(shape: Mapping[str, Any], config: FineTuneConfig, *, value_bytes: int = 2) -> dict[str, int]:
    """Bytes by component at the peak of a training step on MLX, for a base whose `config.json` holds `shape`.

    Every block is computed again in the backward pass unless `gradient_checkpointing` is off. `value_bytes` is 4 where MLX
    computes on a CPU.
    """
    sizes = Sizes.of(shape, config)
    bits: float = 8 * value_bytes
    if config.quantization == "nf4":
        bits = 4 + 2 * 16 / config.nf4_block_size  # codes, and a scale and an offset for each group
    parts = {
        "n_layers": sizes.n_layers,
        "hidden": sizes.hidden,
        "inner": sizes.inner,
        "n_tokens": sizes.n_tokens,
        "value_bytes": value_bytes,
    }
    activations = recomputed_bytes(**parts)
    if config.gradient_checkpointing == "off":
        activations = kept_bytes(heads=sizes.heads, **parts)
    return {
        "frozen weights": int(sizes.n_adapted * bits / 8) + (sizes.n_other_linear + sizes.n_embedding) * value_bytes,
        # float32 values, the gradients of a micro batch, and the sum that they are added to
        "adapters and gradients": sizes.n_trainable * 12,
        "optimizer (float32)": sizes.n_trainable * 8,
        "activations": activations,
        "attention scores": score_bytes(heads=sizes.heads, n_tokens=sizes.n_tokens),
        "logits": 3 * LOGIT_CHUNK * sizes.vocabulary * 4,
        "program": MLX_PROGRAM_BYTES,
    }


# -- both ---------------------------------------------------------------------------------------------------------------


def memory_range(components: Mapping[str, int]) -> dict[str, MemoryRange]:
    """Each component at the least, as expected and at the most, and their sums under `total`.

    >>> memory_range({"frozen weights": 100, "activations": 40})["total"]
    MemoryRange(low=130, expected=140, high=150)
    """
    ranges = {}
    for name, size in components.items():
        low, high = UNCERTAINTY.get(name, (1, 1))
        ranges[name] = MemoryRange(int(size * low), size, int(size * high))
    total = MemoryRange(
        low=sum(part.low for part in ranges.values()),
        expected=sum(part.expected for part in ranges.values()),
        high=sum(part.high for part in ranges.values()),
    )
    return ranges | {"total": total}
