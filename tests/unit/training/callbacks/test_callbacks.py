"""Listeners of a training's events."""

import math
from pathlib import Path

from ai_forge.events import EvalFinished, Event, Notice, StepLogged
from ai_forge.training.callbacks import EarlyStopping, LossPlotter, MemoryMonitor, MetricsLogger

PNG = b"\x89PNG\r\n\x1a\n"


def step(number: int, *, loss: float = 1.0, memory_bytes: int = 0) -> StepLogged:
    return StepLogged(number, 10, loss, 0.5, 1e-4, 0.7, 100.0, memory_bytes, 3.0)


def evaluation(number: int, loss: float) -> EvalFinished:
    return EvalFinished(number, loss, 0.5, 100)


def test_early_stopping_counts_evaluations_in_a_row() -> None:
    stopping = EarlyStopping(patience=2)
    for number, loss in enumerate([3.0, 2.0, 2.5, 1.9, 1.9]):
        stopping(evaluation(number, loss))
        stopping(step(number, loss=0.0))
        assert stopping.reason is None
    stopping(evaluation(5, 2.0))
    assert stopping.reason == "held-out loss has not fallen in 2 evaluations (lowest 1.9000 at step 3)"
    assert (stopping.best_step, stopping.best_loss) == (3, 1.9)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    stopping = EarlyStopping(patience=1)
    stopping(evaluation(0, math.nan))
    assert stopping.best_step is None
    assert stopping.reason is not None


def test_metrics_are_steps_and_evaluations() -> None:
    logger = MetricsLogger()
    events = [evaluation(0, 2.0), step(1, loss=1.5), evaluation(1, 1000.0)]
    for event in (*events, Notice("info", "x")):
        logger(event)
    assert logger.history == events


def test_the_memory_monitor_warns_once_above_its_share() -> None:
    heard: list[Event] = []
    monitor = MemoryMonitor(10_000_000_000, 0.8, heard.append)
    for n_bytes in (1_000_000_000, 8_000_000_000, 8_000_000_001, 9_000_000_000):
        monitor(step(1, memory_bytes=n_bytes))
    assert heard == [
        Notice(
            "warning",
            "training uses 8.0 of 10.0 GB of memory (warning above 80%); "
            "lower micro_batch_size, max_seq_len or rank if it grows.",
        )
    ]


def test_the_loss_curve_is_redrawn_at_each_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    plotter = LossPlotter(path)
    plotter(step(1))
    assert not path.exists()
    pictures = []
    for number, loss in ((1, 2.0), (2, 1.0)):
        plotter(evaluation(number, loss))
        pictures.append(path.read_bytes())
    assert all(picture.startswith(PNG) for picture in pictures)
    assert pictures[0] != pictures[1]
    assert plotter.train == [(1, 1.0)]
    assert plotter.held_out == [(1, 2.0), (2, 1.0)]
