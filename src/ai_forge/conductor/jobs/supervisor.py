"""The worker process as the queue's owner sees it: started, started again when it dies, stopped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

from pydantic import BaseModel

from ai_forge.config import Settings
from ai_forge.errors import TransientError
from ai_forge.workspace import Workspace

MODULE = "ai_forge.conductor.worker"
WORKER_LOCK = "jobs-worker"
STOP_S = 30.0  # the step at work is saved within this, or lost
LONGEST_PAUSE_S = 10.0


class WorkerTask(BaseModel):
    """What a worker is told when it starts. It is handed over a pipe: the database's address may hold a password."""

    home: Path
    settings: Settings
    config: Path | None = None
    kinds: tuple[str, ...] = ()


def worker_lives(workspace: Workspace) -> bool:
    """Whether a worker is at work on the workspace's own queue."""
    try:
        with workspace.lock(WORKER_LOCK):
            return False
    except TransientError:
        return True


class Supervisor:
    """Keeps one worker alive from `start` to `stop`. The worker ends when this process does, however that ends."""

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the worker, unless it was started."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._keep_alive, name="worker-supervisor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Have the worker save what it is at, and end it."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        thread.join()

    @property
    def pid(self) -> int | None:
        """The worker's process, where one lives."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def _keep_alive(self) -> None:
        pause = 0.1
        while not self._stopping.is_set():
            began = time.monotonic()
            with self._lock:
                if self._stopping.is_set():
                    return
                self._process = process = subprocess.Popen(
                    [sys.executable, "-m", MODULE, "--supervised"], stdin=subprocess.PIPE, start_new_session=True
                )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(self._task.model_dump_json().encode() + b"\n")
                process.stdin.flush()
            process.wait()
            with self._lock:
                self._process = None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            if time.monotonic() - began > LONGEST_PAUSE_S:
                pause = 0.1
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
