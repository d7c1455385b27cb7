"""One run of the lab: the product's recipe up to its adapter, then up to its evaluation, each a line of `lab.jsonl`.

What is recorded is not repeated, what is unfinished is continued by the runner. The merged model of a judged run is removed;
its adapter and answers stay. The base's contenders are asked once for the same questions.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import Any

from ai_forge.config import load_settings
from ai_forge.errors import RefusedError
from ai_forge.events import Sink, record_of
from ai_forge.json_lines import lines_of
from ai_forge.judge.evaluator import CONTENDERS, TUNED, Answer, Contender, Evaluation
from ai_forge.judge.statistics import Estimate
from ai_forge.judge.verdict import best_base, judge
from ai_forge.pipeline.run import new_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import StageResult
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.pipeline.stages.evaluate import held_out_questions
from ai_forge.pipeline.stages.index import IndexSummary
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.record import TrainingRecord
from ai_forge.workspace import Workspace, stage_key
from learning_table import FIGURES
from lessons import Lesson, LessonSummary, examples_taught, recipe_with, step_tokens

COMMON = {
    "training.num_epochs": 1000,
    "training.time_budget_s": None,
    "training.early_stopping_patience": 1000,
    "training.eval_steps": 8,
}
"""Over the base's recipe and under `--set`: nothing but the tokens ends a training."""
OURS = [contender for contender in CONTENDERS if contender.name == TUNED]
THEIRS = [contender for contender in CONTENDERS if not contender.is_tuned]


@dataclass(frozen=True)
class Variant:
    """Dotted settings over the common recipe, and what it changes in the training examples."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    lesson: Lesson | None = None


@dataclass(frozen=True)
class Run:
    """One training."""

    variant: Variant
    rate: float | None
    seed: int


class Lab:
    """Where runs are made and kept.

    Args:
        repository: what is mined.
        workspace: the lab's home.
        tokens: computed training tokens of each run.
        settings: dotted settings over `COMMON`, for every run.
        emit: hears the runners' events.
    """

    def __init__(
        self, repository: Path, workspace: Workspace, tokens: int, settings: Mapping[str, Any], emit: Sink
    ) -> None:
        self.repository, self.workspace, self.tokens, self.settings = repository, workspace, tokens, settings
        self._emit = emit
        self._path = workspace.root / "lab.jsonl"

    def runner(self, run: Run, contenders: Sequence[Contender] = OURS, **more: Any) -> Runner:
        """A runner of a run; `more` are settings of the training."""
        chosen = {"training.seed": run.seed, **{f"training.{key}": value for key, value in more.items()}}
        if run.rate is not None:
            chosen["training.learning_rate"] = run.rate
        layers = ("lab", COMMON), ("--set", self.settings), (run.variant.name, run.variant.settings), ("run", chosen)
        made = new_run(self.repository, load_settings(*layers).settings, self.workspace)
        recipe = recipe_with(run.variant.lesson, contenders)
        return Runner(made, self.workspace, self._emit, recipe=recipe)

    def steps(self, runner: Runner) -> list[int]:
        """The tokens of each step that meets the budget."""
        config, root = runner.run.settings.training, self.workspace.root
        trainer = FineTuneTrainer(config, base=runner.opened.base, folder=root, workspace=self.workspace)
        examples = trainer.reading.examples(*examples_taught(runner.outputs())).train
        return step_tokens(self.tokens, examples, config)

    def train(self, run: Run) -> tuple[dict[str, Any], bool]:
        """The record of a training, and whether it was made only now."""
        runner = self.runner(run)
        key = stage_key(run=runner.run.id, data=data_of(runner), tokens=self.tokens, versions=versions_of(runner))
        if (known := self._records().get(key)) is not None:
            return {**known, "variant": run.variant.name}, False  # another study may call the same training otherwise
        began, steps = time.monotonic(), self.steps(runner)
        runner = self.runner(run, max_steps=len(steps))
        data_of(runner)
        config = runner.run.settings.training
        families = Counter(example.family for example in examples_taught(runner.outputs())[0])
        record = {
            "variant": run.variant.name,
            "method": config.method_name,
            "lesson": repr(run.variant.lesson) if run.variant.lesson else None,
            "rate": config.learning_rate,
            "seed": run.seed,
            "steps": len(steps),
            "tokens": sum(steps),
            "train_examples": families.total(),
            "families": families,
            "settings": runner.run.settings.model_dump(),
        }
        try:
            record |= told_by_training(runner.run_until("train"), steps)
        except RefusedError as error:  # diverged, which is a result as well
            record["failed"] = str(error)
        return self._record(key, record | {"wall_s": round(time.monotonic() - began, 1)}), True

    def judge(self, run: Run, trained: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The record of a training with what its model answered, and whether it was asked only now."""
        key = stage_key(trained=trained["key"], judged=True)
        known = self._records().get(key)
        if known is not None:
            return {**trained, **known, "key": key}, False
        began = time.monotonic()
        runner = self.runner(run, max_steps=trained["steps"])
        ours = runner.run_until("evaluate")
        figures = self._judged(runner, ours, self._base(run, runner))
        for stage in ("export", "merge"):  # half a gigabyte for each training
            shutil.rmtree(runner.outputs().folder(stage))
        figures["judging_s"] = round(time.monotonic() - began, 1)
        return {**trained, **self._record(key, figures)}, True

    def answers(self, record: Mapping[str, Any]) -> list[Answer]:
        """What the tuned model of a run answered."""
        return self._evaluation(record["evaluation"]).of(TUNED)

    def _judged(self, runner: Runner, ours: StageResult, theirs: str) -> dict[str, Any]:
        """The tuned model's figures, each with its interval, and the best of the base's contenders."""
        tuned, base = self._evaluation(ours.key), self._evaluation(theirs)
        both = tuned.model_copy(update={"answers": (*base.answers, *tuned.answers)})
        verdict = judge(both, runner.run.settings.judge)
        rows = {row.contender: row for row in verdict.rows}
        told: dict[str, Any] = {"evaluation": ours.key, "better": verdict.better, "headline": verdict.headline}
        for name in FIGURES:
            rival = best_base(verdict.rows, attrgetter(name), lowest=name == "answer_loss")
            told |= {name: as_dict(getattr(rows[TUNED], name)), f"base_{name}": as_dict(getattr(rows[rival], name))}
        return told | {"forgetting": as_dict(verdict.forgetting)}

    def _base(self, run: Run, runner: Runner) -> str:
        """The key of the evaluation of the base's contenders, who are asked once."""
        questions = [question.id for question in held_out_questions(runner.context("evaluate", runner.folder))]
        index = runner.outputs().summary("index", IndexSummary).content
        inputs = {"base": runner.run.base, "index": index, "questions": questions}
        judged = runner.run.settings.judge.model_dump()
        key = stage_key(**inputs, settings=judged, version=versions_of(runner)["evaluate"])
        known = self._records().get(key)
        if known is None:
            asked = self.runner(run, THEIRS, max_steps=runner.run.settings.training.max_steps).run_until("evaluate")
            known = self._record(key, {"evaluation": asked.key})
        return str(known["evaluation"])

    def _evaluation(self, key: str) -> Evaluation:
        path = self.workspace.stage_folder("evaluate", key) / "evaluation.json"
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))

    def _records(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        rows = (record_of(line) for _, line in lines_of(self._path.read_text(encoding="utf-8")))
        return {row["key"]: row for row in rows if row is not None}

    def _record(self, key: str, record: Mapping[str, Any]) -> dict[str, Any]:
        kept = {"key": key, "time": time.strftime("%Y-%m-%d %H:%M:%S"), **record}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept) + "\n")
        return kept


