"""The service under load, as a process of its own: added time to the first token, mixed requests, streams that are cut off.

    python bench/bench_service.py                    a minute of load
    python bench/bench_service.py --seconds 600      ten minutes (`make soak`)

It serves a random model of a megabyte in the embedded runtime, so what is measured is the service and not the model. The bare
runtime that it is compared with is the same llama.cpp server, asked directly; both take turns. Exits with 1 where a request got a
5xx, or where something is left behind after the streams.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import httpx
import psutil

from measure import RESULTS
from service_app import deploy_version, running, service_at, tiny_gguf

QUESTION = {"role": "user", "content": "Which function does load call?"}
CHAT = "/v1/chat/completions"
LIMITS = {"service__requests_per_minute": 10_000_000}
MIX = (  # weight, method, path, body; those with a model call are told apart
    (20, "GET", "/healthz", None),
    (15, "GET", "/models", None),
    (10, "GET", "/v1/models", None),
    (15, "GET", "/v1/jobs?limit=20", None),
    (15, "GET", "/status/{job}", None),
    (15, "POST", "/v1/search", {"query": "where is the file read?", "k": 3}),
    (2, "GET", "/metrics", None),
    (3, "POST", "/v1/query", {"prompt": "Which function does load call?"}),
    (3, "POST", CHAT, {"messages": [QUESTION], "max_tokens": 4, "model": "demo:plain"}),
    (2, "POST", CHAT, {"messages": [QUESTION], "max_tokens": 4, "stream": True}),
)
MODEL_CALLS = (CHAT, "/v1/query")


def serve(home: Path) -> None:
    """The service; says where it and its runtime listen, and ends with its standard input."""
    from ai_forge.conductor.schemas import JobRequest

    app = service_at(home, **LIMITS)
    queue = app.state.service.jobs
    jobs = [queue.submit(JobRequest(kind="count", options={"marks": "x"})).job_id for _ in range(20)]
    with running(app) as listening:
        httpx.post(listening.url + "/v1/query", json={"prompt": "Why?"}, trust_env=False, timeout=60)
        endpoint = app.state.service.models.opened()[0].endpoint
        told = {"url": listening.url, "bare": endpoint.url, "headers": dict(endpoint.headers), "jobs": jobs}
        print(json.dumps(told), flush=True)
        sys.stdin.read()


@asynccontextmanager
async def client(url: str, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits, **more) as made:
        yield made


async def first_token(asked: httpx.AsyncClient) -> float:
    """Seconds until the first piece of a streamed answer."""
    body = {"messages": [QUESTION], "stream": True, "max_tokens": 2, "temperature": 0, "model": "demo:plain"}
    began, first = time.perf_counter(), 0.0
    async with asked.stream("POST", CHAT, json=body) as response:
        async for _ in response.aiter_raw():
            first = first or time.perf_counter() - began
    return first


async def added_time(told: dict[str, Any], rounds: int) -> dict[str, float]:
    """Time to the first token of `NAME:plain` and of the bare runtime, in turns."""
    seconds: dict[str, list[float]] = {"bare": [], "service": []}
    async with client(told["bare"], headers=told["headers"]) as bare, client(told["url"]) as service:
        for _ in range(rounds):
            seconds["bare"].append(await first_token(bare))
            seconds["service"].append(await first_token(service))
    medians = {f"{name}_p50_ms": round(statistics.median(values) * 1000, 3) for name, values in seconds.items()}
    differences = [ours - theirs for ours, theirs in zip(seconds["service"], seconds["bare"], strict=True)]
    return medians | {"added_p50_ms": round(statistics.median(differences) * 1000, 3), "rounds": rounds}


async def load(told: dict[str, Any], per_second: int, seconds: float, process: psutil.Process) -> dict[str, Any]:
    """Mixed requests at an even rate, whether or not the ones before were answered."""
    chosen, weights = [row[1:] for row in MIX], [row[0] for row in MIX]
    random_bits = random.Random(1)
    times: dict[str, list[float]] = {"plain": [], "model": []}
    statuses: dict[int, int] = {}
    memory: list[int] = []

    async def one(http: httpx.AsyncClient) -> None:
        method, path, body = random_bits.choices(chosen, weights)[0]
        began = time.perf_counter()
        response = await http.request(method, path.replace("{job}", random_bits.choice(told["jobs"])), json=body)
        kind = "model" if path in MODEL_CALLS else "plain"
        times[kind].append(time.perf_counter() - began)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1

    async with client(told["url"]) as http, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            group.create_task(one(http))
            if number % (5 * per_second) == 0:
                memory.append(process.memory_info().rss)
    settled = memory[len(memory) // 5]
    figures = {
        f"{kind}_{name}_ms": round(value * 1000, 1)
        for kind, values in times.items()
        for name, value in (("p50", statistics.median(values)), ("p99", statistics.quantiles(values, n=100)[98]))
    }
    return figures | {
        "requests": sum(statuses.values()),
        "statuses": {str(status): n for status, n in sorted(statuses.items())},
        "rss_mb": [round(settled / 1e6, 1), round(memory[-1] / 1e6, 1)],
        "rss_growth": round(memory[-1] / settled - 1, 4),
    }


async def cut_off(told: dict[str, Any], n: int, process: psutil.Process) -> dict[str, Any]:
    """Streams, every other of which is left in its middle; then what the service still holds."""
    body = {"messages": [QUESTION], "stream": True, "max_tokens": 200, "model": "demo"}

    async def one(http: httpx.AsyncClient, number: int) -> int:
        async with http.stream("POST", CHAT, json=body) as response:
            async for _ in response.aiter_lines():
                if number % 2:
                    break
            return response.status_code

    async with client(told["url"]) as http:
        await one(http, 0)
    await asyncio.sleep(1)
    before = process.num_fds(), process.num_threads()
    async with client(told["url"]) as http:
        statuses = await asyncio.gather(*(one(http, number) for number in range(n)))
    until = time.monotonic() + 30
    in_flight = -1.0
    while time.monotonic() < until:
        await asyncio.sleep(1)
        async with client(told["url"]) as http:
            text = (await http.get("/metrics")).text
        in_flight = float(
            next(line for line in text.splitlines() if line.startswith("ai_forge_requests_in_flight ")).split()[1]
        )
        if in_flight <= 1 and process.num_fds() <= before[0]:  # the scrape itself is one
            break
    after = process.num_fds(), process.num_threads()
    return {
        "streams": n,
        "ok": statuses.count(200),
        "in_flight_after": in_flight - 1,
        "descriptors": [before[0], after[0]],
        "threads": [before[1], after[1]],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="The service under load.")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/results/service.json")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        deploy_version(home, tiny_gguf(Path(folder)))
        command = [sys.executable, __file__, "--serve", str(home)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            told = json.loads(child.stdout.readline())
            process = psutil.Process(child.pid)
            figures = {
                "first_token": asyncio.run(added_time(told, 300)),
                "load": asyncio.run(load(told, given.per_second, given.seconds, process)),
                "cut_off": asyncio.run(cut_off(told, given.streams, process)),
            }
            child.stdin.close()
    figures["load"] |= {"seconds": given.seconds, "per_second": given.per_second}
    figures["machine"] = {
        "cores": psutil.cpu_count(),
        "load_average": [round(value, 1) for value in psutil.getloadavg()],
    }
    print(json.dumps(figures, indent=1))
    if given.write:
        (RESULTS / "service.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    left = figures["cut_off"]
    bad = [status for status in figures["load"]["statuses"] if int(status) >= 500]
    return int(bool(bad) or left["in_flight_after"] > 0 or left["descriptors"][1] > left["descriptors"][0] + 8)


if __name__ == "__main__":
    sys.exit(main())
