"""`RepoGuardian`: keeps the model of a repository fresh. Observe → decide → act.

    monitor_repository    observe and decide: whether to retrain, why, and the figures      (changes nothing)
    plan_training_cycle   the tasks of a cycle on the repository as it is, and how long they take
    execute_task          one task, on stages of the runner; its artifact
    run_cycle             all of it: at most one at a time, continued where it was cut off, told how it ended

What it decides is a pure function of what it saw and the settings; the text of a repository is data and never steers it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ai_forge.antigravity_agent.artifact_data import Summary, TaskRow
from ai_forge.antigravity_agent.artifacts import Artifact, ArtifactWriter
from ai_forge.antigravity_agent.cycle import CycleRecord, CycleStore, TaskRecord, TaskState, wait
from ai_forge.antigravity_agent.decide import Decision, decide
from ai_forge.antigravity_agent.execute import Executor
from ai_forge.antigravity_agent.notify import notify
from ai_forge.antigravity_agent.observing.handbook_changes import observe_handbook, write_pairs
from ai_forge.antigravity_agent.observing.observe import Observation, observe
from ai_forge.antigravity_agent.observing.todays_loss import loss_rise
from ai_forge.antigravity_agent.observing.trained import last_training
from ai_forge.antigravity_agent.project import ProjectConfig
from ai_forge.antigravity_agent.tasks import (
    CyclePlan,
    ExtractDataTask,
    SummaryTask,
    Task,
    ValidateDataTask,
    kind_of,
    past_seconds,
    tasks_of,
)
from ai_forge.cancel import CancelToken
from ai_forge.config import GuardianSettings
from ai_forge.errors import AIForgeError, CancelledError, InputError, InternalError, TransientError
from ai_forge.events import Event, Notice, Sink, ignore
from ai_forge.pipeline import actions
from ai_forge.pipeline.recipes import Recipe
from ai_forge.pipeline.run import Run, new_run, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.places import expanded
from ai_forge.wording import duration

__all__ = ["RepoGuardian"]

Clock = Callable[[], datetime.datetime]
RETRY_WAIT_S = 5.0  # doubled with each try
REPLANS = 3  # of a repository that changes while it is read


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class RepoGuardian:
    """The guardian of one project.

    Args:
        project_config: a `ProjectConfig`, a mapping of its fields, or the path of the repository.
        emit: hears the events of what it does.
        cancel: ends a cycle where nothing is lost; the next one continues it.
        clock: what time it is.
        recipe: stages in place of those of the project's recipe, for experiments that change one.
    """

    def __init__(
        self,
        project_config: ProjectConfig | Mapping[str, Any] | Path | str,
        *,
        emit: Sink = ignore,
        cancel: CancelToken | None = None,
        clock: Clock = _utc_now,
        recipe: Recipe | None = None,
    ) -> None:
        self.project = ProjectConfig.of(project_config)
        self.workspace = self.project.workspace()
        self.cycles = CycleStore(self.workspace, self.project.repository, self.project.recipe)
        self._cancel = cancel or CancelToken()
        self._emit = emit
        self._clock = clock
        self._recipe = recipe
        self._runs: dict[str, Run] = {}
        self._executors: dict[str, Executor] = {}

    @property
    def settings(self) -> GuardianSettings:
        """When it retrains and what it does not deploy."""
        return self.project.settings.guardian

    # -- observe and decide ---------------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        """How the repository differs from what its model was trained on last."""
        project, model = self.project, self.project.model(self.workspace)
        since = None if model is None else last_training(model, self.workspace)
        now, given_up = self._clock(), self.cycles.given_up
        if project.recipe == "handbook":
            return observe_handbook(project.repository, since, now=now, given_up=given_up)

        def probe_loss(changed: frozenset[str]) -> float | None:
            budget_s = self.settings.loss_budget_s
            return None if model is None else loss_rise(model, self.workspace, project.repository, changed, budget_s)

        return observe(
            project.repository,
            since,
            project.settings,
            self.workspace,
            now=now,
            given_up=given_up,
            probe_loss=probe_loss if self.settings.loss_budget_s > 0 else None,
        )

    def monitor_repository(self) -> Decision:
        """Whether to retrain, why, and the figures that this was read off. Nothing is changed.

        A repository that cannot be read is no error: the decision says so, and a watch goes on.
        """
        return decide(self.observe(), self.settings)

    # -- plan and execute -----------------------------------------------------------------------------------------------

    def plan_training_cycle(self) -> CyclePlan:
        """The tasks of a cycle on the repository as it is now; the same state gives the same run, which is then continued.

        Raises:
            InputError: the repository or the base cannot be read.
        """
        project = self.project
        if project.recipe == "handbook":
            write_pairs(project.repository)
        run = new_run(
            project.repository,
            project.settings,
            self.workspace,
            recipe=project.recipe,
            name=project.name,
            emit=self._emit,
        )
        return self.plan_of(run)

    def plan_of(self, run: Run) -> CyclePlan:
        """The tasks of a cycle on a run that is made already."""
        self._runs[run.id] = run
        with self._runner(run) as runner:  # which writes the run down: its tasks may be executed by another process
            planned = runner.plan()
        return tasks_of(run, planned, past_seconds(self.workspace, run.model))

    def execute_task(self, task: Task) -> Artifact:
        """Do one task of a plan and write its artifact. May be called again: what is done is found, not done anew.

        A task whose answer is no (bad data, no better model) returns an artifact that has not `passed`.

        Raises:
            InputError: no run of the task's id was planned here; and whatever a stage raises.
            CancelledError: the token was cancelled, or `guardian stop` was called; the same call continues.
        """
        if isinstance(task, SummaryTask):
            return self._summarise(self._record_of(task.run_id))
        if task.run_id not in self._executors:
            run = self._run_named(task.run_id)
            writer = self._writer(run)
            executor: list[Executor] = []

            def heard(event: Event) -> None:
                self._emit(event)
                if executor:
                    executor[0].heard(event)
                if self.cycles.is_to_stop:
                    self._cancel.cancel("guardian stop")

            runner = Runner(run, self.workspace, heard, self._cancel, recipe=self._recipe)
            before = last_training(run.model, self.workspace)
            if before is not None and before.version == run.id:  # this run's own: there is nothing to compare it with
                before = None
            executor.append(Executor(runner, writer, self.settings, before))
            self._executors[task.run_id] = executor[0]
        return self._executors[task.run_id].execute(task)

    def _runner(self, run: Run) -> Runner:
        return Runner(run, self.workspace, self._emit, self._cancel, recipe=self._recipe)

    def _writer(self, run: Run) -> ArtifactWriter:
        return ArtifactWriter(run, self.workspace, run.repository if self.settings.agent_artifacts else None)

    def _run_named(self, run_id: str) -> Run:
        if run_id in self._runs:
            return self._runs[run_id]
        run = read_run(self.workspace.runs_dir / run_id)
        if run is None:
            raise InputError(f"No run {run_id} was planned in {self.workspace.root}.", "plan a cycle first.")
        if run.recipe == "repository":  # a run is the same wherever its repository lies: it may have moved since
            run = run.model_copy(update={"repository": expanded(self.project.repository).resolve()})
        return run

    def _record_of(self, run_id: str) -> CycleRecord:
        last = self.cycles.last()
        if last is None or last.run_id != run_id:
            raise InputError(f"No cycle of run {run_id} is known here.", "run one: ai-forge guardian run.")
        return last

    # -- the cycle ------------------------------------------------------------------------------------------------------

    def run_cycle(self, reason: str = "asked for by hand") -> CycleRecord | None:
        """Run a cycle now, or join the one that waits where another is at work, which returns None.

        A cycle that was cut off is continued first. An error that a task raises ends the cycle and stands in its record;
        someone is told of it. While it works, newer triggers wait together and are taken when it ends.
        """
        self.cycles.ask(reason)
        record: CycleRecord | None = None
        # looked at again after the lock is free: whoever asked in between found it held
        while self.cycles.asked() is not None:
            try:
                with self.cycles.working():
                    while (asked := self.cycles.take()) is not None:
                        record = self._cycle(asked)
                        if record.state == "cancelled":
                            return record
            except TransientError:
                return record
        return record

    def was_cut_off(self) -> bool:
        """Whether a cycle began and its process died."""
        last = self.cycles.last()
        # one of the queue's is the queue's to go on with
        is_open = last is not None and last.state == "running" and last.job_id is None
        return is_open and not self.cycles.is_working

    def _cycle(self, reason: str) -> CycleRecord:
        for attempt in range(REPLANS + 1):
            try:
                plan = self._plan_or_continue()
            except AIForgeError as error:
                return self._never_begun(reason, error)
            self.begin_cycle(plan, reason)
            try:
                return self._executed(plan)
            except _ChangedMeanwhileError as changed:
                if attempt == REPLANS:
                    return self.end_cycle(changed.error)
                self._emit(Notice("info", "The repository changed while it was read: planned anew."))
            except AIForgeError as error:
                return self.end_cycle(error)
            except Exception as error:
                self.end_cycle(error)
                raise
        raise InternalError("A cycle was planned again too often.")

    def _plan_or_continue(self) -> CyclePlan:
        """The plan of the run that was cut off, where its data is made and kept; else of the repository as it is now."""
        last = self.cycles.last()
        if last is not None and last.state == "running":
            run = read_run(self.workspace.runs_dir / last.run_id)
            if run is not None and self._has_data(run):
                self._emit(Notice("info", f"Continuing run {run.id}, which was cut off."))
                return self.plan_of(run)
        return self.plan_training_cycle()

    def _has_data(self, run: Run) -> bool:
        runner = self._runner(run)
        needed = {"dataset", "index"} & {stage.name for stage in runner.stages}
        done = {row.name for row in runner.plan() if row.state == "done"}
        return needed <= done

    def begin_cycle(self, plan: CyclePlan, reason: str, job_id: str | None = None) -> CycleRecord:
        """Write down that a cycle begins. For whoever holds `cycles.working`; `job_id` names the job of the queue that does it."""
        run = plan.run
        record = CycleRecord(
            run_id=run.id,
            model=run.model,
            repository=run.repository,
            recipe=run.recipe,
            reason=reason,
            started=self._clock(),
            files=run.sources.get("files"),
            job_id=job_id,
        )
        self.cycles.keep(record)
        return record

    def reopen_cycle(self) -> None:
        """Go on with the newest cycle, as its tasks left it."""
        last = self.cycles.last()
        if last is not None and last.state != "running":
            again = {"state": "running", "ended": None, "text": "", "next_step": None, "error": None}
            self.cycles.keep(last.model_copy(update=again))

    def advance(self, task: Task) -> Artifact:
        """Do a task of the cycle that was begun, try again where that may help, and write down how it ended.

        Raises:
            AIForgeError: what the task raised, after the last try.
        """
        name, tries = kind_of(task), 0
        while True:
            self._note(task, "running")
            began = time.monotonic()

            def note(state: TaskState, text: str, page: Path | None = None, since: float = began) -> None:
                self._note(task, state, text, round(time.monotonic() - since, 3), page)

            try:
                artifact = self.execute_task(task)
            except CancelledError as error:
                note("cancelled", error.message)
                raise
            except TransientError as error:
                tries += 1
                if tries > self.settings.retries:
                    note("failed", error.message)
                    raise
                told = f"{error.message} Trying {name} again ({tries} of {self.settings.retries})."
                self._emit(Notice("warning", told))
                wait(RETRY_WAIT_S * 2 ** (tries - 1), self._cancel)
            except AIForgeError as error:
                note("failed", error.message)
                raise
            else:
                note("done" if artifact.passed else "no", artifact.text, artifact.markdown)
                return artifact

    def _note(
        self, task: Task, state: TaskState, text: str = "", seconds: float = 0.0, page: Path | None = None
    ) -> None:
        done = TaskRecord(name=kind_of(task), state=state, seconds=seconds, text=text, artifact=page)
        self.cycles.keep(self._record_of(task.run_id).with_task(done))

    def _executed(self, plan: CyclePlan) -> CycleRecord:
        """The tasks one after the other, up to the first whose answer is no."""
        if self.project.settings.runtime.deploy != "never":
            with self._runner(plan.run) as runner:
                actions.require_runtime(runner)  # before hours of training, not after them
        for task in plan.tasks:
            if isinstance(task, SummaryTask):
                break
            try:
                if not self.advance(task).passed:
                    break
            except InputError as error:
                if isinstance(task, ExtractDataTask | ValidateDataTask) and self._has_changed(plan.run):
                    raise _ChangedMeanwhileError(error) from error
                raise
        return self.end_cycle()

    def _has_changed(self, run: Run) -> bool:
        """Whether the files are others than the run was made from."""
        project = self.project
        try:
            again = new_run(
                project.repository, project.settings, self.workspace, recipe=project.recipe, name=project.name
            )
        except AIForgeError:
            return False
        return again.id != run.id

    def end_cycle(self, error: BaseException | None = None) -> CycleRecord:
        """Write down how the cycle that was begun ended, summarise it, tell of it. `error` is what ended it, if anything."""
        record = self.cycles.last()
        if record is None or record.state != "running":
            raise InputError("No cycle was begun.", "run one: ai-forge guardian run.")
        return self._end(record, error)

    def _end(self, record: CycleRecord, error: BaseException | None) -> CycleRecord:
        state, text = record.outcome()
        next_step = code = None
        if error is not None:
            state = "cancelled" if isinstance(error, CancelledError) else "failed"
            text, code = f"{type(error).__name__}: {error}", "internal"
            if isinstance(error, AIForgeError):
                text, next_step, code = error.message, error.next_step, error.code
        ended = {"state": state, "ended": self._clock(), "text": text, "next_step": next_step, "error": code}
        record = record.model_copy(update=ended)
        self.cycles.keep(record)
        if record.run_id:
            self._summarise(record)
        if state != "cancelled":  # whoever stopped it knows
            self._tell(record)
        return record

    def _never_begun(self, reason: str, error: AIForgeError) -> CycleRecord:
        """The record of a cycle that could not even be planned."""
        project = self.project
        record = CycleRecord(
            run_id="",
            model=project.model(self.workspace) or "",
            repository=project.repository,
            recipe=project.recipe,
            reason=reason,
            started=self._clock(),
        )
        return self._end(record, error)

    def _summarise(self, record: CycleRecord) -> Artifact:
        rows = tuple(
            TaskRow(name=task.name, state=task.state, time=duration(task.seconds), text=task.text)
            for task in record.tasks
        )
        data = Summary(
            status=record.state,
            headline=record.text or record.state,
            reason=record.reason,
            tasks=rows,
            next_step=record.next_step,
        )
        return self._writer(self._run_named(record.run_id)).write(
            "cycle_summary", record.state, f"{record.state}: {record.text}", data
        )

    def _tell(self, record: CycleRecord) -> None:
        payload = record.model_dump(mode="json", include={"run_id", "model", "recipe", "state", "text", "next_step"})
        payload |= {"type": f"guardian.cycle.{record.state.replace(' ', '_')}", "tasks": len(record.tasks)}
        title = f"AI Forge: {record.model or record.repository.name} {record.state}"
        for problem in notify(title, record.text, payload, self.settings):
            self._emit(Notice("warning", problem))


class _ChangedMeanwhileError(Exception):
    """The repository is no longer what the run was made from. It reaches no user."""

    def __init__(self, error: AIForgeError) -> None:
        super().__init__(str(error))
        self.error = error
