"""What a finished training leaves in writing: `training.json`, read by the pipeline, the report and the benches."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from ai_forge.events import EvalFinished, StepLogged
from ai_forge.training.history import Initialisation, Measured
from ai_forge.training.plan import Schedule
from ai_forge.workspace import atomic_write

RECORD = "training.json"


class PreferencePhase(BaseModel):
    """On what a second phase was trained."""

    model_config = ConfigDict(frozen=True)

    pairs: int
    loss: str


class TrainingRecord(BaseModel):
    """The content of `training.json`. `initialisation` is None where a given adapter was continued.

    The losses on what was trained on are those of handbooks, which are measured before the first step and of the result.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")  # an evaluation's loss may be no number

    config: dict[str, JsonValue]
    base: str
    backend: str
    schedule: Schedule
    best_step: int
    history: tuple[Measured, ...]
    initialisation: Initialisation | None = None
    n_too_long: int = 0
    trained_first_loss: float | None = None
    trained_last_loss: float | None = None
    preferences: PreferencePhase | None = None

    @classmethod
    def read(cls, folder: Path) -> "TrainingRecord":
        """That of the training whose result lies in `folder`."""
        return cls.model_validate_json((folder / RECORD).read_bytes())

    def write(self, folder: Path) -> None:
        """Keep it beside the result."""
        atomic_write(folder / RECORD, self.model_dump_json(indent=1))

    @property
    def steps(self) -> list[StepLogged]:
        """The steps, in order."""
        return [event for event in self.history if isinstance(event, StepLogged)]

    @property
    def evaluations(self) -> list[EvalFinished]:
        """The held-out evaluations, in order, that before the first step first."""
        return [event for event in self.history if isinstance(event, EvalFinished)]

    def held_out_loss(self, step: int) -> float:
        """Nats per token of the held-out examples after `step` steps."""
        return next(event.loss for event in self.evaluations if event.step == step)


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: `folder` holds the adapter in PEFT's format and the residual.

    `first_loss` and `last_loss` are held out; `trained_first_loss` and `trained_last_loss` those of the examples that were
    trained on, where they were measured (nats per token, before the first step and of the result).
    """

    folder: Path
    best_step: int
    n_steps: int
    first_loss: float
    last_loss: float
    n_too_long: int
    trained_first_loss: float | None = None
    trained_last_loss: float | None = None

    @classmethod
    def of(cls, folder: Path, record: TrainingRecord) -> "TrainingResult":
        """The result in `folder`, of which `record` tells."""
        return cls(
            folder=folder,
            best_step=record.best_step,
            n_steps=record.schedule.n_steps,
            first_loss=record.held_out_loss(0),
            last_loss=record.held_out_loss(record.best_step),
            n_too_long=record.n_too_long,
            trained_first_loss=record.trained_first_loss,
            trained_last_loss=record.trained_last_loss,
        )
