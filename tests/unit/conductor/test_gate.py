"""What passes the gate: keys on every route, Host and Origin, sizes; and how refusals are told."""

import asyncio
import datetime
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request

from ai_forge.conductor.auth import SCOPES, KeyStore
from ai_forge.conductor.gate import allow, policies
from ai_forge.conductor.problems import ServiceError, answer_to, without_paths
from ai_forge.errors import InputError, InternalError, PrerequisiteError, TransientError
from ai_forge.workspace import Workspace
from service_app import service_at

OPEN = {"/healthz", "/readyz"}


def ask(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    """One request to the application, without a network."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def with_keys(home: Path) -> tuple[FastAPI, KeyStore]:
    """An application that demands keys."""
    keys = KeyStore(Workspace.open(home))
    keys.add("first", ["admin"])
    return service_at(home, service__require_keys="always"), keys


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [None, "[]", "{}", "null", "", '{"keys": []}'])
def test_a_service_whose_keys_are_gone_or_damaged_opens_to_nobody(damage: str | None, tmp_path: Path) -> None:
    app, keys = with_keys(tmp_path)
    text, _ = keys.add("reader", ["admin"])
    known = {"Authorization": f"Bearer {text}"}
    assert ask(app, "GET", "/v1/models", headers=known).status_code == 200
    path = tmp_path / "keys.json"
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    assert ask(app, "GET", "/v1/models").status_code == 401
    refused = ask(app, "GET", "/v1/models", headers=known)
    assert refused.status_code == 503
    assert "no API key is accepted" in refused.text


def test_every_route_refuses_every_key_but_the_right_one(tmp_path: Path) -> None:
    app, keys = with_keys(tmp_path)
    expired = KeyStore(Workspace.open(tmp_path), lambda: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    old, _ = expired.add("old", ["admin"], days=1)
    gone, record = keys.add("gone", ["admin"])
    keys.revoke(record.id)
    by_scope = {scope: keys.add(scope, [scope])[0] for scope in SCOPES}
    bad = (None, "wrong", "aif_00000000_x", old, gone)
    seen = 0
    for path, methods, policy in policies(app):
        url = re.sub(r"\{[^}]+\}", "x", path)
        for method in methods or {"GET"}:
            if path in OPEN:
                assert policy.scope is None
                assert ask(app, method, url).status_code < 500
                continue
            assert policy.scope is not None, f"{path} is open to all: say so here, or give it a scope"
            seen += 1
            for text in bad:
                headers = {} if text is None else {"Authorization": f"Bearer {text}"}
                answer = ask(app, method, url, headers=headers)
                assert answer.status_code == 401, (method, path, text)
                assert answer.headers["www-authenticate"] == "Bearer"
            for scope, text in by_scope.items():
                answer = ask(app, method, url, headers={"Authorization": f"Bearer {text}"})
                if scope in (policy.scope, "admin"):
                    assert answer.status_code not in (401, 403), (method, path, scope, answer.text)
                else:
                    assert answer.status_code == 403, (method, path, scope)
    assert seen >= 9


def test_a_route_that_says_nothing_and_what_is_mounted_need_admin(tmp_path: Path) -> None:
    app, keys = with_keys(tmp_path)
    router = APIRouter()

    @router.get("/silent")
    async def silent() -> str:
        return "secret"

    @router.get("/said")
    @allow("chat")
    async def said(request: Request) -> str:
        return str(request.state.caller.name)

    app.include_router(router, prefix="/more")
    app.mount("/pages", FastAPI())
    chat, admin = keys.add("c", ["chat"])[0], keys.add("a", ["admin"])[0]
    for path in ("/more/silent", "/pages/openapi.json"):
        assert ask(app, "GET", path, headers={"Authorization": f"Bearer {chat}"}).status_code == 403
        assert ask(app, "GET", path, headers={"X-API-Key": admin}).status_code == 200
    assert ask(app, "GET", "/more/said", headers={"Authorization": f"Bearer {chat}"}).json().startswith("c (")


def test_on_this_machine_no_key_is_demanded_but_one_that_is_given_counts(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    text, _ = KeyStore(Workspace.open(tmp_path)).add("reader", ["read"])
    assert ask(app, "GET", "/metrics").status_code == 200
    assert ask(app, "GET", "/metrics", headers={"Authorization": "Bearer not-needed"}).status_code == 200
    assert ask(app, "GET", "/metrics", headers={"Authorization": f"Bearer {text}"}).status_code == 403
    assert ask(app, "GET", "/metrics", headers={"Authorization": f"Bearer {text}x"}).status_code == 401


# -- who asks, and from where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "forge.team"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "https://team.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
    ],
)
def test_host_and_origin(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    app = service_at(tmp_path, service__allowed_hosts=["forge.team"], service__allowed_origins=["https://team.example"])
    assert ask(app, "GET", "/healthz", headers=headers).status_code == status


def test_too_many_requests_are_told_when_to_come_back(tmp_path: Path) -> None:
    app = service_at(tmp_path, service__requests_per_minute=6)
    answers = [ask(app, "GET", "/models") for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert ask(app, "GET", "/healthz").status_code == 200, "who watches it is not counted"


@pytest.mark.parametrize("told", [True, False])
def test_a_body_has_a_limit_whether_or_not_its_length_is_told(tmp_path: Path, told: bool) -> None:
    app = service_at(tmp_path, service__max_request_bytes=1000)

    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    answer = ask(app, "POST", "/v1/query", content=b"x" * 5000 if told else pieces())
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "The body is larger than 1000 bytes."


def test_each_answer_has_the_id_of_its_request(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    assert ask(app, "GET", "/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    answer = ask(app, "GET", "/nothing", headers={"X-Request-Id": "no spaces, please"})
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"] != "no spaces, please"


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("No.", "do that."), 400, "bad_input"),
        (PrerequisiteError("No disk."), 503, "missing_prerequisite"),
        (TransientError("Gone."), 503, "try_again"),
        (InternalError("What?"), 500, "internal"),
        (ServiceError(404, "not_found", "Nothing."), 404, "not_found"),
        (OSError(28, "No space left on device"), 507, "disk_full"),
        (ValueError("secret=1234"), 500, "internal"),
    ],
)
def test_an_error_has_a_status_and_our_shape_or_openais(error: Exception, status: int, code: str) -> None:
    ours, theirs = answer_to(error, "/v1/jobs"), answer_to(error, "/v1/chat/completions")
    assert ours.status_code == theirs.status_code == status
    told = json.loads(bytes(ours.body))["error"]
    assert (told["code"], set(told)) == (code, {"code", "message", "next_step", "request_id"})
    as_openai = json.loads(bytes(theirs.body))["error"]
    assert (as_openai["code"], set(as_openai)) == (code, {"message", "type", "param", "code"})
    assert "secret" not in f"{told}{as_openai}"


def test_paths_of_this_machine_are_not_told() -> None:
    home = str(Path.home())
    assert without_paths(f"The index {home}/x/y/index of demo:r1 is gone.") == "The index index of demo:r1 is gone."
    assert without_paths("see /status/abc and /v1/jobs/x") == "see /status/abc and /v1/jobs/x"
    assert without_paths("Give src/a/b.py or http://127.0.0.1:11434/api/tags") == (
        "Give src/a/b.py or http://127.0.0.1:11434/api/tags"
    )


def test_a_bug_is_an_answer_without_details(tmp_path: Path) -> None:
    app = service_at(tmp_path)

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("/etc/passwd and a password")

    answer = ask(app, "GET", "/bug")
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "code": "internal",
        "message": "Something went wrong inside AI Forge.",
        "next_step": "its log says more under this request's id.",
        "request_id": answer.headers["x-request-id"],
    }
