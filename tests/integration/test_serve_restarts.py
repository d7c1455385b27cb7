"""`ai-forge serve` stopped and killed in mid-training: the job goes on, and the adapter has the bytes of an undisturbed run."""

import hashlib
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import JobRequest, RunSource
from cli_runs import SETTINGS, flags, process, stdlib_copy, tiny_base
from queue_owner import PROCESS, WORKER, descendants, environment, finished, queue_of, wait_until

pytestmark = pytest.mark.slow


def serve(home: Path, port: int) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "ai_forge", "serve", "--home", str(home), "--port", str(port)]
    return subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except OSError:
        return False


def digest(home: Path) -> str:
    (path,) = home.glob("cache/train/*/adapter_model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def n_checkpoints(queue: JobQueue, job_id: str) -> int:
    return sum(event.event == "CheckpointSaved" for event in queue.events(job_id))


def test_a_training_goes_on_after_a_stop_and_a_kill_with_the_same_bytes(tmp_path: Path) -> None:
    steps = {"training.max_steps": 30, "training.save_steps": 2, "training.eval_steps": 20}
    settings = SETTINGS | steps | {"training.base_model": str(tiny_base(tmp_path / "base"))}
    repo, home = stdlib_copy(tmp_path / "repo"), tmp_path / "home"
    words = ["train", repo, "--home", tmp_path / "straight", "--base", tmp_path / "base", *flags()]
    undisturbed = process(*words, *(word for key, value in steps.items() for word in ("--set", f"{key}={value}")))

    _, complaint = undisturbed.communicate(timeout=200)
    assert undisturbed.returncode == 0, complaint

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    request = JobRequest(run=RunSource(path=repo, settings=settings), until="train")
    with queue_of(home) as queue:
        job = queue.submit(request).job_id
        service = serve(home, port)
        try:
            wait_until(lambda: answers(port))
            wait_until(lambda: n_checkpoints(queue, job) > 0)
            everyone = descendants(service.pid, WORKER) + descendants(service.pid, PROCESS)
            assert len(everyone) == 2
            service.send_signal(signal.SIGTERM)
            _, said = service.communicate(timeout=60)
            assert service.returncode == 0, said
            assert f"http://127.0.0.1:{port}" in said
            assert "Stopped." in said
            assert not any(Path(f"/proc/{pid}").exists() for pid in everyone)
            assert queue.get(job).status == "training"
            kept = n_checkpoints(queue, job)

            service = serve(home, port)
            wait_until(lambda: n_checkpoints(queue, job) > kept)
            service.kill()
            service.communicate()
            service = serve(home, port)
            ended = finished(queue, job, 120.0)
            logged = [event.data["step"] for event in queue.events(job) if event.event == "StepLogged"]
        finally:
            service.terminate()
            service.communicate(timeout=60)
    assert (ended.status, ended.error) == ("ready", None)
    assert digest(home) == digest(tmp_path / "straight")
    assert logged[-1] == 30
    assert len(logged) < 2 * 30  # it did not begin anew each time
