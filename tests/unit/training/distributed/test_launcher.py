"""Several processes train as one does: the same losses and adapter; a dead process, an error and Ctrl-C end them all."""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.config import FineTuneConfig
from ai_forge.errors import CancelledError, InputError, InternalError, TransientError
from ai_forge.events import CheckpointSaved, EvalFinished, Event, Notice, StepLogged
from ai_forge.model_files.base import Base
from ai_forge.training.backends.base import Loss, TokenSums
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.checkpoint import newest_checkpoint
from ai_forge.training.distributed.launcher import run_trainer
from ai_forge.training.forge import FineTuneTrainer, TrainingPlan
from ai_forge.training.record import TrainingResult
from ai_forge.training.tokens.packing import Batch
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import raft_examples, tiny_config

CONFIG = tiny_config(learning_rate=1e-3, grad_accum_steps=3, micro_batch_size=1, eval_steps=3)
"""Three examples a step, so that two processes take one and two."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("base")
    return resolve_base(str(make_tiny(root / "base", hidden=128, inner=256)), cache_dir=root / "cache")


def train(
    base: Base,
    root: Path,
    config: FineTuneConfig,
    emit: Callable[[Event], None] = lambda _: None,
    kind: type[FineTuneTrainer] = FineTuneTrainer,
    cancel: CancelToken = NEVER,
) -> TrainingResult:
    (root / "work").mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {"base": base, "folder": root / "work", "workspace": Workspace.open(root / "home")}
    data = raft_examples(8), raft_examples(3)
    result: TrainingResult = run_trainer(kind, config, "train", *data, emit=emit, cancel=cancel, **parts)
    return result


def many(n: int = 2, **changes: Any) -> FineTuneConfig:
    return CONFIG.model_copy(update={"nproc": n} | changes)


@pytest.fixture(scope="module")
def alone(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, list[Event]]:
    heard: list[Event] = []
    return train(base, tmp_path_factory.mktemp("alone"), CONFIG, heard.append), heard


def steps(heard: list[Event]) -> list[tuple[int, float, float, float]]:
    return [(e.step, e.loss, e.accuracy, e.grad_norm) for e in heard if isinstance(e, StepLogged)]


def held_out(heard: list[Event]) -> list[tuple[int, float, int]]:
    return [(e.step, e.loss, e.n_tokens) for e in heard if isinstance(e, EvalFinished)]


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_losses_and_the_adapter_are_those_of_one_process(
    base: Base, alone: tuple[TrainingResult, list[Event]], tmp_path: Path, n: int
) -> None:
    heard: list[Event] = []
    result = train(base, tmp_path, many(n), heard.append)
    expected, expected_events = alone
    assert len(steps(heard)) == 6
    np.testing.assert_allclose(steps(heard), steps(expected_events), rtol=2e-3)
    np.testing.assert_allclose(held_out(heard), held_out(expected_events), rtol=1e-3)
    assert result.best_step == expected.best_step == 6
    ours, theirs = (load_file(r.folder / "adapter_model.safetensors") for r in (result, expected))
    before = load_file(expected.folder / "initial_adapter.safetensors")
    for name, values in theirs.items():
        moved = np.abs(values - before[name]).mean()
        assert np.abs(ours[name] - values).mean() < 0.05 * moved, name


class ShortOfMemory(TorchTrainee):
    """Has room for one document at a time."""

    def forward_backward(self, batch: Batch, loss: Loss, divisor: float) -> TokenSums:
        if len(batch.boundaries) > 2:
            raise MemoryError("you tried to allocate 2 GB")
        return super().forward_backward(batch, loss, divisor)


class SecondIsShort(FineTuneTrainer):
    """The second process has less memory than the first."""

    def __init__(self, *args: Any, **parts: Any) -> None:
        super().__init__(*args, **parts)
        if self.group.rank == 1:
            self.backend = dataclasses.replace(self.backend, trainee=ShortOfMemory)


def test_memory_that_runs_out_in_one_process_is_told_and_all_halve(base: Base, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"micro_batch_size": 8, "grad_accum_steps": 1, "max_steps": 3})
    heard: dict[str, list[Event]] = {"alone": [], "short": []}
    train(base, tmp_path / "alone", config, heard["alone"].append)
    train(base, tmp_path / "short", config.model_copy(update={"nproc": 2}), heard["short"].append, SecondIsShort)
    told = [e.message for e in heard["short"] if isinstance(e, Notice) and "out of memory" in e.message]
    assert told == [
        f"out of memory with {before} examples at a time: now {before // 2}, {8 // before} passes a step; the result is the "
        "same (process 1 of 2: you tried to allocate 2 GB)."
        for before in (8, 4, 2)
    ]
    short, alone = (np.array(steps(heard[name])) for name in ("short", "alone"))
    np.testing.assert_allclose(np.delete(short, 2, axis=1), np.delete(alone, 2, axis=1), rtol=2e-3)
    n_tokens = 318  # of a step; an accuracy jumps by a whole one where two are as likely as each other
    np.testing.assert_allclose(short[:, 2], alone[:, 2], atol=1.01 / n_tokens, rtol=0)
    checkpoint = newest_checkpoint(tmp_path / "short" / "work")
    assert checkpoint is None  # a finished training leaves none


def test_a_plan_is_measured_in_the_processes_that_would_train(base: Base, tmp_path: Path) -> None:
    one, two = (plan_of(base, tmp_path / str(n), many(n)) for n in (1, 2))
    assert (one.processes, two.processes) == (1, 2)
    assert one.memory_bytes == two.memory_bytes  # of each of them
    assert one.n_steps == two.n_steps == 6
    assert all(plan.tokens_per_s > 0 and plan.gradient_checkpointing in ("off", "on") for plan in (one, two))
    assert two.memory_range_bytes["total"].expected == sum(two.memory_bytes.values())


def plan_of(base: Base, root: Path, config: FineTuneConfig) -> TrainingPlan:
    (root / "work").mkdir(parents=True)
    parts: dict[str, Any] = {"base": base, "folder": root / "work", "workspace": Workspace.open(root / "home")}
    plan: TrainingPlan = run_trainer(
        FineTuneTrainer, config, "plan", raft_examples(8), raft_examples(3), emit=lambda _: None, **parts
    )
    return plan


def test_a_failure_of_the_first_process_is_told_by_all(base: Base, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "schedule.json").write_text('{"n_steps": 1}')
    with pytest.raises(InternalError, match=r"(?s)Process 0 failed: .*missing 4 required positional arguments"):
        train(base, tmp_path, many())


def workers() -> list[int]:
    return [p.pid for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_a_killed_process_ends_the_others(base: Base, tmp_path: Path) -> None:
    def kill_the_second(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 4:
            os.kill(max(workers()), signal.SIGKILL)

    with pytest.raises(TransientError, match=r"Process 1 of 2 was ended from outside \(exit code -9\)"):
        train(base, tmp_path, many(), kill_the_second)
    assert workers() == []
    heard: list[Event] = []
    assert train(base, tmp_path, many(), heard.append).n_steps == 6
    continued = next(e.message for e in heard if isinstance(e, Notice))
    assert continued in ("continuing after step 2 of 6.", "continuing after step 4 of 6.")
    assert steps(heard)[0][0] == int(continued.split()[3]) + 1


def test_a_cancelled_token_saves_the_step_in_hand(base: Base, tmp_path: Path) -> None:
    saved: list[int] = []
    cancel = CancelToken()

    def listen(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 2:
            threading.Thread(target=cancel.cancel, args=("the job was deleted",)).start()
        if isinstance(event, CheckpointSaved):
            saved.append(event.step)

    with pytest.raises(CancelledError, match=r"Cancelled \(the job was deleted\); what was done is kept"):
        train(base, tmp_path, many(max_steps=40, save_steps=1000, eval_steps=1000), listen, cancel=cancel)
    checkpoint = newest_checkpoint(tmp_path / "work")
    assert checkpoint is not None
    assert 2 <= checkpoint.step < 40
    assert checkpoint.step == saved[-1]
    assert workers() == []


def test_an_interrupt_ends_all_at_once(base: Base, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path, many(max_steps=40, eval_steps=1000), interrupt)
    assert workers() == []


def test_an_error_of_one_process_is_told_as_it_is(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 training and 0 held-out examples fit into 64 tokens"):
        train(base, tmp_path, many(max_seq_len=64))


def test_processes_import_nothing_from_the_current_folder(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the repository that is trained on: `cd repository && ai-forge run`."""
    for name in ("multiprocessing", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [folder for folder in sys.path if folder])
    with pytest.raises(InputError, match="0 training and 0 held-out examples fit"):
        train(base, tmp_path, many(max_seq_len=64))
    assert not (tmp_path / "run").exists()


def test_a_listener_that_fails_ends_all(base: Base, tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, StepLogged):
            raise LookupError("no one listens")

    with pytest.raises(LookupError):
        train(base, tmp_path, many(), fail)
    assert workers() == []


def test_one_trainer_cannot_be_several(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.nproc is 2, which only `ai-forge train` and `run` can start"):
        FineTuneTrainer(many(), base=base, folder=tmp_path, workspace=Workspace.open(tmp_path / "home"))


def test_mlx_trains_in_one_process(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only torch trains in several processes"):
        train(base, tmp_path, many(backend="mlx"))
