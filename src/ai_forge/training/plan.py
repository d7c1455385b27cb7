"""Before training: how many steps, how long. Whether it fits is the part of `memory`.

Speed is measured by a probe of a few micro batches on the very model and examples that will be trained, whose gradients are
thrown away.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError
from ai_forge.events import ignore
from ai_forge.training.backends.base import Loss, Trainee
from ai_forge.training.group import ALONE, Group
from ai_forge.training.losses import Objective, as_objective
from ai_forge.training.memory import memory_of, require_memory
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.tokens.packing import TokenizedExample, n_packed_tokens, step_order

__all__ = ["Schedule", "lay_schedule", "memory_of", "probe_speed", "require_memory"]

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
    items: Sequence[Any],
    config: FineTuneConfig,
    loss: Loss | Objective,
    clock: Callable[[], float] = time.perf_counter,
    group: Group = ALONE,
) -> float:
    """Training tokens per second over a few micro batches of each process (the first warms up and is not counted)."""
    n_tokens, seconds = 0, 0.0
    objective, micro = as_objective(loss), MicroBatches.of(config, ignore, group)
    contexts = [item.context for item in items]
    for index in range(PROBE_BATCHES):
        chosen = [items[i] for i in step_order(contexts, group.size * config.micro_batch_size, index, config.seed)]
        start = clock()
        _, n_computed = micro.forward_backward(trainee, objective, chosen)
        if index > 0:
            seconds += clock() - start
            n_tokens += n_computed
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
