"""What watching costs: a training under the service with 0 and with 50 open event streams, and the first paint of every page.

    python bench/bench_watching.py --rounds 7 --threads 1

`ai-forge serve` is a process of its own, and so is the training that it starts; the streams are read by this process, which a
browser does on another machine as a rule: what it takes counts here as well. The two ways take turns, and each pair gives a ratio:
of the trainer's processor time per step, which other work on the machine changes least and so decides, and of the steps per second
(first to last `StepLogged`). Told is the median of the pairs with its interval (bootstrap), and what the service itself took
meanwhile. First paint is what Chromium's performance entries say of a page opened in a fresh context, milliseconds after navigation
began.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import JobRequest, RunSource
from ai_forge.events import read_events
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import chromium
from cli_runs import SETTINGS, stdlib_copy, tiny_base
from queue_owner import PROCESS, descendants, finished, queue_of, wait_until
from service_app import deploy_version, tiny_gguf

N_STREAMS, LOADS = 50, 7
PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"


@contextlib.contextmanager
def serving(home: Path, threads: int) -> Iterator[tuple[str, psutil.Process]]:
    """`ai-forge serve` in a process of its own, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    limits = ["--set", "service.requests_per_minute=1000000"]
    words = [sys.executable, "-m", "ai_forge", "serve", "--home", str(home), "--port", str(port), *limits]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(answers)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def watched(url: str, run_id: str, n: int) -> Iterator[list[int]]:
    """`n` open streams of a run; the bytes that each has read."""
    read, is_over = [0] * n, threading.Event()

    async def one(http: httpx.AsyncClient, number: int) -> None:
        async with http.stream("GET", f"{url}/runs/{run_id}/stream") as response:
            async for piece in response.aiter_raw():
                read[number] += len(piece)

    async def everyone() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=None, trust_env=False, limits=limits) as http:
            readers = [asyncio.create_task(one(http, number)) for number in range(n)]
            while not is_over.is_set():
                await asyncio.sleep(0.1)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(everyone()))
    if n:
        thread.start()
    try:
        yield read
    finally:
        is_over.set()
        if n:
            thread.join()


