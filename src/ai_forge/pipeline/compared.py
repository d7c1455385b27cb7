"""Finding what was measured of two models, whatever names them: a run, a deployed model, or one version of it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ai_forge.errors import InputError
from ai_forge.events import Sink, ignore
from ai_forge.pipeline.rivals import evaluate_rival, is_rival
from ai_forge.pipeline.run import RECORD, Run, read_record, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.runs import run_folder, runs_of
from ai_forge.pipeline.stage import NotMadeError
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.pipeline.stages.evaluate import FILE
from ai_forge.pipeline.stages.export import gguf_of
from ai_forge.wording import local_time
from ai_forge.workspace import MANIFEST, Workspace, read_json, whole_manifest

if TYPE_CHECKING:
    from ai_forge.judge.comparison import Comparison, Side
    from ai_forge.judge.evaluation import Evaluation

LINK = "evaluation"  # in a run's folder, see `actions.link_results`


def compare_runs(first: str, second: str, workspace: Workspace, emit: Sink = ignore) -> Comparison:
    """The comparison of what `first` and `second` name; a `second` that is no run of ours is asked now (`rivals`).

    Raises:
        InputError: a name that is none, a run that was not evaluated, the same run twice.
    """
    from ai_forge.judge.comparison import compare

    if is_rival(first):
        raise InputError(f"{first} is no run, whose questions could be asked.", "name it second, and a run first.")
    run = _run_named(first, workspace)
    one, of_one = _measured(run, workspace)
    if is_rival(second):
        runner = Runner(run, workspace, emit)
        other, of_other = evaluate_rival(second, runner.context("compare", runner.folder), of_one)
    else:
        rival = _run_named(second, workspace)
        if rival.id == run.id:
            raise InputError(f"{first} and {second} are the same run, {run.id}.", "ai-forge runs lists the others.")
        other, of_other = _measured(rival, workspace)
    judged = run.settings.judge
    return compare(one, other, (of_one, of_other), confidence=judged.confidence, seed=judged.seed)


def _run_named(named: str, workspace: Workspace) -> Run:
    """The run with this id; or that made this version (NAME:VERSION), or the version of this model that is active (NAME)."""
    from ai_forge.serving.registry import Registry

    name, _, version = named.partition(":")
    folder = run_folder(workspace, version or name)
    if folder is None and not version:
        with Registry(workspace.registry_path) as registry:
            active = registry.active(name)
        folder = None if active is None else run_folder(workspace, active.version)
    run = None if folder is None else read_run(folder)
    if run is None and folder is not None:
        raise InputError(
            f"What {named} is cannot be told: {folder / RECORD} is damaged, missing or of another version of AI Forge.",
            "the same `ai-forge run` as then writes it again.",
        )
    if run is None or (version and run.model != name):
        known = ", ".join(f"{one.model}:{one.run_id}" for one in runs_of(workspace, 8)) or "none"
        raise InputError(f"There is no run and no deployed model {named!r}. The newest runs: {known}.", "ai-forge runs")
    return run


def _measured(run: Run, workspace: Workspace) -> tuple[Side, Evaluation]:
    from ai_forge.judge.comparison import Side
    from ai_forge.judge.evaluation import TUNED, Evaluation
    from ai_forge.judge.verdict import judge

    if run.recipe != "repository":
        raise InputError(
            f"{run.model}:{run.id} is of the recipe {run.recipe}; only models of a repository are asked alike.",
            "its own report compares it with its base: ai-forge runs.",
        )
    runner = Runner(run, workspace)
    outputs = runner.outputs()
    n_train: int | None
    try:
        evaluation = outputs.read("evaluate", FILE, Evaluation)
        n_train = outputs.summary("dataset", DatasetSummary).train
    except NotMadeError:
        # what the evaluation was made of may be gone or damaged, and it is whole itself
        folder = _kept_evaluation(runner)
        if folder is None:
            raise _not_measured(run, workspace) from None
        evaluation = Evaluation.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        counts = (read_json(runner.folder / "dataset" / MANIFEST) or {}).get("counts", {})
        n_train = counts.get("train") if isinstance(counts, dict) else None
    verdict = judge(evaluation, run.settings.judge)
    record = read_record(workspace.runs_dir / run.id) or {}
    side = Side(
        run_id=run.id,
        model=run.model,
        created=local_time(str(record.get("created"))),
        commit=run.commit,
        base=str(record.get("base", {}).get("name")),
        decision=verdict.decision,
        headline=verdict.headline,
        n_questions=len(evaluation.of(TUNED)) + evaluation.people.n_asked,
        n_train=n_train,
        settings=_as_text(run),
    )
    return side, evaluation


def _kept_evaluation(runner: Runner) -> Path | None:
    """Where the run's folder says that its evaluation lies, if it is whole and of this version of the stage.

    What an older AI Forge measured is no comparison with what a newer one measures.
    """
    folder = runner.folder / LINK
    manifest = whole_manifest(folder) if folder.is_dir() else None
    version = next((stage.version for stage in runner.stages if stage.name == "evaluate"), None)
    return folder if manifest is not None and manifest.get("version") == version else None


def _not_measured(run: Run, workspace: Workspace) -> InputError:
    known = (read_run(workspace.runs_dir / one.run_id) for one in runs_of(workspace, 20) if one.run_id != run.id)
    others = [one for one in known if one is not None and _kept_evaluation(Runner(one, workspace)) is not None]
    file = _file_of(run, workspace)
    again = f"the same `ai-forge evaluate {run.repository}` as then measures it again, where the files there are as they were."
    steps = []
    if others and file is not None:  # the one way that always helps: its repository may be another by now
        steps.append(f"have its model asked what {others[0].id} was asked: ai-forge compare {others[0].id} {file}")
    if len(others) > 1:
        steps.append(f"compare two that are: ai-forge compare {others[1].id} {others[0].id}")
    return InputError(
        f"{run.model}:{run.id} is not evaluated, or its evaluation is damaged or by another version of AI Forge.",
        "; or ".join([*steps, again]),
    )


def _file_of(run: Run, workspace: Workspace) -> Path | None:
    """The model that a run made, where it is still there."""
    from ai_forge.serving.registry import Registry

    with Registry(workspace.registry_path) as registry:
        deployed = [version.deployment for version in registry.versions()]
    files = [one.gguf_path for one in deployed if (one.name, one.version) == (run.model, run.id)]
    with suppress(NotMadeError):
        files.append(gguf_of(run, Runner(run, workspace).outputs()))
    return next((file for file in files if file.is_file()), None)


def _as_text(run: Run) -> dict[str, str]:
    found = {}
    for part, values in run.settings.model_dump(mode="json").items():
        for name, value in values.items():
            found[f"{part}.{name}"] = json.dumps(value)
    return found
