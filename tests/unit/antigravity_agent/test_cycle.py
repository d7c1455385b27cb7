"""Cycles of a tiny base: tasks and artifacts, what is deployed and what is not, stopping, joining, trying again."""

import dataclasses
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.antigravity_agent import RepoGuardian, repo_guardian
from ai_forge.antigravity_agent.after_deployment import broken, take_back_if_broken
from ai_forge.antigravity_agent.cycle import CycleStore, guardians_of
from ai_forge.antigravity_agent.tasks import KINDS, SummaryTask, TrainTask
from ai_forge.cancel import CancelToken
from ai_forge.errors import TransientError
from ai_forge.events import Event, Notice, Sink, StageStarted, StepLogged, ignore
from ai_forge.pipeline import actions
from ai_forge.pipeline.recipes import REPOSITORY, Recipe
from ai_forge.pipeline.stage import StageContext, Summary
from ai_forge.pipeline.stages.report import ReportSummary
from ai_forge.serving.registry import Registry
from ai_forge.serving.served_model import ServedModel
from cli_runs import SETTINGS, TinyRun, copy_of

NAMES = ["extract_data", "validate_data", "train", "validate_model", "export", "deploy"]


@pytest.fixture
def run(finished: TinyRun, tmp_path: Path) -> TinyRun:
    return copy_of(finished, tmp_path)


def guardian_of(
    run: TinyRun,
    emit: Sink = ignore,
    *,
    recipe: Recipe | None = None,
    cancel: CancelToken | None = None,
    **settings: object,
) -> RepoGuardian:
    chosen = SETTINGS | {"training.base_model": str(run.base), "runtime.deploy": "if-better", "guardian.desktop": False}
    chosen |= {key.replace("__", ".", 1): value for key, value in settings.items()}
    project = {"repository": run.repo, "home": run.home, "settings": chosen}
    return RepoGuardian(project, emit=emit, recipe=recipe, cancel=cancel)


def with_stage(name: str, build: Callable[[StageContext], Summary]) -> Recipe:
    """The repository's recipe with another way to build a stage, under another key."""
    stages = tuple(
        dataclasses.replace(stage, build=build, version=1_000) if stage.name == name else stage
        for stage in REPOSITORY.stages
    )
    return dataclasses.replace(REPOSITORY, stages=stages)


def original(name: str) -> Callable[[StageContext], Summary]:
    return next(stage.build for stage in REPOSITORY.stages if stage.name == name)


def promoting() -> Recipe:
    """A recipe whose verdict is always yes: random weights learn nothing that a judge would see."""

    def build(context: StageContext) -> Summary:
        made = original("report")(context)
        assert isinstance(made, ReportSummary)
        return made.model_copy(update={"better": True, "headline": "Better than the base: as the test says."})

    return with_stage("report", build)


def change(run: TinyRun) -> None:
    path = run.repo / "bisect.py"
    path.write_text(
        path.read_text() + '\n\ndef added(value: int) -> int:\n    """Add one to the value."""\n    return value + 1\n'
    )


def active(run: TinyRun, model: str = "repo") -> str | None:
    with Registry(run.home / "registry.db") as registry:
        found = registry.active(model)
    return found.version if found else None


def test_a_plan_has_the_tasks_in_order_and_an_estimate_from_past_runs(run: TinyRun) -> None:
    change(run)
    plan = guardian_of(run).plan_training_cycle()
    assert [type(task) for task in plan.plan] == list(KINDS)
    assert plan.estimated_duration is not None
    assert 0 < plan.estimated_duration < 600
    by_kind = {type(task): task for task in plan.tasks}
    assert (by_kind[TrainTask].expected_s or 0) > 0
    again = guardian_of(run).plan_training_cycle()
    assert again.run.id == plan.run.id


def test_a_model_that_is_not_better_is_not_deployed_and_every_artifact_says_so(run: TinyRun) -> None:
    before = active(run)
    change(run)
    record = guardian_of(run).run_cycle("a test")
    assert record is not None
    assert (record.state, record.error) == ("held back", None)
    assert [task.name for task in record.tasks] == NAMES[:4]
    assert record.tasks[-1].state == "no"
    assert active(run) == before
    folder = run.home / "runs" / record.run_id / "artifacts"
    assert {path.name for path in folder.glob("*.md")} == {
        *("training_dashboard.md", "data_quality.md", "validation_report.md", "cycle_summary.md")
    }
    assert {path.stem for path in folder.glob("*.html")} == {path.stem for path in folder.glob("*.md")}
    assert "**held back**: Not shown to be better" in (folder / "cycle_summary.md").read_text()
    assert "Why it ran: a test" in (folder / "cycle_summary.md").read_text()
    assert "base + retrieval + worked examples" in (folder / "validation_report.md").read_text()
    assert "0 of 20 files changed" not in guardian_of(run).monitor_repository().reason
    assert guardian_of(run).monitor_repository().reason == "nothing changed"
    (view,) = guardians_of(guardian_of(run).workspace)
    assert (view.name, view.reason) == ("repo", "a test")
    assert view.state.startswith("held back: Not shown to be better")


