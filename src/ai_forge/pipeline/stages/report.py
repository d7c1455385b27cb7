"""Stage `report` of the recipe `repository`: the verdict, and `report.html` with the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ai_forge.code_hash import code_hash
from ai_forge.pipeline.run import read_record
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.pipeline.stages.evaluate import FILE, SPEED_FILE
from ai_forge.pipeline.stages.mine import MineSummary
from ai_forge.pipeline.stages.parity import ParitySummary
from ai_forge.pipeline.stages.train import TrainSummary
from ai_forge.wording import local_time
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from ai_forge.judge.verdict import Verdict
    from ai_forge.pipeline.run import Run


class CheckSummary(Summary):
    """One condition of the gate; `passed` is None where it could not be scored."""

    name: str
    passed: bool | None
    text: str


class ReportSummary(Summary):
    """The verdict, and which file to read."""

    headline: str
    better: bool
    checks: tuple[CheckSummary, ...]
    file: str
    decision: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...] = ()

    def sentence(self) -> str:
        """In a few words."""
        return self.headline


def summary_of(verdict: Verdict, file: str) -> ReportSummary:
    """What the stage says of a verdict whose report is `file`."""
    checks = tuple(CheckSummary.model_validate(vars(check)) for check in verdict.checks)
    return ReportSummary(
        headline=verdict.headline,
        better=verdict.better,
        checks=checks,
        file=file,
        decision=verdict.decision,
        reasons=verdict.reasons,
    )


MEASURED = ("dataset", "train", "evaluate", "parity")


def report_stage(
    build: Callable[[StageContext], ReportSummary], made_of: tuple[str, ...], also_told: tuple[str, ...] = ()
) -> Stage:
    """The stage `report` of a recipe, which `build` writes with the code of `made_of`; `also_told` are other stages that it
    tells of."""

    def inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
        measured = {name: outputs.key(name) for name in MEASURED}
        # written anew whenever its code changes, not by version: it takes a moment, and nothing depends on it
        return {**measured, "run": run.id, "judge": run.settings.judge.model_dump(), "code": code_hash(*made_of)}

    return Stage("report", (*MEASURED, *also_told), 1, inputs, build, ReportSummary, made_of)


def _build(context: StageContext) -> ReportSummary:
    from ai_forge.judge.evaluation import BASE_AS_SERVED, TUNED, Evaluation
    from ai_forge.judge.evaluation_report import EvaluationReport, improvements, interval, people_of, perplexity_of
    from ai_forge.judge.looked import ServedSpeed
    from ai_forge.judge.named import named_figures, not_measured, perplexities_of
    from ai_forge.judge.report import ReportData, unknowns, write_report
    from ai_forge.judge.verdict import judge
    from ai_forge.training.record import TrainingRecord

    run, outputs = context.run, context.outputs
    base = context.opened.base
    # when the run began, of its folder: the same report is written again without another time in it
    record = read_record(context.workspace.runs_dir / run.id) or {}
    training = TrainingRecord.read(outputs.folder("train"))
    evaluation = outputs.read("evaluate", FILE, Evaluation)
    speed = outputs.read("evaluate", SPEED_FILE, ServedSpeed)
    verdict = judge(evaluation, run.settings.judge)
    values = ReportData(
        repository=run.repository_name,
        commit=run.commit,
        run_id=run.id,
        created=local_time(str(record.get("created", ""))),
        base={
            "name": base.name,
            "description": base.origin.description,
            "lossy": base.origin.lossy,
            "quantisation": base.origin.quantization,
        },
        counts=_counts(context),
        training=training,
        evaluation=evaluation,
        verdict=verdict,
        parity=outputs.summary("parity", ParitySummary).rows,
        unknowns=unknowns(training, base.origin),
        max_new_tokens=run.settings.judge.max_new_tokens,
        model=run.model,
        speed=speed,
    )
    write_report(context.folder, values)
    measures = {
        name: named_figures(evaluation, name, run.settings.judge.confidence) for name in (BASE_AS_SERVED, TUNED)
    }
    hallucinated = measures[TUNED]["hallucination rate"]
    summary = EvaluationReport(
        model_name=run.model,
        base_model=base.name,
        training_date=str(record["created"]),
        num_training_examples=outputs.summary("dataset", DatasetSummary).train,
        num_eval_examples=len(evaluation.of(TUNED)),
        decision=verdict.decision,
        headline=verdict.headline,
        reasons=verdict.reasons,
        people=people_of(evaluation, verdict),
        perplexity=perplexity_of(evaluation),
        hallucination_rate=None if hallucinated is None else hallucinated.value,
        measures={name: {key: interval(e) for key, e in each.items()} for name, each in measures.items()},
        perplexities={name: perplexities_of(evaluation.of(name)) for name in measures},
        speed=speed,
        not_measured=not_measured(run.model),
        improvement_over_base=improvements(verdict),
        figures={
            row.contender: {name: interval(value) for name, value in vars(row).items() if name != "contender"}
            for row in verdict.rows
        },
        confidence=verdict.confidence,
        loss_curve="pictures/loss_curve.png",
        metric_distribution="pictures/loss_distribution.png",
    )
    atomic_write(context.folder / "report.json", summary.model_dump_json(indent=1))
    return summary_of(verdict, "report.html")


def _counts(context: StageContext) -> list[tuple[str, str]]:
    outputs = context.outputs
    mined, data = outputs.summary("mine", MineSummary), outputs.summary("dataset", DatasetSummary)
    left_out = ", ".join(f"{reason} {n}" for reason, n in data.rejected.items())
    rows = [
        ("mined", f"{mined.documents} blocks in {mined.files} files, {mined.subjects} asked about"),
        ("split", data.split.rule),
        ("examples", data.sentence()),
        ("left out", left_out or "none"),
    ]
    if "prefer" in outputs:
        phase = outputs.summary("prefer", TrainSummary)
        losses = f"held-out loss {phase.first_loss:.3f} → {phase.last_loss:.3f}"
        rows.append(("second phase", f"preference pairs ({context.run.settings.training.dpo_loss}), {losses}"))
    return rows


REPORT = report_stage(
    _build, ("ai_forge.judge.report", "ai_forge.judge.evaluation_report"), also_told=("mine", "prefer")
)
