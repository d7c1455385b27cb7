"""Gradient checkpointing on SmolLM2-135M: what a step takes in memory and in seconds, with activations kept and computed again.

QPiSSA's shapes without its start: rank 32 on all linear layers, one row of 1,024 tokens in four documents, every token
supervised. Correctness first: both must have the same gradients, bit by bit. Memory is the growth of the process's peak over
one step, each in a process of its own; the estimate stands beside it.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import random

import torch

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.backends.torch_model import compute_dtype, memory_needed, pick_device
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.losses import sft_loss
from ai_forge.training.tokens.packing import Batch, TokenizedExample, collate
from measure import interleaved, record

SETTINGS = "off", "on"
N_DOCUMENTS, LENGTH = 4, 256


def config_of(setting: str) -> FineTuneConfig:
    return FineTuneConfig.model_validate(
        {
            "rank": 32,
            "init_method": "lora",
            "quantization": "none",
            "target_modules": ALL_LINEAR_MODULES,
            "micro_batch_size": N_DOCUMENTS,
            "max_seq_len": LENGTH,
            "gradient_checkpointing": setting,
        }
    )


def packed() -> Batch:
    draw = random.Random(0)
    texts = [tuple(draw.randrange(1000, 40000) for _ in range(LENGTH)) for _ in range(N_DOCUMENTS)]
    return collate([TokenizedExample(text, 1) for text in texts])


def base_folder() -> Path:
    return resolve_base("SmolLM2-135M-Instruct", cache_dir=Path(tempfile.gettempdir()) / "ai-forge-bench").folder


def trainee_of(setting: str) -> TorchTrainee:
    return initialise(base_folder(), config_of(setting), collate([TokenizedExample(tuple(range(1000, 1016)), 1)]))[0]


def peak_bytes() -> int:
    """Of this process so far; ru_maxrss would begin with the parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


def growth(setting: str) -> int:
    """Bytes by which a step raises the peak of a fresh process."""
    code = f"import bench_checkpointing as b; b.tell_growth({setting!r})"
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, check=True, text=True)
    return int(done.stdout.split()[-1])


def tell_growth(setting: str) -> None:
    trainee, batch = trainee_of(setting), packed()
    before = peak_bytes()
    trainee.forward_backward(batch, sft_loss, batch.n_supervised)
    print(peak_bytes() - before)


def main() -> None:
    batch = packed()
    trainees = {setting: trainee_of(setting) for setting in SETTINGS}
    gradients = {}
    for setting, trainee in trainees.items():
        trainee.forward_backward(batch, sft_loss, batch.n_supervised)
        gradients[setting] = [parameter.grad for parameter in trainee.parameters]
        trainee.discard_gradients()
    assert all(torch.equal(a, b) for a, b in zip(gradients["off"], gradients["on"], strict=True))

    def step(trainee: TorchTrainee) -> None:
        trainee.forward_backward(batch, sft_loss, batch.n_supervised)
        trainee.discard_gradients()

    seconds = interleaved({setting: lambda trainee=trainee: step(trainee) for setting, trainee in trainees.items()})
    counted = ("activations", "logits")
    estimates = {s: memory_needed(base_folder(), config_of(s)) for s in SETTINGS}
    record(
        "checkpointing",
        {
            "tokens": batch.n_tokens,
            "dtype": str(compute_dtype(pick_device())),
            "step_s": {setting: round(value, 2) for setting, value in seconds.items()},
            "longer": round(seconds["on"] / seconds["off"], 2),
            "peak_growth_mb": {setting: round(growth(setting) / 1e6) for setting in SETTINGS},
            "estimate_mb": {s: round(sum(estimates[s][part] for part in counted) / 1e6) for s in SETTINGS},
        },
    )


if __name__ == "__main__":
    main()
