"""The worker: does the jobs of a queue, one training at a time. `python -m ai_forge.conductor.worker`, or by `ai-forge serve`.

    table of jobs ──► DBOS queue ──► workflow of a job: one durable step for each of its steps ──► the job's own process

The table is the truth (`jobs.store`), and this brings DBOS in line with it, about twice a second: what is not there yet is
queued; what a dead worker had is queued again and goes on with the step that it was at, or gives its place free where its job
is over; what DBOS lost sight of (a disk that was full when a step ended) is noticed and done again. A step is done at least
once, so each finds what it had done before.

What survives a crash: everything but the step at work, of which a training loses what came after its newest checkpoint. Killed
with its server or without, the worker takes its jobs' processes along (`jobs.process`).

DBOS is told: a version that never changes, so that an upgrade strands no job; an id for each process; JSON, not pickles; both
limits of the training queue. A job is stopped by our own flag and never by DBOS's cancellation, which frees the slot while
the process is still alive.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy.exc
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, WorkflowStatus
from pydantic import ValidationError

from ai_forge.conductor.job_queue import TASKS, TRAINING
from ai_forge.conductor.jobs.cleaning import remove_old
from ai_forge.conductor.jobs.handle import JobProcess, Wish
from ai_forge.conductor.jobs.kinds import Prepared, Step
from ai_forge.conductor.jobs.presence import Presence, present
from ai_forge.conductor.jobs.process import PREPARE, Answer, Task
from ai_forge.conductor.jobs.store import JobStore, Row, RowChanges, database_url
from ai_forge.conductor.jobs.supervisor import WorkerTask
from ai_forge.conductor.schemas import ACTIVE, recorded_request
from ai_forge.config import environment_layer, file_layer, load_settings
from ai_forge.errors import AIForgeError, PrerequisiteError
from ai_forge.json_lines import JsonObject
from ai_forge.workspace import Workspace

PASS_S = 0.5
CLEANING_S = 3600.0
QUEUE_POLL_S = 0.5
TASKS_AT_A_TIME = 2
# of something that may go well by itself: a lock that is held, a full disk, a service that went away
TRY_AGAIN_S = (5.0, 30.0, 120.0)
RESTARTS = 5  # of a job whose workflow DBOS could not finish: the database failed in mid-step
RECOVERIES = 1000  # a job that was cut off this often has another problem than bad luck
VERSION = "jobs-1"
RUNNABLE = ("queued", *ACTIVE)
OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]  # of workflows, as DBOS says it

_WORKER: list[Worker] = []  # DBOS calls functions of this module; a process has one worker


@DBOS.workflow(name="job", max_recovery_attempts=RECOVERIES)
def job_workflow(job_id: str, attempt: int, prepared: str | None = None) -> str:
    """A job from its first step to its last; what is returned is how it ended. `prepared`: what an earlier attempt found out."""
    return _WORKER[0].work(job_id, attempt, prepared)


@DBOS.step(name="step")
def job_step(job_id: str, name: str) -> JsonObject:
    """One step; an `Answer` as JSON. A step that fails is recorded like any other: only a crash has it done again."""
    return _WORKER[0].do(job_id, name).model_dump(mode="json")


class Worker:
    """Does jobs until it is told to stop."""

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._workspace = Workspace.open(task.home)
        self._limits = task.settings.conductor
        self._url = database_url(self._workspace, self._limits.database_url)
        self._store = JobStore(self._url)
        self._at_work: dict[str, JobProcess] = {}
        self._stopping = threading.Event()
        self._lost_sight_of: set[str] = set()
        self._executor_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    def stop(self) -> None:
        """Begin no more jobs; save and end those at work. They go on when a worker starts."""
        self._stopping.set()

    def run(self) -> None:
        """Do jobs until `stop` is called. Ends the process where its place among the workers is lost."""
        with ExitStack() as held:
            presence = held.enter_context(present(self._workspace, self._url, self._executor_id))
            _WORKER[:] = [self]
            self._launch()
            next_cleaning = 0.0
            while not self._stopping.wait(PASS_S):
                try:
                    if presence.leads():
                        self._look_after_jobs(presence)
                    if time.monotonic() >= next_cleaning:
                        self._clean()
                        next_cleaning = time.monotonic() + CLEANING_S
                except PrerequisiteError as error:  # a full disk, a database that restarts: it is tried again
                    print(f"worker: {error}", file=sys.stderr)
                except sqlalchemy.exc.DBAPIError as error:
                    if not self._store.is_sqlite:  # our lock is gone with the session: our jobs are another's now
                        self._end_at_once(f"the session with the database was lost: {error.orig}")
                    print(f"worker: {error.orig}", file=sys.stderr)
            self._drain()

    def _launch(self) -> None:
        config = DBOSConfig(
            name="ai-forge",
            system_database_url=self._url,
            application_version=VERSION,
            executor_id=self._executor_id,
            serializer=DBOSPortableJSONSerializer(),
            log_level="ERROR",
            use_listen_notify=False,
        )
        DBOS(config=config)
        DBOS.launch()
        n = self._limits.trainings
        DBOS.register_queue(
            TRAINING,
            worker_concurrency=n,
            global_concurrency=n,
            polling_interval_sec=QUEUE_POLL_S,
            on_conflict="always_update",
        )
        DBOS.register_queue(
            TASKS, worker_concurrency=TASKS_AT_A_TIME, polling_interval_sec=QUEUE_POLL_S, on_conflict="always_update"
        )

    def _drain(self) -> None:
        deadline = time.monotonic() + 25
        while self._at_work and time.monotonic() < deadline:
            time.sleep(0.05)
        os._exit(0)  # workflows at work wait for ever: so DBOS keeps them as unfinished, and the next worker goes on

    def _end_at_once(self, why: str) -> None:
        print(f"worker: {why}", file=sys.stderr, flush=True)
        for process in list(self._at_work.values()):
            process.end()
        os._exit(1)

    # -- a job ----------------------------------------------------------------------------------------------------

    def work(self, job_id: str, attempt: int, prepared: str | None) -> str:
        """The job's steps, those that were done before from DBOS's memory; then its row says how it ended."""
        row = self._store.get(job_id)
        if row is None or row.attempt != attempt or row.status not in RUNNABLE:
            return "not wanted any more"
        folder = self._workspace.root / "jobs" / job_id
        task = Task(
            **{"job_id": job_id, "attempt": attempt, "request": recorded_request(row.request)},
            **{"home": self._workspace.root, "config": self._task.config},
            **{"settings": self._task.settings, "kinds": self._task.kinds},
        )
        while job_id in self._at_work:  # an attempt that was stopped a moment ago
            time.sleep(PASS_S)
        with JobProcess(task, folder / "log.txt") as process:
            self._at_work[job_id] = process
            try:
                answer, metrics = self._steps(job_id, prepared, process)
                process.end()  # before the row says that it is over
                return self._finish(row, answer, metrics)
            except ValidationError:
                # recorded by a version that wrote it otherwise: prepared anew by the workflow that follows
                self._store.update(job_id, at_attempt=attempt, prepared=None)
                raise
            finally:
                del self._at_work[job_id]

    def _steps(self, job_id: str, before: str | None, process: JobProcess) -> tuple[Answer, JsonObject]:
        answer, metrics = Answer(outcome="done"), JsonObject()
        if before is None:
            answer = Answer.model_validate(job_step(job_id, PREPARE))
            if answer.outcome != "done":
                return answer, metrics
            prepared = Prepared.model_validate(answer.result["prepared"])
        else:
            prepared = Prepared.model_validate_json(before)
        process.knows(prepared.model_dump(mode="json"))
        for step in prepared.steps:
            answer = Answer.model_validate(job_step(job_id, step.name))
            if answer.outcome != "done":
                break
            metrics |= answer.result
        return answer, metrics

    def do(self, job_id: str, name: str) -> Answer:
        """One step, tried again where that may help."""
        process = self._at_work[job_id]
        self._tell_step(job_id, name, process)
        n_memory = n_again = 0
        while True:
            answer = process.do(name, lambda: self._wish(job_id))
            if self._stopping.is_set():
                self._wait_for_the_end(job_id)
            if answer.out_of_memory and n_memory < self._limits.memory_retries:
                n_memory += 1
                pause = 2.0**n_memory
            elif answer.try_again and n_again < len(TRY_AGAIN_S):
                pause = TRY_AGAIN_S[n_again]
                n_again += 1
            else:
                break
            process.end()
            process.note(f"{name}: {answer.message} Tried again in {pause:.0f} s.")
            if not self._pause(job_id, pause):
                answer = Answer(outcome="stopped")
                break
        if name == PREPARE and answer.outcome == "done":
            self._tell_prepared(job_id, answer.result)
        return answer

    def _wait_for_the_end(self, job_id: str) -> None:
        """Of this process. Returning would record the step as done."""
        self._at_work.pop(job_id).end()
        threading.Event().wait()

    def _pause(self, job_id: str, seconds: float) -> bool:
        """Wait; false where the job is to stop meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stopping.wait(0.2):
                self._wait_for_the_end(job_id)
            if self._wish(job_id) is not None:
                return False
        return True

    def _wish(self, job_id: str) -> Wish | None:
        if self._stopping.is_set():
            return "drain"
        try:
            row = self._store.get(job_id)
        except PrerequisiteError:  # the database is away for a moment
            return None
        process = self._at_work.get(job_id)
        if row is None or process is None or row.attempt != process.task.attempt:
            return "cancel"
        if row.status == "paused":  # asked for while it was still waiting, a moment before it began
            return "pause"
        if row.status not in RUNNABLE:
            return "cancel"
        return row.wanted

    def _tell_step(self, job_id: str, name: str, process: JobProcess) -> None:
        row = self._store.get(job_id)
        prepared = process.task.prepared
        steps = (Step(name=PREPARE), *([] if prepared is None else Prepared.model_validate(prepared).steps))
        total = sum(step.weight for step in steps)
        index = next(i for i, step in enumerate(steps) if step.name == name)
        progress = sum(step.weight for step in steps[:index]) / total
        share = steps[index].weight / total
        if prepared is None:  # how much there is to do is not known yet
            share = 0.0
        started = row.started_at if row is not None and row.started_at is not None else time.time()
        told: RowChanges = {"status": steps[index].status, "current_step": name, "started_at": started}
        told |= {"progress": progress, "step_weight": share}
        self._store.update(job_id, statuses=RUNNABLE, **told)

    def _tell_prepared(self, job_id: str, found: JsonObject) -> None:
        prepared = Prepared.model_validate(found["prepared"])
        values: RowChanges = {"prepared": prepared.model_dump_json()}
        if prepared.run is not None:
            values |= {"run_id": prepared.run.id, "model": prepared.run.model}
        row = self._store.get(job_id)
        if (
            row is not None and row.events != found["events"]
        ):  # a job that goes on keeps the place where its events begin
            values |= {"events": found["events"], "events_from": found["events_from"]}
        self._store.update(job_id, **values)

    def _finish(self, row: Row, answer: Answer, metrics: JsonObject) -> str:
        now = self._store.get(row.job_id)
        ended: RowChanges = {"wanted": None, "metrics": metrics, "finished_at": time.time()}
        if answer.outcome == "done":
            ended |= {"status": "ready", "progress": 1.0, "current_step": None}
        elif answer.outcome == "failed":
            told = f"{answer.message} Next: {answer.next_step}" if answer.next_step else answer.message
            ended |= {"status": "failed", "error": told, "error_code": answer.code}
        elif now is not None and now.wanted == "cancel":
            ended |= {"status": "cancelled"}
        elif now is not None and now.wanted == "pause":
            ended |= {"status": "paused", "finished_at": None}
        else:  # it was to stop, and whoever asked thought better of it meanwhile
            ended = {"status": "queued", "attempt": row.attempt + 1}
        self._store.update(row.job_id, statuses=ACTIVE, at_attempt=row.attempt, **ended)
        return str(ended["status"])

    # -- all jobs -------------------------------------------------------------------------------------------------

    def _look_after_jobs(self, presence: Presence) -> None:
        """Bring DBOS in line with the table."""
        rows = {_workflow_id(row): row for row in self._store.rows(RUNNABLE, newest_first=False)}
        if not rows:
            return
        listed = DBOS.list_workflows(workflow_ids=list(rows), load_input=False, load_output=False)
        known = {status.workflow_id: status for status in listed}
        lost = set[str]()
        for workflow_id, row in rows.items():
            status = known.get(workflow_id)
            if status is None:
                self._enqueue(workflow_id, row)
            elif status.status in ("ENQUEUED", "DELAYED"):
                if status.app_version != VERSION:
                    self._begin_again(workflow_id, row)
            elif status.status == "PENDING":
                if self._is_lost(status, presence, lost):
                    if status.app_version == VERSION:
                        DBOS.resume_workflow(workflow_id, queue_name=row.queue)
                    else:
                        self._begin_again(workflow_id, row)
            else:
                self._restart(row, status)
        for status in DBOS.list_workflows(name="job", status="PENDING", load_input=False, load_output=False):
            # no row waits for it: its worker died after that said how the job ended, or the job was cancelled when nobody
            # was at work; it would hold its place in the queue for good
            if status.workflow_id not in rows and self._is_lost(status, presence, lost):
                DBOS.cancel_workflow(status.workflow_id)
        self._lost_sight_of = lost

    def _clean(self) -> None:
        """Forget old jobs, and what DBOS remembers of jobs that are not there any more."""
        remove_old(self._store, self._workspace, self._limits)
        over = DBOS.list_workflows(name="job", status=OVER, load_input=False, load_output=False)
        known = {row.job_id for row in self._store.rows()}
        forgotten = [status.workflow_id for status in over if _job_id(status) not in known]
        if forgotten:
            DBOS.delete_workflows(forgotten)

    def _enqueue(self, workflow_id: str, row: Row) -> None:
        DBOS.enqueue_workflow_with_options(
            {"workflow_name": "job", "queue_name": row.queue, "workflow_id": workflow_id, "app_version": VERSION},
            row.job_id,
            row.attempt,
            row.prepared,
        )

    def _begin_again(self, workflow_id: str, row: Row) -> None:
        """A workflow of another version, which DBOS gives to nobody of this one: a new one finds what was done."""
        DBOS.cancel_workflow(workflow_id)  # it would hold its place in the queue
        self._store.update(row.job_id, statuses=RUNNABLE, at_attempt=row.attempt, attempt=row.attempt + 1)

    def _is_lost(self, status: WorkflowStatus, presence: Presence, lost: set[str]) -> bool:
        """Whether nobody is at work on it: its worker is dead, or it is ours and was not at work in two passes."""
        if status.executor_id is None:
            return False
        if status.executor_id != self._executor_id:
            return presence.is_dead(status.executor_id)
        if _job_id(status) in self._at_work:
            return False
        lost.add(status.workflow_id)
        return status.workflow_id in self._lost_sight_of

    def _restart(self, row: Row, status: WorkflowStatus) -> None:
        """A workflow that is over while its row is not: the database failed when the end was to be written."""
        if row.job_id in self._at_work:
            return
        values: RowChanges = {"status": "queued", "attempt": row.attempt + 1, "restarts": row.restarts + 1}
        if row.restarts >= RESTARTS or status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
            message = f"The job was cut off {row.restarts + 1} times without coming to an end ({status.status})."
            values = {"status": "failed", "error": message, "error_code": "internal", "finished_at": time.time()}
        self._store.update(row.job_id, statuses=RUNNABLE, at_attempt=row.attempt, **values)


