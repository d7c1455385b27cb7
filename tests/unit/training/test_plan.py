"""The schedule ends at the first of its limits; memory is counted from the base's shapes."""

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.events import EvalFinished, StepLogged
from ai_forge.training.backends.base import TokenSums
from ai_forge.training.fit import require_memory
from ai_forge.training.memory import memory_of
from ai_forge.training.plan import (
    PROBE_BATCHES,
    Laying,
    Schedule,
    laid_anew,
    lay_schedule,
    learning_rate_at,
    probe_speed,
)
from ai_forge.training.tokens.packing import Batch, TokenizedExample
from tiny_models import make_tiny
from tiny_training import tiny_config

HUNDRED = [TokenizedExample((5,) * 100, 60)] * 40
"""40 examples of 100 tokens: a step of 2 × 2 examples takes 4 s at 100 tokens a second."""


def config(**changes: Any) -> Any:
    return tiny_config(**({"micro_batch_size": 2, "grad_accum_steps": 2, "num_epochs": 3, "max_steps": None} | changes))


def test_epochs_limit_the_steps() -> None:
    schedule = lay_schedule(HUNDRED, 0, 100.0, config())
    assert (schedule.n_steps, schedule.reason, schedule.n_examples) == (30, "3 epochs", 40)
    assert schedule.expected_s == pytest.approx(120)
    assert lay_schedule(HUNDRED[:3], 0, 100.0, config(num_epochs=1)).n_steps == 1  # a part of a step is a step


def test_max_steps_limit_the_steps() -> None:
    schedule = lay_schedule(HUNDRED, 0, 100.0, config(max_steps=5))
    assert (schedule.n_steps, schedule.reason, schedule.n_examples) == (5, "max_steps 5", 20)
    assert lay_schedule(HUNDRED, 0, 100.0, config(max_steps=31)).reason == "3 epochs"


def test_the_time_budget_limits_the_steps() -> None:
    schedule = lay_schedule(HUNDRED, 0, 100.0, config(time_budget_s=60))
    assert schedule.n_steps == int(0.93 * 60 / 4)
    assert schedule.reason == "time budget 60 s"
    assert schedule.expected_s <= 60
    with_evaluation = lay_schedule(HUNDRED, 1000, 100.0, config(time_budget_s=60))
    assert with_evaluation.n_steps == int((0.93 * 60 - 5 * 1000 / 250) / 4)


@pytest.mark.parametrize("n_eval_tokens", [0, 1000])
def test_a_budget_too_short_for_a_step_says_what_would_do(n_eval_tokens: int) -> None:
    with pytest.raises(InputError) as caught:
        lay_schedule(HUNDRED, n_eval_tokens, 100.0, config(time_budget_s=3))
    assert caught.value.message == "A time budget of 3 s is too short: one step takes 4.0 s here."
    enough = re.search(r"give at least (\d+) s, or", str(caught.value.next_step))
    assert enough is not None
    seconds = int(enough[1])
    assert lay_schedule(HUNDRED, n_eval_tokens, 100.0, config(time_budget_s=seconds)).n_steps == 1
    with pytest.raises(InputError):
        lay_schedule(HUNDRED, n_eval_tokens, 100.0, config(time_budget_s=seconds - 1))


def test_the_bases_own_budget_stretches_to_a_few_steps() -> None:
    own = {"base_model": "SmolLM2-135M-Instruct", "time_budget_s": 180}
    assert lay_schedule(HUNDRED, 0, 100.0, config(**own)).reason == "3 epochs"  # a quick machine keeps it
    slow = lay_schedule(HUNDRED, 500, 1.0, config(**own))  # 400 s a step
    needed = math.ceil((8 * 400 + 5 * 500 / 2.5) / 0.93)
    assert (slow.n_steps, slow.budget_s) == (8, needed)
    assert slow.reason == f"time budget 180 s, stretched to {needed} s for 8 steps"
    assert lay_schedule(HUNDRED[:4], 0, 1.0, config(**own)).n_steps == 3  # no more than the epochs hold
    with pytest.raises(InputError, match="A time budget of 179 s is too short"):
        lay_schedule(HUNDRED, 0, 1.0, config(**own | {"time_budget_s": 179}))


def test_a_machine_that_slows_down_ends_no_run_on_the_bases_own_budget() -> None:
    laid = replace(BUSY, n_steps=40, budget_s=180.0)
    own = config(base_model="SmolLM2-135M-Instruct", time_budget_s=180)
    assert laid_anew(laid, measured(2, 100.0), FOUR_EPOCHS, own).n_steps == 8
    assert laid_anew(laid, measured(2, 100.0), FOUR_EPOCHS, config(time_budget_s=180)).n_steps == 2


