"""What watching costs: a training under the service with 0 and with 50 open event streams, and the first paint of every page.

    python bench/bench_watching.py --pairs 24

`ai-forge serve` is a process of its own, and so is the training that it starts; the streams are read by this process, which a
browser does on another machine as a rule: what it takes counts here as well. All is measured inside one training: its steps are
taken in blocks, two neighbouring blocks are a pair, and one of them, drawn by chance, is watched by 50 streams. So what changes
slowly on the machine, and differs from run to run, falls out. A block begins when the streams were opened or closed and a step has
passed. Told is the median of the pairs' ratios with its interval (bootstrap): of seconds per step, and of the trainer's own processor
time per step, which other work on the machine moves far less; and what service and readers took.
First paint is what Chromium's performance entries say of a page opened in a fresh context, milliseconds after navigation began.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from ai_forge.conductor.schemas import JobRequest, RunSource
from ai_forge.pipeline.runs import EventTail
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import chromium
from cli_runs import SETTINGS, stdlib_copy, tiny_base
from queue_owner import PROCESS, descendants, finished, queue_of, wait_until
from service_app import deploy_version, tiny_gguf

N_STREAMS, LOADS = 50, 7
PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"


@contextlib.contextmanager
def serving(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`ai-forge serve` in a process of its own, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    limits = ["--set", "service.requests_per_minute=1000000"]
    words = [sys.executable, "-m", "ai_forge", "serve", "--home", str(home), "--port", str(port), *limits]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
def watched(url: str, run_id: str, n: int, after: int) -> Iterator[list[int]]:
    """`n` open streams of a run, from an event on as a page opens them; the bytes that each has read."""
    read, is_over = [0] * n, threading.Event()

    async def one(http: httpx.AsyncClient, number: int) -> None:
        async with http.stream("GET", f"{url}/runs/{run_id}/stream?after={after}") as response:
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


@dataclass(frozen=True)
class Block:
    """Some steps of a training: seconds and the trainer's processor seconds per step; cores that the service and this process took."""

    n_streams: int
    s_per_step: float
    trainer_cpu_s_per_step: float
    service_cores: float
    reader_cores: float


class Training:
    """A training that is at work, and the times of its steps."""

    def __init__(self, home: Path, run_id: str, service: psutil.Process, trainer: psutil.Process) -> None:
        self._tail = EventTail(home / "runs" / run_id / "events.jsonl")
        self._processes = (trainer, service, psutil.Process())
        self.times: list[float] = []

    def until(self, n_steps: int) -> None:
        """Wait for a step."""

        def has_come() -> bool:
            self.times += [float(event["time"]) for _, event in self._tail() if event["event"] == "StepLogged"]
            return len(self.times) >= n_steps

        wait_until(has_come, 300.0)

    def block(self, n_steps: int, n_streams: int) -> Block:
        """The next steps, after one that is not counted: the streams were just opened or closed."""
        self.until(len(self.times) + 1)
        self.until(len(self.times) + 1)
        first = len(self.times) - 1
        before = [sum(one.cpu_times()[:2]) for one in self._processes]
        self.until(first + 1 + n_steps)
        seconds = self.times[first + n_steps] - self.times[first]
        took = [sum(one.cpu_times()[:2]) - was for one, was in zip(self._processes, before, strict=True)]
        return Block(n_streams, seconds / n_steps, took[0] / n_steps, took[1] / seconds, took[2] / seconds)


def pairs_of(training: Training, url: str, run_id: str, n_pairs: int, n_steps: int) -> list[tuple[Block, Block]]:
    """Neighbouring blocks (alone, watched), in an order that chance decides."""
    chance = random.Random(0)
    pairs = []
    training.until(5)  # the first ones warm up
    for _ in range(n_pairs):
        order = [0, N_STREAMS] if chance.random() < 0.5 else [N_STREAMS, 0]
        told = {}
        for n in order:
            with watched(url, run_id, n, after=len(training.times)) as read:
                told[n] = training.block(n_steps, n)
                assert all(read), "a stream heard nothing"
        pairs.append((told[0], told[N_STREAMS]))
        for one in told.values():
            print(
                f"{one.n_streams:2d} {one.s_per_step:.4f} {one.trainer_cpu_s_per_step:.4f}", file=sys.stderr, flush=True
            )
    return pairs


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
                # not wait_for_function, which the page's own policy forbids
                wait_until(lambda opened=opened: opened.evaluate(PAINT))
                values += opened.evaluate(PAINT)
                context.close()
            name = page.replace(run_id, "RUN")
            told[name] = {"median_ms": round(statistics.median(values), 1), "slowest_ms": round(max(values), 1)}
    return told


def main() -> int:
    """Train in turns, then look at the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24, help="0: the pages alone")
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument("--examples", type=int, default=8, help="of a step: so many that it takes a third of a second")
    chosen = parser.parse_args()
    n_steps = 8 + chosen.pairs * 2 * (chosen.steps + 4)
    with tempfile.TemporaryDirectory(prefix="watching-") as name:
        folder = Path(name)
        home, repo = folder / "home", stdlib_copy(folder / "repo")
        steps = {
            "max_steps": n_steps,
            "eval_steps": n_steps,
            "save_steps": n_steps,
            "grad_accum_steps": chosen.examples // 2,
        }
        settings: dict[str, Any] = SETTINGS | {f"training.{key}": value for key, value in steps.items()}
        settings |= {"training.base_model": str(tiny_base(folder / "base"))}
        gguf = tiny_gguf(folder / "gguf")
        for version in ("r1", "r2"):
            deploy_version(home, gguf, version=version)
        with queue_of(home) as queue, serving(home) as (url, service):
            job = queue.submit(JobRequest(run=RunSource(path=repo, settings=settings), until="train")).job_id
            wait_until(lambda: queue.get(job).run_id is not None)
            run_id = str(queue.get(job).run_id)
            (trainer,) = descendants(service.pid, PROCESS)
            training = Training(home, run_id, service, psutil.Process(trainer))
            pairs = pairs_of(training, url, run_id, chosen.pairs, chosen.steps)
            assert finished(queue, job, 300.0).status == "ready"
            paints = first_paints(url, run_id)
    if not pairs:
        print(json.dumps({"first_paint": paints}, indent=1))
        return 0
    figures = {
        "what": "blocks of one training under `ai-forge serve` with 0 and 50 open event streams; first paint of every page",
        "cores": os.cpu_count(),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "pairs": len(pairs),
        "steps_of_a_block": chosen.steps,
        "ms_per_step": {
            "0": round(statistics.median(alone.s_per_step for alone, _ in pairs) * 1000, 1),
            "50": round(statistics.median(w.s_per_step for _, w in pairs) * 1000, 1),
        },
        "cost_of_50_streams": {
            "seconds_per_step": spread([w.s_per_step / alone.s_per_step - 1 for alone, w in pairs]),
            "trainer_cpu_per_step": spread(
                [w.trainer_cpu_s_per_step / alone.trainer_cpu_s_per_step - 1 for alone, w in pairs]
            ),
            "service_cores": spread([w.service_cores - alone.service_cores for alone, w in pairs]),
            "reader_cores": spread([w.reader_cores - alone.reader_cores for alone, w in pairs]),
        },
        "trainer_cpu_ms_per_step": {
            "0": round(statistics.median(alone.trainer_cpu_s_per_step for alone, _ in pairs) * 1000, 1),
            "50": round(statistics.median(w.trainer_cpu_s_per_step for _, w in pairs) * 1000, 1),
        },
        "first_paint": paints,
    }
    record("watching", figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
