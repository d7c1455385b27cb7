"""Initialise the adapters of a base and prove that the model still says what the base says.

The check compares three sets of next-token distributions on a fixed text: the base's, those of the base with its
weights plainly quantised, and those of the freshly initialised adapter model. PiSSA without quantisation must not move
the logits beyond rounding; QPiSSA must move them no further than plain NF4 does. A run that fails this stops: what was
asked for was not built.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError, InternalError
from ai_forge.events import AdapterInitialised
from ai_forge.training.backends.torch_backend import (
    TorchTrainee,
    full_precision_weights,
    replace_layer,
    target_layers,
)
from ai_forge.training.backends.torch_layers import AdapterLinear, FrozenWeight, TorchAlgebra
from ai_forge.training.backends.torch_model import compute_dtype, load_model, pick_device, vocabulary_log_probs
from ai_forge.training.packing import Batch
from ai_forge.training.pissa import pissa_factors

KL_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
"""Rounding alone, nats per token, by the dtype that the model computes in."""
ALLOWED_RATIO = 1.10
"""QPiSSA's divergence may exceed plain NF4's by this factor: both are single draws of a rounding error."""


def initial_factors(weight: Tensor, config: FineTuneConfig, algebra: TorchAlgebra, name: str) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank] at the start, by `config.init_method`.

    Raises:
        InputError: the rank is larger than the matrix allows.
    """
    if config.rank > min(weight.shape):
        raise InputError(
            f"rank {config.rank} is larger than {min(weight.shape)}, the smaller side of {name} {list(weight.shape)}.",
            f"choose a rank of at most {min(weight.shape)}.",
        )
    if config.init_method == "lora":
        bound = 1 / math.sqrt(weight.shape[1])  # kaiming_uniform(a=√5), as in LoRA's and PEFT's code
        a = (torch.rand(config.rank, weight.shape[1], generator=algebra.generator) * 2 - 1).to(weight) * bound
        return a, torch.zeros(weight.shape[0], config.rank).to(weight)
    factors = pissa_factors(
        weight,
        config.rank,
        config.scaling,
        algebra,
        oversampling=config.svd_oversampling,
        tolerance=config.svd_tolerance,
    )
    return factors.a, factors.b


def mean_kl(p: Tensor, q: Tensor) -> float:
    """Mean Kullback–Leibler divergence of log-distributions [n, vocabulary]: Σ p (log p − log q), nats per token.

    Never below 0, which rounding alone would bring about.
    """
    return max(float((p.exp() * (p - q)).sum(1).mean()), 0.0)


def initialise(
    folder: Path,
    config: FineTuneConfig,
    check: Batch,
    *,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[TorchTrainee, AdapterInitialised]:
    """The base in `folder` with fresh adapters, and what was measured on them with the packed text `check`.

    `exact` computes in float32 whatever the device is good at.

    Raises:
        InternalError: the logits moved further than quantisation explains.
    """
    began = time.perf_counter()
    device = pick_device()
    dtype = torch.float32 if exact else compute_dtype(device)
    model = load_model(folder, device=device, dtype=dtype)
    targets = target_layers(model, config.target_modules)
    read = full_precision_weights(folder)
    block_size = config.nf4_block_size if config.quantization == "nf4" else None
    algebra = TorchAlgebra(config.seed)
    base = vocabulary_log_probs(model, check)

    kl_quantised = 0.0
    if block_size is not None:
        originals = {name: linear.weight.data for name, linear in targets.items()}
        for linear in targets.values():
            linear.weight.data = FrozenWeight(linear.weight.data, dtype, block_size, packed=False).dense()
        kl_quantised = mean_kl(base, vocabulary_log_probs(model, check))
        for name, linear in targets.items():
            linear.weight.data = originals[name]

    layers: dict[str, AdapterLinear] = {}
    squared_error, squared_norm = 0.0, 0.0
    for done, (name, linear) in enumerate(targets.items()):
        progress(done, len(targets))
        weight = read(f"{name}.weight").to(device)
        a, b = initial_factors(weight, config, algebra, name)
        residual = weight - config.scaling * (b @ a) if config.init_method == "pissa" else weight
        frozen = FrozenWeight(residual, dtype, block_size, packed=weight.is_cuda)
        layers[name] = AdapterLinear(frozen, linear.bias, a, b, config.scaling)
        replace_layer(model, name, layers[name])
        error = frozen.dense().float() + config.scaling * (b @ a) - weight
        squared_error += float(error.square().sum())
        squared_norm += float(weight.square().sum())
    progress(len(targets), len(targets))
    kl_initialised = mean_kl(base, vocabulary_log_probs(model, check))

    trainee = TorchTrainee(model, layers, config)
    report = AdapterInitialised(
        init_method=config.method_name,
        quantization=config.quantization,
        rank=config.rank,
        n_matrices=len(layers),
        n_trainable=trainee.n_trainable,
        relative_error=math.sqrt(squared_error / squared_norm),
        kl_initialised=kl_initialised,
        kl_quantised_base=kl_quantised,
        seconds=time.perf_counter() - began,
    )
    allowed = ALLOWED_RATIO * kl_quantised + KL_TOLERANCE[dtype]
    if not kl_initialised <= allowed:
        raise InternalError(
            f"Right after {config.method_name} initialisation the logits are {kl_initialised:.2e} nats from the "
            f"base's; at most {allowed:.2e} is explained by quantisation ({asdict(report)})."
        )
    return trainee, report
