"""The one training loop: batch, loss, backward, clip, step, log, evaluate, save.

SFT, RAFT and DPO differ by the loss handed in; torch and MLX by the trainee. The loss of a step is the sum over its
supervised tokens divided once by their number, so it does not depend on how the step is cut into micro batches.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
from ai_forge.training.backends.base import Loss, Trainee
from ai_forge.training.callbacks import DivergenceGuard, EarlyStopping, LossPlotter, MemoryMonitor, MetricsLogger
from ai_forge.training.callbacks.metrics_logger import replay
from ai_forge.training.checkpoint import (
    checkpoint_folder,
    full_disk_told,
    is_whole,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from ai_forge.training.group import ALONE, Group
from ai_forge.training.losses import Objective, as_objective
from ai_forge.training.oom_recovery import MicroBatches, stop_training
from ai_forge.training.plan import Schedule
from ai_forge.training.tokens.packing import step_order

MIN_EVALUATIONS = 4


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


@contextlib.contextmanager
def interrupt_noted() -> Iterator[threading.Event]:
    """Ctrl-C sets the yielded event, so that the step in hand is finished and saved; a second one interrupts at once."""
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(signum: int, frame: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def run_loop(
    trainee: Trainee,
    train: Sequence[Any],
    held_out: Sequence[Any],
    config: FineTuneConfig,
    schedule: Schedule,
    folder: Path,
    loss: Loss | Objective,
    emit: Sink,
    clock: Callable[[], float] = time.perf_counter,
    sample: Callable[[], Iterable[tuple[str, str]]] = tuple,
    group: Group = ALONE,
) -> tuple[int, list[dict[str, object]]]:
    """Train to the end of the schedule, resuming from the newest whole checkpoint under `folder`.

    `train` and `held_out` hold what the objective `loss` is about: tokenized examples or pairs. `sample` gives questions with
    the model's answers, every `config.sample_every` steps. All processes of a `group` call this with the same arguments.

    Returns the step whose adapter is the result (the lowest held-out loss, or the last: `config.result_step`) and the
    history; the trainee holds that adapter afterwards.

    Raises:
        RefusedError: the loss is not a finite number or the training diverged; the step's batch is kept in `folder`.
        PrerequisiteError: one example is too much for the memory, or a checkpoint cannot be written.
        TransientError: the checkpoint of the best step was damaged while others were written.
        KeyboardInterrupt: Ctrl-C; a checkpoint has been saved.
    """
    metrics, stopping = MetricsLogger(), EarlyStopping(config.early_stopping_patience)
    plotter = LossPlotter(folder / "loss.png") if group.rank == 0 else ignore
    monitor = MemoryMonitor(trainee.memory_total_bytes(), config.memory_warn_fraction, emit)
    objective, micro, guard = as_objective(loss), MicroBatches.of(config, emit, group), DivergenceGuard()

    def publish(event: Event) -> None:
        for listener in (metrics, stopping, guard, plotter, monitor, emit):
            listener(event)

    def save(step: int) -> None:
        def write() -> str:
            saved = save_checkpoint(folder, step, trainee, metrics.history, micro.size)
            prune_checkpoints(folder, config.keep_checkpoints, also=stopping.best_step)
            return saved.name

        publish(CheckpointSaved(step, group.first(write)))

    def judge(step: int) -> None:
        sums = micro.evaluate(trainee, objective, held_out)
        publish(EvalFinished(step, sums.mean_loss, sums.accuracy, sums.n_tokens))

    def stopped(step: int, why: str, chosen: Sequence[Any]) -> RefusedError:
        lower = f"lower training.learning_rate (now {config.learning_rate:g}) and run again."
        return group.first(lambda: stop_training(folder, step, why, objective, chosen, lower))

    first_step = 0
    checkpoint = group.first(
        lambda: newest_checkpoint(
            folder, lambda torn: emit(Notice("warning", f"checkpoint {torn.name} is damaged; using the one before it."))
        )
    )
    if checkpoint is not None:
        trainee.load_state(checkpoint.folder)
        first_step, micro.size = checkpoint.step, checkpoint.micro_batch_size or micro.size
        for event in replay(checkpoint.history):
            for listener in (metrics, stopping, guard, plotter):
                listener(event)
        emit(Notice("info", f"continuing after step {first_step} of {schedule.n_steps}."))
    else:
        judge(0)
        save(0)

    contexts = [item.context for item in train]
    per_step = config.micro_batch_size * config.grad_accum_steps
    eval_steps = min(config.eval_steps, math.ceil(schedule.n_steps / MIN_EVALUATIONS))
    reason, step, began = "all steps done", first_step, clock()
    with full_disk_told(folder), interrupt_noted() as interrupt:
        for step in range(first_step + 1, schedule.n_steps + 1):
            if stopping.reason and config.result_step == "best":
                step, reason = step - 1, stopping.reason
                break
            start = clock()
            chosen = [train[i] for i in step_order(contexts, per_step, step - 1, config.seed)]
            sums, n_tokens = micro.forward_backward(trainee, objective, chosen)
            mean_loss = sums.loss / objective.weight(chosen)
            grad_norm = trainee.clip_gradients(config.max_grad_norm)
            if not (math.isfinite(mean_loss) and math.isfinite(grad_norm)):
                why = f"The loss is {mean_loss}{'' if math.isfinite(grad_norm) else ' and its gradient no number'} at step {step}."
                raise stopped(step, why, chosen)
            learning_rate = learning_rate_at(step - 1, schedule.n_steps, config)
            trainee.step(learning_rate)
            publish(
                StepLogged(
                    step=step,
                    n_steps=schedule.n_steps,
                    loss=mean_loss,
                    accuracy=sums.accuracy,
                    learning_rate=learning_rate,
                    grad_norm=grad_norm,
                    tokens_per_s=n_tokens / (clock() - start),
                    memory_bytes=trainee.memory_bytes(),
                    eta_s=(clock() - began) / (step - first_step) * (schedule.n_steps - step),
                )
            )
            if guard.reason:
                raise stopped(step, guard.reason, chosen)
            if config.sample_every and step % config.sample_every == 0 and (group.rank == 0 or config.sharded):
                for question, answer in sample():
                    publish(AnswerSampled(step, question, answer))
            if step % eval_steps == 0 or step == schedule.n_steps:
                judge(step)
            is_best = stopping.best_step == step
            (n_interrupted,) = group.sum([interrupt.is_set()])
            if is_best or step % config.save_steps == 0 or n_interrupted or step == schedule.n_steps:
                save(step)
            if n_interrupted:
                raise KeyboardInterrupt
    publish(TrainingStopped(step, reason))
    best = step if config.result_step == "last" or stopping.best_step is None else stopping.best_step
    if best != step:
        saved = checkpoint_folder(folder, best)
        if not is_whole(saved):
            raise TransientError(
                f"The checkpoint of the best step, {saved.name}, was damaged on the disk.",
                "run the same command again: it continues from the newest whole one.",
            )
        trainee.load_state(saved)
    group.sum([0.0])  # rank 0 removes the checkpoints only when all have read them
    return best, metrics.history
