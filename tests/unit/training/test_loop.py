"""The loop on a tiny model: resumed runs repeat uninterrupted ones bit by bit, bad losses stop, the best step wins."""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ai_forge.cancel import CancelToken
from ai_forge.config import FineTuneConfig
from ai_forge.errors import CancelledError, RefusedError, TransientError
from ai_forge.events import CheckpointSaved, EvalFinished, Event, Notice, PlanMade, StepLogged, TrainingStopped
from ai_forge.training.backends.base import TokenSums
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.checkpoint import newest_checkpoint
from ai_forge.training.group import Alone
from ai_forge.training.loop import Surroundings, Task, run_loop
from ai_forge.training.losses import SupervisedObjective, sft_loss
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.plan import SCHEDULE, Schedule, learning_rate_at
from ai_forge.training.tokens.packing import TokenizedExample, collate, step_order
from tiny_models import make_tiny
from tiny_training import check_batch, random_examples, tiny_config

TRAIN, HELD_OUT = random_examples(10), random_examples(4, seed=1)
CONFIG = tiny_config(learning_rate=3e-3)
ONE_BATCH = tiny_config(learning_rate=3e-3, grad_accum_steps=1)


UNLEARN: dict[str, Any] = {"loss": lambda log_probs: log_probs.sum()}
"""Every step makes the held-out loss worse, so step 0 stays the best."""


def evaluate(trainee: Any, examples: list[TokenizedExample], size: int) -> TokenSums:
    return MicroBatches(size, lambda _: None).evaluate(trainee, SupervisedObjective(), examples)


class ProcessEndedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("loop"))


def fresh(base: Path, config: FineTuneConfig = CONFIG) -> TorchTrainee:
    return initialise(base, config, check_batch())[0]


def train(
    base: Path,
    folder: Path,
    config: FineTuneConfig = CONFIG,
    emit: Callable[[Event], None] = lambda _: None,
    n_steps: int = 6,
    loss: Any = sft_loss,
    held_out: list[TokenizedExample] = TRAIN,
) -> tuple[int, dict[str, bytes]]:
    """(best step, the adapter's bytes by name)."""
    folder.mkdir(exist_ok=True)
    trainee = fresh(base, config)
    schedule = Schedule(n_steps, len(TRAIN), 1.0, 1.0, "test")
    task = Task(TRAIN, held_out, SupervisedObjective(loss))
    best = run_loop(trainee, task, config, schedule, folder, Surroundings(emit)).best_step
    return best, {name: values.tobytes() for name, values in trainee.adapter().items()}


@pytest.fixture(scope="module")
def uninterrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, bytes]]:
    result = train(base, tmp_path_factory.mktemp("straight"))
    assert result[0] == 6  # the last step is the best, so its bytes hold every step before it
    return result


def stop_at(step: int, kind: type[Event]) -> Callable[[Event], None]:
    def sink(event: Event) -> None:
        if isinstance(event, kind) and event.step == step:  # type: ignore[attr-defined]
            raise ProcessEndedError

    return sink


