"""The documentation says what the code says: generated parts, commands, settings, links."""

import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from ai_forge.cli.app import app
from ai_forge.config import known_keys
from ai_forge.config.models import load_models
from ai_forge.errors import AIForgeError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_current(generate: ModuleType) -> None:
    # by a process of its own, as `make docs` is: what tests before this one have loaded must not decide what is written
    code = "import generate as g; print([p.name for p in g.pages() if g.rendered(p.read_text()) != p.read_text()])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "run `make docs`"
    marked = {name for page in PAGES for _, name, _ in generate.MARKED.findall(page.read_text())}
    assert marked == set(generate.PARTS)
    assert doctest.testmod(generate).failed == 0


def test_every_named_base_has_a_shape_with_its_number_of_parameters(generate: ModuleType) -> None:
    models = load_models().models
    assert set(generate.SHAPES) == set(models)
    for name, (hidden, layers, heads, kv_heads, inner, vocabulary, tied) in generate.SHAPES.items():
        architecture = models[name].architecture
        head = generate.HEAD_DIM.get(architecture, hidden // heads)
        queries, keys = head * heads, head * kv_heads
        biases = queries + 2 * keys if architecture == "qwen2" else 0
        norms = hidden * (4 if architecture.startswith("gemma") else 2)
        norms += 2 * head if architecture in ("qwen3", "gemma3_text") else 0
        layer = 2 * hidden * (queries + keys) + 3 * hidden * inner + norms + biases
        assert layers * layer + vocabulary * hidden * (1 if tied else 2) + hidden == models[name].parameters, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_settings_and_links_on_a_page_exist(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"(?:^|`)ai-forge ([a-z][a-z-]*)", text, flags=re.M)) <= COMMANDS
    assert set(re.findall(r"--set ([\w.]+)=", text)) <= set(known_keys())
    assert {name.lower().replace("__", ".") for name in re.findall(r"AI_FORGE_([A-Z]+__[A-Z_]+)=", text)} <= set(
        known_keys()
    )
    for link in re.findall(r"\]\((?!http)([^)#]*)(?:#[\w-]+)?\)", text):
        assert (page.parent / link).exists(), link


def test_the_readme_names_every_command() -> None:
    assert set(re.findall(r"^\| `ai-forge ([\w-]+)", (ROOT / "README.md").read_text(), flags=re.M)) == COMMANDS


def test_every_error_class_stands_in_the_troubleshooting_page_with_its_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    for error in AIForgeError.__subclasses__():
        assert f"| {error.exit_code} | `{error.code}` | `{error.__name__}` |" in text
