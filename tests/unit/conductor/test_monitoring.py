"""What watches the service names metrics that there are: alerts, dashboard; and the logs hold no secret."""

import asyncio
import io
import json
import logging
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ai_forge.conductor.auth import KeyStore
from ai_forge.conductor.gauges import MEASURED
from ai_forge.conductor.logs import Audit, in_job, in_request, log_as_json
from ai_forge.conductor.schemas import Job
from ai_forge.workspace import Workspace
from service_app import deploy_version, service_at, tiny_gguf

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = re.compile(r"\b(?:ai_forge_\w+|process_\w+|up)\b(?=\{|\)|\[| |$)")


def scraped(home: Path) -> str:
    """`/metrics` of a service that answered a question and has a job at work."""
    app = service_at(home)
    service = app.state.service
    at_work = Job.model_validate(
        {
            "job_id": "j1",
            "kind": "fine-tune",
            "status": "training",
            "progress": 0.25,
            "current_step": "train",
            "created_at": "2026-01-01T00:00:00Z",
            "metrics": dict.fromkeys(MEASURED, 1.5),
            "project_name": "demo",
            "request": {"kind": "fine-tune"},
        }
    )
    service.jobs.list = lambda **_: [at_work]

    async def ask() -> str:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client,
        ):
            assert (await client.post("/v1/query", json={"prompt": "Why?"})).status_code == 200
            return (await client.get("/metrics")).text

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("monitored")
    deploy_version(home, tiny_gguf(home / "made"))
    return scraped(home)


def names_in(text: str) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")} | {"up"}


def test_queue_loss_tokens_latency_and_models_are_measured(text: str) -> None:
    assert 'ai_forge_jobs{status="training"} 1.0' in text
    assert 'ai_forge_job_loss{job_id="j1",model="demo"} 1.5' in text
    assert 'ai_forge_job_progress{job_id="j1",model="demo"} 0.25' in text
    assert 'ai_forge_model_open{model="demo",version="r1"} 1.0' in text
    assert re.search(r'ai_forge_tokens_total\{kind="completion",model="demo"\} 12\.0', text)
    assert re.search(r'ai_forge_request_seconds_count\{method="POST",route="/v1/query",status="200"\} 1\.0', text)
    assert re.search(r'ai_forge_first_token_seconds_count\{model="demo"\} 1\.0', text)


def test_every_alert_asks_for_what_is_measured_and_says_what_to_do(text: str) -> None:
    rules = [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 9
    for rule in rules:
        assert set(NAME.findall(rule["expr"])) <= names_in(text), rule["alert"]
        assert NAME.findall(rule["expr"]), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("page", "warn")


def test_the_dashboard_is_whole_and_asks_for_what_is_measured(text: str) -> None:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_text())
    assert board["schemaVersion"] >= 36
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in cells) < 24
        places |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat")
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${source}"}
            assert set(NAME.findall(target["expr"])) <= names_in(text), panel["title"]
            assert NAME.findall(target["expr"]), panel["title"]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) <= variables


def test_promtool_takes_configuration_and_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no `promtool` on PATH: Debian's package prometheus has it")
    for words in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run([promtool, *words], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_logs_are_json_with_the_request_and_the_job() -> None:
    out = io.StringIO()
    with log_as_json(out), in_request("r1"), in_job("j1"):
        logging.getLogger("ai_forge.x").info("done", extra={"fields": {"n": 3}})
    line = json.loads(out.getvalue())
    assert {key: line[key] for key in ("level", "logger", "message", "request_id", "job_id", "n")} == {
        "level": "info",
        "logger": "ai_forge.x",
        "message": "done",
        "request_id": "r1",
        "job_id": "j1",
        "n": 3,
    }


def test_neither_keys_nor_questions_are_logged(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    text, _ = KeyStore(Workspace.open(tmp_path)).add("someone", ["chat"])
    out = io.StringIO()

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            for key in (text, f"{text}x"):
                headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "mine"}
                await client.post("/v1/query?token=hidden", json={"prompt": "my question"}, headers=headers)

    with log_as_json(out):
        asyncio.run(ask())
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["route"], line["status"], line["request_id"]) for line in lines] == [
        ("/v1/query", 404, "mine"),
        ("/v1/query", 401, "mine"),
    ]
    for secret in (text, text.split("_", 2)[2], "my question", "hidden"):  # the key's own part may hold a `_`
        assert secret not in out.getvalue()


def test_the_audit_log_only_grows(tmp_path: Path) -> None:
    for number in range(3):
        Audit(tmp_path / "audit.jsonl").record("ann (1234)", "deploy", f"j{number}", model="demo")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["target"] for line in lines] == ["j0", "j1", "j2"]
