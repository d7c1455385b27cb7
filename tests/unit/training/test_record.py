"""The record of a training is read back, those of older trainings too."""

import json
import math
from pathlib import Path

from ai_forge.config import FineTuneConfig
from ai_forge.events import AdapterInitialised, EvalFinished, StepLogged
from ai_forge.training.plan import Laying, Schedule
from ai_forge.training.record import PreferencePhase, TrainingRecord, TrainingResult

RECORD = TrainingRecord(
    config=FineTuneConfig(max_steps=9).model_dump(mode="json"),
    base="Tiny",
    backend="torch",
    schedule=Schedule(9, 18, 317.25, 99.5, "max_steps 9", 60.0, (Laying(0, 4), Laying(2, 9))),
    best_step=9,
    history=(
        EvalFinished(0, 2.5, 0.25, 90, 1.5),
        StepLogged(1, 9, 2.0, 0.5, 1e-4, 0.7, 300.0, 1, 2.0, 4.0),
        EvalFinished(9, 0.75, 0.5, 90),
    ),
    initialisation=AdapterInitialised("QPiSSA", "nf4", 32, 210, 1234567, 0.071, 0.0021, 0.0034, 9.0),
    n_too_long=3,
)


def test_a_record_is_read_back_as_written(tmp_path: Path) -> None:
    for record in (RECORD, RECORD.model_copy(update={"preferences": PreferencePhase(pairs=8, loss="ipo")})):
        record.write(tmp_path)
        assert TrainingRecord.read(tmp_path) == record
    rows = json.loads((tmp_path / "training.json").read_text())["history"]
    assert [(row["event"], row["perplexity"]) for row in rows][:2] == [
        ("EvalFinished", math.exp(2.5)),
        ("StepLogged", math.exp(2.0)),
    ]


def test_a_loss_that_is_no_number_is_kept_as_such(tmp_path: Path) -> None:
    RECORD.model_copy(update={"history": (EvalFinished(0, math.nan, 0.0, 9),)}).write(tmp_path)
    assert math.isnan(TrainingRecord.read(tmp_path).history[0].loss)


def test_the_record_of_an_older_training_is_read(tmp_path: Path) -> None:
    """Without seconds, budget and layings, with quantisation spelled otherwise and settings that are gone."""
    old = {
        "config": {"init_method": "olora", "max_steps": 9},
        "base": "Tiny",
        "backend": "torch",
        "schedule": {"n_steps": 9, "n_examples": 18, "tokens_per_s": 317.25, "expected_s": 99.5, "reason": "3 epochs"},
        "best_step": 1,
        "history": [
            {"event": "EvalFinished", "step": 0, "loss": 2.5, "accuracy": 0.5, "n_tokens": 9, "perplexity": 12.2},
            {"event": "EvalFinished", "step": 1, "loss": 2.0, "accuracy": 0.5, "n_tokens": 9, "perplexity": 7.4},
        ],
        "initialisation": {
            "init_method": "QPiSSA", "quantization": "nf4", "rank": 32, "n_matrices": 210, "n_trainable": 9,
            "relative_error": 0.071, "kl_initialised": 0.0021, "kl_quantised_base": 0.0034, "seconds": 9.0,
            "relative_error_quantised": 0.09, "worst_layer": "q", "worst_relative_error": 0.1, "n_other_ranks": 0,
        },
        "n_too_long": 0,
        "trained_first_loss": 3.0,
        "trained_last_loss": 1.0,
    }  # fmt: skip
    (tmp_path / "training.json").write_text(json.dumps(old))
    record = TrainingRecord.read(tmp_path)
    assert record.initialisation is not None
    assert (record.initialisation.kl_quantized_base, record.initialisation.relative_error_quantized) == (0.0034, 0.09)
    result = TrainingResult.of(tmp_path, record)
    assert (result.first_loss, result.last_loss, result.trained_last_loss) == (2.5, 2.0, 1.0)
