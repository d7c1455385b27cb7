"""Doctor looks at this very machine; what is missing comes with what to do."""

import importlib.util
import json
import platform
import socket
from pathlib import Path

import psutil
import pytest

from ai_forge.config import Settings, load_settings
from ai_forge.doctor import Finding, examine
from ai_forge.workspace import Workspace
from tiny_models import make_tiny


def settings(**values: object) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = {"runtime.ollama_host": f"http://127.0.0.1:{port}"} | {k.replace("__", "."): v for k, v in values.items()}
    return load_settings(("flag", chosen)).settings


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({f.name for f in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_a_machine_with_everything_is_ok(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "tiny")
    found = by_name(examine(settings(training__base_model=str(base)), tmp_path / "home"))
    for name in ("machine", "workspace", "torch", "transformers", "bitsandbytes", "xllamacpp", "accelerator", "base"):
        assert found[name].state == "ok", found[name]
    assert f"{tmp_path / 'home'}, " in found["workspace"].text
    assert found["base"].text.startswith("tiny: ")


@pytest.mark.parametrize(
    ("gigabytes", "state", "beginning"),
    [
        (64, "ok", "Qwen2.5-Coder-1.5B-Instruct (14 of 64 GB on this CPU): "),
        (8, "ok", "SmolLM2-135M-Instruct (6 of 8 GB on this CPU): "),
        (4, "optional", "none that was measured trains in 4 GB"),
    ],
)
def test_the_largest_base_that_fits_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: int, state: str, beginning: str
) -> None:
    memory = psutil.virtual_memory()._replace(total=gigabytes * 10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    home = Workspace.open(tmp_path / "home").cache_dir
    home.mkdir(parents=True, exist_ok=True)
    chosen = settings(training__base_model=str(make_tiny(tmp_path / "tiny")))
    examine(chosen, tmp_path / "home")
    known = json.loads((home / "accelerator.json").read_text())
    (home / "accelerator.json").write_text(json.dumps(known | {"gpu_bytes": 0}))  # whatever is in this machine
    found = by_name(examine(chosen, tmp_path / "home"))["best base"]
    assert found.state == state
    assert found.text.startswith(beginning)


def test_an_absent_ollama_is_optional(tmp_path: Path) -> None:
    found = by_name(examine(settings(training__base_model=str(make_tiny(tmp_path / "tiny"))), tmp_path / "home"))
    assert found["ollama"].state == "optional"
    assert found["ollama"].text.endswith("The embedded llama.cpp serves instead.")


def test_an_unknown_base_is_missing_and_says_what_to_name(tmp_path: Path) -> None:
    found = by_name(examine(settings(training__base_model="SmolLM3"), tmp_path / "home"))
    assert found["base"].state == "missing"
    assert found["base"].text.startswith("No model is called 'SmolLM3'.")
    assert found["base"].next_step is not None


def test_a_home_that_cannot_be_written_is_missing_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    found = by_name(examine(settings(), tmp_path / "home"))
    assert found["workspace"].state == "missing"
    assert found["workspace"].next_step == "set AI_FORGE_HOME to a folder you can write."
    assert found["base"].state == "missing"
    assert found["machine"].state == "ok"


def test_a_tool_that_is_not_found_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(examine(settings(), tmp_path / "home"))
    assert found["git"] == Finding(
        "git", "optional", "not found: lists a repository's files; without it a folder is walked"
    )
    assert found["bwrap"].state == "optional"


def test_a_mac_is_told_the_settings_that_fit_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    memory = psutil.virtual_memory()._replace(total=16 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    chosen = settings(training__base_model=str(make_tiny(tmp_path / "tiny")))
    found = by_name(examine(chosen, tmp_path / "home"))["settings"]
    assert found.text.startswith("for 16 GB: --base Llama-3.2-3B-Instruct --set training.rank=64 ")
    assert found.text.endswith(" (computed, not measured)")


def test_mlx_is_looked_at_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'ai-forge[mlx]'")
    base = str(make_tiny(tmp_path / "tiny"))
    found = by_name(examine(settings(training__base_model=base, training__backend="mlx"), tmp_path / "home"))
    assert found["mlx"].state == "ok"
    assert "MLX on " in found["accelerator"].text


@pytest.mark.parametrize(("backend", "state"), [("torch", "optional"), ("mlx", "missing")])
def test_an_absent_mlx_matters_only_where_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, state: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("mlx") else find(name))
    base = str(make_tiny(tmp_path / "tiny"))
    found = by_name(examine(settings(training__base_model=base, training__backend=backend), tmp_path / "home"))
    assert found["mlx"].state == state
    assert found["mlx"].next_step == "pip install 'ai-forge[mlx]'."
    assert found["accelerator"].state == ("ok" if backend == "torch" else "optional")
