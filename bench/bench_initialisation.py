"""PiSSA's decomposition against PEFT's `pissa_niter_16`, and what alternating iterations remove of the quantization error.

    python bench/bench_initialisation.py                   3072² and 4096² at rank 128, SmolLM2 at rank 32 and 64
    python bench/bench_initialisation.py --small           SmolLM2's single matrices and 1024² only, for a look

Correctness first: errors are told as excess over the best possible (Eckart–Young, from an exact decomposition), and a run
in which ours exceeds a thousandth stops. The synthetic spectrum is a noise bulk (Marchenko–Pastur) under directions that
fall as k^-0.4, which is what trained linear layers look like; the fit to SmolLM2 is only by eye.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.training.adapters.initialisation import initial_adapter
from ai_forge.training.backends.torch_algebra import TorchAlgebra
from ai_forge.training.backends.torch_backend import full_precision_weights
from ai_forge.training.backends.torch_init import quantizer
from ai_forge.training.bases.resolve import resolve_base
from measure import ROUNDS, interleaved, record

ITERATIONS = (1, 2, 5)
PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def synthetic(side: int, seed: int = 0) -> Tensor:
    """A matrix [side, side] with a realistic spectrum."""
    generator = torch.Generator().manual_seed(seed)
    n = side // 4
    u, v = (torch.linalg.qr(torch.randn(side, n, generator=generator)).Q for _ in range(2))
    s = 0.12 * math.sqrt(side) * torch.arange(1, n + 1) ** -0.4
    return 0.02 * torch.randn(side, side, generator=generator) + (u * s) @ v.T


def settings(rank: int, **changes: object) -> FineTuneConfig:
    chosen = {"rank": rank, "alpha": rank, "target_modules": ALL_LINEAR_MODULES, "quantization": "none"}
    return FineTuneConfig.model_validate(chosen | changes)


def excess(weight: Tensor, product: Tensor, best: float) -> float:
    return float(torch.linalg.norm(weight.double() - product.double())) / best - 1


def race(weights: dict[str, Tensor], rank: int, rounds: int) -> dict[str, object]:
    """Seconds for all `weights` and the worst excess error, ours and PEFT's own layer with `pissa_niter_16`."""
    config = settings(rank)

    def ours(weight: Tensor) -> tuple[Tensor, Tensor]:
        start = initial_adapter(weight, "layer", config, TorchAlgebra(0), None)
        return start.a, start.b

    def theirs(weight: Tensor) -> tuple[Tensor, Tensor]:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
        linear.weight.data = weight
        peft = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="pissa_niter_16")
        layer = PeftLinear(linear, "default", peft, r=rank, lora_alpha=rank)
        return layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data

    worst = {"ai_forge": 0.0, "peft_niter_16": 0.0}
    for weight in weights.values():
        best = float(torch.linalg.svdvals(weight.double())[rank:].square().sum().sqrt())
        for name, decompose in (("ai_forge", ours), ("peft_niter_16", theirs)):
            a, b = decompose(weight)
            worst[name] = max(worst[name], excess(weight, b @ a, best))
    assert worst["ai_forge"] <= 1e-3, worst

    def all_of(decompose: object) -> None:
        for weight in weights.values():
            decompose(weight)  # type: ignore[operator]
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    seconds = interleaved(
        {"ai_forge": lambda: all_of(ours), "peft_niter_16": lambda: all_of(theirs)},
        rounds,
    )
    return {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "ratio": round(seconds["peft_niter_16"] / seconds["ai_forge"], 2),
        "worst_excess_error": {name: round(value, 6) for name, value in worst.items()},
    }


def error_removed(weights: dict[str, Tensor], rank: int) -> dict[str, object]:
    """Share of plain NF4's squared error, taken as a norm over all `weights`, that QPiSSA removes, by iterations."""
    quantize = quantizer(torch.float32, 64)
    plain = sum(float((quantize(weight) - weight).square().sum()) for weight in weights.values())
    removed = {}
    for n in ITERATIONS:
        config = settings(rank, quantization="nf4", quantization_iterations=n)
        left = 0.0
        for weight in weights.values():
            start = initial_adapter(weight, "layer", config, TorchAlgebra(0), quantize)
            left += float((quantize(start.frozen) + start.b @ start.a - weight).square().sum())
        removed[n] = 1 - math.sqrt(left / plain)
    return {
        "removed": {f"{n} iterations": round(value, 4) for n, value in removed.items()},
        "ratio_to_one_iteration": {f"{n} iterations": round(removed[n] / removed[1], 2) for n in ITERATIONS[1:]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a look, in a minute")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = resolve_base("SmolLM2-135M-Instruct", cache_dir=Path(tempfile.gettempdir()) / "ai-forge-bench")
    read = full_precision_weights(base.folder)
    layers = (0, 14, 29) if chosen.small else range(30)
    real = {
        f"{layer}.{part}": read(f"model.layers.{layer}.{part}.weight").to(device) for layer in layers for part in PARTS
    }
    figures: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "decomposition": {f"SmolLM2-135M, {len(real)} matrices, rank 32": race(real, 32, chosen.rounds)},
        "quantization_error": {
            f"SmolLM2-135M, {len(real)} matrices, rank {r}": error_removed(real, r) for r in (32, 64)
        },
    }
    for side, rank in ((1024, 64),) if chosen.small else ((3072, 128), (4096, 128)):
        weight = {"synthetic": synthetic(side).to(device)}
        figures["decomposition"][f"{side}², rank {rank}"] = race(weight, rank, chosen.rounds)  # type: ignore[index]
        figures["quantization_error"][f"{side}², rank {rank}"] = error_removed(weight, rank)  # type: ignore[index]
    record("initialisation-small" if chosen.small else "initialisation", figures)


if __name__ == "__main__":
    main()
