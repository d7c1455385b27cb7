"""A trained PiSSA, QPiSSA or LoftQ adapter as a plain LoRA on the original base.

    python -m ai_forge.training.adapters.convert ADAPTER OUTPUT

Such an adapter adds to the weights that it was trained on, not to the base. The change that training made is
s·(B'·A' − B·A), a plain LoRA of twice the rank (PiSSA, arXiv 2404.02948, appendix C):

    A₂ = [A'; A]  [2·rank, in],   B₂ = [B', −B]  [out, 2·rank],   the scaling is kept

PEFT loads the result on the base itself. Without quantization it is the trained model. With it, the base's own weights
take the place of the quantized ones, so the result differs from the trained model by what quantization had lost: `convert`
measures that share of each weight and tells it. A plain LoRA without residual is copied as it is.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ai_forge.errors import AIForgeError, InputError
from ai_forge.model_files.adapter import CONFIG, PREFIX, WEIGHTS, AdapterFolder
from ai_forge.model_files.tensors import TensorSpec, Weights, write_safetensors
from ai_forge.workspace import atomic_folder, atomic_write


@dataclass(frozen=True)
class Converted:
    """What was written: `rank` of the plain LoRA, and how far base + LoRA is from the trained weights (Frobenius)."""

    folder: str
    n_layers: int
    rank: int
    relative_difference: float | None


def convert_to_lora(adapter_path: Path, output_path: Path, base_folder: Path | None = None) -> Converted:
    """Write the adapter in `adapter_path` as a plain LoRA on the original base to `output_path`.

    With `base_folder`, the difference between base + LoRA and the trained weights is measured as a share of the weights.

    Raises:
        InputError: no adapter there, or what it started from was not kept.
    """
    adapter = AdapterFolder(adapter_path)
    config, factor = dict(adapter.config), 1
    if adapter.residual is not None:
        factor = 2
        ranks = {key: 2 * value for key, value in (config.get("rank_pattern") or {}).items()}
        growth = 2**0.5 if config.get("use_rslora") else 2  # keeps alpha / rank or alpha / √rank
        alphas = {key: growth * value for key, value in (config.get("alpha_pattern") or {}).items()}
        config |= {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"]}
        config |= {"rank_pattern": ranks, "alpha_pattern": alphas, "init_lora_weights": True}
    specs = {layer: _specs(adapter, layer, factor) for layer in adapter.layers}
    ordered = [spec for pair in specs.values() for spec in pair]
    with atomic_folder(output_path) as folder:
        write_safetensors(folder / WEIGHTS, _tensors(adapter, specs), ordered)
        atomic_write(folder / CONFIG, json.dumps(config, indent=1))
    written, difference = AdapterFolder(output_path), None
    if base_folder is not None:
        difference = _difference(adapter, written, Weights(base_folder))
    return Converted(str(output_path), len(written.layers), int(config["r"]), difference)


def _specs(adapter: AdapterFolder, layer: str, factor: int) -> tuple[TensorSpec, TensorSpec]:
    (n_out, n_in), rank = adapter.shape(layer), factor * adapter.rank(layer)
    return (
        TensorSpec(f"{PREFIX}{layer}.lora_A.weight", "F32", (rank, n_in)),
        TensorSpec(f"{PREFIX}{layer}.lora_B.weight", "F32", (n_out, rank)),
    )


def _tensors(
    adapter: AdapterFolder, specs: dict[str, tuple[TensorSpec, TensorSpec]]
) -> Iterator[tuple[TensorSpec, np.ndarray]]:
    for layer, (spec_a, spec_b) in specs.items():
        a, b = adapter.pair(layer)
        if adapter.residual is not None:
            first_a, first_b = adapter.initial_pair(layer)
            a, b = np.concatenate([a, first_a]), np.concatenate([b, -first_b], axis=1)
        yield spec_a, a
        yield spec_b, b


def _difference(trained: AdapterFolder, written: AdapterFolder, base: Weights) -> float:
    """‖(W + LoRA) − (frozen + s·B'·A')‖ / ‖W‖ over all adapted layers."""
    squared, norm = 0.0, 0.0
    for layer in written.layers:
        weight, frozen = base.load(f"{layer}.weight"), trained.frozen(layer)
        if frozen is None:
            frozen = weight
        (a, b), (a2, b2) = trained.pair(layer), written.pair(layer)
        meant = frozen + trained.scaling(layer) * (b @ a)
        off = weight + written.scaling(layer) * (b2 @ a2) - meant
        # squared in float64: the differences are of the size of float32's rounding where nothing was quantized
        squared += float(np.square(off, dtype=np.float64).sum())
        norm += float(np.square(weight, dtype=np.float64).sum())
    return float(np.sqrt(squared / norm))


def main(words: list[str] | None = None) -> int:
    """The command; prints JSON, returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ai_forge.training.adapters.convert", description=__doc__.splitlines()[0]
    )
    parser.add_argument("adapter", type=Path, help="the folder that a training made")
    parser.add_argument("output", type=Path, help="where the plain LoRA is to lie")
    parser.add_argument(
        "--base", type=Path, help="the base's folder: measure what quantization makes of the difference"
    )
    chosen = parser.parse_args(words)
    try:
        if chosen.output.exists():
            raise InputError(f"{chosen.output} exists.", "name a folder that does not.")
        result = convert_to_lora(chosen.adapter, chosen.output, chosen.base)
    except AIForgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(result), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