def _workflow_id(row: Row) -> str:
    return f"{row.job_id}-{row.attempt}"


def _job_id(status: WorkflowStatus) -> str:
    return status.workflow_id.rpartition("-")[0]


def _end_with_the_pipe() -> None:
    """Whoever started us is gone when standard input ends: end at once, and our jobs' processes with us, as their pipes end."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> int:
    """Do the jobs of a workspace's queue."""
    parser = argparse.ArgumentParser(prog="python -m ai_forge.conductor.worker", description=__doc__.split("\n")[0])
    parser.add_argument("--home", type=Path, help="the workspace; AI_FORGE_HOME otherwise")
    parser.add_argument("--config", type=Path, help="a YAML file with settings")
    parser.add_argument("--kinds", nargs="*", default=[], help="modules that register further kinds of job")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    try:
        if words.supervised:
            task = WorkerTask.model_validate_json(sys.stdin.buffer.readline())
        else:
            layers = [file_layer(words.config)] if words.config else []
            settings = load_settings(*layers, environment_layer()).settings
            home = Workspace.open(words.home).root
            task = WorkerTask(home=home, settings=settings, config=words.config, kinds=tuple(words.kinds))
        worker = Worker(task)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        if words.supervised:
            threading.Thread(target=_end_with_the_pipe, daemon=True).start()
        worker.run()
    except AIForgeError as error:
        print(f"worker: {error.code}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
