"""When a step goes wrong: memory, numbers, divergence, the disk. Real errors of real allocations where there are any."""

import json
import multiprocessing
import random
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ai_forge.config import FineTuneConfig
from ai_forge.errors import PrerequisiteError, RefusedError
from ai_forge.events import AnswerSampled, EvalFinished, Event, Notice, StepLogged
from ai_forge.training.backends import torch_backend
from ai_forge.training.backends.base import Loss, TokenSums
from ai_forge.training.backends.torch_backend import TorchTrainee, out_of_memory_told
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.backends.torch_model import TorchGenerator, target_log_probs
from ai_forge.training.callbacks import DivergenceGuard
from ai_forge.training.checkpoint import newest_checkpoint
from ai_forge.training.loop import Surroundings, Task, run_loop
from ai_forge.training.losses import SupervisedObjective, sft_loss
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.plan import Schedule, probe_speed
from ai_forge.training.tokens.packing import Batch
from tiny_models import make_tiny
from tiny_training import check_batch, random_examples, tiny_config

TRAIN, HELD_OUT = random_examples(8), random_examples(4, seed=1)
TASK = Task(TRAIN, HELD_OUT, SupervisedObjective())
CONFIG = tiny_config(learning_rate=3e-3, micro_batch_size=4, grad_accum_steps=1)
DIVERGING = tiny_config(learning_rate=1e-5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("care"))


class SmallMemory(TorchTrainee):
    """Torch's own error for batches of more than `most` documents."""

    most = 2

    def forward_backward(self, batch: Batch, loss: Loss, divisor: float) -> TokenSums:
        with out_of_memory_told():
            if len(batch.boundaries) - 1 > self.most:
                self.parameters[0].grad = torch.ones_like(self.parameters[0])  # a pass that got half-way
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
        return super().forward_backward(batch, loss, divisor)


def fresh(base: Path, kind: type[TorchTrainee] = TorchTrainee, config: FineTuneConfig = CONFIG) -> TorchTrainee:
    made, _ = initialise(base, config, check_batch(), exact=True)
    return kind(made.model, made.layers, config)


def train(trainee: TorchTrainee, folder: Path, config: FineTuneConfig = CONFIG, **options: Any) -> list[Event]:
    heard: list[Event] = []
    folder.mkdir(exist_ok=True)
    schedule = Schedule(6, len(TRAIN), 1.0, 1.0, "test")
    task = Task(TRAIN, HELD_OUT, SupervisedObjective(options.pop("loss", sft_loss)))
    run_loop(trainee, task, config, schedule, folder, Surroundings(heard.append, **options))
    return heard


def losses(heard: Sequence[Event]) -> list[float]:
    return [event.loss for event in heard if isinstance(event, StepLogged)]


def test_out_of_memory_halves_the_micro_batch(base: Path, tmp_path: Path) -> None:
    roomy, small = fresh(base), fresh(base, SmallMemory)
    expected, heard = train(roomy, tmp_path / "a"), train(small, tmp_path / "b")
    told = [event.message for event in heard if isinstance(event, Notice)]
    assert told == [
        "out of memory with 4 examples at a time: now 2, 2 passes a step; the result is the same (CUDA out of memory)."
    ]
    assert losses(heard) == pytest.approx(losses(expected), rel=1e-3)
    for name, values in roomy.adapter().items():
        np.testing.assert_allclose(small.adapter()[name], values, atol=2e-3)


def test_a_resumed_run_keeps_the_halved_micro_batch(base: Path, tmp_path: Path) -> None:
    straight = fresh(base, SmallMemory)
    train(straight, tmp_path / "straight")

    class EndedError(Exception):
        pass

    def end_at_three(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 3:
            raise EndedError

    schedule = Schedule(6, len(TRAIN), 1.0, 1.0, "test")
    (tmp_path / "cut").mkdir()
    with pytest.raises(EndedError):
        run_loop(fresh(base, SmallMemory), TASK, CONFIG, schedule, tmp_path / "cut", Surroundings(end_at_three))
    checkpoint = newest_checkpoint(tmp_path / "cut")
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.micro_batch_size) == (2, 2)
    resumed = fresh(base, SmallMemory)
    heard = train(resumed, tmp_path / "cut")
    assert not [e for e in heard if isinstance(e, Notice) and "out of memory" in e.message]
    assert all(np.array_equal(values, straight.adapter()[name]) for name, values in resumed.adapter().items())


def test_one_example_that_does_not_fit_stops_the_run(base: Path, tmp_path: Path) -> None:
    small = fresh(base, SmallMemory)
    small.most = 0  # type: ignore[misc]
    with pytest.raises(PrerequisiteError) as caught:
        train(small, tmp_path / "none")
    assert caught.value.message.startswith("Out of memory with one example at a time (")
    assert "training.max_seq_len or training.rank" in str(caught.value.next_step)


