"""What is kept of a training's measurements."""

import math

from ai_forge.events import EvalFinished, StepLogged
from ai_forge.training.history import as_row, best_step, from_row

EVENTS = [
    EvalFinished(0, 2.0, 0.5, 3, 1.5),
    StepLogged(1, 10, 1.5, 0.5, 1e-4, 0.7, 100.0, 7, 3.0, 2.0),
    EvalFinished(1, 1000.0, 0.5, 3),
]


def test_rows_tell_the_perplexity_and_are_read_back() -> None:
    rows = [as_row(event) for event in EVENTS]
    assert [row["perplexity"] for row in rows] == [math.exp(2.0), math.exp(1.5), math.exp(700)]
    assert [from_row(row) for row in rows] == EVENTS


def test_rows_of_older_trainings_are_read() -> None:
    row = {"event": "EvalFinished", "step": 1, "loss": 1.0, "accuracy": 0.5, "n_tokens": 3}
    assert from_row(row) == EvalFinished(1, 1.0, 0.5, 3)


def test_the_best_step_is_the_first_of_the_lowest() -> None:
    losses = [math.nan, 2.0, 1.0, 1.0]
    history: list[StepLogged | EvalFinished] = [EvalFinished(i, loss, 0.5, 3) for i, loss in enumerate(losses)]
    better_on_what_was_trained = StepLogged(4, 10, 0.1, 0.5, 1e-4, 0.7, 100.0, 7, 3.0)
    assert best_step([*history, better_on_what_was_trained], default=9) == 2
    assert best_step(history[:1], default=9) == 9
