"""What watching costs: a training under the service with 0 and with 50 open event streams, and the first paint of every page.

    python bench/bench_watching.py --rounds 7 --threads 1

`ai-forge serve` is a process of its own, and so is the training that it starts; the streams are read by this process, which a
browser does on another machine as a rule: what it takes counts here as well. The two ways take turns; told is the median of
the steps per second of each (first to last `StepLogged`), and of their ratio pair by pair. First paint is what Chromium's
performance entries say of a page opened in a fresh context, milliseconds after navigation began.
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
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import JobRequest, RunSource
from ai_forge.events import read_events
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import chromium
from cli_runs import SETTINGS, stdlib_copy, tiny_base
from queue_owner import finished, queue_of, wait_until
from service_app import deploy_version, tiny_gguf

N_STREAMS, LOADS = 50, 7
PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"


@contextlib.contextmanager
def serving(home: Path, threads: int) -> Iterator[str]:
    """`ai-forge serve` in a process of its own; its address."""
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
        yield url
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


def steps_per_s(queue: JobQueue, home: Path, url: str, request: JobRequest, n_streams: int) -> tuple[float, int]:
    """The speed of a training while `n_streams` watch it, and how many of them heard something."""
    job = queue.submit(request).job_id
    wait_until(lambda: queue.get(job).run_id is not None)
    with watched(url, str(queue.get(job).run_id), n_streams) as read:
        ended = finished(queue, job, 120.0)
    assert ended.status == "ready", ended.error
    events = read_events(home / "runs" / str(ended.run_id) / "events.jsonl")
    times = [float(event["time"]) for event in events if event["event"] == "StepLogged"]
    return (len(times) - 1) / (times[-1] - times[0]), sum(n > 1000 for n in read)


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
        speeds: dict[int, list[float]] = {0: [], N_STREAMS: []}
        heard: list[int] = []
        with queue_of(home) as queue, serving(home, chosen.threads) as url:
            run_id = ""
            for number in range(chosen.rounds + 1):  # the first warms up
                for n in (0, N_STREAMS) if number % 2 else (N_STREAMS, 0):
                    seeded = settings | {"training.seed": 2 * number + bool(n)}
                    request = JobRequest(run=RunSource(path=repo, settings=seeded), until="train")
                    speed, n_heard = steps_per_s(queue, home, url, request, n)
                    print(f"round {number}, {n} streams ({n_heard} heard): {speed:.2f} steps/s", file=sys.stderr)
                    if number:
                        speeds[n].append(speed)
                        heard += [n_heard] * bool(n)
            run_id = str(queue.list()[0].run_id)
            paints = first_paints(url, run_id)
    if not chosen.rounds:
        print(json.dumps({"first_paint": paints}, indent=1))
        return 0
    costs = [1 - with_them / without for with_them, without in zip(speeds[N_STREAMS], speeds[0], strict=True)]
    figures = {
        "what": "a tiny training under `ai-forge serve` with 0 and 50 open event streams; first contentful paint of every page",
        "cores": os.cpu_count(),
        "trainer_threads": chosen.threads,
        "rounds": chosen.rounds,
        "steps": chosen.steps,
        "steps_per_s": {str(n): round(statistics.median(values), 2) for n, values in speeds.items()},
        "cost_of_50_streams": {
            "median": round(statistics.median(costs), 4),
            "lowest": round(min(costs), 4),
            "highest": round(max(costs), 4),
        },
        "streams_that_heard": min(heard),
        "first_paint": paints,
    }
    record("watching", figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
