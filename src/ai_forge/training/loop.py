"""The one training loop: batch, loss, backward, clip, step, log, evaluate, save.

SFT, RAFT and DPO differ by the objective handed in; torch and MLX by the trainee. The loss of a step is the sum over its
supervised tokens divided once by their number, so it does not depend on how the step is cut into micro batches.

Who cancels the token stops the loop at the end of the step in hand, which is saved. Nothing here installs a signal handler.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.config import FineTuneConfig
from ai_forge.errors import RefusedError, TransientError
from ai_forge.events import (
    AnswerSampled,
    CheckpointSaved,
    EvalFinished,
    Event,
    Notice,
    Sink,
    StepLogged,
    TrainingStopped,
    ignore,
)
from ai_forge.training.backends.base import Trainee
from ai_forge.training.callbacks import DivergenceGuard, EarlyStopping, LossPlotter, MemoryMonitor, MetricsLogger
from ai_forge.training.checkpoint import (
    checkpoint_folder,
    full_disk_told,
    is_whole,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from ai_forge.training.group import ALONE, Group, cancellation
from ai_forge.training.losses import Objective
from ai_forge.training.oom_recovery import MicroBatches, stop_training
from ai_forge.training.plan import SCHEDULE, Schedule, laid_anew
from ai_forge.training.tokens.packing import step_order

MIN_EVALUATIONS = 4


@dataclass(frozen=True)
class Task:
    """What is trained on, what is watched, and what is minimised: items are what the objective is about."""

    train: Sequence[Any]
    held_out: Sequence[Any]
    objective: Objective


@dataclass(frozen=True)
class Surroundings:
    """What the loop tells, asks and reads besides. All processes of a `group` run the loop with the same task.

    `sample` gives questions with the model's answers, every `config.sample_every` steps.
    """

    emit: Sink = ignore
    sample: Callable[[], Iterable[tuple[str, str]]] = tuple
    group: Group = ALONE
    cancel: CancelToken = NEVER
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class LoopResult:
    """What the trainee holds after the loop: the adapter of `best_step`. The schedule is the last that was laid."""

    best_step: int
    schedule: Schedule
    history: tuple[StepLogged | EvalFinished, ...]


def run_loop(
    trainee: Trainee,
    task: Task,
    config: FineTuneConfig,
    schedule: Schedule,
    folder: Path,
    around: Surroundings | None = None,
) -> LoopResult:
    """Train to the end of the schedule, resuming from the newest whole checkpoint under `folder`.

    The result is the step of the lowest held-out loss, or the last: `config.result_step`.

    Raises:
        RefusedError: the loss is not a finite number or the training diverged; the step's batch is kept in `folder`.
        PrerequisiteError: one example is too much for the memory, or a checkpoint cannot be written.
        TransientError: the checkpoint of the best step was damaged while others were written.
        CancelledError: a process's token was cancelled; a checkpoint has been saved.
    """
    run = _Run(trainee, task, config, schedule, folder, around or Surroundings())
    objective, micro, clock = task.objective, run.micro, run.around.clock
    step = first_step = run.resume()
    began = clock()
    with full_disk_told(folder):
        while step < run.schedule.n_steps_after(step) and not run.stops_early:
            step += 1
            start = clock()
            items = run.items_of(step)
            sums, n_tokens = micro.forward_backward(trainee, objective, items)
            mean_loss = sums.loss / objective.weight(items)
            grad_norm = trainee.clip_gradients(config.max_grad_norm)
            run.require_numbers(step, mean_loss, grad_norm, items)
            learning_rate = run.schedule.learning_rate(step - 1, config)
            trainee.step(learning_rate)
            seconds, n_steps = clock() - start, run.schedule.n_steps_after(step - 1)
            run.publish(
                StepLogged(
                    step=step,
                    n_steps=n_steps,
                    loss=mean_loss,
                    accuracy=sums.accuracy,
                    learning_rate=learning_rate,
                    grad_norm=grad_norm,
                    tokens_per_s=n_tokens / seconds,
                    memory_bytes=trainee.memory_bytes(),
                    eta_s=(clock() - began) / (step - first_step) * (n_steps - step),
                    seconds=seconds,
                )
            )
            run.require_convergence(step, items)
            run.lay_schedule_anew()
            run.sample(step)
            is_last = step >= run.schedule.n_steps_after(step)  # asked again: the schedule may have been laid anew
            if is_last or step % run.eval_steps(step) == 0:
                run.evaluate(step)
            cancelled = cancellation(run.around.cancel, run.around.group)
            if is_last or cancelled or run.is_best(step) or step % config.save_steps == 0:
                run.save(step)
            if cancelled:
                raise cancelled
    return run.finish(step)


class _Run:
    """The parts of one run of the loop, and what the loop does between its steps."""

    def __init__(
        self,
        trainee: Trainee,
        task: Task,
        config: FineTuneConfig,
        schedule: Schedule,
        folder: Path,
        around: Surroundings,
    ) -> None:
        self.trainee, self.task, self.config = trainee, task, config
        self.schedule, self.folder, self.around = schedule, folder, around
        self.micro = MicroBatches.of(config, around.emit, around.group)
        self.stopping = EarlyStopping(config.early_stopping_patience)
        self._metrics, self._guard = MetricsLogger(), DivergenceGuard()
        self._contexts = [item.context for item in task.train]
        self._plot: Sink = ignore
        if around.group.rank == 0:  # which alone writes
            self._plot = LossPlotter(folder / "loss.png")
        monitor = MemoryMonitor(trainee.memory_total_bytes(), config.memory_warn_fraction, around.emit)
        # those that have to hear the whole history, also what happened before a resume
        self._remembering: tuple[Sink, ...] = (self._metrics, self.stopping, self._guard, self._plot)
        self._listeners = (*self._remembering, monitor, around.emit)

    def publish(self, event: Event) -> None:
        """Tell all listeners."""
        for listener in self._listeners:
            listener(event)

    def resume(self) -> int:
        """Load the newest whole checkpoint and return its step; at the very start evaluate and save step 0."""

        def warn(torn: Path) -> None:
            self.around.emit(Notice("warning", f"checkpoint {torn.name} is damaged; using the one before it."))

        # rank 0 chooses for all, so that all continue from the same
        checkpoint = self.around.group.broadcast(lambda: newest_checkpoint(self.folder, warn))
        if checkpoint is None:
            self.evaluate(0)
            self.save(0)
            return 0
        self.trainee.load_state(checkpoint.folder)
        self.micro.size = checkpoint.micro_batch_size or self.micro.size  # halved ones stay so: batches are cut alike
        for event in checkpoint.history:
            for listener in self._remembering:
                listener(event)
        n_steps = self.schedule.n_steps_after(checkpoint.step)
        self.around.emit(Notice("info", f"continuing after step {checkpoint.step} of {n_steps}."))
        return checkpoint.step

    def items_of(self, step: int) -> list[Any]:
        """What step `step` (counted from 1) trains on; the same in all processes, which share them out."""
        n_items = self.config.micro_batch_size * self.config.grad_accum_steps
        return [self.task.train[i] for i in step_order(self._contexts, n_items, step - 1, self.config.seed)]

    def require_numbers(self, step: int, loss: float, grad_norm: float, items: Sequence[Any]) -> None:
        """Raises `RefusedError` before a step that would make the adapter no numbers."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return
        gradient = ""
        if not math.isfinite(grad_norm):
            gradient = " and its gradient no number"
        raise self._stopped(step, f"The loss is {loss}{gradient} at step {step}.", items)

    def require_convergence(self, step: int, items: Sequence[Any]) -> None:
        """Raises `RefusedError` once the training has diverged."""
        if self._guard.reason:
            raise self._stopped(step, self._guard.reason, items)

    def _stopped(self, step: int, why: str, items: Sequence[Any]) -> RefusedError:
        lower = f"lower training.learning_rate (now {self.config.learning_rate:g}) and run again."
        objective = self.task.objective
        return self.around.group.broadcast(lambda: stop_training(self.folder, step, why, objective, items, lower))

    def lay_schedule_anew(self) -> None:
        """Where a time budget decides, let the schedule follow the speed; rank 0's clock decides for all."""
        if self.schedule.budget_s is None:
            return
        before, n_items = self.schedule, len(self.task.train)
        group = self.around.group
        self.schedule = group.broadcast(lambda: laid_anew(before, self._metrics.history, n_items, self.config))
        if self.schedule == before:
            return
        # Kept before the next step: a run that is killed in it repeats this laying instead of measuring again.
        group.broadcast(lambda: self.schedule.save(self.folder / SCHEDULE))
        self.publish(self.schedule.event)

    def sample(self, step: int) -> None:
        """Every `config.sample_every` steps tell what the model answers."""
        every, group = self.config.sample_every, self.around.group
        # rank 0 alone asks, but where the base is sharded: no process can compute an answer without the others' pieces
        if every == 0 or step % every != 0 or (group.rank != 0 and not self.config.sharded):
            return
        for question, answer in self.around.sample():
            self.publish(AnswerSampled(step, question, answer))

    def eval_steps(self, step: int) -> int:
        """Steps between evaluations: short schedules are watched, too."""
        return min(self.config.eval_steps, math.ceil(self.schedule.n_steps_after(step) / MIN_EVALUATIONS))

    def evaluate(self, step: int) -> None:
        """Measure the held-out loss after `step` steps."""
        start = self.around.clock()
        sums = self.micro.evaluate(self.trainee, self.task.objective, self.task.held_out)
        seconds = self.around.clock() - start
        self.publish(EvalFinished(step, sums.mean_loss, sums.accuracy, sums.n_tokens, seconds))

    def is_best(self, step: int) -> bool:
        """Whether the held-out loss after `step` steps is the lowest so far."""
        return self.stopping.best_step == step

    @property
    def stops_early(self) -> bool:
        """Whether the held-out loss has stopped falling, where the step of the lowest is the result."""
        return self.stopping.reason is not None and self.config.result_step == "best"

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`, and remove those that are no longer needed."""

        def write() -> str:
            saved = save_checkpoint(self.folder, step, self.trainee, self._metrics.history, self.micro.size)
            prune_checkpoints(self.folder, self.config.keep_checkpoints, also=self.stopping.best_step)
            return saved.name

        self.publish(CheckpointSaved(step, self.around.group.broadcast(write)))

    def finish(self, last: int) -> LoopResult:
        """After `last` steps tell why it stopped, and let the trainee hold the adapter that is the result.

        Raises:
            TransientError: its checkpoint was damaged since it was written.
        """
        why = "all steps done"
        if last < self.schedule.n_steps_after(last):
            why = self.stopping.reason or ""
        self.publish(TrainingStopped(last, why))
        best = last
        if self.config.result_step == "best" and self.stopping.best_step is not None:
            best = self.stopping.best_step
        if best != last:
            saved = checkpoint_folder(self.folder, best)
            if not is_whole(saved):
                raise TransientError(
                    f"The checkpoint of the best step, {saved.name}, was damaged on the disk.",
                    "run the same command again: it continues from the newest whole one.",
                )
            self.trainee.load_state(saved)
        self.around.group.sum([0.0])  # rank 0 removes the checkpoints only when all have read them
        return LoopResult(best, self.schedule, tuple(self._metrics.history))
