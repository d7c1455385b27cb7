"""A disk that is really full (a small tmpfs) in mid-job: nothing is queued that cannot be kept, and the job goes on by itself."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.conductor.schemas import JobRequest
from ai_forge.errors import PrerequisiteError
from queue_owner import finished, queue_of, start_owner, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until nothing more fits."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)
    return filler


def test_a_job_waits_for_space_and_goes_on(small_disk: Path, tmp_path: Path) -> None:
    home, marks = small_disk / "home", tmp_path / "marks"
    marks.mkdir()
    request = JobRequest(kind="count", options={"marks": str(marks), "n": 40, "pause": 0.02})
    with queue_of(home) as queue:
        job = queue.submit(request).job_id
        owner = start_owner(home)
        try:
            wait_until(lambda: queue.get(job).current_step == "b")
            filler = fill(small_disk)
            with pytest.raises(PrerequisiteError, match="disk is full"):
                queue.submit(request)
            time.sleep(2.0)
            assert owner.poll() is None
            filler.unlink()
            ended = finished(queue, job, 90.0)
            assert ended.status == "ready", ended.error
            assert finished(queue, queue.submit(request).job_id).status == "ready"
        finally:
            owner.kill()
            owner.wait()
    assert not (marks / "two").exists()