def test_training_changes_the_adapter_and_lowers_the_training_loss(
    base: Path, uninterrupted: tuple[int, dict[str, bytes]], tmp_path: Path
) -> None:
    config = tiny_config(learning_rate=3e-3, eval_steps=30)
    trainee = fresh(base, config)
    before = evaluate(trainee, TRAIN, 2).mean_loss
    assert {n: v.tobytes() for n, v in trainee.adapter().items()} != uninterrupted[1]
    task = Task(TRAIN, TRAIN, SupervisedObjective())
    run_loop(trainee, task, config, Schedule(30, 10, 1.0, 1.0, ""), tmp_path)
    assert evaluate(trainee, TRAIN, 2).mean_loss < 0.7 * before


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (0, EvalFinished),
        (0, CheckpointSaved),
        (1, StepLogged),
        (3, StepLogged),
        (4, EvalFinished),
        (4, CheckpointSaved),
        (6, StepLogged),
        (6, CheckpointSaved),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    base: Path, uninterrupted: tuple[int, dict[str, bytes]], tmp_path: Path, step: int, kind: type[Event]
) -> None:
    with pytest.raises(ProcessEndedError):
        train(base, tmp_path, emit=stop_at(step, kind))
    heard: list[Event] = []
    assert train(base, tmp_path, emit=heard.append) == uninterrupted
    steps = [e.step for e in heard if isinstance(e, StepLogged)]
    assert steps == list(range(7 - len(steps), 7))
    if step >= 3:
        assert len(steps) < 6  # it continued, it did not begin again
        assert any(isinstance(e, Notice) and e.message.startswith("continuing after step ") for e in heard)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_checkpoint_is_told_and_the_bytes_are_the_same(
    base: Path, uninterrupted: tuple[int, dict[str, bytes]], tmp_path: Path, file: str, cut: bool
) -> None:
    with pytest.raises(ProcessEndedError):
        train(base, tmp_path, emit=stop_at(5, StepLogged))
    newest = max(tmp_path.glob("step-*"))
    raw = bytearray((newest / file).read_bytes())
    raw[len(raw) // 2] ^= 16
    (newest / file).write_bytes(raw[: len(raw) // 2] if cut else raw)
    heard: list[Event] = []
    assert train(base, tmp_path, emit=heard.append) == uninterrupted
    assert Notice("warning", f"checkpoint {newest.name} is damaged; using the one before it.") in heard


def test_a_best_checkpoint_that_rots_during_the_run_is_not_shipped(base: Path, tmp_path: Path) -> None:
    config = tiny_config(eval_steps=1, early_stopping_patience=2)

    def rot(event: Event) -> None:
        if isinstance(event, TrainingStopped):
            path = tmp_path / "step-000000" / "adapter_model.safetensors"
            os.truncate(path, path.stat().st_size - 1)

    with pytest.raises(TransientError, match=r"^The checkpoint of the best step, step-000000, was damaged on the disk"):
        train(base, tmp_path, config, emit=rot, **UNLEARN)
    assert train(base, tmp_path, config, **UNLEARN)[0] == 0


def test_early_stopping_ships_the_best_step(base: Path, tmp_path: Path) -> None:
    config = tiny_config(eval_steps=5, early_stopping_patience=2, keep_checkpoints=1)
    heard: list[Event] = []
    best, adapter = train(base, tmp_path, config, emit=heard.append, n_steps=20, **UNLEARN)
    losses = {e.step: e.loss for e in heard if isinstance(e, EvalFinished)}
    assert best == min(losses, key=lambda step: losses[step]) == 0
    start = {name: values.tobytes() for name, values in fresh(base, config).adapter().items()}
    assert adapter == start
    (stopped,) = (e for e in heard if isinstance(e, TrainingStopped))
    assert stopped.step == 2 * 5
    assert stopped.reason.startswith("held-out loss has not fallen in 2 evaluations (lowest ")


def test_the_last_step_is_the_result_where_it_is_asked_for(base: Path, tmp_path: Path) -> None:
    config = tiny_config(eval_steps=1, early_stopping_patience=2, result_step="last")
    best, adapter = train(base, tmp_path, config, n_steps=5, **UNLEARN)
    assert best == 5
    saved = fresh(base, config)
    saved.load_state(tmp_path / "step-000005")
    assert adapter == {name: values.tobytes() for name, values in saved.adapter().items()}


def test_a_run_cut_off_when_it_had_stopped_early_does_not_go_on(base: Path, tmp_path: Path) -> None:
    config = tiny_config(eval_steps=1, save_steps=1, early_stopping_patience=2)
    with pytest.raises(ProcessEndedError):
        train(base, tmp_path, config, emit=stop_at(2, TrainingStopped), **UNLEARN)
    heard: list[Event] = []
    assert train(base, tmp_path, config, emit=heard.append, **UNLEARN)[0] == 0
    assert [e for e in heard if isinstance(e, StepLogged)] == []
    assert TrainingStopped in {type(e) for e in heard}


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_loss_that_is_no_number_stops_the_run(base: Path, tmp_path: Path, bad: str) -> None:
    calls = iter([0.0, 0.0, float(bad)])
    with pytest.raises(RefusedError) as caught:
        train(base, tmp_path, loss=lambda log_probs: sft_loss(log_probs) + next(calls), config=ONE_BATCH)
    batch = tmp_path / "stopped-000003.json"
    assert str(caught.value) == (
        f"The loss is {bad} at step 3. Its batch is kept in {batch}. "
        "Next: lower training.learning_rate (now 0.003) and run again."
    )
    chosen = step_order([""] * len(TRAIN), 2, 2, ONE_BATCH.seed)
    assert [example["ids"] for example in json.loads(batch.read_text())["examples"]] == [
        list(TRAIN[i].ids) for i in chosen
    ]
    assert max(path.name for path in tmp_path.glob("step-*")) == "step-000002"


def test_the_logged_step_is_what_was_done(base: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    config = tiny_config(grad_accum_steps=2)
    train(base, tmp_path, config, emit=heard.append)
    steps = [e for e in heard if isinstance(e, StepLogged)]
    assert [e.learning_rate for e in steps] == [learning_rate_at(i, 6, config) for i in range(6)]
    assert all(e.grad_norm > 0 and e.tokens_per_s > 0 and e.memory_bytes > 0 for e in steps)
    assert steps[-1].eta_s == 0
    trainee = fresh(base, config)
    chosen = [TRAIN[i] for i in step_order([e.context for e in TRAIN], 4, 0, config.seed)]
    assert steps[0].loss == pytest.approx(evaluate(trainee, chosen, 2).mean_loss, rel=1e-3)
    assert steps[0].accuracy == evaluate(trainee, chosen, 2).accuracy


def test_evaluation_is_a_mean_over_tokens_whatever_the_batches(base: Path) -> None:
    trainee = fresh(base, tiny_config(quantization="none"))
    alone = [trainee.evaluate(collate([example])) for example in HELD_OUT]
    expected = sum(s.loss for s in alone) / sum(s.n_tokens for s in alone)
    for size in (1, 3, 4):
        sums = evaluate(trainee, HELD_OUT, size)
        assert sums.n_tokens == sum(e.n_supervised for e in HELD_OUT)
        assert sums.mean_loss == pytest.approx(expected, rel=2e-3)  # bf16


@pytest.mark.parametrize(("warmup", "n_steps"), [(0.05, 100), (0.0, 10), (0.5, 7), (0.99, 3)])
def test_the_learning_rate_rises_then_falls_towards_zero(warmup: float, n_steps: int) -> None:
    config = tiny_config(learning_rate=2e-4, warmup_ratio=warmup)
    rates = [learning_rate_at(step, n_steps, config) for step in range(n_steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(2e-4)
    assert all(0 < rate <= 2e-4 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_checkpoints_are_kept_by_number(base: Path, tmp_path: Path) -> None:
    config = tiny_config(save_steps=1, keep_checkpoints=2, eval_steps=100, learning_rate=0.5)
    train(base, tmp_path, config)
    kept = sorted(p.name for p in tmp_path.glob("step-*"))
    assert kept[-2:] == ["step-000005", "step-000006"]
    assert len(kept) <= 3  # and the best


def test_none_returns_before_all_have_read_the_result(base: Path, tmp_path: Path) -> None:
    """What returns in rank 0 removes the checkpoints."""
    calls: list[str] = []

    class Noted(Alone):
        def sum(self, values: Sequence[float]) -> list[float]:
            calls.append("met")
            return super().sum(values)

    class Reading(TorchTrainee):
        def load_state(self, folder: Path) -> None:
            super().load_state(folder)
            calls.append(f"read {folder.name}")

    trainee = fresh(base, ONE_BATCH)
    trainee.__class__ = Reading
    task = Task(TRAIN, TRAIN, SupervisedObjective(**UNLEARN))
    schedule = Schedule(1, 10, 1.0, 1.0, "")
    best = run_loop(trainee, task, ONE_BATCH, schedule, tmp_path, Surroundings(group=Noted())).best_step
    assert best == 0
    assert calls[-2:] == ["read step-000000", "met"]


class Machine:
    """A clock and how long a step takes on it: two seconds, after the sixth step three."""

    def __init__(self, done: int = 0) -> None:
        self.now, self.done = 0.0, done

    def clock(self) -> float:
        return self.now

    def listen(self, event: Event) -> None:
        if isinstance(event, StepLogged):
            self.done = event.step

    def trainee(self, base: Path) -> TorchTrainee:
        machine = self

        class Timed(TorchTrainee):
            def forward_backward(self, *args: Any) -> TokenSums:
                machine.now += 2.0 if machine.done < 6 else 3.0
                return super().forward_backward(*args)

            def evaluate(self, *args: Any) -> TokenSums:
                machine.now += 0.1
                return super().evaluate(*args)

        trainee = fresh(base, BUDGETED)
        trainee.__class__ = Timed
        return trainee


BUDGETED = tiny_config(learning_rate=3e-3, max_steps=None, time_budget_s=50.0, rank=2, target_modules=("q_proj",))
PESSIMISTIC = Schedule(1, 2, 4.0, 30.0, "time budget 50 s", budget_s=50.0)


def train_on_a_budget(
    base: Path, folder: Path, emit: Callable[[Event], None] = lambda _: None
) -> tuple[Schedule, dict[str, bytes], Machine]:
    """As the trainer does: with the schedule that lies there, where one does."""
    folder.mkdir(exist_ok=True)
    path = folder / SCHEDULE
    schedule = Schedule.load(path) if path.exists() else PESSIMISTIC
    checkpoint = newest_checkpoint(folder)
    machine = Machine(checkpoint.step if checkpoint else 0)
    trainee = machine.trainee(base)

    def listen(event: Event) -> None:
        machine.listen(event)
        emit(event)

    task = Task(TRAIN, HELD_OUT, SupervisedObjective())
    result = run_loop(trainee, task, BUDGETED, schedule, folder, Surroundings(listen, clock=machine.clock))
    return result.schedule, {name: values.tobytes() for name, values in trainee.adapter().items()}, machine


@pytest.fixture(scope="module")
def on_a_budget(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Schedule, dict[str, bytes], Machine]:
    return train_on_a_budget(base, tmp_path_factory.mktemp("budget"))


def test_a_budget_is_used_whatever_the_probe_said(on_a_budget: tuple[Schedule, dict[str, bytes], Machine]) -> None:
    schedule, _, machine = on_a_budget
    assert 40 < machine.now <= 50
    assert machine.done == schedule.n_steps > 10
    after = [laying.after_step for laying in schedule.layings]
    assert after[:3] == [0, 1, 8]  # after the first step, and when the machine had slowed down


@pytest.mark.parametrize(
    ("step", "kind"),
    [(1, StepLogged), (2, StepLogged), (3, StepLogged), (9, StepLogged), (8, PlanMade), (10, CheckpointSaved)],
)
def test_a_run_cut_off_on_a_budget_ends_with_the_same_bytes(
    base: Path, on_a_budget: tuple[Schedule, dict[str, bytes], Machine], tmp_path: Path, step: int, kind: type[Event]
) -> None:
    done = 0

    def stop(event: Event) -> None:
        nonlocal done
        if isinstance(event, StepLogged):
            done = event.step
        if isinstance(event, kind) and done == step:
            raise ProcessEndedError

    with pytest.raises(ProcessEndedError):
        train_on_a_budget(base, tmp_path, stop)
    schedule, adapter, _ = train_on_a_budget(base, tmp_path)
    assert schedule.layings == on_a_budget[0].layings
    assert adapter == on_a_budget[1]


def test_a_cancelled_run_saves_the_step_in_hand_and_continues(
    base: Path, uninterrupted: tuple[int, dict[str, bytes]], tmp_path: Path
) -> None:
    cancel = CancelToken()

    def ask_to_stop(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 3:
            threading.Thread(target=cancel.cancel, args=("the job was deleted",)).start()
            while not cancel.cancelled:
                time.sleep(0.001)

    def work() -> None:
        task = Task(TRAIN, TRAIN, SupervisedObjective())
        schedule = Schedule(6, len(TRAIN), 1.0, 1.0, "test")
        with pytest.raises(CancelledError, match=r"Cancelled \(the job was deleted\)"):
            run_loop(fresh(base), task, CONFIG, schedule, tmp_path, Surroundings(ask_to_stop, cancel=cancel))

    with ThreadPoolExecutor() as pool:  # a service's jobs do not run in the main thread
        pool.submit(work).result()
    assert max(path.name for path in tmp_path.glob("step-*")) == "step-000003"
    assert train(base, tmp_path) == uninterrupted
