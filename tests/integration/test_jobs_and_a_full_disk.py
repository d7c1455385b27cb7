"""A disk that is really full (a small tmpfs): nothing is queued that cannot be kept, and jobs and service go on by themselves."""

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import JobRequest
from ai_forge.errors import PrerequisiteError
from queue_owner import finished, queue_of, start_owner, wait_until
from service_app import service_at

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


@pytest.mark.parametrize("step", range(3))
def test_the_service_says_507_or_503_and_is_itself_again(small_disk: Path, step: int) -> None:
    """At thirty points, from no byte left to a little more than what is asked for needs."""
    app = service_at(small_disk / "home")
    queue: JobQueue = app.state.service.jobs
    examples = "".join(json.dumps({"instruction": f"Say {i}.", "output": "x" * 200}) + "\n" for i in range(100))

    def ask(method: str, path: str, **more: Any) -> int:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=30) as client:
                return await client.request(method, path, **more)

        answer = asyncio.run(send())
        assert str(small_disk) not in answer.text
        return answer.status_code

    def upload() -> int:
        sent = {"data_file": ("x.jsonl", examples)}
        return ask("POST", "/v1/fine-tune", data={"project_name": "demo"}, files=sent)

    assert upload() == 202
    (first,) = queue.list()
    told: Counter[int] = Counter()
    for free in range(4096 * step, 120_000, 3 * 4096):
        before = [job.job_id for job in queue.list()]
        filler = fill(small_disk)
        os.truncate(filler, max(0, filler.stat().st_size - free))
        answers = {"upload": upload(), "retrain": ask("POST", "/v1/retrain", json={"model": "demo"})}
        answers["pause"] = ask("POST", f"/v1/jobs/{first.job_id}/pause")
        assert set(answers.values()) <= {200, 202, 507, 503}, (free, answers)
        assert ask("GET", "/v1/jobs") == ask("GET", "/healthz") == 200
        told.update(answers.values())
        # who was told that it is queued finds it, who was refused does not
        assert len(queue.list()) == len(before) + (answers["upload"] == 202) + (answers["retrain"] == 202), (
            free,
            answers,
        )
        filler.unlink()
        assert ask("POST", f"/v1/jobs/{first.job_id}/{'resume' if answers['pause'] == 200 else 'pause'}") == 200
        ask("POST", f"/v1/jobs/{first.job_id}/resume")
        assert upload() == 202
        for job in queue.list():
            if job.job_id != first.job_id:
                ask("POST", f"/v1/jobs/{job.job_id}/cancel")
                assert ask("DELETE", f"/v1/jobs/{job.job_id}") == 204
        assert {folder.name for folder in (small_disk / "home" / "jobs").iterdir() if folder.is_dir()} == {first.job_id}
    assert told[507] + told[503]
    assert told[202]
    lines = (small_disk / "home" / "audit.jsonl").read_text().splitlines()
    assert all(json.loads(line)["target"] for line in lines), "a half line would break the one behind it"


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
