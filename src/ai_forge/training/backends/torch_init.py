"""Initialise the adapters of a base and prove that the model still says what the base says.

The check compares three sets of next-token distributions on a fixed text: the base's, those of the base with its
weights plainly quantized, and those of the freshly initialised adapter model. PiSSA without quantization must not move
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
from ai_forge.errors import InternalError
from ai_forge.events import AdapterInitialised
from ai_forge.training.adapters.initialisation import Quantize, initial_adapter, rank_of, scaling_of
from ai_forge.training.backends.torch_algebra import TorchAlgebra
from ai_forge.training.backends.torch_backend import (
    TorchTrainee,
    full_precision_weights,
    replace_layer,
    target_layers,
)
from ai_forge.training.backends.torch_layers import AdapterLinear, FrozenWeight
from ai_forge.training.backends.torch_model import compute_dtype, load_model, pick_device, vocabulary_log_probs
from ai_forge.training.tokens.packing import Batch

KL_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
"""Rounding alone, nats per token, by the dtype that the model computes in."""
WEIGHT_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}
"""Rounding alone of s·B·A + frozen, relative to the weight (Frobenius), where nothing is quantized."""
ALLOWED_RATIO = 1.10
"""QPiSSA's divergence may exceed plain NF4's by this factor: both are single draws of a rounding error."""


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
        InternalError: the logits moved further than quantization explains.
    """
    began = time.perf_counter()
    device = torch.device("cpu") if config.sharded else pick_device()  # no device may hold the whole base
    dtype = torch.float32 if exact else compute_dtype(device)
    model = load_model(folder, device=device, dtype=dtype)
    targets = target_layers(model, config.target_modules)
    read = full_precision_weights(folder)
    block_size = config.nf4_block_size if config.quantization == "nf4" else None
    algebra = TorchAlgebra(config.seed)
    base = vocabulary_log_probs(model, check)

    kl_quantized = 0.0
    if block_size is not None:
        originals = {name: linear.weight.data for name, linear in targets.items()}
        for linear in targets.values():
            linear.weight.data = FrozenWeight(linear.weight.data, dtype, block_size, packed=False).dense()
        kl_quantized = mean_kl(base, vocabulary_log_probs(model, check))
        for name, linear in targets.items():
            linear.weight.data = originals[name]

    quantize = None if block_size is None else quantizer(dtype, block_size)
    layers: dict[str, AdapterLinear] = {}
    errors = _Errors()
    for done, (name, linear) in enumerate(targets.items()):
        progress(done, len(targets))
        weight = read(f"{name}.weight").to(device)
        start = initial_adapter(weight, name, config, algebra, quantize)
        scaling = scaling_of(config, name)
        frozen = FrozenWeight(start.frozen, dtype, block_size, packed=weight.is_cuda)
        layers[name] = AdapterLinear(frozen, linear.bias, start.a, start.b, scaling)
        replace_layer(model, name, layers[name])
        errors.add(name, weight, frozen.dense().float() + scaling * (start.b @ start.a), quantize)
    progress(len(targets), len(targets))
    kl_initialised = mean_kl(base, vocabulary_log_probs(model, check))

    trainee = TorchTrainee(model, layers, config)
    report = AdapterInitialised(
        init_method=config.method_name,
        quantization=config.quantization,
        rank=config.rank,
        n_matrices=len(layers),
        n_trainable=trainee.n_trainable,
        relative_error=errors.relative(errors.squared),
        kl_initialised=kl_initialised,
        kl_quantized_base=kl_quantized,
        seconds=time.perf_counter() - began,
        relative_error_quantized=errors.relative(errors.squared_quantized),
        worst_layer=errors.worst_layer,
        worst_relative_error=errors.worst,
        n_other_ranks=sum(rank_of(config, name) != config.rank for name in layers),
    )
    if block_size is None and not report.worst_relative_error <= WEIGHT_TOLERANCE[dtype]:
        raise InternalError(
            f"Right after {config.method_name} initialisation {report.worst_layer} is {report.worst_relative_error:.2e} "
            f"from the base's weight, relatively; at most {WEIGHT_TOLERANCE[dtype]:.2e} is rounding ({asdict(report)})."
        )
    allowed = ALLOWED_RATIO * kl_quantized + KL_TOLERANCE[dtype]
    if not kl_initialised <= allowed:
        raise InternalError(
            f"Right after {config.method_name} initialisation the logits are {kl_initialised:.2e} nats from the "
            f"base's; at most {allowed:.2e} is explained by quantization ({asdict(report)})."
        )
    return trainee, report


def quantizer(dtype: torch.dtype, block_size: int) -> Quantize:
    """The values that NF4 holds of a matrix, as they enter products in `dtype`, in float32."""
    return lambda matrix: FrozenWeight(matrix, dtype, block_size, packed=False).dense().float()


class _Errors:
    """Sums over the matrices of squared distances from the base's weights."""

    def __init__(self) -> None:
        self.squared, self.squared_quantized, self.squared_norm = 0.0, 0.0, 0.0
        self.worst_layer, self.worst = "", 0.0

    def add(self, name: str, weight: Tensor, built: Tensor, quantize: Quantize | None) -> None:
        """Count the matrix `built` that stands for `weight`."""
        error, norm = float((built - weight).square().sum()), float(weight.square().sum())
        self.squared += error
        self.squared_norm += norm
        if quantize is not None:
            self.squared_quantized += float((quantize(weight) - weight).square().sum())
        if error > self.worst**2 * norm:
            self.worst_layer, self.worst = name, math.sqrt(error / norm)

    def relative(self, squared: float) -> float:
        """A sum of squared distances as a share of the weights' norm."""
        return math.sqrt(squared / self.squared_norm)
