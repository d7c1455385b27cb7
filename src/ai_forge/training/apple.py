"""What a training on MLX needs, computed from a base's shape, and the settings for a Mac by its memory.

    weights in 4-bit groups where they carry an adapter, in 16 bits elsewhere
    + adapters, their gradients and AdamW's moments in float32
    + what blocks keep for the backward pass; one block's own values and attention scores; a chunk of logits

Computed, not measured: no Apple machine was at hand. The activations' factors are read off MLX's own counter on a CPU,
in float32, and the tests compare the two. `config/apple_defaults.yaml` holds the settings, and a test computes that each
fits. Nothing here imports MLX.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig

MLX_LM_MODULES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma3_text": "gemma3_text",
}
"""`model_type` of a base that the MLX backend serves → mlx-lm's module; each is tested against transformers."""
GPU_SHARE = 0.7
"""Of the unified memory, what training may take: Metal recommends about two thirds to three quarters to a program."""
PROGRAM_BYTES = 500_000_000
LOGIT_CHUNK = 256


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
    """Bytes by component at the peak of a training step, for a base whose `config.json` holds `shape`.

    A micro batch of the longest examples is counted, with every block computed again in the backward pass unless
    `gradient_checkpointing` is off.
    """
    hidden, n_layers, inner = shape["hidden_size"], shape["num_hidden_layers"], shape["intermediate_size"]
    heads, vocabulary = shape["num_attention_heads"], shape["vocab_size"]
    head = shape.get("head_dim") or hidden // heads
    queries, keys = head * heads, head * (shape.get("num_key_value_heads") or heads)
    sides = {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
    names = ALL_LINEAR_MODULES if config.target_modules == ("all-linear",) else config.target_modules
    adapted = [sides[name] for name in names if name in sides]
    n_adapted = n_layers * sum(a * b for a, b in adapted)
    n_other = n_layers * sum(a * b for a, b in sides.values()) - n_adapted
    n_other += vocabulary * hidden * (1 if shape.get("tie_word_embeddings") else 2)
    n_trainable = n_layers * config.rank * sum(a + b for a, b in adapted)
    bits = 4 + 2 * 16 / config.nf4_block_size if config.quantization == "nf4" else 8 * value_bytes
    n_tokens = config.micro_batch_size * config.max_seq_len
    sizes = {"n_layers": n_layers, "hidden": hidden, "inner": inner, "n_tokens": n_tokens, "value_bytes": value_bytes}
    return {
        "frozen weights": int(n_adapted * bits / 8) + n_other * value_bytes,
        "adapters and gradients": n_trainable * 12,  # the gradients of a micro batch and the sum they are added to
        "optimizer (float32)": n_trainable * 8,
        "activations": kept_bytes(heads=heads, **sizes)
        if config.gradient_checkpointing == "off"
        else recomputed_bytes(**sizes),
        "attention scores": score_bytes(heads=heads, n_tokens=n_tokens),
        "logits": 3 * LOGIT_CHUNK * vocabulary * 4,
        "program": PROGRAM_BYTES,
    }


def mlx_memory_of_folder(folder: Path, config: FineTuneConfig, *, value_bytes: int = 2) -> dict[str, int]:
    """`mlx_memory_of` the base in `folder`; `value_bytes` is 4 where MLX computes on a CPU."""
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return mlx_memory_of(shape, config, value_bytes=value_bytes)


class AppleDefault(BaseModel):
    """The settings for a Mac with `memory_gb` of unified memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_gb: int = Field(gt=0)
    training: dict[str, Any]

    @property
    def config(self) -> FineTuneConfig:
        """The whole settings of a training."""
        return FineTuneConfig.model_validate(self.training)

    @property
    def flags(self) -> str:
        """What to add to `ai-forge run`."""
        words = [f"--base {self.config.base_model}"]
        for key, value in self.training.items():
            shown = f"[{','.join(value)}]" if isinstance(value, list) else value
            words += [f"--set training.{key}={shown}"] if key != "base_model" else []
        return " ".join(words)


@cache
def apple_defaults() -> tuple[AppleDefault, ...]:
    """The table that ships with the package, by rising memory."""
    text = (resources.files("ai_forge.config") / "apple_defaults.yaml").read_text(encoding="utf-8")
    return tuple(AppleDefault.model_validate(row) for row in yaml.safe_load(text))


def apple_default_for(memory_bytes: int) -> AppleDefault | None:
    """The row of the largest Mac that has no more memory than this one; None below the smallest."""
    fitting = [row for row in apple_defaults() if row.memory_gb * 0.95e9 <= memory_bytes]
    return fitting[-1] if fitting else None
