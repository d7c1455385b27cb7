"""What the artifacts tell: a value for each template, computed from what the stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ai_forge.config import GuardianSettings
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.events import AnswerSampled, EvalFinished, Event, PlanMade, StepLogged

if TYPE_CHECKING:
    from ai_forge.data_pipeline.validator import Assessment

__all__ = [
    "CheckRow",
    "Checklist",
    "Dashboard",
    "DataQuality",
    "ExampleRow",
    "ProbeRow",
    "Summary",
    "TaskRow",
    "Validation",
]

N_SHOWN = 20
FEW_EXAMPLES = 100
HIGH_SHARE = 0.1
RESULTS = {True: "passed", False: "failed", None: "not measured"}


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class CheckRow(_Data):
    """A condition, how it came out, and what was seen."""

    name: str
    result: str
    text: str

    @classmethod
    def of(cls, name: str, passed: bool | None, text: str) -> CheckRow:
        """A row; None is what could not be measured."""
        return cls(name=name, result=RESULTS[passed], text=text)

    @property
    def failed(self) -> bool:
        """Whether it was measured, and does not hold."""
        return self.result == RESULTS[False]


class EvaluationRow(_Data):
    """Held-out loss after a step."""

    step: int
    loss: float
    accuracy: float


class Dashboard(_Data):
    """A training as it stands; None is not known yet."""

    status: str
    stop: str
    step: int = 0
    n_steps: int | None = None
    loss: str | None = None
    held_out: str | None = None
    tokens_per_s: str | None = None
    memory: str | None = None
    eta: str | None = None
    evaluations: tuple[EvaluationRow, ...] = ()
    question: str | None = None
    answer: str | None = None

    def after(self, event: Event) -> Dashboard:
        """The same after an event; events that say nothing of the training change nothing."""
        if isinstance(event, PlanMade):
            return self.model_copy(update={"n_steps": event.n_steps, "eta": _minutes(event.expected_s)})
        if isinstance(event, StepLogged):
            return self.model_copy(
                update={
                    "step": event.step,
                    "n_steps": event.n_steps,
                    "loss": f"{event.loss:.4f}",
                    "tokens_per_s": f"{event.tokens_per_s:.0f}",
                    "memory": f"{event.memory_bytes / 1e9:.2f} GB",
                    "eta": _minutes(event.eta_s),
                }
            )
        if isinstance(event, EvalFinished):
            row = EvaluationRow(step=event.step, loss=event.loss, accuracy=event.accuracy)
            others = tuple(one for one in self.evaluations if one.step != event.step)
            return self.model_copy(update={"held_out": f"{event.loss:.4f}", "evaluations": (*others, row)})
        if isinstance(event, AnswerSampled):
            return self.model_copy(update={"question": event.question, "answer": event.answer})
        return self


def _minutes(seconds: float) -> str:
    """Seconds as people say them.

    >>> _minutes(42), _minutes(600)
    ('42 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Documentation(_Data):
    """Share of documented blocks whose documentation speaks of them, now and at the last training, 0–1; None is not known."""

    now: float | None
    before: float | None

    @property
    def fall(self) -> float | None:
        """By how much it fell."""
        return None if self.now is None or self.before is None else self.before - self.now

    def __str__(self) -> str:
        now = "unscored" if self.now is None else f"{self.now:.0%}"
        return now if self.before is None else f"{now} ({self.before:.0%} at the last training)"


class ExampleRow(_Data):
    """An example's scores, as they are shown."""

    quality: str
    relevance: str
    substance: str
    grounding: str
    subject: str
    question: str


class DataQuality(_Data):
    """The examples of a run, scored."""

    status: str
    headline: str
    figures: tuple[tuple[str, str], ...]
    recommendations: tuple[str, ...]
    rejected: tuple[tuple[str, int], ...] = ()
    examples: tuple[ExampleRow, ...] = ()
    n_examples: int = 0

    @classmethod
    def of(
        cls,
        examples: Sequence[RAFTExample],
        made: Assessment,
        rejected: Mapping[str, int],
        settings: GuardianSettings,
        advice: str | None,
        documentation: Documentation,
    ) -> DataQuality:
        """From the examples, their scores in the same order, and what was left out."""
        pairs = sorted(
            zip(made.scores, examples, strict=True), key=lambda pair: (pair[0].quality, pair[1].id)
        )  # by id where they are equal: the same data gives the same page
        is_good = made.mean_quality is not None and made.mean_quality >= settings.min_quality
        has_fallen = documentation.fall is not None and documentation.fall > settings.max_documentation_fall
        limit = f"at least {settings.min_quality:.2f}"
        headline = f"mean quality {_score(made.mean_quality)} of {len(examples)} examples ({limit})"
        if has_fallen:
            headline = f"documentation speaks of its code in {documentation} of the blocks; {headline}"
        metrics = made.metrics
        return cls(
            status="passed" if is_good and not has_fallen else "refused",
            headline=headline,
            figures=(
                ("documentation that speaks of its code", str(documentation)),
                ("mean quality", _score(made.mean_quality)),
                ("relevance of the shown code", _score(metrics.relevance)),
                ("diversity of the questions", _score(metrics.diversity)),
                ("balance of the difficulties", _score(metrics.difficulty_balance)),
                ("duplicates", str(metrics.n_duplicates)),
                ("near-duplicates", str(metrics.n_near_duplicates)),
            ),
            recommendations=tuple(_recommendations(len(examples), made, rejected, settings, advice)),
            rejected=tuple(sorted(rejected.items(), key=lambda row: (-row[1], row[0]))),
            examples=tuple(_example_row(example, scores) for scores, example in pairs[:N_SHOWN]),
            n_examples=len(examples),
        )


def _example_row(example: RAFTExample, scores: object) -> ExampleRow:
    value = vars(scores)
    shown = example.oracle_documents or example.distractor_documents
    return ExampleRow(
        quality=_score(value["quality"]),
        relevance=_score(value["oracle_relevance"]),
        substance=_score(value["substance"]),
        grounding=_score(value["grounding"]),
        subject=shown[0].citation if shown else "no document",
        question=example.question,
    )


def _score(value: float | None) -> str:
    return "unscored" if value is None else f"{value:.2f}"


def _recommendations(
    n: int, made: Assessment, rejected: Mapping[str, int], settings: GuardianSettings, advice: str | None
) -> list[str]:
    texts = []
    metrics = made.metrics
    if advice:
        texts.append(advice)
    if n < FEW_EXAMPLES:
        texts.append(f"Only {n} examples: document more of the code, or set miner.require_docstring to false.")
    n_rejected = sum(rejected.values())
    for reason, count in sorted(rejected.items(), key=lambda row: -row[1]):
        if count >= HIGH_SHARE * (n + n_rejected):
            texts.append(
                f"{count} of {n + n_rejected} examples were left out as {reason}: look at the code behind them."
            )
    weak = sum(1 for score in made.scores if score.quality < settings.min_quality)
    if weak:
        texts.append(f"Examples that score below {settings.min_quality:.2f}: {weak}. Read the first of them below.")
    n_double = metrics.n_duplicates + metrics.n_near_duplicates
    if n and n_double >= HIGH_SHARE * n:
        texts.append(f"{n_double} examples repeat others: the code behind them repeats itself.")
    if metrics.difficulty_balance is not None and metrics.difficulty_balance < 0.5:
        texts.append("Most examples are of one difficulty: see synthesis.easy_share and synthesis.hard_share.")
    return texts


class ContenderRow(_Data):
    """One of those who answered, as it is shown."""

    who: str
    loss: str
    citations: str
    facts: str


class ProbeRow(_Data):
    """A rule of a handbook and whether each model's answer keeps it."""

    rule: str
    base: str
    before: str
    tuned: str


class Validation(_Data):
    """The verdict on a tuned model, and the figures behind it: of contenders, or of a handbook's probes."""

    status: str
    headline: str
    checks: tuple[CheckRow, ...]
    report: str
    rows: tuple[ContenderRow, ...] = ()
    probes: tuple[ProbeRow, ...] = ()
    kept: str = ""


class Checklist(_Data):
    """What was checked before and at a deployment, and how to go back."""

    status: str
    headline: str
    checks: tuple[CheckRow, ...]
    active: str
    before: str
    rollback: str


class TaskRow(_Data):
    """A task of a cycle and how it ended."""

    name: str
    state: str
    time: str
    text: str


class Summary(_Data):
    """How a cycle went."""

    status: str
    headline: str
    reason: str
    tasks: tuple[TaskRow, ...]
    next_step: str | None = None