def answer(run: TinyRun) -> str:
    """What the deployed model says to a fixed question."""
    guardian = guardian_of(run)
    with ServedModel.open("repo", guardian.workspace, guardian.project.settings.runtime) as model:
        return "".join(model.ask("What does `bisect_left` do?"))


def test_a_better_model_is_deployed_and_what_was_rolled_back_is_not_deployed_again(run: TinyRun) -> None:
    before, said = active(run), answer(run)
    assert said
    change(run)
    record = guardian_of(run, recipe=promoting()).run_cycle()
    assert record is not None
    assert [(task.name, task.state) for task in record.tasks] == [(name, "done") for name in NAMES]
    assert (record.state, active(run)) == ("deployed", record.run_id)
    checklist = (run.home / "runs" / record.run_id / "artifacts" / "deployment_checklist.md").read_text()
    assert f"`ai-forge rollback {run.repo}`" in checklist
    assert f"Before it: `repo:{before}`" in checklist
    guardian = guardian_of(run, recipe=promoting())
    assert broken(guardian) is None
    actions.rollback("repo", guardian.project.settings.runtime, guardian.workspace)
    assert answer(run) == said, "byte for byte"
    again = guardian.run_cycle()
    assert again is not None
    assert (again.state, again.text) == ("held back", "not deployed: this very version was rolled back before")
    assert (active(run), answer(run)) == (before, said)


def test_a_deployed_version_that_answers_otherwise_is_taken_back(run: TinyRun) -> None:
    before = active(run)
    change(run)
    record = guardian_of(run, recipe=promoting()).run_cycle()
    assert record is not None
    expected = run.home / "served" / "repo" / record.run_id / "expected.json"
    expected.write_text('[{"prompt": "def f", "text": "something that it never says"}]')
    told = take_back_if_broken(guardian_of(run))
    assert told is not None
    assert f"repo:{before} is active again" in told
    assert active(run) == before


def test_data_below_the_mean_quality_is_not_trained_on_and_not_tried_again_until_something_changes(
    run: TinyRun,
) -> None:
    change(run)
    heard: list[Event] = []
    record = guardian_of(run, heard.append, guardian__min_quality=1.0).run_cycle()
    assert record is not None
    assert (record.state, [task.name for task in record.tasks]) == ("refused", NAMES[:2])
    assert not [event for event in heard if isinstance(event, StageStarted) and event.stage == "train"]
    page = (run.home / "runs" / record.run_id / "artifacts" / "data_quality.md").read_text()
    assert "**refused**: mean quality" in page
    assert "at least 1.00" in page
    decision = guardian_of(run, guardian__min_files=1).monitor_repository()
    assert (decision.should_retrain, decision.reason) == (
        False,
        "nothing changed since the last cycle, which was refused",
    )
    (run.repo / "heapq.py").write_text("# gone\n")
    assert guardian_of(run, guardian__min_files=1).monitor_repository().should_retrain


def test_a_cycle_that_is_stopped_is_continued_where_it_was(run: TinyRun) -> None:
    change(run)
    heard: list[Event] = []

    def emit(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StepLogged) and event.step == 1:
            assert guardian.cycles.ask_to_stop()

    guardian = guardian_of(run, emit)
    record = guardian.run_cycle()
    assert record is not None
    assert (record.state, record.error) == ("cancelled", "cancelled")
    assert [(task.name, task.state) for task in record.tasks][-1] == ("train", "cancelled")
    assert not guardian_of(run, guardian__min_files=1).monitor_repository().should_retrain
    heard.clear()
    again = guardian_of(run, heard.append).run_cycle()
    assert again is not None
    assert (again.run_id, again.state) == (record.run_id, "held back")
    assert [event.step for event in heard if isinstance(event, StepLogged)] == [2, 3]


