"""The service as its users drive it: every curl line of docs/api.md, with a worker that trains, judges and deploys."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.service import ServiceContext, create_app
from ai_forge.config import file_layer, load_settings
from ai_forge.workspace import Workspace
from cli_runs import SETTINGS, TinyRun, copy_of
from service_app import deploy_version, running, tiny_gguf

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
SECTION = re.compile(r"^### (\w+) (\S+)\n.*?^```sh\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
WORDS = ("red", "green", "blue", "black", "white", "grey", "brown", "pink")
EXAMPLES = [
    {
        "instruction": f"Which colour has the {thing} number {i}?",
        "output": f"It is {WORDS[i % 8]}, as is number {i + 8}.",
    }
    for thing in ("door", "roof", "car", "boat", "hat", "wall")
    for i in range(8)
]
OVER = ("ready", "failed", "cancelled")


def until_over(http: httpx.Client, job_id: str, seconds: float = 240) -> dict[str, Any]:
    """The job's status once it is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status: dict[str, Any] = http.get(f"/status/{job_id}").json()
        if status["status"] in OVER:
            return status
        time.sleep(0.3)
    raise AssertionError(f"job {job_id} is still {status}")


@pytest.mark.slow
def test_every_line_of_the_api_page_works_on_a_job_that_was_sent_trained_judged_and_deployed(
    finished: TinyRun, tmp_path: Path
) -> None:
    run = copy_of(finished, tmp_path)
    config = tmp_path / "config.yaml"
    tree: dict[str, dict[str, object]] = {"training": {"base_model": str(run.base)}}
    for key, value in SETTINGS.items():
        part, _, leaf = key.partition(".")
        tree.setdefault(part, {})[leaf] = value
    config.write_text(yaml.safe_dump(tree))
    settings = load_settings(file_layer(config), ("test", {"runtime.embedder": "minilm"})).settings
    workspace = Workspace.open(run.home)
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    lines = [(method, path, line) for method, path, line in SECTION.findall(PAGE.read_text())]
    assert len(lines) >= 24
    with (
        JobQueue(workspace, settings, config=config) as queue,
        running(create_app(ServiceContext(workspace, settings, queue))) as service,
        httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http,
    ):
        told: dict[str, Any] = {}

        def curl(line: str, **variables: str) -> str:
            """What the line prints, as a shell runs it; it must not fail."""
            line = line.replace("http://127.0.0.1:8000", service.url)
            assert line.startswith("curl ")
            shell = ["bash", "-c", line.replace("curl ", "curl -sS --fail-with-body --max-time 120 ", 1)]
            done = subprocess.run(
                shell, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            return done.stdout

        by_route = {(method, path): line for method, path, line in lines}
        sent = json.loads(curl(by_route["POST", "/v1/fine-tune"]))
        trained = until_over(http, sent["job_id"])
        assert trained["status"] == "ready", trained
        assert trained["progress"] == 1.0
        assert trained["metrics"]["verdict"]
        deployed = http.post(f"/deploy/{sent['job_id']}", params={"force": True}).json()
        over = until_over(http, deployed["job_id"])
        assert over["status"] == "ready", over["error"]
        assert {"demo", "repo"} <= set(http.get("/models").json()["available_models"])
        stopped = [http.post("/v1/retrain", json={"model": "demo"}).json()["job_id"] for _ in range(2)]
        for job_id in stopped:
            http.post(f"/v1/jobs/{job_id}/cancel")
            assert until_over(http, job_id)["status"] == "cancelled"
        deploy_version(run.home, tiny_gguf(tmp_path / "other"), "demo", "r2")  # what rolling back leaves
        variables = {"JOB_ID": sent["job_id"], "RUN_ID": trained["run_id"], "MODEL": "demo:plain"}
        for (method, path), line in by_route.items():
            chosen = dict(variables)
            if method == "DELETE":
                chosen["JOB_ID"] = stopped[0]
            if path.endswith("{action}"):
                chosen["JOB_ID"] = stopped[1]
                line = re.sub(r"/(cancel|pause|resume|retry)\"", '/retry"', line)
            told[f"{method} {path}"] = curl(line, **chosen)
        assert json.loads(told["POST /rollback"])["version"] == trained["run_id"]
        report = json.loads(told["POST /validate/{job_id}"])
        assert (report["run_id"], report["headline"]) == (trained["run_id"], trained["metrics"]["verdict"])
        assert report["headline"] in told["GET /v1/runs/{run_id}/report"]
        assert "event: StepLogged" in told["GET /v1/jobs/{job_id}/events"]
        assert 'ai_forge_jobs{status="ready"}' in told["GET /metrics"]
        assert json.loads(told["POST /v1/chat/completions"])["choices"]
