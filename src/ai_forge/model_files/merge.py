"""A trained adapter and its base become one model folder: W = W_trained_on + scaling · B · A.

Method: for PiSSA and QPiSSA what the adapter was trained on is the residual (for QPiSSA the dequantised NF4 one), not
the base: the trainer leaves it beside the adapter as `residual.safetensors`, and the merge starts from it. Where a
matrix has no residual entry (plain LoRA) it starts from the base. The sum is taken in float32 and rounded once, to
float16. One matrix is in memory at a time; the folder appears whole or not at all. A chat template in the adapter's
folder, with which it was trained, takes the place of the base's.

DoRA, adapters on embeddings and adapters that come with whole modules are refused: they are not this formula.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ai_forge.errors import InputError
from ai_forge.events import Progress
from ai_forge.model_files.adapter import CHAT_TEMPLATE, RESIDUAL, AdapterFolder
from ai_forge.model_files.base import Base, check_folder
from ai_forge.model_files.gguf.importer import TOKENIZER_GGUF
from ai_forge.model_files.tensors import (
    STORAGE,
    WEIGHTS_NAME,
    TensorSpec,
    Weights,
    slices,
    to_storage,
    write_safetensors,
)
from ai_forge.workspace import atomic_folder, require_disk

# copied as they are; weights, their index and config.json are written anew
CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    CHAT_TEMPLATE,
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
    adapter = AdapterFolder(adapter_path)
    for layer in adapter.layers:
        _check_fit(adapter, layer, weights)
    specs = []
    for spec in weights.specs.values():
        is_exact = (
            len(spec.shape) == 1 and spec.dtype == "F32"
        )  # norms and biases: they cost nothing and stay as they are
        specs.append(spec if is_exact else TensorSpec(spec.name, "F16", spec.shape))
    target.parent.mkdir(parents=True, exist_ok=True)
    require_disk(target.parent, sum(spec.n_bytes for spec in specs) + 50_000_000, "Merging the adapter")
    with atomic_folder(target) as work:
        for name in CARRIED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, work / name)
        if (adapter_path / CHAT_TEMPLATE).is_file():
            shutil.copyfile(adapter_path / CHAT_TEMPLATE, work / CHAT_TEMPLATE)
        config["dtype"] = "float16"
        config.pop("torch_dtype", None)  # the older name of the same
        (work / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        write_safetensors(work / WEIGHTS_NAME, _merged(weights, adapter, specs, progress), specs)
    return target


def _check_fit(adapter: AdapterFolder, layer: str, weights: Weights) -> None:
    """Before anything is written, that the pair of `layer` and its residual have the shape of the base's matrix."""
    name, shape = f"{layer}.weight", adapter.shape(layer)
    base = weights.specs.get(name)
    if base is None or len(base.shape) != 2 or name.endswith("embed_tokens.weight"):
        raise InputError(f"{adapter.folder} adapts {name}, which is no linear layer of {weights.folder}.")
    if base.shape != shape:
        raise InputError(
            f"The adapter does not fit the base at {name}: B·A {shape}, base {base.shape}.",
            "name the base it was trained on.",
        )
    frozen = adapter.residual.specs.get(name) if adapter.residual else None
    if frozen is not None and frozen.shape != base.shape:
        raise InputError(f"{RESIDUAL} has {frozen.shape} for {name}, the base {base.shape}.")


def _merged(
    weights: Weights, adapter: AdapterFolder, specs: list[TensorSpec], progress: Progress | None
) -> Iterator[tuple[TensorSpec, np.ndarray]]:
    layers = {f"{layer}.weight": layer for layer in adapter.layers}
    for done, spec in enumerate(specs, 1):
        yield spec, _whole(weights, adapter, spec, layers.get(spec.name))
        weights.release()
        adapter.release()
        if progress:
            progress(done, len(specs))


def _whole(weights: Weights, adapter: AdapterFolder, spec: TensorSpec, layer: str | None) -> np.ndarray:
    """One tensor in storage type; only slices of it exist in float32."""
    values = np.empty(spec.shape, STORAGE[spec.dtype])
    if layer is not None:
        a, b = adapter.pair(layer)
        scaling = np.float32(adapter.scaling(layer))
    for first, last in slices(spec.shape):
        start = None
        if layer is not None:
            start = adapter.frozen_rows(
                layer, first, last
            )  # for plain LoRA there is none: it was trained on the base's own
        if start is None:
            start = weights.rows(spec.name, first, last)
        if layer is not None:
            start += scaling * (b[first:last] @ a)
        values[first:last] = to_storage(start, spec.dtype, spec.name)
    return values