def data_of(runner: Runner) -> str:
    """The hash of what is trained on, which is made where it is not there."""
    if any(stage.name == "lesson" for stage in runner.stages):
        runner.run_until("lesson")
        return runner.outputs().summary("lesson", LessonSummary).content
    runner.run_until("dataset")
    return runner.outputs().summary("dataset", DatasetSummary).content


def versions_of(runner: Runner) -> dict[str, int]:
    return {stage.name: stage.version for stage in runner.stages}


def as_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    return estimate and asdict(estimate)


def told_by_training(stage: StageResult, steps: Sequence[int]) -> dict[str, Any]:
    """Seconds, held-out loss and its curve; `steps` are the tokens of each."""
    training = TrainingRecord.read(stage.folder)
    start_s = training.initialisation.seconds if training.initialisation else 0.0
    speeds = {event.step: event.tokens_per_s for event in training.steps}
    seconds = list(accumulate((n / speeds[i] for i, n in enumerate(steps, 1)), initial=start_s))
    tokens = [0, *accumulate(steps)]
    curve = [
        {
            "step": event.step,
            "tokens": tokens[event.step],
            "seconds": round(seconds[event.step], 2),
            "loss": event.loss,
            "accuracy": event.accuracy,
        }
        for event in training.evaluations
    ]
    best = next(point for point in curve if point["step"] == training.best_step)
    return {
        "initialisation_s": round(start_s, 2),
        "seconds": round(seconds[-1], 2),
        "best_step": training.best_step,
        "held_out_loss": best["loss"],
        "held_out_accuracy": best["accuracy"],
        "curve": curve,
    }
