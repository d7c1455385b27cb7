"""`ai-forge doctor`: what this machine has, what is missing, what to do about it."""

import importlib.util
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from ai_forge.config import Settings
from ai_forge.errors import AIForgeError
from ai_forge.workspace import Workspace


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Nothing works without what is `missing`; `optional` things only widen the choice."""

    name: str
    state: Literal["ok", "missing", "optional"]
    text: str
    next_step: str | None = None


def examine(settings: Settings, home: Path | None = None) -> list[Finding]:
    """Look at everything that a run needs."""
    return [
        _machine(),
        _workspace(home),
        *_packages(),
        _accelerator(),
        _base(settings, home),
        _ollama(settings),
        *_tools(),
    ]


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    return Finding(
        "machine",
        "ok",
        f"{platform.system()} {platform.machine()}, {psutil.cpu_count(logical=False)} cores, "
        f"{memory.total / 1e9:.0f} GB memory ({memory.available / 1e9:.0f} free), Python {platform.python_version()}",
    )


def _workspace(home: Path | None) -> Finding:
    try:
        root = Workspace.open(home).root
    except AIForgeError as error:
        return Finding("workspace", "missing", error.message, error.next_step)
    free = shutil.disk_usage(root).free
    if free < 5e9:
        return Finding(
            "workspace",
            "missing",
            f"{root}: {free / 1e9:.1f} GB free",
            "free 5 GB, or set AI_FORGE_HOME to another disk.",
        )
    return Finding("workspace", "ok", f"{root}, {free / 1e9:.0f} GB free")


def _packages() -> list[Finding]:
    wanted = {
        "torch": ("torch", "pip install 'ai-forge[torch]'"),
        "transformers": ("transformers", "pip install 'ai-forge[torch]'"),
        "bitsandbytes": ("bitsandbytes", "pip install 'ai-forge[torch]'"),
        "xllamacpp": ("xllamacpp", "pip install ai-forge"),
    }
    return [
        Finding(name, "ok", "installed")
        if importlib.util.find_spec(module)
        else Finding(name, "missing", "not installed", f"{command}.")
        for name, (module, command) in wanted.items()
    ]


def _accelerator() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("accelerator", "optional", "unknown without torch")
    from ai_forge.training.backends.torch_model import compute_dtype, describe_device, pick_device

    device = pick_device()
    return Finding(
        "accelerator",
        "ok",
        f"{describe_device(device)}, computes in {str(compute_dtype(device)).removeprefix('torch.')}",
    )


def _base(settings: Settings, home: Path | None) -> Finding:
    from ai_forge.training.bases import resolve_base

    name = settings.training.base_model
    try:
        base = resolve_base(name, cache_dir=Workspace.open(home).cache_dir)
    except AIForgeError as error:
        return Finding("base", "missing", error.message, error.next_step)
    return Finding("base", "ok", f"{base.name}: {base.origin.description}")


def _ollama(settings: Settings) -> Finding:
    from ai_forge.conductor.ollama_manager import check_ollama_status

    status = check_ollama_status(settings.runtime.ollama_host)
    if status.running:
        return Finding("ollama", "ok", f"version {status.version} answers on {status.host}")
    return Finding("ollama", "optional", f"{status.problem}. The embedded llama.cpp serves instead.")


def _tools() -> list[Finding]:
    tools = {
        "git": "lists a repository's files; without it a folder is walked",
        "bwrap": "will run generated code in a sandbox",
    }
    return [
        Finding(name, "ok", shutil.which(name) or "")
        if shutil.which(name)
        else Finding(name, "optional", f"not found: {text}")
        for name, text in tools.items()
    ]
