"""Will a training fit: memory by component, from the base's shapes, before anything is loaded.

    component               counted as
    frozen weights          exact: bytes of the weights as they are held
    adapters and gradients  exact: float32 values and gradients
    optimizer (8-bit)       exact: two bytes a trained value
    activations             calibrated: see `memory_of`
    logits                  one chunk and its gradient
    program                 Python, torch and its libraries

Activations of a micro batch of the longest examples were measured on SmolLM2-135M (rank 32 on all linear layers, 256 to 2,048
tokens, CPU): in float32 6 % below, in bfloat16 6 % above the formula. `low` and `high` allow for four times that. With gradient
checkpointing, logits and gradients included, a step of 1,024 tokens in bfloat16 took 281 to 647 MB in five runs and one of 2,048
567 MB, by how the heap lay; the formula says 358 and 577 (without: 919 to 1,204 MB of 1,024 tokens; 1,239).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_forge.config import FineTuneConfig
from ai_forge.config.models import load_models
from ai_forge.errors import PrerequisiteError
from ai_forge.model_files.architectures import completed, linear_shapes
from ai_forge.training.adapters.initialisation import chosen_layers, rank_of

SPREAD = {"activations": (0.75, 1.25), "attention scores": (0.75, 1.25), "logits": (0.5, 1.5), "program": (0.7, 1.6)}
"""By how much a component may be smaller or larger than expected; those not named are exact."""
SHORTEST_SEQ_LEN, SMALLEST_RANK = 256, 8
RECOMPUTED_LAYERS = 5
"""What one layer keeps, so many times, is what computing it again and its backward pass take together. That of torch's own
allocations is about one; the rest is memory that a CPU's allocator does not use again."""

Estimate = Callable[[FineTuneConfig], Mapping[str, int]]
"""The memory of a training with these settings, by component."""
Ways = list[dict[str, int | str]]
"""Changes of settings."""


@dataclass(frozen=True)
class MemoryRange:
    """Bytes of a component, or of all: at the least, as expected, at the most."""

    low: int
    expected: int
    high: int


