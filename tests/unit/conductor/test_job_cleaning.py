"""What is forgotten of jobs, and when."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.conductor.jobs.cleaning import DAY_S, remove_old
from ai_forge.conductor.jobs.store import JobStore, Row, database_url
from ai_forge.config import ConductorSettings
from ai_forge.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def store(workspace: Workspace) -> Iterator[JobStore]:
    """Four jobs, of 40, 20 and 1 days ago, each with an upload of 1000 bytes; the last still waits, for 50 days."""
    made = JobStore(database_url(workspace, None))
    for name, days, status in (
        ("old", 40, "ready"),
        ("middle", 20, "failed"),
        ("new", 1, "ready"),
        ("waits", 50, "queued"),
    ):
        moment = time.time() - days * DAY_S
        ended = {"finished_at": moment} if status != "queued" else {}
        made.insert(Row(name, "count", "training", "{}", status, created_at=moment, **ended))
        folder = workspace.root / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "upload").write_bytes(b"x" * 1000)
    yield made
    made.close()


def left(store: JobStore, workspace: Workspace) -> list[str]:
    jobs = sorted(row.job_id for row in store.rows())
    assert sorted(path.name for path in (workspace.root / "jobs").iterdir()) == jobs
    return jobs


def test_old_jobs_are_forgotten_and_those_that_wait_are_not(store: JobStore, workspace: Workspace) -> None:
    assert remove_old(store, workspace, ConductorSettings(keep_jobs_days=30)) == 1
    assert left(store, workspace) == ["middle", "new", "waits"]


def test_what_takes_too_much_disk_goes_the_oldest_first(store: JobStore, workspace: Workspace) -> None:
    assert remove_old(store, workspace, ConductorSettings(keep_jobs_days=99, keep_jobs_bytes=2000)) == 1
    assert left(store, workspace) == ["middle", "new", "waits"]
    assert remove_old(store, workspace, ConductorSettings(keep_jobs_days=99, keep_jobs_bytes=0)) == 2
    assert left(store, workspace) == ["waits"]


def test_uploads_that_never_became_a_job_go_after_a_day(store: JobStore, workspace: Workspace) -> None:
    for name, days in (("lost", 2.0), ("just-now", 0.0)):
        folder = workspace.root / "jobs" / name
        folder.mkdir()
        moment = time.time() - days * DAY_S
        os.utime(folder, (moment, moment))
    assert remove_old(store, workspace, ConductorSettings(keep_jobs_days=99)) == 0
    assert not (workspace.root / "jobs" / "lost").exists()
    assert (workspace.root / "jobs" / "just-now").exists()