class ProcessorTime:
    """Seconds of processor time of the trainer, the service and this process, looked at all the while."""

    def __init__(self, service: psutil.Process) -> None:
        self._service, self._own = service, psutil.Process()
        self._seen: list[list[float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "ProcessorTime":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        trainer: psutil.Process | None = None
        while not self._is_over.wait(0.05):
            with contextlib.suppress(psutil.NoSuchProcess):
                if trainer is None or not trainer.is_running():
                    trainer = next(map(psutil.Process, descendants(self._service.pid, PROCESS)), None)
                if trainer is not None:
                    taken = [sum(one.cpu_times()[:2]) for one in (trainer, self._service, self._own)]
                    self._seen.append([time.time(), *taken])

    def between(self, first: float, last: float) -> list[float]:
        """What each took between two times."""
        times = [row[0] for row in self._seen]
        return [
            float(np.interp(last, times, [row[i] for row in self._seen]))
            - float(np.interp(first, times, [row[i] for row in self._seen]))
            for i in (1, 2, 3)
        ]


@dataclass(frozen=True)
class Round:
    """A training: its speed, and what it and the service took, seconds of processor time per step."""

    steps_per_s: float
    trainer_s: float
    service_s: float
    reader_s: float
    heard: int


def train(queue: JobQueue, home: Path, place: tuple[str, psutil.Process], request: JobRequest, n_streams: int) -> Round:
    """A training while `n_streams` watch it, and how many of them heard something."""
    url, service = place
    job = queue.submit(request).job_id
    with ProcessorTime(service) as processor:
        wait_until(lambda: queue.get(job).run_id is not None)
        with watched(url, str(queue.get(job).run_id), n_streams) as read:
            ended = finished(queue, job, 300.0)
    assert ended.status == "ready", ended.error
    events = read_events(home / "runs" / str(ended.run_id) / "events.jsonl")
    times = [float(event["time"]) for event in events if event["event"] == "StepLogged"]
    n = len(times) - 1
    trainer_s, service_s, reader_s = (seconds / n for seconds in processor.between(times[0], times[-1]))
    speed = n / (times[-1] - times[0])
    return Round(speed, trainer_s, service_s, reader_s, heard=sum(n_bytes > 1000 for n_bytes in read))


def spread(values: list[float]) -> dict[str, Any]:
    """Their median, its 95 % interval by resampling the pairs, and all of them."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    told = {"median": statistics.median(values), "low": float(low), "high": float(high)}
    return {name: round(value, 4) for name, value in told.items()} | {"pairs": [round(value, 4) for value in values]}


def first_paints(url: str, run_id: str) -> dict[str, dict[str, float]]:
    """Of every page, in ms: the median and the slowest of `LOADS` loads, each in a fresh context."""
    pages = ("/", f"/runs/{run_id}", f"/data/{run_id}", "/chat", "/compare", "/deployments", "/settings", "/sign-in")
    told = {}
    with chromium() as browser:
        for page in pages:
            values = []
            for _ in range(LOADS):
                context = browser.new_context()
                opened = context.new_page()
                opened.goto(url + page, wait_until="domcontentloaded")
                opened.wait_for_function(f"{PAINT}.length > 0")
                values += opened.evaluate(PAINT)
                context.close()
            name = page.replace(run_id, "RUN")
            told[name] = {"median_ms": round(statistics.median(values), 1), "slowest_ms": round(max(values), 1)}
    return told


def main() -> int:
    """Train in turns, then look at the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="0: the pages alone")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="of the trainer")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watching-") as name:
        folder = Path(name)
        home, repo = folder / "home", stdlib_copy(folder / "repo")
        steps = {"max_steps": chosen.steps, "eval_steps": chosen.steps, "save_steps": chosen.steps}
        settings: dict[str, Any] = SETTINGS | {f"training.{key}": value for key, value in steps.items()}
        settings |= {"training.base_model": str(tiny_base(folder / "base"))}
        gguf = tiny_gguf(folder / "gguf")
        for version in ("r1", "r2"):
            deploy_version(home, gguf, version=version)
        rounds: dict[int, list[Round]] = {0: [], N_STREAMS: []}
        with queue_of(home) as queue, serving(home, chosen.threads) as place:
            run_id = ""
            for number in range(chosen.rounds + 1):  # the first warms up
                for n in (0, N_STREAMS) if number % 2 else (N_STREAMS, 0):
                    seeded = settings | {"training.seed": 2 * number + bool(n)}
                    request = JobRequest(run=RunSource(path=repo, settings=seeded), until="train")
                    done = train(queue, home, place, request, n)
                    print(f"round {number}, {n} streams: {done}", file=sys.stderr, flush=True)
                    if number:
                        rounds[n].append(done)
            run_id = str(queue.list()[0].run_id)
            paints = first_paints(place[0], run_id)
    if not chosen.rounds:
        print(json.dumps({"first_paint": paints}, indent=1))
        return 0
    pairs = list(zip(rounds[N_STREAMS], rounds[0], strict=True))
    figures = {
        "what": "a tiny training under `ai-forge serve` with 0 and 50 open event streams; first contentful paint of every page",
        "cores": os.cpu_count(),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "trainer_threads": chosen.threads,
        "rounds": chosen.rounds,
        "steps": chosen.steps,
        "steps_per_s": {
            str(n): round(statistics.median(one.steps_per_s for one in told), 2) for n, told in rounds.items()
        },
        "trainer_cpu_ms_per_step": {
            str(n): round(statistics.median(one.trainer_s for one in told) * 1000, 2) for n, told in rounds.items()
        },
        "cost_of_50_streams": {
            "trainer_cpu_per_step": spread([watched.trainer_s / alone.trainer_s - 1 for watched, alone in pairs]),
            "speed": spread([1 - watched.steps_per_s / alone.steps_per_s for watched, alone in pairs]),
            "service_cores": spread(
                [w.service_s * w.steps_per_s - alone.service_s * alone.steps_per_s for w, alone in pairs]
            ),
            "reader_cores": spread([w.reader_s * w.steps_per_s - a.reader_s * a.steps_per_s for w, a in pairs]),
        },
        "streams_that_heard": min(one.heard for one in rounds[N_STREAMS]),
        "first_paint": paints,
    }
    record("watching", figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
