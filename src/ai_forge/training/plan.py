"""Before training: how many steps, how long; and while training, anew. Whether it fits is the part of `memory`.

Speed is measured by a probe of a few micro batches on the very model and examples that will be trained, whose gradients are
thrown away. On a busy machine a probe may be off by far: one measured 4 tokens/s, and a budget of 25 minutes became one step.
So where a time budget decides, the speed is taken again from the steps themselves and the rest of the schedule is laid anew.
Each laying is kept in `schedule.json` with the step after which it holds: a run that was cut off repeats it at the same step.
"""

import json
import math
import operator
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.config.models import load_models
from ai_forge.errors import InputError
from ai_forge.events import EvalFinished, PlanMade, Sink, StageProgress, StepLogged, ignore
from ai_forge.training.backends.base import Loss, Trainee
from ai_forge.training.group import ALONE, Group
from ai_forge.training.losses import Objective, as_objective
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.tokens.packing import TokenizedExample, n_packed_tokens, step_order
from ai_forge.workspace import atomic_write

SCHEDULE = "schedule.json"
PROBE_BATCHES = 3
PROBE_S = 20.0  # one that took longer is enough
BUSY = 1.5  # processes that want a core, for each core there is
BUDGET_SHARE = 0.93  # of the time budget is planned for: the rest is for checkpoints and the machine's moods
N_EVALUATIONS = 5  # that a budget is planned with: before the first step, then after each quarter
FORWARD_SPEEDUP = 2.5  # a forward pass alone is about so much faster than with its backward pass
# The speed is taken again after the early steps, when the probe may have been off by far, and then after every so many, from
# as many steps.
EARLY_STEPS = (1, 2, 4, 8)
WINDOW = 16
LEAST_STEPS = 8  # that a base's own budget stretches to: fewer teach nothing, and a busy machine must not end a run
LEAST_CHANGE = 0.05  # a schedule whose length would change by a smaller share stays as it is


