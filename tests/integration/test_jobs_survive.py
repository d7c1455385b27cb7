"""Jobs in real worker and job processes: done, stopped, tried again, and gone on with after `kill -9` of any of them."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ai_forge
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import ACTIVE, JobRequest
from queue_owner import PROCESS, TESTS, WORKER, descendants, environment, finished, queue_of, start_owner, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    with queue_of(tmp_path / "home", conductor__memory_retries=1) as made:
        made.start()
        yield made


def counting(marks: Path, **options: str | float) -> JobRequest:
    return JobRequest(kind="count", options={"marks": str(marks), **options})


def processes() -> list[int]:
    return descendants(os.getpid(), PROCESS)


def at_work(queue: JobQueue, job_id: str, step: str = "a") -> None:
    wait_until(lambda: queue.get(job_id).current_step == step and queue.events(job_id))


def test_two_jobs_sent_at_once_are_done_one_after_the_other(queue: JobQueue, marks: Path) -> None:
    first, second = (queue.submit(counting(marks)).job_id for _ in range(2))
    wait_until(lambda: queue.get(first).status in ACTIVE)
    assert queue.get(second).status == "queued"
    seen = [finished(queue, job_id) for job_id in (first, second)]
    assert [(job.status, job.progress, job.metrics) for job in seen] == [("ready", 1.0, {"a": 3, "b": 3, "c": 3})] * 2
    assert seen[0].finished_at is not None
    assert seen[1].started_at is not None
    assert seen[0].finished_at <= seen[1].started_at
    assert (marks / "done").read_text().split("\n")[:-1] == [
        f"{job} {step}" for job in (first, second) for step in "abc"
    ]
    names = [event.event for event in queue.events(first) if event.event != "StageProgress"]  # told once a second
    assert names == ["StageStarted", "StageFinished"] * 3
    assert not (marks / "two").exists()


def test_a_cancelled_job_is_gone_within_seconds_even_if_it_does_not_listen(queue: JobQueue, marks: Path) -> None:
    deaf = queue.submit(counting(marks, fail="deaf")).job_id
    at_work(queue, deaf, "b")
    (pid,) = processes()
    began = time.monotonic()
    assert queue.cancel(deaf).wanted == "cancel"
    assert finished(queue, deaf).status == "cancelled"
    assert time.monotonic() - began < 5.0
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_paused_job_frees_its_place_and_goes_on_where_it_was(queue: JobQueue, marks: Path) -> None:
    paused = queue.submit(counting(marks, n=200, pause=0.05)).job_id
    at_work(queue, paused)
    queue.pause(paused)
    wait_until(lambda: queue.get(paused).status == "paused")
    assert processes() == []
    other = queue.submit(counting(marks)).job_id
    assert finished(queue, other).status == "ready"
    n_before = int((queue.folder(paused) / "a").read_text())
    assert n_before < 200
    n_events = len(queue.events(paused))
    queue.resume(paused)
    wait_until(lambda: len(queue.events(paused)) > n_events + 1)
    went_on = queue.events(paused)[n_events + 1]
    assert (went_on.data["note"], went_on.data["done"]) == ("goes on", n_before)
    queue.cancel(paused)
    assert finished(queue, paused).status == "cancelled"


def test_how_a_job_fails_decides_whether_it_is_tried_again(queue: JobQueue, marks: Path) -> None:
    told = {}
    for how in ("input", "bug", "memory", "killed-once"):
        (marks / "tried").unlink(missing_ok=True)
        job = finished(queue, queue.submit(counting(marks, fail=how)).job_id)
        told[how] = (job.status, job.error_code, len((marks / "tried").read_text()))
        if how == "input":
            assert job.error == "b cannot be done. Next: ask for something else."
        if how == "bug":
            assert "KeyError" in queue.log(job.job_id)
        if how == "memory":
            again = queue.retry(job.job_id)
            assert finished(queue, again.job_id).metrics == {"a": 3}
    assert told == {
        "input": ("failed", "bad_input", 1),
        "bug": ("failed", "internal", 1),
        "memory": ("failed", "out_of_memory", 2),
        "killed-once": ("ready", None, 2),
    }


@pytest.mark.parametrize("whom", ["owner", "worker", "process"])
def test_a_job_goes_on_after_a_kill(whom: str, tmp_path: Path, marks: Path) -> None:
    home = tmp_path / "home"
    with queue_of(home) as queue:
        job = queue.submit(counting(marks, n=20, pause=0.05)).job_id
        owner = start_owner(home)
        try:
            at_work(queue, job, "b")
            everyone = descendants(owner.pid, WORKER) + descendants(owner.pid, PROCESS)
            victims = {"owner": [owner.pid], "worker": everyone[:1], "process": everyone[1:]}[whom]
            os.kill(victims[0], signal.SIGKILL)
            if whom == "owner":
                owner.wait()
                wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone), 5.0)
                owner = start_owner(home)
            ended = finished(queue, job)
        finally:
            owner.kill()
            owner.wait()
    assert (ended.status, ended.attempt) == ("ready", 1)
    assert not (marks / "two").exists()
    assert (marks / "done").read_text() == "".join(f"{job} {step}\n" for step in "abc")  # a was not done again


def test_a_job_that_ended_while_nobody_was_at_work_holds_no_place(queue: JobQueue, marks: Path) -> None:
    job = queue.submit(counting(marks, n=1_000)).job_id
    at_work(queue, job)
    queue.stop()
    assert queue.cancel(job).status == "cancelled"
    following = queue.submit(counting(marks)).job_id
    queue.start()
    assert finished(queue, following).status == "ready"


def test_a_stopped_queue_goes_on_with_the_step_when_it_starts_again(queue: JobQueue, marks: Path) -> None:
    job = queue.submit(counting(marks, n=100, pause=0.05)).job_id
    at_work(queue, job)
    queue.stop()
    assert processes() == []
    assert queue.get(job).status == "training"
    kept = int((queue.folder(job) / "a").read_text())
    assert 0 < kept < 100
    queue.start()
    wait_until(lambda: int((queue.folder(job) / "a").read_text()) > kept)
    queue.cancel(job)
    assert finished(queue, job).status == "cancelled"


STEP = "    weight: float = 1.0\n"
STEP_WITH_UNIT = """    weight: float = 1.0

    @pydantic.field_serializer("weight")
    def _told(self, weight: float) -> dict[str, float]:
        return {"share": weight}

    @pydantic.field_validator("weight", mode="before")
    @classmethod
    def _read(cls, weight: object) -> object:
        return weight["share"] if isinstance(weight, dict) else weight