def test_evaluation_and_the_probe_make_do_with_less_memory(base: Path) -> None:
    class SmallEvaluation(TorchTrainee):
        def evaluate(self, batch: Batch) -> TokenSums:
            if len(batch.boundaries) - 1 > 1:
                raise MemoryError("no room")
            return super().evaluate(batch)

    heard: list[Event] = []
    micro = MicroBatches(4, heard.append)
    objective = SupervisedObjective()
    sums = micro.evaluate(fresh(base, SmallEvaluation), objective, HELD_OUT)
    assert sums.loss == pytest.approx(MicroBatches(4, print).evaluate(fresh(base), objective, HELD_OUT).loss, rel=1e-4)
    assert (micro.size, len(heard)) == (1, 2)
    small = fresh(base, SmallMemory)
    assert probe_speed(small, TRAIN, CONFIG, sft_loss) > 0
    assert all(parameter.grad is None for parameter in small.parameters)


def test_the_cpus_own_error_is_one_of_memory() -> None:
    with pytest.raises(MemoryError, match=r"you tried to allocate 4\d+ bytes"), out_of_memory_told():
        torch.empty(1 << 60, dtype=torch.float32)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught, out_of_memory_told():
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not isinstance(caught.value, MemoryError)


def test_a_backward_pass_that_runs_out_is_told_too(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return torch.empty(1 << 60)

    def exploding(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, hits = target_log_probs(model, batch)
        return Explodes.apply(log_probs), hits

    monkeypatch.setattr(torch_backend, "target_log_probs", exploding)
    with pytest.raises(MemoryError, match="you tried to allocate"):
        fresh(base).forward_backward(check_batch(), sft_loss, 1.0)


def test_gradients_that_are_no_numbers_stop_before_the_step(base: Path, tmp_path: Path) -> None:
    trainee = fresh(base)
    before = {name: values.copy() for name, values in trainee.adapter().items()}

    def poisoned(log_probs: torch.Tensor) -> torch.Tensor:
        return (
            sft_loss(log_probs) + (log_probs.sum() * 0).abs().sqrt()
        )  # the root's slope at zero: finite loss, NaN gradient

    with pytest.raises(
        RefusedError, match=r"^The loss is [\d.]+ and its gradient no number at step 1\. Its batch is kept"
    ):
        train(trainee, tmp_path / "run", loss=poisoned)
    kept = json.loads((tmp_path / "run" / "stopped-000001.json").read_text())
    assert (kept["step"], len(kept["examples"])) == (1, 4)
    assert all(np.array_equal(values, before[name]) for name, values in trainee.adapter().items())


def test_a_diverging_run_stops_and_keeps_its_batch(base: Path, tmp_path: Path) -> None:
    scales = iter([1.0, 1.0, *[3.0] * 100])  # every passing makes the loss what a much worse model's would be
    with pytest.raises(RefusedError) as caught:
        train(
            fresh(base, config=DIVERGING),
            tmp_path,
            DIVERGING,
            loss=lambda log_probs: sft_loss(log_probs) * next(scales),
        )
    assert caught.value.message.startswith("The training diverged: the loss rose from ")
    assert caught.value.message.endswith(f" Its batch is kept in {tmp_path / 'stopped-000005.json'}.")
    assert str(caught.value.next_step) == "lower training.learning_rate (now 1e-05) and run again."
    assert len(json.loads((tmp_path / "stopped-000005.json").read_text())["examples"]) == 2


def step(loss: float) -> StepLogged:
    return StepLogged(1, 9, loss, 0.0, 0.0, 1.0, 1.0, 0, 0.0)


@pytest.mark.parametrize(
    ("start", "losses", "diverged"),
    [
        (1.2, [1.2, *[3.3] * 5], True),
        (1.2, [1.2, *[3.1] * 5], False),  # not by two nats
        (1.2, [1.2, 9, 9, 1, 9, 1, 1], False),  # single bad batches
        (1.2, [2.2, *[4.1] * 5], False),  # harder examples than the held-out ones
        (6.0, [6.0, *[11.0] * 9], False),  # not twice the start
        (6.0, [6.0, *[12.1] * 9], True),
        (None, [1.0, *[9.0] * 5], True),
    ],
)
def test_divergence_is_a_lasting_rise(start: float | None, losses: list[float], diverged: bool) -> None:
    guard = DivergenceGuard()
    if start is not None:
        guard(EvalFinished(0, start, 0.0, 1))
    for loss in losses:
        guard(step(loss))
    assert (guard.reason is not None) == diverged


def test_sample_answers_are_told_and_change_no_byte(base: Path, tmp_path: Path) -> None:
    quiet, watched = fresh(base), fresh(base)
    train(quiet, tmp_path / "quiet")
    generator = TorchGenerator(watched.model, 2)
    prompts = [list(example.ids[:5]) for example in HELD_OUT[:2]]

    def sample() -> list[tuple[str, str]]:
        return [
            (str(prompt), str(reply)) for prompt, reply in zip(prompts, generator.generate(prompts, 4), strict=True)
        ]

    config = CONFIG.model_copy(update={"sample_every": 2})
    heard = train(watched, tmp_path / "watched", config, sample=sample)
    told = [event for event in heard if isinstance(event, AnswerSampled)]
    assert [(event.step, event.question) for event in told] == [(s, str(p)) for s in (2, 4, 6) for p in prompts]
    assert all(np.array_equal(values, quiet.adapter()[name]) for name, values in watched.adapter().items())


def _train_on_a_small_disk(base: Path, folder: Path, largest: int, answers: Any) -> None:
    trainee = fresh(base)
    schedule = Schedule(6, len(TRAIN), 1.0, 1.0, "test")

    def limit(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 3:  # from now on no file grows larger
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    try:
        run_loop(trainee, TASK, CONFIG, schedule, folder, Surroundings(limit))
    except PrerequisiteError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        answers.put((error.message, error.next_step))


@pytest.mark.slow
@pytest.mark.parametrize(("largest", "what"), [(60_000, "The checkpoint of step 4"), (5_000, "A file of the training")])
def test_a_full_disk_stops_cleanly(base: Path, tmp_path: Path, largest: int, what: str) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    folder = tmp_path / "run"
    folder.mkdir()
    process = context.Process(target=_train_on_a_small_disk, args=(base, folder, largest, answers))
    process.start()
    process.join(timeout=120)
    message, next_step = answers.get(timeout=1)
    assert message.startswith(f"{what} could not be written to {folder} (")
    assert "File too large" in message
    assert message.endswith("The last good checkpoint is step-000002.")
    assert next_step == "free some disk and run the same command again: it continues from there."
    assert not list(folder.glob(".*"))
    resumed, straight = fresh(base), fresh(base)
    heard = train(resumed, folder)
    assert Notice("info", "continuing after step 2 of 6.") in heard
    train(straight, tmp_path / "straight")
    assert all(np.array_equal(values, straight.adapter()[name]) for name, values in resumed.adapter().items())


DAMAGES = ("cut", "flip", "remove", "empty", "extend")


def damage(folder: Path, kind: str, draw: random.Random) -> str:
    """Damage one file of a checkpoint; the manifest is a file like the others."""
    path = draw.choice(sorted(folder.iterdir()))
    raw = bytearray(path.read_bytes())
    if kind == "remove":
        path.unlink()
        return path.name
    if kind == "flip":
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes({"cut": raw[: draw.randrange(len(raw))], "empty": b"", "extend": raw + b"\0"}.get(kind, raw))
    return path.name


@pytest.mark.slow
def test_fifty_damaged_checkpoints_are_seen(base: Path, tmp_path: Path) -> None:
    config = tiny_config(learning_rate=3e-3, rank=2, target_modules=("q_proj",), save_steps=1, keep_checkpoints=2)
    straight = fresh(base, config=config)
    train(straight, tmp_path / "straight", config)
    expected = {name: values.tobytes() for name, values in straight.adapter().items()}
    start = {name: values.copy() for name, values in fresh(base, config=config).adapter().items()}
    trainee, draw, told, manifests = fresh(base, config=config), random.Random(7), 0, 0
    schedule = Schedule(6, len(TRAIN), 1.0, 1.0, "test")

    class EndedError(Exception):
        pass

    def reset() -> None:
        with torch.no_grad():
            for name, parameter in trainee.named_parameters():
                parameter.copy_(torch.from_numpy(start[name]))
        trainee.optimizer.state.clear()

    for last in range(2, 6):  # runs that ended right after the checkpoint of step `last`

        def end(event: Event, last: int = last) -> None:
            if isinstance(event, StepLogged) and event.step == last + 1:
                raise EndedError

        (tmp_path / f"ended-{last}").mkdir()
        reset()
        with pytest.raises(EndedError):
            run_loop(trainee, TASK, config, schedule, tmp_path / f"ended-{last}", Surroundings(end))
    for number in range(50):
        folder, last = tmp_path / str(number), draw.randint(2, 5)
        shutil.copytree(tmp_path / f"ended-{last}", folder)
        newest = folder / f"step-{last:06d}"
        manifests += damage(newest, DAMAGES[number % len(DAMAGES)], draw) == "manifest.json"
        reset()
        heard = train(trainee, folder, config)
        told += Notice("warning", f"checkpoint {newest.name} is damaged; using the one before it.") in heard
        assert Notice("info", f"continuing after step {last - 1} of 6.") in heard, number
        assert {name: values.tobytes() for name, values in trainee.adapter().items()} == expected, number
    assert told == 50
    assert manifests > 3