def learning_rate_at(step: int, n_steps: int, config: FineTuneConfig) -> float:
    """Linear warm-up, then half a cosine to zero; `step` counts from 0.

    >>> config = FineTuneConfig(learning_rate=1.0, warmup_ratio=0.5)
    >>> [round(learning_rate_at(s, 4, config), 3) for s in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    n_warmup = math.ceil(config.warmup_ratio * n_steps)
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(n_steps - n_warmup, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Laying:
    """After `after_step` steps the schedule has `n_steps` in all."""

    after_step: int
    n_steps: int


@dataclass(frozen=True)
class Schedule:
    """Over how many optimizer steps the learning rate is laid, and why so many.

    `budget_s` are the seconds that decide, None where nothing is ever laid anew. `layings` are all lengths that the schedule
    has had, the first included, and none where it kept its first.
    """

    n_steps: int
    n_examples: int
    tokens_per_s: float
    expected_s: float
    reason: str
    budget_s: float | None = None
    layings: tuple[Laying, ...] = ()

    def n_steps_after(self, step: int) -> int:
        """How long the schedule is once `step` steps are done."""
        lengths = [laying.n_steps for laying in self.layings if laying.after_step <= step]
        return lengths[-1] if lengths else self.n_steps

    def learning_rate(self, step: int, config: FineTuneConfig) -> float:
        """That of the step after `step` others.

        Where the schedule was laid anew, the new curve is multiplied by what makes it go on where the old one was; that
        factor fades to 1 at the end. Never above the peak.
        """
        return _rate(step, [laying for laying in self.layings if laying.after_step <= step], self.n_steps, config)

    @property
    def event(self) -> PlanMade:
        """What listeners are told of it."""
        return PlanMade(self.n_steps, self.n_examples, self.tokens_per_s, self.expected_s, self.reason)

    def save(self, path: Path) -> None:
        """Write it, so that a resumed run follows the same schedule."""
        atomic_write(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Schedule":
        """Read what `save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["layings"] = tuple(Laying(**laying) for laying in values.get("layings", ()))
        return cls(**values)


def _rate(step: int, layings: Sequence[Laying], n_steps: int, config: FineTuneConfig) -> float:
    if not layings:
        return learning_rate_at(step, n_steps, config)
    *earlier, last = layings
    rate = learning_rate_at(step, last.n_steps, config)
    if not earlier:
        return rate
    # the old curve's rate at the last step that followed it, as a multiple of the new one's there
    last_done = last.after_step - 1
    jump = _rate(last_done, earlier, n_steps, config) / learning_rate_at(last_done, last.n_steps, config)
    still_to_go = (last.n_steps - step) / (last.n_steps - last_done)
    return min(rate * (1 + (jump - 1) * still_to_go), config.learning_rate)


def probe_speed(
    trainee: Trainee,
    items: Sequence[Any],
    config: FineTuneConfig,
    loss: Loss | Objective,
    clock: Callable[[], float] = time.perf_counter,
    group: Group = ALONE,
    emit: Sink = ignore,
) -> float:
    """Training tokens per second over a few micro batches of each process (the first warms up and is not counted).

    On a machine that is so busy that they would take minutes, over the first that is counted.
    """
    n_tokens, seconds = 0, 0.0
    objective, micro = as_objective(loss), MicroBatches.of(config, ignore, group)
    contexts = [item.context for item in items]
    for index in range(PROBE_BATCHES):
        if index > 1 and group.broadcast(partial(operator.gt, seconds, PROBE_S)):
            break
        emit(StageProgress("train", index, PROBE_BATCHES, "measuring the speed"))
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

    A budget that is the base's own (`models.yaml`) is as long as a few steps take here, whatever it says.

    Raises:
        InputError: the user's time budget is too short for one step.
    """
    per_step = config.micro_batch_size * config.grad_accum_steps
    first_epoch = step_order([e.context for e in examples], len(examples), 0, config.seed)
    n_tokens = n_packed_tokens([examples[i] for i in first_epoch], config.micro_batch_size)
    step_s = per_step * n_tokens / len(examples) / tokens_per_s
    limits = {f"{config.num_epochs} epochs": math.ceil(config.num_epochs * len(examples) / per_step)}
    if config.max_steps is not None:
        limits[f"max_steps {config.max_steps}"] = config.max_steps
    budget_s = config.time_budget_s
    if budget_s is not None:
        evaluation_s = N_EVALUATIONS * n_eval_tokens / (FORWARD_SPEEDUP * tokens_per_s)
        least = min(_least_steps(config), *limits.values())
        needed_s = math.ceil((least * step_s + evaluation_s) / BUDGET_SHARE)
        name = f"time budget {budget_s:.0f} s"
        if budget_s < needed_s and least > 1:
            name += f", stretched to {needed_s} s for {least} steps"
            budget_s = float(needed_s)
        usable_s = max(BUDGET_SHARE * budget_s - evaluation_s, 0.0)
        limits[name] = int(usable_s / step_s + 1e-9)
    reason, n_steps = min(limits.items(), key=lambda item: item[1])
    if n_steps < 1:
        raise InputError(
            f"A time budget of {config.time_budget_s:.0f} s is too short: one step takes {step_s:.1f} s here.",
            f"{_wait_if_busy()}give at least {needed_s} s, or a smaller base or batch.",
        )
    n_examples = min(n_steps * per_step, len(examples))
    if config.max_steps:
        budget_s = None
    return Schedule(n_steps, n_examples, tokens_per_s, n_steps * step_s, reason, budget_s)


def _least_steps(config: FineTuneConfig) -> int:
    """How many steps a budget has to hold: one where the user gave it, a few where the base brought it along."""
    found = load_models().find(config.base_model)
    if found is None:
        return 1
    return LEAST_STEPS if found[1].recipe.get("training.time_budget_s") == config.time_budget_s else 1


def _wait_if_busy() -> str:
    """The first thing to do where something else is at work: what was measured is then the machine's share, not its speed."""
    load, n_cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < BUSY * n_cores:
        return ""
    return f"wait until the machine is idle (load {load:.1f} on {n_cores} cores), or "


def laid_anew(
    schedule: Schedule, history: Sequence[StepLogged | EvalFinished], n_items: int, config: FineTuneConfig
) -> Schedule:
    """`schedule` with as many steps as its budget leaves at the speed of the last steps of `history`.

    It comes back as it was where no budget decides, where it is not yet time, where little would change, and where a run that
    was cut off has decided on this step or a later one already. Nothing but the arguments counts, so processes agree that
    have them from one.
    """
    steps = [event for event in history if isinstance(event, StepLogged)]
    done = steps[-1].step
    is_decided = bool(schedule.layings) and schedule.layings[-1].after_step >= done
    if schedule.budget_s is None or is_decided or not (done in EARLY_STEPS or done % WINDOW == 0):
        return schedule
    evaluations = [event.seconds for event in history if isinstance(event, EvalFinished)]
    recent = steps[-WINDOW:]
    step_s = fmean(event.seconds for event in recent)
    spent_s = sum(event.seconds for event in steps) + sum(evaluations)
    to_evaluate_s = fmean(evaluations) * max(N_EVALUATIONS - len(evaluations), 1)
    left_s = BUDGET_SHARE * schedule.budget_s - spent_s - to_evaluate_s
    per_step = config.micro_batch_size * config.grad_accum_steps
    in_all_epochs = math.ceil(config.num_epochs * n_items / per_step)
    in_budget = done + int(max(left_s, 0.0) / step_s)
    n_steps = max(done, min(in_all_epochs, max(in_budget, _least_steps(config))))
    if abs(n_steps - schedule.n_steps) <= LEAST_CHANGE * schedule.n_steps:
        return schedule
    reason = f"{config.num_epochs} epochs"
    if in_budget < in_all_epochs:
        reason = f"time budget {schedule.budget_s:.0f} s"
    first = Laying(0, schedule.n_steps)
    return replace(
        schedule,
        n_steps=n_steps,
        n_examples=min(n_steps * per_step, n_items),
        tokens_per_s=sum(event.tokens_per_s * event.seconds for event in recent) / (step_s * len(recent)),
        expected_s=spent_s + (n_steps - done) * step_s,
        reason=reason,
        layings=(*(schedule.layings or (first,)), Laying(done, n_steps)),
    )
