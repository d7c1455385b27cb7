"""Every tool and resource over MCP, by the official client: over stdio, over HTTP, and what a wrong call answers."""

import contextlib
import os
import random
import string
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from ai_forge.antigravity_agent.job import KINDS, request_retraining
from ai_forge.antigravity_agent.mcp_server import SCOPES, Forge, add_mcp, make_server
from ai_forge.conductor.auth import KeyStore
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.config import Settings
from ai_forge.workspace import Workspace
from service_app import running, service_at

TOOLS = {
    "ask": "chat",
    "compare": "chat",
    "search": "chat",
    "status": "read",
    "plan": "read",
    "retrain": "train",
    "tail": "read",
    "cancel": "train",
    "pause": "train",
    "resume": "train",
    "deploy": "deploy",
    "rollback": "deploy",
}
DESTRUCTIVE = {"cancel", "deploy", "rollback"}


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    workspace, settings = Workspace.open(tmp_path / "home"), Settings()
    with JobQueue(workspace, settings, kinds=KINDS) as queue:
        yield Forge(workspace, settings, queue)


@contextlib.asynccontextmanager
async def connected(forge: Forge, granted: tuple[str, ...] = SCOPES) -> AsyncIterator[Client]:
    async with Client(make_server(forge, granted)) as client:
        yield client