"""
UPGRADES = {  # what differs in the other version: (file, what stands there, what it has)
    "code": ("conductor/worker.py", "Do jobs until `stop` is called.", "Do jobs, in another way."),
    "application version": ("conductor/worker.py", 'VERSION = "jobs-1"', 'VERSION = "jobs-0"'),
    "what is recorded": ("conductor/jobs/kinds.py", STEP, STEP_WITH_UNIT),
}


def other_version(folder: Path, difference: str) -> Path:
    """A copy of the package of another version; the folder to put on the path."""
    package = folder / "ai_forge"
    shutil.copytree(Path(ai_forge.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    name, here, there = UPGRADES[difference]
    file = package / name
    text = file.read_text()
    assert here in text
    file.write_text(
        text.replace(here, there).replace("\nfrom pydantic import", "\nimport pydantic\nfrom pydantic import")
    )
    return folder


@pytest.mark.parametrize(
    ("difference", "downgrade"), [*((name, False) for name in UPGRADES), ("application version", True)]
)
def test_another_version_in_mid_job_strands_nothing(
    difference: str, downgrade: bool, tmp_path: Path, marks: Path
) -> None:
    other = os.pathsep.join([str(other_version(tmp_path / "other", difference)), environment()["PYTHONPATH"]])
    paths = [other, environment()["PYTHONPATH"]]
    first, second = paths[::-1] if downgrade else paths
    home = tmp_path / "home"
    with queue_of(home) as queue:
        job, waiting = (queue.submit(counting(marks, n=10, pause=0.05)).job_id for _ in range(2))
        owner = start_owner(home, PYTHONPATH=first)
        try:
            at_work(queue, job, "b")
            owner.kill()
            owner.wait()
            owner = start_owner(home, PYTHONPATH=second)
            ended = [finished(queue, one) for one in (job, waiting)]
        finally:
            owner.kill()
            owner.wait()
    assert [one.status for one in ended] == ["ready", "ready"], ended[0].error
    assert not (marks / "two").exists()
    # what was prepared anew asks for all steps once more, each finds what it had counted
    assert ended[0].metrics == {"a": 10, "b": 10, "c": 10}
    if difference == "code":
        assert (marks / "done").read_text() == "".join(f"{one} {step}\n" for one in (job, waiting) for step in "abc")