def memory_of(
    folder: Path, config: FineTuneConfig, *, packed_nf4: bool = False, dtype_bytes: int = 2
) -> dict[str, int]:
    """Bytes by component at the peak of a training step of the base in `folder`, read off its `config.json`.

    Activations are those of a micro batch of the longest examples: for a token and layer 12 values of the hidden width, 7 of
    the inner width and each adapter's rank (attention scores are never kept). With gradient checkpointing it is one value of
    the hidden width, and `RECOMPUTED_LAYERS` times what one layer keeps; `auto` counts so, because it makes do with that.
    A sharded base lies in pieces in `config.nproc` processes, but for the vocabulary and two layers at a time.
    `packed_nf4` is how CUDA holds the frozen weights; `dtype_bytes` are those of a value where the model computes.
    """
    shape = completed(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    hidden, n_layers, vocabulary = shape["hidden_size"], shape["num_hidden_layers"], shape["vocab_size"]
    inner = shape["intermediate_size"]
    linear = linear_shapes(shape)
    layers = {f"model.layers.{i}.{name}": size for i in range(n_layers) for name, size in linear.items()}
    ranks = {name: rank_of(config, name) for name in chosen_layers(list(layers), config.target_modules)[0]}
    n_adapted = sum(layers[name][0] * layers[name][1] for name in ranks)
    n_trainable = sum(rank * sum(layers[name]) for name, rank in ranks.items())
    n_linear = sum(a * b for a, b in layers.values())
    n_embedding = vocabulary * hidden * (1 if shape.get("tie_word_embeddings") else 2)
    packed = packed_nf4 and config.quantization == "nf4"
    in_layers = (n_linear - n_adapted) * dtype_bytes + (n_adapted * 33 // 64 if packed else n_adapted * dtype_bytes)
    if config.sharded:
        in_layers = in_layers // config.nproc + 2 * in_layers // n_layers
    n_tokens = config.micro_batch_size * config.max_seq_len
    kept = n_layers * (12 * hidden + 7 * inner) + sum(ranks.values())
    if config.gradient_checkpointing != "off":
        kept = n_layers * hidden + RECOMPUTED_LAYERS * kept // n_layers
    return {
        "frozen weights": n_embedding * dtype_bytes + in_layers,
        "adapters and gradients": n_trainable * 8,
        "optimizer (8-bit)": n_trainable * 2,
        "activations": n_tokens * kept * dtype_bytes,
        "logits": 2 * 256 * vocabulary * 4,
        "program": 900_000_000,
    }


def memory_range(components: Mapping[str, int]) -> dict[str, MemoryRange]:
    """Each component at the least, as expected and at the most, and their sums under `total`.

    >>> memory_range({"frozen weights": 100, "activations": 40})["total"]
    MemoryRange(low=130, expected=140, high=150)
    """
    ranges = {
        name: MemoryRange(*(int(size * factor) for factor in (low, 1, high)))
        for name, size in components.items()
        for low, high in (SPREAD.get(name, (1, 1)),)
    }
    total = [sum(getattr(part, end) for part in ranges.values()) for end in ("low", "expected", "high")]
    return ranges | {"total": MemoryRange(*total)}


def with_checkpointing_settled(config: FineTuneConfig, available: int, estimate: Estimate) -> FineTuneConfig:
    """`config` with `gradient_checkpointing` auto made off where the estimate fits into `available` bytes with it, else on."""
    if config.gradient_checkpointing != "auto":
        return config
    keeping = config.model_copy(update={"gradient_checkpointing": "off"})
    fits = sum(estimate(keeping).values()) <= available
    return keeping if fits else config.model_copy(update={"gradient_checkpointing": "on"})


def require_memory(
    components: Mapping[str, int],
    available: int,
    config: FineTuneConfig | None = None,
    estimate: Estimate | None = None,
) -> None:
    """Stop before loading what cannot fit, and name what would: with `config` and its `estimate`.

    Raises:
        PrerequisiteError: the expected sum exceeds `available` bytes.
    """
    needed = sum(components.values())
    if needed <= available:
        return
    largest = ", ".join(
        f"{name} {size / 1e9:.1f}" for name, size in sorted(components.items(), key=lambda i: -i[1])[:3]
    )
    ways = what_would_fit(components, available, config, estimate) if config and estimate else []
    raise PrerequisiteError(
        f"Training needs about {needed / 1e9:.1f} GB of memory ({largest} GB); {available / 1e9:.1f} GB are free.",
        f"this would fit: {', or '.join(ways)}."
        if ways
        else "choose a smaller base, or lower training.micro_batch_size or training.max_seq_len.",
    )


def what_would_fit(
    components: Mapping[str, int], available: int, config: FineTuneConfig, estimate: Estimate
) -> list[str]:
    """Flags that make it fit: gradient checkpointing, the largest micro batch, length and rank that do alone, else together,
    else a named base."""
    steps = config.micro_batch_size * config.grad_accum_steps
    batches: Ways = [
        {"micro_batch_size": size, "grad_accum_steps": steps // size}
        for size in _halves(config.micro_batch_size, 1)
        if steps % size == 0
    ]
    lengths: Ways = [{"max_seq_len": length} for length in _halves(config.max_seq_len, SHORTEST_SEQ_LEN)]
    ranks: Ways = [{"rank": rank} for rank in _halves(config.rank, SMALLEST_RANK)]

    def first_that_fits(ways: Ways) -> Ways:
        fits = (way for way in ways if sum(estimate(config.model_copy(update=way)).values()) <= available)
        return [way for way in (next(fits, None),) if way]

    recomputing: Ways = [{"gradient_checkpointing": "on"}] if config.gradient_checkpointing == "off" else []
    found = [way for ways in (recomputing, batches, lengths, ranks) for way in first_that_fits(ways)]
    if not found:
        least = {"micro_batch_size": 1, "grad_accum_steps": steps, **(recomputing[0] if recomputing else {})}
        short = [least | length for length in lengths]
        found = first_that_fits([*short, *(way | rank for way in short for rank in ranks)])
    flags = [" ".join(f"--set training.{key}={value}" for key, value in way.items()) for way in found]
    return flags or _smaller_base(components, available, config)


def _halves(value: int, least: int) -> list[int]:
    """`value` halved again and again, down to `least`.

    >>> _halves(2048, 256)
    [1024, 512, 256]
    """
    halves = []
    while value // 2 >= least:
        value //= 2
        halves.append(value)
    return halves


def _smaller_base(components: Mapping[str, int], available: int, config: FineTuneConfig) -> list[str]:
    """The largest named base that fits, everything but the program scaled by its number of parameters."""
    registry = load_models()
    entry = registry.find(config.base_model)
    program = components.get("program", 0)
    rest = sum(components.values()) - program
    fitting = [
        (other.parameters, name)
        for name, other in registry.models.items()
        if entry is not None
        and other.parameters < entry[1].parameters
        and program + rest * other.parameters / entry[1].parameters <= available
    ]
    return [f"--base {max(fitting)[1]}"] if fitting else []
