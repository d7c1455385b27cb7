"""`kill -9` of server, worker and job process, at random and at every step boundary: is a job ever lost, stuck or done twice at once?

    python bench/soak_jobs.py --kills 300 --trainings 5        (`make soak`)
    python bench/soak_jobs.py --kills 60 --trainings 0 --cancels 0 --load 6                                (beside busy processes)
    python bench/soak_jobs.py --kills 0 --trainings 3 --cancels 0 --base SmolLM2-135M-Instruct --steps 6   (a real base)

A queue has jobs that count, and for the last part real fine-tunings, each in a home of its own and compared with one that was left
alone; with --base they are killed in the training only, the server, the worker and the job's process in turn. After each kill the
time to progress is measured: until a job has done something new. Prints a JSON report and exits with 1 where something is wrong: a
job that does not end well, two processes at work on one job, two activations of one version, another adapter, a cancelled job of
which something lives after five seconds. Where nothing goes on for --patience seconds, the rows of jobs and workflows and what every
process was doing are told on stderr, and the home is kept.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import FINISHED, JobRequest, RunSource
from ai_forge.serving.registry import Registry
from ai_forge.workspace import Workspace
from cli_runs import SETTINGS, stdlib_copy, tiny_base
from queue_owner import PROCESS, WORKER, descendants, queue_of, start_owner, wait_until

WHOM = ("owner", "worker", "process")
IN_FLIGHT = 3
PATIENCE_S = 120.0


class Owner:
    """The process that owns a queue, started again whenever it was killed."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        return start_owner(self._home, PYTHONFAULTHANDLER="1")  # SIGABRT has a process say what its threads are doing

    def victims(self, whom: str) -> list[int]:
        """The processes that would be killed."""
        if whom == "owner":
            return [self._process.pid]
        return descendants(self._process.pid, WORKER if whom == "worker" else PROCESS)

    def kill(self, whom: str) -> bool:
        """Kill -9; false where there is no such process just now."""
        victims = self.victims(whom)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if whom == "owner":
            self._process.wait()
            self._process = self._started()
        return bool(victims)

    def tell_what_is_stuck(self) -> None:
        """The rows of jobs and of workflows that are not over, and the stacks of the processes, which end by that."""
        with contextlib.closing(sqlite3.connect(self._home / "jobs.db")) as database:
            for table, columns, ended in (
                ("ai_forge_jobs", "job_id, status, wanted, attempt, restarts, current_step", FINISHED),
                (
                    "workflow_status",
                    "workflow_uuid, status, queue_name, executor_id, recovery_attempts",
                    ("SUCCESS", "CANCELLED"),
                ),
            ):
                told = database.execute(f"SELECT {columns} FROM {table} WHERE status NOT IN {tuple(ended)}").fetchall()
                print(f"{table} ({columns}):", *told, sep="\n  ", file=sys.stderr, flush=True)
        owner = psutil.Process(self._process.pid)
        for process in reversed(
            [owner, *owner.children(recursive=True)]
        ):  # the job's process first: its worker ends it
            with contextlib.suppress(psutil.NoSuchProcess):
                told = (process.pid, process.status(), process.cpu_times(), process.cmdline())
                print(*told, file=sys.stderr, flush=True)
                process.send_signal(signal.SIGABRT)
                time.sleep(1.0)
        for log in self._home.glob("jobs/*/log.txt"):  # of those at work: what their processes said
            print(log, log.read_text(errors="replace")[-4000:], file=sys.stderr, flush=True)

    def end(self) -> None:
        """Stop for good."""
        self._process.kill()
        self._process.wait()


def at_step_boundary(queue: JobQueue) -> None:
    """Wait until a job has just come to another step."""

    def steps() -> set[tuple[str, str | None]]:
        return {(job.job_id, job.current_step) for job in queue.list() if job.status not in FINISHED}

    before = steps()
    with contextlib.suppress(AssertionError):
        wait_until(lambda: steps() - before, 5.0)


def kill_once(owner: Owner, queue: JobQueue, chance: random.Random, work: Any, index: int) -> dict[str, Any]:
    """One kill, and how long it took until there was progress again."""
    boundary = index % 2 == 1
    if boundary:
        at_step_boundary(queue)
    else:
        time.sleep(chance.uniform(0.0, 1.0))
    whom = WHOM[index % 3]
    before = work()
    hit = owner.kill(whom)
    if not hit:  # between two jobs there is no process of a job: the worker then
        whom = "worker"
        hit = owner.kill(whom)
    seconds = progress(owner, lambda: work() != before, PATIENCE_S)
    return {"whom": whom, "boundary": boundary, "hit": hit, "seconds": round(seconds, 2)}


