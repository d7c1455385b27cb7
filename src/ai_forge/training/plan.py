"""Before training: will it fit, how many steps, how long.

Memory is computed by component from the base's shapes; speed is measured by a probe of a few micro batches on the very
model and examples that will be trained, whose gradients are thrown away.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.training.backends.base import Loss, Trainee
from ai_forge.training.packing import TokenizedExample, collate, n_packed_tokens, step_order

PROBE_BATCHES = 3
BUDGET_SHARE = 0.93
"""Share of the time budget that is planned for: the rest is for checkpoints and the machine's moods."""


@dataclass(frozen=True)
class Schedule:
    """Over how many optimizer steps the learning rate is laid, and why so many."""

    n_steps: int
    n_examples: int
    tokens_per_s: float
    expected_s: float
    reason: str

    def save(self, path: Path) -> None:
        """Write it, so that a resumed run follows the same schedule."""
        from ai_forge.workspace import atomic_write

        atomic_write(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Schedule":
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def probe_speed(
    trainee: Trainee,
    examples: Sequence[TokenizedExample],
    config: FineTuneConfig,
    loss: Loss,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Training tokens per second over a few micro batches (the first warms up and is not counted)."""
    n_tokens, seconds = 0, 0.0
    contexts = [example.context for example in examples]
    for index in range(PROBE_BATCHES):
        chosen = step_order(contexts, config.micro_batch_size, index, config.seed)
        batch = collate([examples[i] for i in chosen])
        start = clock()
        trainee.forward_backward(batch, loss, batch.n_supervised)
        if index > 0:
            seconds += clock() - start
            n_tokens += batch.n_tokens
    trainee.discard_gradients()
    return n_tokens / seconds


def lay_schedule(
    examples: Sequence[TokenizedExample], n_eval_tokens: int, tokens_per_s: float, config: FineTuneConfig
) -> Schedule:
    """The steps that epochs, `max_steps` and time budget leave; the smallest wins and is named.

    Raises:
        InputError: the time budget is too short for one step.
    """
    per_step = config.micro_batch_size * config.grad_accum_steps
    first_epoch = step_order([e.context for e in examples], len(examples), 0, config.seed)
    n_tokens = n_packed_tokens([examples[i] for i in first_epoch], config.micro_batch_size)
    step_s = per_step * n_tokens / len(examples) / tokens_per_s
    limits = {f"{config.num_epochs} epochs": math.ceil(config.num_epochs * len(examples) / per_step)}
    if config.max_steps is not None:
        limits[f"max_steps {config.max_steps}"] = config.max_steps
    if config.time_budget_s is not None:
        evaluation_s = 5 * n_eval_tokens / (2.5 * tokens_per_s)  # a forward pass is about 2.5 times faster than both
        usable_s = max(BUDGET_SHARE * config.time_budget_s - evaluation_s, 0.0)
        limits[f"time budget {config.time_budget_s:.0f} s"] = int(usable_s / step_s)
    reason, n_steps = min(limits.items(), key=lambda item: item[1])
    if n_steps < 1:
        raise InputError(
            f"A time budget of {config.time_budget_s:.0f} s is too short: one step takes {step_s:.1f} s here.",
            f"give at least {math.ceil((step_s + evaluation_s) / BUDGET_SHARE)} s, or a smaller base or batch.",
        )
    n_examples = min(n_steps * per_step, len(examples))
    return Schedule(n_steps, n_examples, tokens_per_s, n_steps * step_s, reason)


def memory_of(
    folder: Path, config: FineTuneConfig, *, packed_nf4: bool = False, dtype_bytes: int = 2
) -> dict[str, int]:
    """Bytes by component at the peak of a training step of the base in `folder`: an estimate before anything is loaded.

    Read off the base's `config.json`. Activations are counted for a micro batch of the longest examples without
    gradient checkpointing, 34 bytes a token, layer and hidden unit at two bytes a value (arXiv 2205.05198, section 4.1,
    attention scores left out: they are never stored whole). `packed_nf4` is how CUDA holds the frozen weights.
    """
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, n_layers, vocabulary = shape["hidden_size"], shape["num_hidden_layers"], shape["vocab_size"]
    inner = shape["intermediate_size"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    queries = head * shape["num_attention_heads"]
    keys = head * shape.get("num_key_value_heads", shape["num_attention_heads"])
    sides = {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
    adapted = [sides[name] for name in config.target_modules if name in sides]
    n_adapted = n_layers * sum(a * b for a, b in adapted)
    n_trainable = n_layers * config.rank * sum(a + b for a, b in adapted)
    n_linear = n_layers * sum(a * b for a, b in sides.values())
    n_embedding = vocabulary * hidden * (1 if shape.get("tie_word_embeddings") else 2)
    packed = packed_nf4 and config.quantization == "nf4"
    frozen = n_adapted * 9 // 16 if packed else n_adapted * dtype_bytes
    n_tokens = config.micro_batch_size * config.max_seq_len
    return {
        "frozen weights": (n_linear - n_adapted + n_embedding) * dtype_bytes + frozen,
        "adapters and gradients": n_trainable * 8,
        "optimizer (8-bit)": n_trainable * 2,
        "activations": 17 * n_tokens * hidden * n_layers * dtype_bytes,
        "logits": 2 * 256 * vocabulary * 4,
        "program": 900_000_000,
    }


def require_memory(components: dict[str, int], available: int) -> None:
    """Stop before loading what cannot fit.

    Raises:
        PrerequisiteError: the estimate exceeds `available` bytes.
    """
    needed = sum(components.values())
    if needed > available:
        largest = ", ".join(
            f"{name} {size / 1e9:.1f}" for name, size in sorted(components.items(), key=lambda i: -i[1])[:3]
        )
        raise PrerequisiteError(
            f"Training needs about {needed / 1e9:.1f} GB of memory ({largest} GB); {available / 1e9:.1f} GB are free.",
            "choose a smaller base, or lower training.micro_batch_size or training.max_seq_len.",
        )