def repository(tmp_path: Path) -> str:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.py").write_text('def load(path):\n    """Load a file."""\n    return open(path).read()\n')
    return str(folder)


async def said(client: Client, tool: str, **values: Any) -> str:
    result = await client.call_tool(tool, values)
    assert result.is_error, result
    return result.content[0].text


def test_each_tool_says_what_it_is_and_whether_it_destroys(forge: Forge) -> None:
    async def check() -> None:
        async with connected(forge) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == set(TOOLS)
            for name, tool in tools.items():
                assert tool.description
                assert tool.annotations
                assert bool(tool.annotations.destructive_hint) is (name in DESTRUCTIVE), name

    anyio.run(check)


@pytest.mark.parametrize("granted", [("read",), ("chat",), ("train",), ("deploy",)])
def test_a_tool_without_its_scope_is_refused(forge: Forge, granted: tuple[str, ...]) -> None:
    arguments = {
        "ask": {"model": "m", "question": "q"},
        "compare": {"question": "q", "left": "m", "right": "n"},
        "search": {"model": "m", "question": "q"},
        "plan": {"repository": "/nowhere"},
        "retrain": {"repository": "/nowhere"},
        "rollback": {"model": "m"},
    }

    async def check() -> None:
        async with connected(forge, granted) as client:
            for name, scope in TOOLS.items():
                result = await client.call_tool(name, arguments.get(name, {"job_id": "x"} if name != "status" else {}))
                text = result.content[0].text if result.content else ""
                assert (f"needs the scope {scope}" in text) is (scope not in granted), (name, text)

    anyio.run(check)


def test_a_training_is_queued_at_once_followed_and_cancelled(forge: Forge, tmp_path: Path) -> None:
    async def check() -> None:
        async with connected(forge) as client:
            queued = await client.call_tool("retrain", {"repository": repository(tmp_path), "name": "demo"})
            job = queued.structured_content
            assert (job["status"], job["project_name"]) == ("queued", "demo")
            state = (await client.call_tool("status", {})).structured_content
            assert [each["job_id"] for each in state["jobs"]] == [job["job_id"]]
            tail = (await client.call_tool("tail", {"job_id": job["job_id"]})).structured_content
            assert (tail["events"], tail["next_after"]) == ([], 0)
            paused = await client.call_tool("pause", {"job_id": job["job_id"]})
            assert paused.structured_content["status"] == "paused"
            resumed = await client.call_tool("resume", {"job_id": job["job_id"]})
            assert resumed.structured_content["status"] == "queued"
            cancelled = await client.call_tool("cancel", {"job_id": job["job_id"]})
            assert cancelled.structured_content["status"] == "cancelled"
            assert "cannot be" in await said(client, "pause", job_id=job["job_id"])

    anyio.run(check)


def test_a_training_that_is_to_be_deployed_is_a_guardians_cycle_and_joins_the_one_that_waits(
    forge: Forge, tmp_path: Path
) -> None:
    folder = repository(tmp_path)
    over_http = request_retraining(forge.queue, forge.workspace, Path(folder), reason="POST /v1/retrain")

    async def check() -> None:
        async with connected(forge) as client:
            joined = await client.call_tool("retrain", {"repository": folder, "deploy": True})
            assert joined.structured_content["job_id"] == over_http.job_id
            forge.queue.cancel(over_http.job_id)
            own = (await client.call_tool("retrain", {"repository": folder, "deploy": True})).structured_content
            assert (own["kind"], own["status"]) == ("guardian", "queued")
            assert own["request"]["options"]["reason"] == "MCP retrain"
            plain = (await client.call_tool("retrain", {"repository": folder})).structured_content
            assert (plain["kind"], plain["request"]["deploy"]) == ("fine-tune", False)

    anyio.run(check)


@pytest.mark.parametrize("asked", [True, "true", 1])
def test_who_may_train_but_not_deploy_gets_no_deployment(forge: Forge, tmp_path: Path, asked: object) -> None:
    folder = repository(tmp_path)

    async def check() -> None:
        async with connected(forge, ("read", "train")) as client:
            told = await said(client, "retrain", repository=folder, deploy=asked)
            assert told == "retrain needs the scope train and deploy; this connection has read, train."
            assert forge.queue.list() == []
            plain = await client.call_tool("retrain", {"repository": folder, "deploy": False})
            assert plain.structured_content["request"]["deploy"] is False

    anyio.run(check)


def test_what_is_wrong_is_told_with_the_next_step(forge: Forge, tmp_path: Path) -> None:
    async def check() -> None:
        async with connected(forge) as client:
            assert "No model m is deployed" in await said(client, "ask", model="m", question="q")
            assert "There is no job" in await said(client, "tail", job_id="x")
            assert "no folder" in await said(client, "retrain", repository=str(tmp_path / "gone"))
            assert "ai-forge" in await said(client, "rollback", model="m")

    anyio.run(check)


def test_a_repository_outside_the_roots_is_refused(forge: Forge, tmp_path: Path) -> None:
    inside = tmp_path / "roots"
    inside.mkdir()
    fenced = Forge(forge.workspace, forge.settings, forge.queue, roots=(inside,))

    async def check() -> None:
        async with connected(fenced) as client:
            for path in ("/etc", str(inside / ".." / "home"), str(tmp_path)):
                assert "outside the folders" in await said(client, "retrain", repository=path)
        assert forge.queue.list() == []

    anyio.run(check)


def test_resources_are_read_and_lead_nowhere_else(forge: Forge) -> None:
    secret = forge.workspace.root / "secret.md"
    secret.write_text("sentinel")

    async def check() -> None:
        async with connected(forge) as client:
            runs = await client.read_resource("forge://runs")
            assert runs.contents[0].text == "[]"
            for run in ("nowhere", "..%2F..", "../..", "%2e%2e"):
                with pytest.raises(MCPError):
                    await client.read_resource(f"forge://runs/{run}/report")

    anyio.run(check)


def noise(seed: int) -> Any:
    generator = random.Random(seed)
    text = "".join(generator.choice(string.printable + "é\u2028\x00") for _ in range(generator.randrange(60)))
    return generator.choice([None, True, -1, 1e308, "", text, [text], {"a": text}, "9" * 5000, [[[]]]])


def test_500_malformed_calls_are_answered_and_break_nothing(forge: Forge) -> None:
    names = [*TOOLS, "no_such_tool", "", "../ask"]
    keys = ("model", "question", "repository", "job_id", "after", "limit", "k", "left", "right", "deploy", "x")

    async def check() -> None:
        async with connected(forge) as client:
            for seed in range(500):
                generator = random.Random(seed)
                arguments = {key: noise(seed * 7 + i) for i, key in enumerate(generator.sample(keys, 4))}
                with contextlib.suppress(Exception):  # a protocol error is an answer too
                    await client.call_tool(generator.choice(names), arguments)
            assert not (await client.call_tool("status", {})).is_error  # it goes on

    anyio.run(check)
    assert forge.queue.list() == []


def test_the_command_serves_over_standard_input_and_output(tmp_path: Path) -> None:
    command = ["-m", "ai_forge", "mcp", "--home", str(tmp_path / "home"), "--scope", "read"]
    server = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))

    async def check() -> None:
        async with Client(stdio_client(server)) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS)
            state = (await client.call_tool("status", {})).structured_content
            assert state == {"models": [], "jobs": [], "runs": []}
            assert "needs the scope train" in await said(client, "cancel", job_id="x")

    anyio.run(check)


@pytest.mark.parametrize("scope", ["read", "train"])
def test_over_http_a_key_decides_what_may_be_done(tmp_path: Path, scope: str) -> None:
    workspace, settings = Workspace.open(tmp_path / "home"), Settings()
    key, _ = KeyStore(workspace).add("agent", ("read", scope))
    app = service_at(workspace.root, service__host="0.0.0.0")

    async def check(url: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            create_mcp_http_client(headers=headers) as http,
            Client(streamable_http_client(f"{url}/mcp/", http_client=http)) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS)
            assert (await client.call_tool("status", {})).structured_content["jobs"] == []
            text = await said(client, "cancel", job_id="x")
            assert ("needs the scope train" in text) is (scope == "read"), text

    with JobQueue(workspace, settings) as queue:
        add_mcp(app, Forge(workspace, settings, queue))
        with running(app) as service:
            anyio.run(check, service.url)
            without_key = httpx.post(f"{service.url}/mcp/", json={})
            assert without_key.status_code == 401