def progress(owner: Owner, condition: Callable[[], object], timeout_s: float) -> float:
    """Seconds until `condition` holds; where it does not come to that, everything that may tell why is told."""
    try:
        return wait_until(condition, timeout_s)
    except AssertionError:
        owner.tell_what_is_stuck()
        raise


def soak_counting(root: Path, n_kills: int, chance: random.Random) -> dict[str, Any]:
    """Jobs that count under kills, always a few of them in the queue."""
    marks = root / "marks"
    marks.mkdir(parents=True)
    sent: list[str] = []

    def work() -> str:
        """Changes whenever a job counts, or another one begins to."""
        counted = [path.read_text() for job in sent for path in sorted((root / "home" / "jobs" / job).glob("[abc]"))]
        return "|".join(counted)

    with queue_of(root / "home") as queue:
        owner = Owner(root / "home")
        try:
            kills = []
            for index in range(n_kills):
                while sum(job.status not in FINISHED for job in queue.list(limit=IN_FLIGHT + 1)) < IN_FLIGHT:
                    options = {"marks": str(marks), "n": chance.randint(10, 40), "pause": 0.02}
                    sent.append(queue.submit(JobRequest(kind="count", options=options)).job_id)
                kills.append(kill_once(owner, queue, chance, work, index))
            progress(owner, lambda: all(queue.get(job).status in FINISHED for job in sent), PATIENCE_S + 10 * len(sent))
            states = Counter(queue.get(job).status for job in sent)
            # without a kill no job was sent, and none has written its file
            done = Counter((marks / "done").read_text().split("\n")[:-1] if sent else ())
        finally:
            owner.end()
    expected = {f"{job} {step}" for job in sent for step in "abc"}
    return {
        "jobs": len(sent),
        "states": dict(states),
        "lost_steps": len(expected - set(done)),
        "repeated_steps": sum(
            n - 1 for n in done.values()
        ),  # a step is done at least once: killed after it, before that was kept
        "two_at_once": (marks / "two").exists(),
        "kills": kills,
    }


def soak_cancels(root: Path, n: int, chance: random.Random) -> list[float]:
    """Seconds from each cancellation until nothing of the job's process group lives; every fifth job does not listen."""
    marks = root / "marks"
    marks.mkdir(parents=True)
    seconds = []
    with queue_of(root / "home") as queue:
        owner = Owner(root / "home")
        try:
            for index in range(n):
                options: dict[str, Any] = {"marks": str(marks), "n": 1 if index % 5 == 0 else 10_000}
                options |= {"fail": "deaf"} if index % 5 == 0 else {}
                job = queue.submit(JobRequest(kind="count", options=options)).job_id
                wait_until(lambda job=job: queue.get(job).current_step in ("a", "b"))
                (pid,) = owner.victims("process")
                time.sleep(chance.uniform(0.0, 0.5))
                queue.cancel(job)
                seconds.append(wait_until(lambda pid=pid: not group_lives(pid), PATIENCE_S))
                wait_until(lambda job=job: queue.get(job).status == "cancelled", PATIENCE_S)
        finally:
            owner.end()
    return seconds


def group_lives(pid: int) -> bool:
    """Whether any process of the group that `pid` led is there."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def digest(home: Path) -> str:
    """Of the one finished adapter."""
    (path,) = home.glob("cache/train/*/adapter_model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_in_training(
    owner: Owner, queue: JobQueue, job: str, chance: random.Random, work: Any, whom: str
) -> dict[str, Any]:
    """A kill after one of the training's steps, at a moment drawn within the next second."""

    def steps() -> int:
        return sum(event.event == "StepLogged" for event in queue.events(job))

    done = steps()
    progress(owner, lambda: steps() > done, 2 * PATIENCE_S)
    time.sleep(chance.uniform(0.0, 1.0))
    done, step = work(), queue.get(job).current_step
    hit = owner.kill(whom)
    seconds = progress(owner, lambda: work() != done, PATIENCE_S)
    return {"whom": whom, "boundary": False, "hit": hit, "step": step, "seconds": round(seconds, 2)}


