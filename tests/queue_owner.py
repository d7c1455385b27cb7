"""A process that owns a queue as `ai-forge serve` does, to be killed: `python queue_owner.py HOME`; what looks at its children."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import FINISHED, Job
from ai_forge.config import environment_layer, load_settings
from ai_forge.workspace import Workspace

TESTS = Path(__file__).parent
WORKER, PROCESS = "ai_forge.conductor.worker", "ai_forge.conductor.jobs.process"


def environment(**changes: str) -> dict[str, str]:
    """That of a process which finds the kinds of job for tests."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | changes


@contextlib.contextmanager
def queue_of(home: Path, **settings: object) -> Iterator[JobQueue]:
    """The queue of a workspace, nobody at work on it yet."""
    layer = {key.replace("__", "."): value for key, value in settings.items()}
    loaded = load_settings(environment_layer(), ("flag", layer)).settings
    with JobQueue(Workspace.open(home), loaded, kinds=("job_kinds",)) as queue:
        yield queue


def start_owner(home: Path, **changes: str) -> "subprocess.Popen[bytes]":
    """A process that owns the queue of `home`."""
    return subprocess.Popen([sys.executable, str(Path(__file__)), str(home)], env=environment(**changes))


def descendants(pid: int, module: str) -> list[int]:
    """The processes of `module` below a process."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child.pid)
    return found


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> float:
    """Seconds until `condition` holds; an assertion where it does not come to that."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it did not come to that in time"
        time.sleep(0.02)
    return time.monotonic() - began


def finished(queue: JobQueue, job_id: str, timeout_s: float = 60.0) -> Job:
    """The job once it is over."""
    wait_until(lambda: queue.get(job_id).status in FINISHED, timeout_s)
    return queue.get(job_id)


if __name__ == "__main__":
    with queue_of(Path(sys.argv[1])) as owned:
        owned.start()
        while True:
            time.sleep(60)
