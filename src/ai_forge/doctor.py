"""`ai-forge doctor`: what this machine has, what is missing, what to do about it."""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil

from ai_forge.config import Settings
from ai_forge.config.models import load_models
from ai_forge.errors import AIForgeError
from ai_forge.training.apple import apple_default_for
from ai_forge.training.backends import PACKAGES, backend_name, is_apple_silicon, missing_packages
from ai_forge.workspace import Workspace, atomic_write, read_json


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
        *_packages(settings),
        _accelerator(settings, home),
        *_settings_for_mac(),
        _base(settings, home),
        _best_base(settings, home),
        _ollama(settings),
        *_tools(),
    ]


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    return Finding(
        "machine",
        "ok",
        # cores, not threads: two threads of a core share the unit that multiplies matrices
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


def _packages(settings: Settings) -> list[Finding]:
    chosen = backend_name(settings.training.backend)
    # looked for, not imported: importing torch alone takes seconds
    return [
        _package("torch", ("torch",), "torch", needed=chosen == "torch"),
        _package("transformers", ("transformers",), "torch", needed=chosen == "torch"),
        _package("bitsandbytes", ("bitsandbytes",), "torch", needed=chosen == "torch"),
        _package("mlx", PACKAGES["mlx"], "mlx", needed=chosen == "mlx" or is_apple_silicon()),
        _package("xllamacpp", ("xllamacpp",), None, needed=True),
    ]


def _package(name: str, modules: tuple[str, ...], extra: str | None, *, needed: bool) -> Finding:
    if all(importlib.util.find_spec(module) for module in modules):
        return Finding(name, "ok", "installed")
    command = f"pip install 'ai-forge[{extra}]'." if extra else "pip install ai-forge."
    if needed:
        return Finding(name, "missing", "not installed", command)
    return Finding(name, "optional", "not installed; the other backend trains here", command)


def _accelerator(settings: Settings, home: Path | None) -> Finding:
    """The device and the type it computes in."""
    chosen = backend_name(settings.training.backend)
    missing = missing_packages(chosen)
    if missing:
        return Finding("accelerator", "optional", f"unknown without {' and '.join(missing)}")
    # kept from one look to the next, since it takes the import of torch
    stamp = {"backend": chosen, "packages": [version(name) for name in PACKAGES[chosen]], "driver": _driver()}
    cache: Path | None = None
    with contextlib.suppress(AIForgeError):  # a workspace that cannot be written has a finding of its own
        cache = Workspace.open(home).cache_dir / "accelerator.json"
        known = read_json(cache) or {}
        if known.get("stamp") == stamp:
            return Finding("accelerator", "ok", str(known["text"]))
    text, gpu_bytes = _described(chosen)
    if cache is not None:
        with contextlib.suppress(OSError):  # a full disk must not keep doctor from saying so
            atomic_write(cache, json.dumps({"stamp": stamp, "text": text, "gpu_bytes": gpu_bytes}))
    return Finding("accelerator", "ok", text)


def _described(backend: str) -> tuple[str, int]:
    """The device and its type in words, and the memory that a GPU has for itself (bytes; 0 where there is none)."""
    if backend == "mlx":
        from ai_forge.training.backends import mlx_model

        dtype = str(mlx_model.compute_dtype()).removeprefix("mlx.core.")
        return f"{mlx_model.describe_device()}, computes in {dtype}", 0
    from ai_forge.training.backends import torch_model

    device = torch_model.pick_device()
    dtype = str(torch_model.compute_dtype(device)).removeprefix("torch.")
    return f"{torch_model.describe_device(device)}, computes in {dtype}", torch_model.gpu_bytes(device)


def _driver() -> str:
    """What says that another accelerator may have come: the NVIDIA driver, the visible devices, the threads."""
    text = ""
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        text = driver.read_text(errors="replace")
    variables = [os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    return "|".join([text, platform.platform(), str(psutil.cpu_count()), *variables])


def _settings_for_mac() -> list[Finding]:
    """On Apple Silicon the row of `apple_defaults.yaml` that fits."""
    if not is_apple_silicon():
        return []
    row = apple_default_for(psutil.virtual_memory().total)
    if row is None:
        return [Finding("settings", "optional", "none: below 8 GB of memory")]
    return [Finding("settings", "ok", f"for {row.memory_gb} GB: {row.flags} (computed, not measured)")]


def _base(settings: Settings, home: Path | None) -> Finding:
    from ai_forge.training.bases.resolve import resolve_base

    name = settings.training.base_model
    try:
        base = resolve_base(name, cache_dir=Workspace.open(home).cache_dir)
    except AIForgeError as error:
        return Finding("base", "missing", error.message, error.next_step)
    return Finding("base", "ok", f"{base.name}: {base.origin.description}")


def _best_base(settings: Settings, home: Path | None) -> Finding:
    """The largest base whose training was measured to fit into the memory here, and what it is good for."""
    gpu_bytes = 0
    with contextlib.suppress(AIForgeError):
        # written by the look at the accelerator, before this one
        gpu_bytes = int((read_json(Workspace.open(home).cache_dir / "accelerator.json") or {}).get("gpu_bytes", 0))
    memory = gpu_bytes or psutil.virtual_memory().total
    where = "GPU" if gpu_bytes else "CPU"
    fitting = []
    for name, entry in load_models().models.items():
        needed = entry.gpu_memory_gb if gpu_bytes else entry.memory_gb
        if needed is not None and needed * 1e9 <= memory:
            fitting.append((entry.parameters, needed, name, entry.advice))
    if not fitting:
        return Finding("best base", "optional", f"none that was measured trains in {memory / 1e9:.0f} GB")
    _, needed, name, advice = max(fitting)
    step = None
    if name.lower() != settings.training.base_model.lower():
        step = f"ai-forge run --base {name}"
    return Finding("best base", "ok", f"{name} ({needed:g} of {memory / 1e9:.0f} GB on this {where}): {advice}", step)


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
    findings = []
    for name, text in tools.items():
        place = shutil.which(name)
        findings.append(Finding(name, "ok", place) if place else Finding(name, "optional", f"not found: {text}"))
    return findings
