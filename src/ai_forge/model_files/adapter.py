"""Adapters on disk, in PEFT's format, whatever trained them. No array library but numpy.

    adapter_config.json            PEFT's LoraConfig
    adapter_model.safetensors      base_model.model.<layer>.lora_A.weight [rank, in], .lora_B.weight [out, rank]
    residual.safetensors           ours: the frozen weights that were trained on (PiSSA, QPiSSA, LoftQ, NF4); without it,
                                   the adapter belongs on the base itself
    initial_adapter.safetensors    ours: A and B before the first step, for `convert`
    chat_template.jinja            how the model was asked, where that is not the base's chat template

What is read is checked: another PEFT method, DoRA, whole modules or biases beside the low-rank pairs are refused, because
merging or continuing them as plain low-rank sums would make another model.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ai_forge.config import FineTuneConfig
from ai_forge.config.training import ALL_LINEAR
from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.tensors import PICKLE_SUFFIXES, SafetensorsFile

Value = TypeVar("Value")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RESIDUAL, INITIAL = "residual.safetensors", "initial_adapter.safetensors"
CHAT_TEMPLATE = "chat_template.jinja"
PREFIX = "base_model.model."
NOT_PLAIN = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
)  # settings of PEFT that make an adapter more than a sum of low-rank products


def of_layer(pattern: Mapping[str, Value], name: str, otherwise: Value) -> Value:
    """The value of the first key that is the end of the layer's full name, as PEFT reads `rank_pattern`.

    >>> of_layer({"mlp.up_proj": 4, r"layers.[01].self_attn.q_proj": 16}, "model.layers.1.self_attn.q_proj", 8)
    16
    """
    for key, value in pattern.items():
        if re.fullmatch(rf"(.*\.)?({key})", name):
            return value
    return otherwise


def peft_config(config: FineTuneConfig, base_name: str) -> JsonObject:
    """What `adapter_config.json` says of an adapter made with `config`."""
    modules = list(config.target_modules)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "use_rslora": config.use_rslora,
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "bias": "none",
        "target_modules": ALL_LINEAR if modules == [ALL_LINEAR] else modules,
        "inference_mode": True,
    }


def scaling_in(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What B·A of `layer` is multiplied by, as PEFT reads its own configuration."""
    alpha = float(of_layer(config.get("alpha_pattern") or {}, layer, config["lora_alpha"]))
    if config.get("use_rslora"):
        return float(alpha / rank**0.5)  # Kalajdzievski 2023: by rank alone, a high rank would learn less and less
    return alpha / rank


def read_config(folder: Path) -> JsonObject:
    """`adapter_config.json`, if it is that of a plain LoRA.

    Raises:
        InputError: it is missing, broken, or asks for more than low-rank sums.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        detail = ""
        if pickles := [path.name for path in folder.glob("adapter_model.*") if path.suffix in PICKLE_SUFFIXES]:
            detail = f" (only {pickles[0]}, a pickle, which is refused)"
        raise InputError(f"{folder} holds no adapter: {CONFIG} and {WEIGHTS}{detail}.", "ai-forge train")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        float(config["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is not a LoRA configuration: {error}.") from error
    if config.get("peft_type", "LORA") != "LORA":
        raise InputError(f"{folder} is an adapter of PEFT's {config['peft_type']}, not LoRA.", "train a LoRA.")
    unsupported = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("bias", "none") != "none":
        unsupported.append("bias")
    if unsupported:
        raise InputError(f"{folder} uses {', '.join(unsupported)}, which cannot be merged.", "train without it.")
    return dict(config)


class AdapterFolder:
    """An adapter that lies in `folder`: its pairs, their scaling, and what they were trained on.

    Raises:
        InputError: there is none, or it is not what `read_config` accepts, or it needs a residual that is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_config(folder)
        self.file = SafetensorsFile(folder / WEIGHTS)
        self.residual = _optional(folder / RESIDUAL)
        self.initial = _optional(folder / INITIAL)
        start = str(self.config.get("init_lora_weights", ""))
        # they change the base's weights when they start: the pair fits only what was left
        if self.residual is None and start.startswith(("pissa", "olora", "corda", "loftq")):
            if start.startswith("pissa"):  # PEFT writes pissa_niter_16 and the like
                start = "PiSSA"
            raise InputError(
                f"{folder} is a {start} adapter without {RESIDUAL}: on the base itself its sum would be wrong.",
                "merge the folder that the training made; with PEFT, save it with path_initial_model_for_weight_conversion.",
            )
        self.layers = self._layers()

    def _layers(self) -> list[str]:
        layers = []
        for key in self.file.specs:
            if key.endswith(".lora_A.weight"):
                layers.append(key.removesuffix(".lora_A.weight").removeprefix(PREFIX))
            elif not key.endswith(".lora_B.weight"):
                raise InputError(f"{self.folder} holds {key}, which is no low-rank pair.", "train again without it.")
        if not layers:
            raise InputError(f"{self.folder / WEIGHTS} holds no adapter.")
        if len(layers) * 2 != len(self.file.specs):
            raise InputError(
                f"{self.folder}: {len(self.file.specs)} tensors do not make {len(layers)} pairs of A and B."
            )
        for layer in layers:
            a = self.file.specs[self._key(layer, "A")]
            b = self.file.specs.get(
                self._key(layer, "B")
            )  # as many B as A does not say that they are of the same layers
            if b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
                shapes = f"A {a.shape}, B {b.shape if b else 'missing'}"
                raise InputError(f"{self.folder}: the pair of {layer} does not fit together: {shapes}.")
        return layers

    @staticmethod
    def _key(layer: str, side: str) -> str:
        return f"{PREFIX}{layer}.lora_{side}.weight"

    def shape(self, layer: str) -> tuple[int, int]:
        """[out, in] of the matrix that the pair adds to."""
        return self.file.specs[self._key(layer, "B")].shape[0], self.file.specs[self._key(layer, "A")].shape[1]

    def rank(self, layer: str) -> int:
        """Rows of A."""
        return self.file.specs[self._key(layer, "A")].shape[0]

    def scaling(self, layer: str) -> float:
        """What B·A is multiplied by."""
        return scaling_in(self.config, layer, self.rank(layer))

    def pair(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """A [rank, in] and B [out, rank], float32."""
        return self.file.load(self._key(layer, "A")), self.file.load(self._key(layer, "B"))

    def initial_pair(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """A and B before the first step.

        Raises:
            InputError: they were not kept.
        """
        if self.initial is None:
            raise InputError(
                f"{self.folder} has no {INITIAL}: what the adapter started from is not known.", "train it again."
            )
        return self.initial.load(self._key(layer, "A")), self.initial.load(self._key(layer, "B"))

    def frozen(self, layer: str, n_rows: int | None = None) -> np.ndarray | None:
        """The weight [out, in] that `layer` was trained on, or its first rows, float32; None where that is the base's own."""
        return self.frozen_rows(layer, 0, n_rows)

    def frozen_rows(self, layer: str, first: int, last: int | None) -> np.ndarray | None:
        """Some rows of `frozen`."""
        name = f"{layer}.weight"
        if self.residual is None or name not in self.residual.specs:
            return None
        return self.residual.rows(name, first, last)

    def release(self) -> None:
        """Let go of the pages that were read."""
        for file in (self.file, self.residual):
            if file is not None:
                file.release()


def _optional(path: Path) -> SafetensorsFile | None:
    return SafetensorsFile(path) if path.is_file() else None
