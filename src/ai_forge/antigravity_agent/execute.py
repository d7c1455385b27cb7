"""What each task of a cycle does: stages of the runner, then a page that tells of it.

Each may be executed again: what is made already is found by its key, and its page is written anew. None raises where the answer
is no (bad data, no better model): the artifact says so, and the cycle ends there.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from ai_forge.antigravity_agent.against_active import rows_against_active
from ai_forge.antigravity_agent.artifact_data import (
    Checklist,
    CheckRow,
    ContenderRow,
    Dashboard,
    DataQuality,
    Documentation,
    ProbeRow,
    Validation,
)
from ai_forge.antigravity_agent.artifacts import Artifact, ArtifactWriter, Status
from ai_forge.antigravity_agent.observing.documentation import share_that_speaks_of_its_code
from ai_forge.antigravity_agent.observing.trained import Known, LastTraining, known_in, known_to, withdrawn
from ai_forge.antigravity_agent.tasks import (
    DeployTask,
    ExportTask,
    ExtractDataTask,
    Task,
    TrainTask,
    ValidateDataTask,
    ValidateModelTask,
)
from ai_forge.config import GuardianSettings
from ai_forge.errors import InputError, InternalError, RefusedError
from ai_forge.events import Event
from ai_forge.pipeline import actions
from ai_forge.pipeline.run import read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import NotMadeError
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.pipeline.stages.export import gguf_of
from ai_forge.pipeline.stages.mine import MineSummary
from ai_forge.pipeline.stages.parity import ParitySummary
from ai_forge.pipeline.stages.report import ReportSummary
from ai_forge.serving.registry import Registry
from ai_forge.workspace import atomic_write, file_sha256

__all__ = ["Executor", "rollback_line"]

REWRITE_S = 5.0  # how often the page of a training at work is written anew
KEEPS: dict[bool | None, str] = {True: "keeps it", False: "breaks it", None: "not asked"}
SIDES = ("train", "valid", "test")


def rollback_line(runner: Runner) -> str:
    """The command that returns to the version before."""
    run = runner.run
    of_recipe = f" --recipe {run.recipe}" if run.recipe != "repository" else ""
    return f"ai-forge rollback {run.repository}{of_recipe}"


def _kept(probes: tuple[ProbeRow, ...]) -> str:
    if not probes:
        return ""
    kept = {side: sum(getattr(row, side) == KEEPS[True] for row in probes) for side in ("base", "before", "tuned")}
    asked = sum(row.before != KEEPS[None] for row in probes)
    return (
        f"Of {len(probes)} probes the base keeps {kept['base']}, this model {kept['tuned']}; the version before kept "
        + (f"{kept['before']} of the {asked} that it was asked.")
    )


def _speaks(known: Known | None) -> float | None:
    return None if known is None else share_that_speaks_of_its_code(known.entries)


class Executor:
    """Executes the tasks of one run.

    Args:
        runner: the run's; its events are heard, too.
        writer: where the pages go.
        settings: the guardian's.
        before: the training before this run's.
    """

    def __init__(
        self,
        runner: Runner,
        writer: ArtifactWriter,
        settings: GuardianSettings,
        before: LastTraining | None = None,
    ) -> None:
        self._before = before
        self._runner = runner
        self._writer = writer
        self._settings = settings
        self._dashboard: Dashboard | None = None
        self._written = 0.0

    def execute(self, task: Task) -> Artifact:
        """Do the task and tell of it.

        Raises:
            AIForgeError: what a stage raises; the same call continues.
        """
        acts: dict[type[Task], Callable[[], Artifact]] = {
            ExtractDataTask: self._extract,
            ValidateDataTask: self._validate_data,
            TrainTask: self._train,
            ValidateModelTask: self._validate_model,
            ExportTask: self._export,
            DeployTask: self._deploy,
        }
        act = acts.get(type(task))
        if act is None:
            raise InternalError(f"{type(task).__name__} is not a task of one run.")
        with self._runner:
            return act()

    def heard(self, event: Event) -> None:
        """Keep the page of a training at work current."""
        if self._dashboard is None:
            return
        self._dashboard = self._dashboard.after(event)
        if time.monotonic() - self._written >= REWRITE_S:
            self._write_dashboard()

    # -- data -----------------------------------------------------------------------------------------------------------

    def _extract(self) -> Artifact:
        names = [stage.name for stage in self._runner.stages]
        wanted = [name for name in ExtractDataTask.stages if name in names] or ["dataset"]
        texts = [f"{name}: {self._runner.run_until(name).summary.sentence()}" for name in wanted]
        data = DataQuality(
            status="extracted", headline="; ".join(texts), figures=(), recommendations=("The scores follow.",)
        )
        return self._writer.write("data_quality", "done", "; ".join(texts), data)

    def _validate_data(self) -> Artifact:
        from ai_forge.data_pipeline.validator import assess

        summary = self._runner.run_until("dataset").summary
        if not isinstance(summary, DatasetSummary):  # pairs of rules and an owner's own examples have no such scores
            data = DataQuality(
                status="passed",
                headline=summary.sentence(),
                figures=(),
                recommendations=("These examples are not scored.",),
            )
            return self._writer.write("data_quality", "passed", summary.sentence(), data)
        outputs = self._runner.outputs()
        examples = [example for side in SIDES for example in self._runner.opened.examples(outputs, side)]
        made = assess(examples, self._runner.run.settings.validator)
        rows = [{"id": example.id, **vars(scores)} for example, scores in zip(examples, made.scores, strict=True)]
        atomic_write(
            self._writer.folder / "example_scores.jsonl",
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        )
        advice = outputs.summary("mine", MineSummary).advice
        before = None if self._before is None else known_to(self._before)
        documentation = Documentation(now=_speaks(known_in(self._index())), before=_speaks(before))
        data = DataQuality.of(examples, made, summary.rejected, self._settings, advice, documentation)
        return self._writer.write(
            "data_quality", "passed" if data.status == "passed" else "refused", data.headline, data
        )

    def _index(self) -> Path:
        self._runner.run_until("index")
        return self._runner.outputs().folder("index")

    # -- the model ------------------------------------------------------------------------------------------------------

    def _train(self) -> Artifact:
        from ai_forge.pipeline.stages.train import adapter_stage

        self._dashboard = Dashboard(status="running", stop=f"ai-forge guardian stop {self._runner.run.repository}")
        self._write_dashboard()
        ending = "stopped; the same cycle continues it"
        try:
            result = self._runner.run_until(adapter_stage(self._runner.outputs()))
            ending = result.summary.sentence()
        finally:
            self._dashboard = self._dashboard.model_copy(update={"status": ending, "eta": None})
            artifact = self._write_dashboard(done=True)
            self._dashboard = None
        return artifact

    def _write_dashboard(self, *, done: bool = False) -> Artifact:
        assert self._dashboard is not None, "a training is at work"
        self._written = time.monotonic()
        picture = None
        with contextlib.suppress(KeyError, OSError, LookupError):
            for path in self._loss_curves():
                picture = path.read_bytes()
        refresh_s = None if done else 10
        status: Status = "done" if done else "running"
        return self._writer.write(
            "training_dashboard", status, self._dashboard.status, self._dashboard, picture=picture, refresh_s=refresh_s
        )

    def _loss_curves(self) -> list[Path]:
        """The picture of the training, at work or finished."""
        rows = [row for row in self._runner.plan() if row.name == "train" and row.key is not None]
        folders = [
            self._runner.workspace.stage_folder("train", name)
            for row in rows
            for name in (f"{row.key}.work", str(row.key))
        ]
        return [folder / "loss.png" for folder in folders if (folder / "loss.png").is_file()]

    def _validate_model(self) -> Artifact:
        report = self._report()
        actions.link_results(self._runner)
        status = "passed" if report.better else "refused"
        checks = tuple(CheckRow.of(check.name, check.passed, check.text) for check in report.checks)
        data = Validation(
            status=status,
            headline=report.headline,
            checks=checks,
            rows=self._contenders(),
            probes=(probes := self._probes()),
            kept=_kept(probes),
            report=str(self._runner.folder / report.file),
        )
        return self._writer.write("validation_report", "passed" if report.better else "refused", report.headline, data)

    def _report(self) -> ReportSummary:
        summary = self._runner.run_until("report").summary
        assert isinstance(summary, ReportSummary)
        return summary

    def _contenders(self) -> tuple[ContenderRow, ...]:
        """The table of the verdict; nothing for recipes that are judged otherwise."""
        if self._runner.run.recipe != "repository":
            return ()
        from ai_forge.judge.evaluation import Evaluation
        from ai_forge.judge.verdict import in_words, judge
        from ai_forge.pipeline.stages.evaluate import FILE

        evaluation = self._runner.outputs().read("evaluate", FILE, Evaluation)
        rows = judge(evaluation, self._runner.run.settings.judge).rows
        return tuple(
            ContenderRow(
                who=row.contender,
                loss=in_words(row.answer_loss, ".3f"),
                citations=in_words(row.citations, ".0%"),
                facts=in_words(row.facts, ".0%"),
            )
            for row in rows
        )

    def _probes(self) -> tuple[ProbeRow, ...]:
        """What base, the version before and this one make of each probe of a handbook; nothing for other recipes."""
        if self._runner.run.recipe != "handbook":
            return ()
        from ai_forge.judge.compliance import Compliance
        from ai_forge.pipeline.stages.handbook import ANSWERS

        answers = self._runner.outputs().read("evaluate", ANSWERS, Compliance).answers
        before: dict[str, bool] = {}
        run = None if self._before is None else read_run(self._folder_of(self._before.version))
        if run is not None:
            with contextlib.suppress(NotMadeError):  # cleaned away since
                kept = Runner(run, self._runner.workspace).outputs().read("evaluate", ANSWERS, Compliance)
                before = {answer.probe.id: answer.tuned_passes for answer in kept.answers}
        return tuple(
            ProbeRow(
                rule=answer.probe.rule,
                base=KEEPS[answer.base_passes],
                before=KEEPS[before.get(answer.probe.id)],
                tuned=KEEPS[answer.tuned_passes],
            )
            for answer in answers
        )

    def _folder_of(self, version: str) -> Path:
        return self._runner.workspace.runs_dir / version

    # -- deployment -----------------------------------------------------------------------------------------------------

    def _export(self) -> Artifact:
        runner = self._runner
        self._report()
        gguf = gguf_of(runner.run, runner.outputs())
        try:
            modelfile = str(actions.write_modelfile(runner))
        except InputError as error:  # the embedded runtime follows any template
            modelfile = f"none: {error.message}"
        checks = (
            CheckRow.of("model file", True, f"{gguf.name}, {gguf.stat().st_size / 1e6:.0f} MB"),
            CheckRow.of("SHA-256", True, file_sha256(gguf)),
            CheckRow.of("Modelfile", True, modelfile),
            *self._parity_rows(),
        )
        text = f"{gguf.name}, {gguf.stat().st_size / 1e6:.0f} MB"
        return self._checklist("done", f"exported, not deployed yet: {text}", checks)

    def _parity_rows(self) -> tuple[CheckRow, ...]:
        summary = self._runner.outputs().summary("parity", ParitySummary)
        from ai_forge.pipeline.stages.parity import parity_of

        passed = True
        try:
            parity_of(self._runner.outputs()).require()
        except RefusedError:
            passed = False
        return tuple(CheckRow.of(f"parity: {name}", passed, str(value)) for name, value in summary.rows.items())

    def _deploy(self) -> Artifact:
        runner, run = self._runner, self._runner.run
        report = self._report()
        checks = [CheckRow.of(f"verdict: {check.name}", check.passed, check.text) for check in report.checks]
        checks += self._parity_rows()
        was_withdrawn = run.id in withdrawn(run.model, runner.workspace)
        checks.append(
            CheckRow.of(
                "not rolled back before", not was_withdrawn, "a version that was taken back is not deployed again"
            )
        )
        held = None
        if not report.better:
            held = report.headline
        elif was_withdrawn:
            held = "this very version was rolled back before"
        elif run.settings.runtime.deploy == "never":
            held = "runtime.deploy is never"
        if held is None:
            against = rows_against_active(runner)
            checks += against
            worse = [f"{row.name} ({row.text})" for row in against if row.failed]
            if worse:
                held = f"surely worse than what is deployed: {', '.join(worse)}"
        if held is not None:
            return self._checklist("held back", f"not deployed: {held}", tuple(checks))
        try:
            deployed = actions.deploy(runner)
        except RefusedError as error:
            checks.append(CheckRow.of("answers in its runtime", False, error.message))
            return self._checklist("held back", f"not deployed: {error.message}", tuple(checks))
        self._keep_expected()
        runtime = deployed.activation.runtime
        # Ollama computes with another build of llama.cpp, where near ties turn round: there it is asked whether it answers at all
        answers = "its first words are the trainer's" if runtime == "embedded" else "it answers"
        checks += [
            CheckRow.of("prompt in its runtime", True, f"{runtime} makes the trainer's prompt"),
            CheckRow.of("answers in its runtime", True, answers),
            CheckRow.of("index of its own", True, "it answers from the code that it was trained on"),
        ]
        return self._checklist("deployed", f"{run.model}:{run.id} is active ({runtime})", tuple(checks))

    def _keep_expected(self) -> None:
        """What the trainer's model begins to answer, kept with the version: a watch asks the served one the same."""
        run, workspace = self._runner.run, self._runner.workspace
        rows = [vars(answer) for answer in actions.expected_answers(self._runner)]
        atomic_write(workspace.served_dir / run.model / run.id / "expected.json", json.dumps(rows, ensure_ascii=False))

    def _checklist(self, status: Status, headline: str, checks: tuple[CheckRow, ...]) -> Artifact:
        runner, run = self._runner, self._runner.run
        with Registry(runner.workspace.registry_path) as registry:
            active, before = registry.active(run.model), registry.previous(run.model)
        data = Checklist(
            status=status,
            headline=headline,
            checks=checks,
            active=f"{run.model}:{active.version}" if active else "none",
            before=f"{run.model}:{before.version}" if before else "none",
            rollback=rollback_line(runner),
        )
        return self._writer.write("deployment_checklist", status, headline, data)