@pytest.mark.parametrize(("load", "waits"), [(0.1, False), (1000.0, True)])
def test_on_a_busy_machine_it_says_to_wait_first(load: float, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    with pytest.raises(InputError) as caught:
        lay_schedule(HUNDRED, 0, 100.0, config(time_budget_s=3))
    assert str(caught.value.next_step).startswith("wait until the machine is idle (load 1000.0 on") is waits


def test_a_schedule_is_read_back_as_written(tmp_path: Path) -> None:
    schedule = Schedule(12, 40, 317.25, 99.5, "3 epochs")
    for written in (schedule, replace(schedule, budget_s=60.0, layings=(Laying(0, 9), Laying(1, 12)))):
        written.save(tmp_path / "schedule.json")
        assert Schedule.load(tmp_path / "schedule.json") == written


def test_a_schedule_of_an_older_training_is_read(tmp_path: Path) -> None:
    old = {"n_steps": 12, "n_examples": 40, "tokens_per_s": 317.25, "expected_s": 99.5, "reason": "3 epochs"}
    (tmp_path / "schedule.json").write_text(json.dumps(old))
    assert Schedule.load(tmp_path / "schedule.json") == Schedule(12, 40, 317.25, 99.5, "3 epochs")


def measured(n: int, seconds: float, evaluation_s: float = 1.0) -> list[StepLogged | EvalFinished]:
    """The history of `n` steps, each of 400 tokens."""
    start: list[StepLogged | EvalFinished] = [EvalFinished(0, 2.0, 0.5, 9, evaluation_s)]
    speed = 400 / seconds
    return start + [StepLogged(i, 99, 1.0, 0.5, 1e-4, 0.7, speed, 0, 0.0, seconds) for i in range(1, n + 1)]


BUSY = Schedule(1, 4, 4.0, 100.0, "time budget 200 s", budget_s=200.0)
"""Laid on a machine that was busy: one step was to take 100 s."""
FOUR_EPOCHS = 10_000


def test_a_probe_on_a_busy_machine_is_mended_after_the_first_step() -> None:
    anew = laid_anew(BUSY, measured(1, 4.0), FOUR_EPOCHS, config())
    assert anew.n_steps == 1 + int((0.93 * 200 - 4 - 1 - 4) / 4)  # a step and an evaluation are over, four are to come
    assert anew.reason == "time budget 200 s"
    assert anew.tokens_per_s == pytest.approx(100)
    assert anew.expected_s == pytest.approx(4 * anew.n_steps + 1)
    assert anew.n_examples == 4 * anew.n_steps
    assert anew.layings == (Laying(0, 1), Laying(1, anew.n_steps))
    assert [anew.n_steps_after(step) for step in (0, 1, 30)] == [1, anew.n_steps, anew.n_steps]


def test_a_machine_that_slows_down_shortens_the_schedule() -> None:
    long = replace(BUSY, n_steps=40)
    slow = laid_anew(long, measured(8, 10.0), FOUR_EPOCHS, config())
    assert slow.n_steps == 8 + int((0.93 * 200 - 81 - 4) / 10)
    assert laid_anew(long, measured(16, 30.0), FOUR_EPOCHS, config()).n_steps == 16


def test_epochs_limit_a_schedule_that_is_laid_anew() -> None:
    anew = laid_anew(BUSY, measured(1, 1.0), 40, config())
    assert (anew.n_steps, anew.reason, anew.n_examples) == (30, "3 epochs", 40)


@pytest.mark.parametrize(
    ("schedule", "history"),
    [
        (replace(BUSY, budget_s=None), measured(1, 4.0)),  # steps or epochs decide
        (BUSY, measured(3, 4.0)),  # not measured after every step
        (replace(BUSY, n_steps=45), measured(4, 4.0)),  # hardly another length
        (replace(BUSY, layings=(Laying(0, 1), Laying(2, 9))), measured(2, 4.0)),  # a run that was cut off decided
        (replace(BUSY, layings=(Laying(0, 1), Laying(4, 9))), measured(2, 4.0)),  # and later, too
    ],
)
def test_a_schedule_stays(schedule: Schedule, history: list[StepLogged | EvalFinished]) -> None:
    assert laid_anew(schedule, history, FOUR_EPOCHS, config()) is schedule


def test_steps_that_were_asked_for_are_never_laid_anew() -> None:
    assert lay_schedule(HUNDRED, 0, 100.0, config(time_budget_s=60)).budget_s == 60
    assert lay_schedule(HUNDRED, 0, 100.0, config(time_budget_s=60, max_steps=9)).budget_s is None
    assert lay_schedule(HUNDRED, 0, 100.0, config()).budget_s is None


@pytest.mark.parametrize(
    "layings",
    [
        [(0, 1), (1, 40)],
        [(0, 400), (2, 40)],
        [(0, 40), (8, 60), (16, 50)],
        [(0, 20), (16, 100)],
        [(0, 100), (16, 17)],
    ],
)
def test_the_learning_rate_goes_on_smoothly(layings: list[tuple[int, int]]) -> None:
    settings = config(learning_rate=1.0, warmup_ratio=0.1)
    schedule = replace(BUSY, n_steps=layings[-1][1], layings=tuple(Laying(*laying) for laying in layings))
    rates = [schedule.learning_rate(step, settings) for step in range(schedule.n_steps)]
    assert all(0 < rate <= 1.0 for rate in rates)
    assert rates[-1] < 0.15
    for (after, n_steps), (_, n_before) in zip(layings[1:], layings, strict=False):
        jump = abs(rates[after] - rates[after - 1])
        of_the_old_curve, of_the_new = 1 / max(n_before - after, 1), 1 / (n_steps - after)
        assert jump <= 1 / (0.1 * n_steps) + of_the_old_curve + of_the_new  # a step of the warm-up, and of each curve


def test_without_a_new_laying_the_learning_rate_is_the_curve() -> None:
    settings = config(learning_rate=1.0)
    kept = replace(BUSY, n_steps=9)
    assert [kept.learning_rate(step, settings) for step in range(9)] == [
        learning_rate_at(step, 9, settings) for step in range(9)
    ]


class Timed:
    """A trainee that takes ten seconds for the first batch and `each_s` for each other."""

    def __init__(self, each_s: float) -> None:
        self.each_s, self.now, self.n_batches, self.discarded = each_s, 0.0, 0, False

    def forward_backward(self, batch: Batch, loss: object, divisor: float) -> TokenSums:
        self.now += self.each_s if self.n_batches else 10.0
        self.n_batches += 1
        assert divisor == batch.n_supervised
        return TokenSums()

    def discard_gradients(self) -> None:
        self.discarded = True


def probed(trainee: Timed) -> float:
    return probe_speed(trainee, HUNDRED, config(), lambda x: x, clock=lambda: trainee.now)  # type: ignore[arg-type]


def test_the_probe_leaves_out_the_first_batch_and_the_gradients() -> None:
    trainee = Timed(2.0)
    assert probed(trainee) == pytest.approx(200 / 2)
    assert trainee.n_batches == PROBE_BATCHES
    assert trainee.discarded


def test_on_a_busy_machine_the_probe_is_content_with_one_batch() -> None:
    trainee = Timed(60.0)
    assert probed(trainee) == pytest.approx(200 / 60)
    assert trainee.n_batches == 2
    assert trainee.discarded


@pytest.mark.parametrize("tied", [True, False])
def test_memory_counts_the_bases_own_parameters(tmp_path: Path, tied: bool) -> None:
    from safetensors import safe_open

    folder = make_tiny(tmp_path, hidden=128, inner=256, tied=tied)
    with safe_open(folder / "model.safetensors", framework="np") as file:
        matrices = {key: file.get_tensor(key).size for key in file.keys() if "norm" not in key}  # noqa: SIM118
    dense = memory_of(folder, tiny_config(), dtype_bytes=2)
    assert dense["frozen weights"] == 2 * sum(matrices.values())
    # a pair of rank-8 factors in float32 with its gradient for each of 7 linear layers in 2 blocks
    sides = {
        "q": (128, 128),
        "k": (64, 128),
        "v": (64, 128),
        "o": (128, 128),
        "g": (256, 128),
        "u": (256, 128),
        "d": (128, 256),
    }
    n_trainable = 2 * sum(8 * (n_out + n_in) for n_out, n_in in sides.values())
    assert dense["adapters and gradients"] == 8 * n_trainable
    packed = memory_of(folder, tiny_config(), packed_nf4=True)
    linear = sum(n for key, n in matrices.items() if "proj" in key)
    assert dense["frozen weights"] - packed["frozen weights"] == 2 * linear - linear * 33 // 64


def test_four_bits_shrink_a_7b_base_by_about_three_quarters(tmp_path: Path) -> None:
    shape = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "vocab_size": 32000,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    dense, packed = (
        memory_of(tmp_path, tiny_config(rank=64, micro_batch_size=1), packed_nf4=nf4)["frozen weights"]
        for nf4 in (False, True)
    )
    assert dense / 2 == pytest.approx(6.74e9, rel=0.01)
    assert 0.66 < 1 - packed / dense < 0.76


def test_activations_grow_with_the_tokens_of_a_micro_batch(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    one, two, longer = (
        memory_of(folder, tiny_config(micro_batch_size=size, max_seq_len=length, gradient_checkpointing="off"))[
            "activations"
        ]
        for size, length in ((1, 128), (2, 128), (1, 512))
    )
    assert (two, longer) == (2 * one, 4 * one)
    # two layers of 64 hidden and 128 inner units, seven adapters of rank 8
    assert one == 128 * 2 * (12 * 64 + 7 * 128 + 7 * 8) * 2


def test_what_cannot_fit_is_refused_with_its_largest_parts() -> None:
    components = {
        "frozen weights": 6_000_000_000,
        "activations": 3_000_000_000,
        "logits": 100_000_000,
        "program": 900_000_000,
    }
    require_memory(components, 10_000_000_000)
    with pytest.raises(PrerequisiteError) as caught:
        require_memory(components, 9_999_999_999)
    assert str(caught.value) == (
        "Training needs about 10.0 GB of memory (frozen weights 6.0, activations 3.0, program 0.9 GB); "
        "10.0 GB are free. Next: choose a smaller base, or lower training.micro_batch_size or training.max_seq_len."
    )