def train(
    root: Path, request: JobRequest, n_kills: int, chance: random.Random, in_training: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A fine-tuning in a home of its own: killed `n_kills` times, or in its training, once for each name of `in_training`."""
    home = root / "home"
    with queue_of(home) as queue:
        owner = Owner(home)
        try:
            job = queue.submit(request).job_id

            def work() -> int | str:
                row = queue.get(job)
                return row.status if row.status in FINISHED else sum(1 for _ in queue.events(job))

            kills = []
            for index in range(n_kills):
                if queue.get(job).status in FINISHED:
                    break
                if index % 2 == 0:
                    time.sleep(chance.uniform(0.0, 6.0))
                kills.append(kill_once(owner, queue, chance, work, chance.randrange(6)))
            kills += [kill_in_training(owner, queue, job, chance, work, whom) for whom in in_training]
            progress(owner, lambda: queue.get(job).status in FINISHED, 900.0)
            ended = queue.get(job)
        finally:
            owner.end()
    with Registry(Workspace(home).registry_path) as registry:
        versions = [version.deployment.version for version in registry.versions()]
    return {
        "status": ended.status,
        "error": ended.error,
        "adapter": digest(home),
        "versions": len(versions),
        "deployed": ended.metrics.get("deployed"),
        "kills": kills,
    }


def spread(ordered: list[float]) -> dict[str, float]:
    """Median, 95th percentile and largest of seconds in ascending order."""
    if not ordered:
        return {}
    at_95 = ordered[int(0.95 * (len(ordered) - 1))]
    return {"p50": round(statistics.median(ordered), 2), "p95": round(at_95, 2), "max": round(ordered[-1], 2)}


@contextlib.contextmanager
def busy(n: int) -> Iterator[None]:
    """`n` processes that never rest, until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> int:
    """Kill, count, compare, tell."""
    global PATIENCE_S
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--trainings", type=int, default=5, help="fine-tunings of a tiny base, four kills each")
    parser.add_argument("--base", help="a base of `ai-forge models`: one kill in the training of each")
    parser.add_argument("--steps", type=int, default=24, help="of a fine-tuning, a checkpoint after every sixth part")
    parser.add_argument("--cancels", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", type=int, default=0, help="busy processes beside it")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds without progress that are too many")
    chosen = parser.parse_args()
    PATIENCE_S = chosen.patience
    chance = random.Random(chosen.seed)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"{root} is kept where something is wrong", file=sys.stderr)
    with busy(chosen.load):
        trained: list[dict[str, Any]] = []
        if chosen.trainings:
            steps = {"max_steps": chosen.steps, "save_steps": chosen.steps // 6, "eval_steps": chosen.steps // 3}
            settings = SETTINGS | {f"training.{key}": value for key, value in steps.items()}
            settings |= {"training.base_model": chosen.base or str(tiny_base(root / "base"))}
            source = RunSource(path=stdlib_copy(root / "repo"), settings=settings)
            request = JobRequest(run=source, project_name="soak", deploy=True)
            if chosen.base:
                request = JobRequest(run=source, project_name="soak", until="train")
            for n in range(chosen.trainings + 1):
                victims = (WHOM[(n - 1) % len(WHOM)],) if n and chosen.base else ()
                n_kills = 4 if n and not chosen.base else 0
                trained.append(train(root / f"training-{n}", request, n_kills, chance, victims))
        n_left = chosen.kills - sum(len(one["kills"]) for one in trained)
        counted = soak_counting(root / "counting", max(n_left, 0), chance)
        cancels = sorted(soak_cancels(root / "cancels", chosen.cancels, chance))
    kills = [*counted.pop("kills"), *(kill for one in trained for kill in one["kills"])]
    seconds = sorted(kill["seconds"] for kill in kills)
    good = (
        set(counted["states"]) <= {"ready"}
        and not counted["two_at_once"]
        and counted["lost_steps"] == 0
        and all(one["status"] == "ready" and one["versions"] == int(not chosen.base) for one in trained)
        and (not cancels or cancels[-1] <= 5.0)
        and len({one["adapter"] for one in trained}) <= 1
    )
    report = {
        "good": good,
        "kills": len(kills),
        "by_victim": dict(Counter(kill["whom"] for kill in kills)),
        "at_a_boundary": sum(kill["boundary"] for kill in kills),
        "seconds_to_progress": spread(seconds),
        "cancels": {"n": len(cancels), "seconds_until_the_process_group_is_gone": spread(cancels)},
        "counting": counted,
        "trainings": [one | {"kills": one["kills"] if chosen.base else len(one["kills"])} for one in trained],
        "wall_s": round(time.monotonic() - began, 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report, indent=1))
    if good:
        shutil.rmtree(root)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
