"""Where arrays live: one module per array library behind the interface of `base.py`, and the choice between them.

`training.backend` says which: torch, mlx, or auto, which is MLX on Apple Silicon where it is installed and torch
everywhere else. Nothing of either is imported before one is loaded.
"""

import importlib.util
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.errors import PrerequisiteError

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on import it lists the optional kernels that it lacks

PACKAGES = {"torch": ("torch", "transformers", "bitsandbytes"), "mlx": ("mlx", "mlx_lm")}
"""What each backend imports; the key is also the name of its extra."""


@dataclass(frozen=True)
class Backend:
    """An array library: how adapters are made, trained and asked. `trainee` and `generator` are classes of `base.py`.

    `memory_needed` is what a training of the base in a folder takes on this machine, by component; `free_bytes` what each of
    so many processes may take.
    """

    name: str
    initialise: Callable[..., Any]
    trainee: Any
    generator: Any
    memory_needed: Callable[[Path, FineTuneConfig], dict[str, int]]
    free_bytes: Callable[[int], int]


def is_apple_silicon() -> bool:
    """Whether this is a Mac with Apple's own processor."""
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def missing_packages(name: str) -> list[str]:
    """What the backend `name` needs and is not installed."""
    return [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]


def backend_name(setting: str) -> str:
    """The backend that the setting (auto, torch or mlx) means on this machine."""
    if setting != "auto":
        return setting
    return "mlx" if is_apple_silicon() and not missing_packages("mlx") else "torch"


def load_backend(setting: str) -> Backend:
    """Import the backend that the setting means.

    Raises:
        PrerequisiteError: it is not installed.
    """
    name = backend_name(setting)
    if missing := missing_packages(name):
        raise PrerequisiteError(
            f"training.backend {setting} needs {' and '.join(missing)}, not installed here.",
            f"pip install 'ai-forge[{name}]'",
        )
    if name == "mlx":
        from ai_forge.training.backends.mlx_backend import MLXTrainee, free_bytes, memory_needed
        from ai_forge.training.backends.mlx_init import initialise
        from ai_forge.training.backends.mlx_model import MLXGenerator

        return Backend(name, initialise, MLXTrainee, MLXGenerator, memory_needed, free_bytes)
    from ai_forge.training.backends import torch_backend, torch_init, torch_model

    return Backend(
        name,
        torch_init.initialise,
        torch_backend.TorchTrainee,
        torch_model.TorchGenerator,
        torch_model.memory_needed,
        torch_model.free_bytes,
    )
