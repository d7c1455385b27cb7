"""The settings for a Mac by its memory, and the bases that MLX serves.

`config/apple_defaults.yaml` holds the settings, and a test computes by `memory.mlx_memory_of` that each fits. Nothing here
imports MLX.
"""

from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ai_forge.config import FineTuneConfig

MLX_LM_MODULES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma3_text": "gemma3_text",
}
"""`model_type` of a base that the MLX backend serves → mlx-lm's module; each is tested against transformers."""
GPU_SHARE = 0.7  # of the unified memory: Metal recommends about two thirds to three quarters of it to a program


class AppleDefault(BaseModel):
    """The settings for a Mac with `memory_gb` of unified memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_gb: int = Field(gt=0)
    training: dict[str, str | int | list[str]]

    @property
    def config(self) -> FineTuneConfig:
        """The whole settings of a training."""
        return FineTuneConfig.model_validate(self.training)

    @property
    def flags(self) -> str:
        """What to add to `ai-forge run`."""
        words = [f"--base {self.config.base_model}"]
        for key, value in self.training.items():
            if key == "base_model":
                continue
            if isinstance(value, list):
                value = f"[{','.join(value)}]"
            words.append(f"--set training.{key}={value}")
        return " ".join(words)


@cache
def apple_defaults() -> tuple[AppleDefault, ...]:
    """The table that ships with the package, by rising memory."""
    text = (resources.files("ai_forge.config") / "apple_defaults.yaml").read_text(encoding="utf-8")
    return tuple(AppleDefault.model_validate(row) for row in yaml.safe_load(text))


def apple_default_for(memory_bytes: int) -> AppleDefault | None:
    """The row of the largest Mac that has no more memory than this one; None below the smallest."""
    # five per cent less than the row says, for what a machine reports may lie below what it was sold with
    fitting = [row for row in apple_defaults() if row.memory_gb * 0.95e9 <= memory_bytes]
    return fitting[-1] if fitting else None
