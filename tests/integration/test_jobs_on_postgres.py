"""Two workers on one PostgreSQL queue: they share the jobs, never the training slot, and one takes over what a killed one had."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ai_forge.conductor.schemas import ACTIVE, JobRequest
from postgres import postgres, program
from queue_owner import PROCESS, WORKER, descendants, environment, finished, queue_of, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program("initdb") is None, reason="no PostgreSQL here (Debian: postgresql)"),
]


def start_worker(home: Path, url: str) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", WORKER, "--home", str(home), "--kinds", "job_kinds"]
    return subprocess.Popen(words, env=environment(AI_FORGE_CONDUCTOR__DATABASE_URL=url))


def test_one_worker_takes_over_what_a_killed_one_had(tmp_path: Path) -> None:
    home, marks = tmp_path / "home", tmp_path / "marks"
    marks.mkdir()
    options = {"marks": str(marks), "n": 20, "pause": 0.05}
    with postgres(tmp_path) as url, queue_of(home, conductor__database_url=url) as queue:
        workers = [start_worker(home, url) for _ in range(2)]
        try:
            jobs = [queue.submit(JobRequest(kind="count", options=options)).job_id for _ in range(3)]
            wait_until(lambda: queue.get(jobs[0]).current_step == "b")
            assert [queue.get(job).status in ACTIVE for job in jobs] == [True, False, False]
            (killed,) = (worker for worker in workers if descendants(worker.pid, PROCESS))
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            seconds = wait_until(lambda: queue.get(jobs[0]).current_step == "c")
            ended = [finished(queue, job) for job in jobs]
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(30)
    assert [(job.status, job.attempt) for job in ended] == [("ready", 1)] * 3
    assert not (marks / "two").exists()
    assert (marks / "done").read_text().split("\n")[:-1] == [f"{job} {step}" for job in jobs for step in "abc"]
    assert seconds < 30
    assert not (home / "jobs.db").exists()


def test_a_worker_that_lost_the_database_ends_its_jobs_processes(tmp_path: Path) -> None:
    home, marks = tmp_path / "home", tmp_path / "marks"
    marks.mkdir()
    options = {"marks": str(marks), "n": 2000, "pause": 0.05}
    with postgres(tmp_path) as url, queue_of(home, conductor__database_url=url) as queue:
        worker = start_worker(home, url)
        try:
            job = queue.submit(JobRequest(kind="count", options=options)).job_id
            wait_until(lambda: queue.get(job).current_step == "a" and descendants(worker.pid, PROCESS))
            (process,) = descendants(worker.pid, PROCESS)
        except BaseException:
            worker.kill()
            worker.wait()
            raise
    assert worker.wait(30) == 1  # PostgreSQL is gone
    wait_until(lambda: not Path(f"/proc/{process}").exists(), 5.0)
    with pytest.raises(ProcessLookupError):
        os.killpg(process, 0)
