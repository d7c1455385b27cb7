"""What to do where a training does not fit: refuse it before anything is loaded, and name the settings that would.

The memory itself is counted in `memory`, by the model of each backend; `Estimate` is that of one base on this machine.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ai_forge.config import FineTuneConfig
from ai_forge.config.models import load_models
from ai_forge.errors import PrerequisiteError
from ai_forge.training.backends import load_backend

SHORTEST_SEQ_LEN, SMALLEST_RANK = 256, 8

Estimate = Callable[[FineTuneConfig], Mapping[str, int]]
"""The memory of a training with these settings, by component."""
Ways = list[dict[str, int | str]]
"""Changes of settings."""


def require_fit(base_folder: Path, config: FineTuneConfig, n_here: int = 1) -> None:
    """Find out before training the base in `base_folder` that memory will not do, where `n_here` processes share it.

    Raises:
        InputError: the settings name a layer that the base does not have.
        PrerequisiteError: the backend is not installed, or the memory that is free is too little.
    """
    backend = load_backend(config.backend)

    def estimate(changed: FineTuneConfig) -> dict[str, int]:
        return backend.memory_needed(base_folder, changed)

    require_memory(estimate(config), backend.free_bytes(n_here), config, estimate)


def with_checkpointing_settled(config: FineTuneConfig, available: int, estimate: Estimate) -> FineTuneConfig:
    """`config` with `gradient_checkpointing` auto made off where the estimate fits into `available` bytes with it, else on."""
    if config.gradient_checkpointing != "auto":
        return config
    keeping = config.model_copy(update={"gradient_checkpointing": "off"})
    if sum(estimate(keeping).values()) <= available:
        return keeping
    return config.model_copy(update={"gradient_checkpointing": "on"})


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
    by_size = sorted(components.items(), key=lambda component: -component[1])
    largest = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in by_size[:3])
    next_step = "choose a smaller base, or lower training.micro_batch_size or training.max_seq_len."
    if config and estimate:
        ways = what_would_fit(components, available, config, estimate)
        if ways:
            next_step = f"this would fit: {', or '.join(ways)}."
    raise PrerequisiteError(
        f"Training needs about {needed / 1e9:.1f} GB of memory ({largest} GB); {available / 1e9:.1f} GB are free.",
        next_step,
    )


def what_would_fit(
    components: Mapping[str, int], available: int, config: FineTuneConfig, estimate: Estimate
) -> list[str]:
    """Flags that make it fit: gradient checkpointing, the largest micro batch, length and rank that do alone, else together,
    else a named base."""
    steps = config.micro_batch_size * config.grad_accum_steps  # examples of a step, which stay: so does the result
    batches: Ways = [
        {"micro_batch_size": size, "grad_accum_steps": steps // size}
        for size in _halves(config.micro_batch_size, 1)
        if steps % size == 0
    ]
    lengths: Ways = [{"max_seq_len": length} for length in _halves(config.max_seq_len, SHORTEST_SEQ_LEN)]
    ranks: Ways = [{"rank": rank} for rank in _halves(config.rank, SMALLEST_RANK)]

    def first_that_fits(ways: Ways) -> Ways:
        for way in ways:
            if sum(estimate(config.model_copy(update=way)).values()) <= available:
                return [way]
        return []

    recomputing: Ways = []
    if config.gradient_checkpointing == "off":
        recomputing = [{"gradient_checkpointing": "on"}]
    found = [way for ways in (recomputing, batches, lengths, ranks) for way in first_that_fits(ways)]
    if not found:
        least: dict[str, int | str] = {"micro_batch_size": 1, "grad_accum_steps": steps}
        for way in recomputing:
            least |= way
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
    if entry is None:  # a folder or a file: nobody has told how many parameters it has
        return []
    _, base = entry
    program = components.get("program", 0)
    rest = sum(components.values()) - program
    fitting = []
    for name, other in registry.models.items():
        is_smaller = other.parameters < base.parameters
        if is_smaller and program + rest * other.parameters / base.parameters <= available:
            fitting.append((other.parameters, name))
    if not fitting:
        return []
    _, largest = max(fitting)
    return [f"--base {largest}"]
