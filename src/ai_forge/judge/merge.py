"""A trained adapter and its base become one model folder: W = W_trained_on + scaling · B · A.

Method: for PiSSA and QPiSSA what the adapter was trained on is the residual (for QPiSSA the dequantised NF4 one), not
the base: the trainer leaves it beside the adapter as `residual.safetensors`, and the merge starts from it. Where a
matrix has no residual entry (plain LoRA) it starts from the base. The sum is taken in float32 and rounded once, to
float16. One matrix is in memory at a time; the folder appears whole or not at all.

DoRA, adapters on embeddings and adapters that come with whole modules are refused: they are not this formula.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai_forge.errors import InputError
from ai_forge.judge.gguf_writer import Progress
from ai_forge.training.bases import Base, check_folder
from ai_forge.training.gguf_import import TOKENIZER_GGUF
from ai_forge.training.tensor_files import (
    PICKLE_SUFFIXES,
    WEIGHTS_NAME,
    SafetensorsFile,
    TensorSpec,
    Weights,
    to_storage,
    write_safetensors,
)
from ai_forge.workspace import atomic_folder, require_disk

ADAPTER_CONFIG, ADAPTER_WEIGHTS, RESIDUAL = "adapter_config.json", "adapter_model.safetensors", "residual.safetensors"
PREFIX = "base_model.model."
# copied as they are; weights, their index and config.json are written anew
CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    TOKENIZER_GGUF,
)


def merge_adapters_to_base(
    model: Base | Path | str,
    adapter_path: Path | str,
    output_path: Path | str | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Merges an adapter in PEFT's format into its base and returns the folder of the whole model.

    `model` is a base or its folder; `output_path` is by default `merged` inside the adapter's folder.

    Raises:
        InputError: no adapter there, one that does not fit the base, or a kind that is not a plain low-rank sum.
        PrerequisiteError: too little disk.
    """
    folder = model.folder if isinstance(model, Base) else Path(model)
    adapter_path = Path(adapter_path)
    target = Path(output_path) if output_path is not None else adapter_path / "merged"
    config = check_folder(folder)
    weights = Weights(folder)
    adapter = _Adapter(adapter_path, weights)
    specs = [_target(spec) for spec in weights.specs.values()]
    target.parent.mkdir(parents=True, exist_ok=True)
    require_disk(target.parent, sum(spec.n_bytes for spec in specs) + 50_000_000, "Merging the adapter")
    with atomic_folder(target) as work:
        for name in CARRIED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, work / name)
        config |= {"dtype": "float16"}
        config.pop("torch_dtype", None)
        (work / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        write_safetensors(work / WEIGHTS_NAME, _merged(weights, adapter, specs, progress), specs)
    return target


def _target(spec: TensorSpec) -> TensorSpec:
    """Vectors (norms, biases) in float32 stay so; everything else becomes float16."""
    return TensorSpec(spec.name, "F32" if len(spec.shape) == 1 and spec.dtype == "F32" else "F16", spec.shape)


def _merged(
    weights: Weights, adapter: "_Adapter", specs: list[TensorSpec], progress: Progress | None
) -> Iterator[tuple[TensorSpec, np.ndarray]]:
    for done, spec in enumerate(specs, 1):
        values = adapter.apply(spec.name) if spec.name in adapter.pairs else weights.load(spec.name)
        yield spec, to_storage(values, spec.dtype, spec.name)
        if progress:
            progress(done, len(specs))


@dataclass(frozen=True)
class _Pair:
    """The keys of one adapted matrix's A `[r, in]` and B `[out, r]`."""

    a: str
    b: str


class _Adapter:
    """A PEFT adapter folder, checked against the base it is to be merged into."""

    def __init__(self, folder: Path, weights: Weights) -> None:
        self.folder, self.weights = folder, weights
        self.config = _adapter_config(folder)
        self.file = SafetensorsFile(folder / ADAPTER_WEIGHTS)
        self.residual = SafetensorsFile(folder / RESIDUAL) if (folder / RESIDUAL).is_file() else None
        if self.residual is None and str(self.config.get("init_lora_weights", "")).startswith("pissa"):
            raise InputError(
                f"{folder} is a PiSSA adapter without {RESIDUAL}: on the base itself its sum would be wrong.",
                "merge the folder that the training made.",
            )
        self.pairs = self._find_pairs()

    def _find_pairs(self) -> dict[str, _Pair]:
        pairs: dict[str, _Pair] = {}
        for key in self.file.specs:
            if key.endswith(".lora_A.weight"):
                stem = key.removesuffix(".lora_A.weight")
                pairs[f"{stem.removeprefix(PREFIX)}.weight"] = _Pair(key, f"{stem}.lora_B.weight")
            elif not key.endswith(".lora_B.weight"):
                raise InputError(f"{self.folder} holds {key}, which is no low-rank pair.", "train again without it.")
        if not pairs:
            raise InputError(f"{self.folder / ADAPTER_WEIGHTS} holds no adapter.")
        for name, pair in pairs.items():
            self._check(name, pair)
        if len(pairs) * 2 != len(self.file.specs):
            raise InputError(
                f"{self.folder}: {len(self.file.specs)} tensors do not make {len(pairs)} pairs of A and B."
            )
        return pairs

    def _check(self, name: str, pair: _Pair) -> None:
        base, a, b = (self.weights.specs.get(name), self.file.specs[pair.a], self.file.specs.get(pair.b))
        if base is None or len(base.shape) != 2 or name.endswith("embed_tokens.weight"):
            raise InputError(f"{self.folder} adapts {name}, which is no linear layer of {self.weights.folder}.")
        if b is None or a.shape[1:] != base.shape[1:] or b.shape[:1] != base.shape[:1] or a.shape[0] != b.shape[-1]:
            shapes = f"A {a.shape}, B {b.shape if b else 'missing'}, base {base.shape}"
            raise InputError(
                f"The adapter does not fit the base at {name}: {shapes}.", "name the base it was trained on."
            )
        if self.residual and name in self.residual.specs and self.residual.specs[name].shape != base.shape:
            raise InputError(f"{RESIDUAL} has {self.residual.specs[name].shape} for {name}, the base {base.shape}.")

    def apply(self, name: str) -> np.ndarray:
        """The merged matrix, float32 `[out, in]`."""
        pair = self.pairs[name]
        a, b = self.file.load(pair.a), self.file.load(pair.b)
        rank = a.shape[0]
        alpha = float(self.config["lora_alpha"])
        scaling = alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank
        start = self.residual.load(name) if self.residual and name in self.residual.specs else self.weights.load(name)
        merged: np.ndarray = start + np.float32(scaling) * (b @ a)
        return merged


def _adapter_config(folder: Path) -> dict[str, Any]:
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        pickles = (
            [p.name for p in folder.glob("adapter_model.*") if p.suffix in PICKLE_SUFFIXES] if folder.is_dir() else []
        )
        detail = f" (only {pickles[0]}, a pickle, which is refused)" if pickles else ""
        raise InputError(
            f"{folder} holds no adapter: {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}{detail}.", "ai-forge train"
        )
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        float(config["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / ADAPTER_CONFIG} is not a LoRA configuration: {error}.") from error
    unsupported = [key for key in ("use_dora", "fan_in_fan_out", "alpha_pattern", "modules_to_save") if config.get(key)]
    if unsupported:
        raise InputError(f"{folder} uses {', '.join(unsupported)}, which cannot be merged.", "train without it.")
    return dict(config)
