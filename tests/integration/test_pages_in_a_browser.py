"""The pages as people see them, in a real Chromium: a run that moves, an answer that comes, both widths and colours."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ai_forge.config import load_settings
from ai_forge.dashboard.pages import add_pages
from ai_forge.pipeline.runs import runs_of
from ai_forge.workspace import Workspace
from browser import chromium
from service_app import Running, deploy_version, running, service_at, tiny_gguf

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SEEN = ("/", "/chat", "/compare", "/deployments", "/settings", "/runs/abc123")


def write_event(folder: Path, event: str, **values: object) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 1, "event": event, **values}) + "\n")


def write_step(folder: Path, step: int) -> None:
    figures = {"n_steps": 40, "accuracy": 0.5, "learning_rate": 0.001, "grad_norm": 1.0, "tokens_per_s": 700.0}
    write_event(folder, "StepLogged", step=step, loss=2 / step, memory_bytes=2e9, eta_s=60.0, seconds=1.0, **figures)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    gguf = tiny_gguf(tmp_path_factory.mktemp("gguf"))
    for version in ("r1", "r2"):
        deploy_version(home, gguf, version=version)
    folder = Workspace.open(home).runs_dir / "abc123"
    folder.mkdir()
    run = {"id": "abc123", "model": "demo", "repository": "/r", "recipe": "repository"}
    (folder / "run.json").write_text(
        json.dumps({"run": run, "created": "2026-01-01T00:00:00+00:00", "base": {"name": "tiny"}})
    )
    write_event(folder, "StageStarted", stage="train")
    write_step(folder, 1)
    assert runs_of(Workspace.open(home))
    return home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Running]:
    app = service_at(home)
    add_pages(app, load_settings())
    with running(app) as service:
        yield service


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        yield page
        assert errors == []


def test_a_run_moves_while_it_is_watched(service: Running, home: Path, page: Page) -> None:
    page.goto(f"{service.url}/runs/abc123")
    expect(page.locator("#connection")).to_contain_text("Connected")
    expect(page.locator("#run-live")).to_contain_text("1 of 40")
    folder = home / "runs" / "abc123"
    write_step(folder, 2)
    expect(page.locator("#run-live")).to_contain_text("2 of 40")
    assert page.locator("#curve canvas").count() == 1


def test_an_answer_comes_with_places_that_open_the_code(service: Running, page: Page) -> None:
    page.goto(f"{service.url}/chat")
    page.fill("#question", "What does load do?")
    page.keyboard.press("Enter")
    expect(page.locator(".found a").first).to_be_visible()
    expect(page.locator("button.main")).to_be_enabled(timeout=20_000)
    page.locator(".found a").first.click()
    expect(page.locator("pre")).to_contain_text("def ")


def test_two_versions_answer_the_same_question(service: Running, page: Page) -> None:
    page.goto(f"{service.url}/compare")
    page.fill("#question", "What does load do?")
    page.click("button.main")
    expect(page.locator("button.main")).to_be_enabled(timeout=20_000)
    assert page.locator("#answers .turn").count() == 2
    assert page.locator("#answers .turn .found a").count() >= 2


def test_a_version_is_rolled_back_by_a_click(service: Running, page: Page) -> None:
    page.goto(f"{service.url}/deployments")
    page.click("text=Roll back to r1")
    expect(page.locator("tbody tr").first).to_contain_text("rollback")


@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_their_width_and_reach_nothing_else(service: Running, width: int) -> None:
    reached: set[str] = set()
    with chromium() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.on("request", lambda request: reached.add(request.url.split("/")[2]))
            for path in SEEN:
                page.goto(service.url + path)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
                assert page.locator("h1").count() == 1
            page.close()
    assert reached == {service.url.split("/")[2]}