def test_a_newer_trigger_joins_the_one_that_waits_and_one_cycle_follows(run: TinyRun) -> None:
    change(run)
    began, go_on, states = threading.Event(), threading.Event(), list[str]()

    def emit(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "dataset":
            began.set()
            assert go_on.wait(60)

    def work() -> None:
        record = guardian_of(run, emit).run_cycle("the first")
        states.append(record.reason if record else "joined")

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(60)
    assert guardian_of(run).cycles.is_working
    assert guardian_of(run).run_cycle("a second") is None
    assert guardian_of(run).run_cycle("a third") is None
    go_on.set()
    thread.join(120)
    assert states == ["a second; a third"]
    store = CycleStore(guardian_of(run).workspace, run.repo, "repository")
    assert [record.reason for record in store.history()] == ["the first", "a second; a third"]
    assert (store.asked(), store.is_working) == (None, False)


def test_what_may_succeed_later_is_tried_again_and_what_may_not_fails(
    run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repo_guardian, "RETRY_WAIT_S", 0.0)
    change(run)
    tries = list[int]()

    def flaky(context: StageContext) -> Summary:
        tries.append(len(tries))
        if len(tries) < 3:
            raise TransientError("The service went away.", "try again.")
        return original("export")(context)

    record = guardian_of(run, recipe=with_stage("export", flaky)).run_cycle()
    assert record is not None
    assert (record.state, len(tries)) == ("held back", 3)

    def dead(context: StageContext) -> Summary:
        tries.append(len(tries))
        raise TransientError("The service went away.", "start it.")

    tries.clear()
    heard: list[Event] = []
    guardian = guardian_of(run, heard.append, recipe=with_stage("parity", dead))
    record = guardian.run_cycle()
    assert record is not None
    assert (record.state, record.error, record.next_step, len(tries)) == ("failed", "try_again", "start it.", 3)
    assert [task.state for task in record.tasks] == ["done", "done", "done", "failed"]
    told = [
        event.message for event in heard if isinstance(event, Notice) and "Trying validate_model again" in event.message
    ]
    assert len(told) == 2


def test_a_repository_that_changes_while_it_is_read_is_planned_anew(run: TinyRun) -> None:
    change(run)
    ids = list[str]()

    def emit(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "mine":
            ids.append(event.stage)
            if len(ids) == 1:
                change(run)

    guardian = guardian_of(run, emit)
    first = guardian.plan_training_cycle().run.id
    record = guardian.run_cycle()
    assert record is not None
    assert record.state == "held back"
    assert record.run_id != first


def test_tasks_are_executed_one_by_one_and_again_without_work(run: TinyRun) -> None:
    guardian = guardian_of(run)
    plan = guardian.plan_training_cycle()
    names = [guardian.execute_task(task).name for task in plan.tasks if not isinstance(task, SummaryTask)]
    assert names == [
        *("data_quality", "data_quality", "training_dashboard"),
        *("validation_report", "deployment_checklist", "deployment_checklist"),
    ]
    other_process = guardian_of(run)
    for task in plan.tasks[:4]:
        artifact = other_process.execute_task(task)
        assert artifact.markdown.is_file()
        assert artifact.html.read_text().startswith("<!doctype html>")


def test_a_base_that_is_missing_fails_the_cycle_with_its_message(run: TinyRun) -> None:
    record = guardian_of(run, training__base_model=str(run.home / "no-such-base")).run_cycle()
    assert record is not None
    assert (record.state, record.error) == ("failed", "bad_input")
    assert "no-such-base" in record.text


def test_artifacts_go_where_agents_look_only_where_that_is_asked(run: TinyRun) -> None:
    guardian = guardian_of(run)
    guardian.execute_task(guardian.plan_training_cycle().tasks[1])
    assert not (run.repo / ".agents").exists()
    asked = guardian_of(run, guardian__agent_artifacts=True)
    asked.execute_task(asked.plan_training_cycle().tasks[1])
    assert [path.name for path in (run.repo / ".agents/artifacts").iterdir()] == ["ai-forge-data-quality.md"]


def test_documentation_that_no_longer_speaks_of_its_code_is_not_trained_on(run: TinyRun) -> None:
    for path in run.repo.rglob("*.py"):
        text = path.read_text()
        path.write_text(re.sub(r'(""").*?(""")', r"\1Banana potato kitten, banana potato.\2", text, flags=re.S))
    record = guardian_of(run).run_cycle()
    assert record is not None
    assert record.state == "refused", record.text
    assert "documentation speaks of its code in" in record.text
    allowed = guardian_of(run, guardian__max_documentation_fall=1.0)
    assert allowed.execute_task(allowed.plan_training_cycle().tasks[1]).passed


def test_the_deployed_models_loss_on_changed_code_is_measured_where_there_is_time(run: TinyRun) -> None:
    assert guardian_of(run, guardian__loss_budget_s=60.0).observe().loss_rise is None, "nothing changed"
    change(run)
    assert guardian_of(run).observe().loss_rise is None, "it was not asked for"
    code = guardian_of(run, guardian__loss_budget_s=60.0).observe().loss_rise
    assert code is not None
    assert -0.9 < code < 5
    (run.repo / "bisect.py").write_text(
        "".join(f'q{index} = "{index * 7919 % 10007}zq{index}"\n' for index in range(60))
    )
    noise = guardian_of(run, guardian__loss_budget_s=60.0).observe().loss_rise
    assert noise is not None
    assert noise > code, "what the model has never seen the like of is harder to predict"
    decision = guardian_of(run, guardian__loss_budget_s=60.0, guardian__max_loss_rise=noise / 2).monitor_repository()
    assert decision.should_retrain is (noise > 0)
    assert guardian_of(run, guardian__loss_budget_s=1e-6).observe().loss_rise is None, "no time, no figure"
