"""Every page answers, escapes what it shows, needs its scope, and takes no form of another site."""

import html
import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ai_forge.conductor.auth import KeyStore
from ai_forge.conductor.gate import KEY_COOKIE, policies
from ai_forge.config import load_settings
from ai_forge.dashboard.pages import add_pages
from ai_forge.dashboard.views import histories_of
from ai_forge.pipeline.dropped import dropped_examples
from ai_forge.workspace import Workspace
from service_app import deploy_version, service_at, tiny_gguf

HOSTILE = "<script>alert('x')</script>"
PAGES = ("/", "/chat", "/compare", "/deployments", "/settings", "/runs/abc123", "/data/abc123", "/overview/live")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


def write_run(home: Path, run_id: str = "abc123") -> Path:
    """A run's folder with hostile words wherever words come from outside."""
    folder = Workspace.open(home).runs_dir / run_id
    (folder / "dataset").mkdir(parents=True)
    run = {"id": run_id, "model": "demo", "repository": f"/r/{HOSTILE}", "recipe": "repository"}
    record = {"run": run, "created": "2026-01-01T00:00:00+00:00", "base": {"name": HOSTILE}}
    (folder / "run.json").write_text(json.dumps(record))
    events = [
        {"time": 1, "event": "StageStarted", "stage": "train"},
        {"time": 1, "event": "AnswerSampled", "step": 1, "question": HOSTILE, "answer": HOSTILE},
        {"time": 1, "event": "Notice", "level": "info", "message": HOSTILE},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    document = {
        "block_id": "0" * 16,
        "name": "load",
        "citation": "a.py:1-2",
        "language": "python",
        "text": "def load(): ...",
    }
    example = {
        "question": f"What does `load` do? {HOSTILE}",
        "oracle_documents": [document],
        "distractor_documents": [],
        "reasoning": "Look at `load` [a.py:1-2].",
        "final_answer": "It loads.",
        "difficulty": "easy",
        "family": "purpose",
        "subject_id": "0" * 16,
        "subject_path": "a.py",
    }
    (folder / "dataset" / "train.jsonl").write_text(json.dumps(example) + "\n")
    return folder


def app_at(home: Path, **changes: object) -> FastAPI:
    app = service_at(home, **changes)
    add_pages(app, load_settings())
    return app


def token(client: TestClient, path: str = "/deployments") -> str:
    found = re.search(r'X-CSRF-Token": "(\w+)"', html.unescape(client.get(path).text))
    assert found
    return found[1]


def test_every_page_answers_and_escapes_what_it_shows(tmp_path: Path, gguf: Path) -> None:
    deploy_version(tmp_path, gguf)
    write_run(tmp_path)
    with TestClient(app_at(tmp_path), base_url="http://127.0.0.1") as client:
        for path in PAGES:
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert HOSTILE not in answer.text, path
            assert "default-src 'self'" in answer.headers["content-security-policy"], path
        assert "&lt;script&gt;" in client.get("/runs/abc123").text


def test_each_page_needs_a_scope_and_only_signing_in_is_open(tmp_path: Path) -> None:
    app = app_at(tmp_path)
    before = {path for path, _, _ in policies(service_at(tmp_path))}
    opened = {path for path, _, policy in policies(app) if policy.scope is None and path not in before}
    assert opened == {"/sign-in", "/sign-out", "/static"}


def test_a_browser_signs_in_with_a_key_and_out_again(tmp_path: Path) -> None:
    key, _ = KeyStore(Workspace.open(tmp_path)).add("me", ("read",))
    app = app_at(tmp_path, service__host="0.0.0.0", service__allowed_hosts=["testserver"])
    with TestClient(app) as client:
        page = {"accept": "text/html"}
        turned_away = client.get("/settings", headers=page, follow_redirects=False)
        assert (turned_away.status_code, turned_away.headers["location"]) == (303, "/sign-in?next=%2Fsettings")
        assert client.get("/settings").status_code == 401  # a program is told, not sent to a page
        assert client.post("/sign-in", data={"key": "aif_wrong_key"}).status_code == 401
        outside = {"key": key, "next": "//evil.example"}
        answer = client.post("/sign-in", data=outside, follow_redirects=False)
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/settings", headers=page).status_code == 200
        assert client.post("/deployments/rollback", data={"model": "demo"}).status_code == 403  # read is no deploy
        client.post("/sign-out", data={"csrf": token(client, "/settings")})
        assert KEY_COOKIE not in client.cookies


def test_a_form_without_the_pages_token_changes_nothing(tmp_path: Path, gguf: Path) -> None:
    for version in ("r1", "r2"):
        deploy_version(tmp_path, gguf, version=version)
    workspace = Workspace.open(tmp_path)
    with TestClient(app_at(tmp_path), base_url="http://127.0.0.1") as client:
        for wrong in ({}, {"csrf": "0" * 64}):
            assert client.post("/deployments/rollback", data={"model": "demo", **wrong}).status_code == 403
        assert histories_of(workspace)[0].rows[0].version == "r2"
        data = {"model": "demo", "csrf": token(client)}
        foreign = client.post("/deployments/rollback", data=data, headers={"origin": "http://evil.example"})
        assert foreign.status_code == 403
        assert client.post("/deployments/rollback", data=data).status_code == 200
    assert histories_of(workspace)[0].rows[0].version == "r1"


def test_an_example_is_dropped_and_kept_after_all(tmp_path: Path, gguf: Path) -> None:
    write_run(tmp_path)
    workspace = Workspace.open(tmp_path)
    with TestClient(app_at(tmp_path), base_url="http://127.0.0.1") as client:
        page = client.get("/data/abc123").text
        example = re.search(r'name="example" value="(\w+)"', page)
        assert example
        data = {"example": example[1], "csrf": token(client)}
        assert "Keep it after all" in client.post("/data/abc123/drop", data=data).text
        assert dropped_examples(workspace, "demo") == {example[1]}
        client.post("/data/abc123/keep", data=data)
        assert dropped_examples(workspace, "demo") == frozenset()


def test_an_answer_comes_line_by_line_with_its_places_as_links(tmp_path: Path, gguf: Path) -> None:
    deploy_version(tmp_path, gguf)
    with TestClient(app_at(tmp_path), base_url="http://127.0.0.1") as client:
        data = {"model": "demo", "question": "What does load do?", "csrf": token(client)}
        lines = [json.loads(line) for line in client.post("/chat/ask", data=data).text.splitlines()]
        assert "/code?model=demo%3Ar1" in lines[0]["found"]
        assert "html" in lines[-1]
        link = html.unescape(re.search(r'href="([^"]+)"', lines[0]["found"])[1])
        assert "as demo:r1 was trained on it" in client.get(link).text
        assert client.get("/code?model=demo&document=nowhere").status_code == 400


@pytest.mark.parametrize("history", ["{", '[{"role": "assistant", "content": "x"}]', "[1]", '[{"role": "system"}]'])
def test_a_history_that_is_none_is_refused(tmp_path: Path, gguf: Path, history: str) -> None:
    deploy_version(tmp_path, gguf)
    with TestClient(app_at(tmp_path), base_url="http://127.0.0.1") as client:
        data = {"model": "demo", "question": "q", "history": history, "csrf": token(client)}
        assert client.post("/chat/ask", data=data).status_code == 422


@pytest.mark.parametrize("run", ["nowhere", "..", "%2e%2e", "a%2fb"])
def test_there_is_no_way_out_of_the_folder_of_runs(tmp_path: Path, run: str) -> None:
    (tmp_path / "run.json").write_text("{}")
    with TestClient(app_at(tmp_path), base_url="http://127.0.0.1") as client:
        assert client.get(f"/runs/{run}").status_code in (404, 200 if run == ".." else 404)
        assert client.get(f"/runs/{run}/report").status_code in (404, 405)
