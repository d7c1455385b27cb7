"""The queue as its callers see it while nobody works on it: requests checked, states changed, events and logs read."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.jobs.store import JobStore, database_url
from ai_forge.conductor.schemas import JobRequest, RunSource
from ai_forge.config import load_settings
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


@pytest.fixture
def queue(workspace: Workspace) -> Iterator[JobQueue]:
    with JobQueue(workspace, load_settings().settings, kinds=("job_kinds",)) as made:
        yield made


def count(marks: Path, **options: str | float) -> JobRequest:
    return JobRequest(kind="count", project_name="demo", options={"marks": str(marks), **options})


def test_a_job_waits_until_someone_works(queue: JobQueue, tmp_path: Path) -> None:
    sent = queue.submit(count(tmp_path))
    assert (sent.status, sent.progress, sent.current_step, sent.project_name) == ("queued", 0.0, None, "demo")
    assert queue.get(sent.job_id) == sent
    assert [job.job_id for job in queue.list()] == [sent.job_id]
    assert queue.list(status="ready") == []
    assert (queue.events(sent.job_id), queue.log(sent.job_id)) == ([], "")


def test_the_newest_job_is_listed_first(queue: JobQueue, tmp_path: Path) -> None:
    sent = [queue.submit(count(tmp_path)).job_id for _ in range(3)]
    assert [job.job_id for job in queue.list()] == sent[::-1]
    assert [job.job_id for job in queue.list(limit=1)] == sent[-1:]


def test_what_can_never_be_done_is_refused_before_it_is_queued(queue: JobQueue, tmp_path: Path) -> None:
    wrong = {"training.rankk": 3, "training.rank": -1}
    for request, told in (
        (JobRequest(kind="brew"), "no kind of job 'brew'"),
        (JobRequest(), "needs a run"),
        (JobRequest(run=RunSource(path=tmp_path / "nowhere")), "is not there"),
        (JobRequest(run=RunSource(path=tmp_path, recipe="cake")), "'cake'"),
        (JobRequest(run=RunSource(path=tmp_path), until="tea"), "no stage 'tea'"),
        (JobRequest(run=RunSource(path=tmp_path, settings=wrong)), "did you mean training.rank?"),
    ):
        with pytest.raises(InputError, match=told.replace("?", r"\?")):
            queue.submit(request)
    assert queue.list() == []


def test_a_waiting_job_is_paused_resumed_cancelled_retried_and_deleted(queue: JobQueue, tmp_path: Path) -> None:
    job_id = queue.submit(count(tmp_path)).job_id
    (queue.folder(job_id) / "upload.jsonl").write_text("{}")
    assert queue.pause(job_id).status == "paused"
    resumed = queue.resume(job_id)
    assert (resumed.status, resumed.attempt) == ("queued", 2)
    cancelled = queue.cancel(job_id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    again = queue.retry(job_id)
    assert (again.status, again.finished_at, again.attempt) == ("queued", None, 3)
    queue.cancel(job_id)
    queue.delete(job_id)
    assert queue.list() == []
    assert not (tmp_path / "home" / "jobs" / job_id).exists()


def test_what_a_job_cannot_have_done_to_it_is_said(queue: JobQueue, tmp_path: Path) -> None:
    job_id = queue.submit(count(tmp_path)).job_id
    for change in (queue.resume, queue.retry, queue.delete):
        with pytest.raises(InputError, match=f"Job {job_id} is queued and cannot be"):
            change(job_id)
    queue.cancel(job_id)
    for change in (queue.cancel, queue.pause, queue.resume):
        with pytest.raises(InputError, match=f"Job {job_id} is cancelled and cannot be"):
            change(job_id)
    for look in (queue.get, queue.events, queue.log, queue.cancel, queue.delete, queue.run_of):
        with pytest.raises(InputError, match="no job 'nope'"):
            look("nope")


def test_a_job_that_everything_died_on_is_stopped_without_a_worker(
    queue: JobQueue, workspace: Workspace, tmp_path: Path
) -> None:
    jobs = [queue.submit(count(tmp_path)).job_id for _ in range(2)]
    store = JobStore(database_url(workspace, None))
    for job_id in jobs:
        store.update(job_id, status="training")  # as a worker leaves it that was killed
    store.close()
    assert queue.cancel(jobs[0]).status == "cancelled"
    assert queue.pause(jobs[1]).status == "paused"


def test_while_a_worker_lives_a_job_at_work_is_asked_to_stop(
    queue: JobQueue, workspace: Workspace, tmp_path: Path
) -> None:
    job_id = queue.submit(count(tmp_path)).job_id
    store = JobStore(database_url(workspace, None))
    store.update(job_id, status="training")
    store.close()
    with workspace.lock("jobs-worker"):
        asked = queue.cancel(job_id)
    assert (asked.status, asked.wanted) == ("training", "cancel")


def test_events_go_on_after_the_last_one_seen(queue: JobQueue, workspace: Workspace, tmp_path: Path) -> None:
    job_id = queue.submit(count(tmp_path)).job_id
    earlier = json.dumps({"time": 1.0, "event": "Notice", "message": "of another job"}) + "\n"
    lines = [
        json.dumps({"time": 2.0 + n, "event": "StageProgress", "stage": "a", "done": n, "total": 4}) for n in range(3)
    ]
    file = workspace.root / "events.jsonl"
    file.write_text(
        earlier + lines[0] + "\n" + '{"time": 9, "ev\n' + lines[1] + "\n" + lines[2]
    )  # torn, and half written
    store = JobStore(database_url(workspace, None))
    changes = {"status": "training", "current_step": "a", "progress": 0.5, "step_weight": 0.4}
    store.update(job_id, events=file.name, events_from=len(earlier), **changes)
    store.close()
    first, torn, second = queue.events(job_id)
    assert torn.event == "Notice"
    assert torn.data["message"] == f"A line of {file} is damaged; what it told is left out."
    seen = [first, second]
    assert [(event.event, event.data["done"], event.time) for event in seen] == [
        ("StageProgress", 0, 2.0),
        ("StageProgress", 1, 3.0),
    ]
    assert queue.events(job_id, after=seen[-1].id) == []
    with file.open("a") as more:
        more.write("\n")
    assert [event.data["done"] for event in queue.events(job_id, after=seen[-1].id)] == [2]
    assert [event.data.get("done") for event in queue.events(job_id, after=seen[0].id)] == [None, 1, 2]
    assert queue.events(job_id, limit=1) == seen[:1]
    assert queue.get(job_id).progress == pytest.approx(0.5 + 0.4 * 2 / 4)


@pytest.mark.parametrize(
    "change",
    ["request = replace(request, 'count', 'cOunt')", "model = x'ff00'", "status = 'readY'", "created_at = 'soon'"],
)
def test_a_damaged_row_hides_no_job_and_is_never_begun(
    change: str, queue: JobQueue, workspace: Workspace, tmp_path: Path
) -> None:
    damaged, sound = (queue.submit(count(tmp_path)).job_id for _ in range(2))
    with closing(sqlite3.connect(workspace.root / "jobs.db")) as database, database:
        assert database.execute(f"UPDATE ai_forge_jobs SET {change} WHERE job_id = ?", (damaged,)).rowcount == 1
    jobs = {job.job_id: job for job in queue.list()}
    assert (jobs[sound].status, jobs[damaged].status, jobs[damaged].error_code) == ("queued", "failed", "damaged")
    with pytest.raises(InputError, match="cannot be resumed"):
        queue.resume(damaged)
    with suppress(InputError):
        queue.cancel(damaged)  # what its row says is changed, and it stays damaged
    assert queue.get(damaged).error_code == "damaged"
    queue.delete(damaged)
    assert [job.job_id for job in queue.list()] == [sound]


def test_every_change_keeps_a_row_sound(queue: JobQueue, workspace: Workspace, tmp_path: Path) -> None:
    job_id = queue.submit(count(tmp_path)).job_id
    store = JobStore(database_url(workspace, None))
    values = {"metrics": {"loss": 0.1}, "progress": 1, "started_at": 3, "error": "a\u2028", "run_id": "r"}
    assert store.update(job_id, statuses=("queued",), at_attempt=1, status="failed", **values)
    assert not store.update(job_id, at_attempt=2, status="ready")
    store.close()
    job = queue.get(job_id)
    assert (job.status, job.error, job.metrics, job.error_code) == ("failed", values["error"], {"loss": 0.1}, None)


@pytest.mark.parametrize("damage", ["cut", "zeros in the middle", "no database"])
def test_a_damaged_database_says_how_to_begin_anew(damage: str, workspace: Workspace, tmp_path: Path) -> None:
    settings = load_settings().settings
    with JobQueue(workspace, settings, kinds=("job_kinds",)) as queue:
        for _ in range(30):
            queue.submit(count(tmp_path))
    path = workspace.root / "jobs.db"
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(
        {
            "cut": content[:third],
            "zeros in the middle": content[:third] + bytes(third) + content[2 * third :],
            "no database": b"<html>502</html>" * 100,
        }[damage]
    )
    with pytest.raises(PrerequisiteError, match=re.escape(f"The database of jobs {path} is damaged: ")) as told:
        JobQueue(workspace, settings)
    assert str(told.value.next_step).endswith(f"mv {path} {path}.damaged")
    path.rename(f"{path}.damaged")
    with JobQueue(workspace, settings) as queue:
        assert queue.list() == []


def test_two_owners_share_one_queue(queue: JobQueue, workspace: Workspace, tmp_path: Path) -> None:
    job_id = queue.submit(count(tmp_path)).job_id
    with JobQueue(workspace, load_settings().settings, kinds=("job_kinds",)) as other:
        other.cancel(job_id)
    assert queue.get(job_id).status == "cancelled"


def test_a_database_that_is_not_there_is_told_without_its_password(workspace: Workspace) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/none"
    settings = load_settings(("flag", {"conductor.database_url": url})).settings
    with pytest.raises(PrerequisiteError, match="database of jobs") as told:
        JobQueue(workspace, settings)
    assert "secret" not in str(told.value)


def test_a_table_of_an_older_version_gets_its_new_columns(workspace: Workspace, tmp_path: Path) -> None:
    with JobQueue(workspace, load_settings().settings, kinds=("job_kinds",)) as queue:
        job_id = queue.submit(count(tmp_path)).job_id
    with closing(sqlite3.connect(workspace.root / "jobs.db")) as database, database:
        database.execute("ALTER TABLE ai_forge_jobs DROP COLUMN prepared")
    with JobQueue(workspace, load_settings().settings) as queue:
        assert queue.get(job_id).status == "queued"
    with closing(sqlite3.connect(workspace.root / "jobs.db")) as database:
        assert database.execute("SELECT prepared FROM ai_forge_jobs").fetchall() == [(None,)]


def test_a_job_whose_run_another_version_recorded_hides_no_other(
    queue: JobQueue, workspace: Workspace, tmp_path: Path
) -> None:
    repository = tmp_path / "repo"
    repository.mkdir()
    other = queue.submit(count(tmp_path)).job_id
    job = queue.submit(JobRequest(run=RunSource(path=repository), deploy=True)).job_id
    settings = {"judge": {"a_setting_that_is_gone": 1}}
    run = {"id": "r1", "recipe": "handbook", "repository": str(repository), "model": "demo", "settings": settings}
    with closing(sqlite3.connect(workspace.root / "jobs.db")) as database, database:
        stored = {"kind": "fine-tune", "run": run, "deploy": True, "an_option_that_is_gone": True}
        database.execute(
            "UPDATE ai_forge_jobs SET request = ?, run_id = 'r1', seal = NULL WHERE job_id = ?",
            (json.dumps(stored), job),
        )
    (workspace.runs_dir / "r1").mkdir(parents=True)
    (workspace.runs_dir / "r1" / "run.json").write_text(json.dumps({"run": run}))
    assert {found.job_id for found in queue.list()} == {job, other}
    request = queue.get(job).request
    assert (request.run, request.deploy) == (RunSource(path=repository, recipe="handbook"), True)
    with pytest.raises(InputError, match="no run that this version of AI Forge reads"):
        queue.run_of(job)
    assert queue.cancel(job).status == "cancelled"
