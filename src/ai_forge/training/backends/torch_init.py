"""Initialise the adapters of a base on torch and prove that the model still says what the base says: see `adapters.proof`."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ai_forge.config import FineTuneConfig
from ai_forge.events import AdapterInitialised
from ai_forge.training.adapters.initialisation import Quantize, chosen_layers, initial_adapter, scaling_of
from ai_forge.training.adapters.proof import WeightErrors, require_proof
from ai_forge.training.backends.torch_algebra import TorchAlgebra
from ai_forge.training.backends.torch_backend import (
    TorchTrainee,
    full_precision_weights,
    linear_layers_of,
    replace_layer,
)
from ai_forge.training.backends.torch_layers import AdapterLinear, FrozenWeight
from ai_forge.training.backends.torch_model import compute_dtype, load_model, pick_device, vocabulary_log_probs
from ai_forge.training.tokens.packing import Batch

# Rounding alone, by the dtype that the model computes in: of the logits in nats per token, and of s·B·A + frozen relative to
# the weight (Frobenius), where nothing is quantized.
KL_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
WEIGHT_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}


def mean_kl(p: Tensor, q: Tensor) -> float:
    """Mean Kullback–Leibler divergence of log-distributions [n, vocabulary]: Σ p (log p − log q), nats per token."""
    return max(float((p.exp() * (p - q)).sum(1).mean()), 0.0)  # below 0 it is rounding alone


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
    dtype = compute_dtype(device, exact=exact)
    model = load_model(folder, device=device, dtype=dtype)
    linear_layers = linear_layers_of(model)
    targets = {name: linear_layers[name] for name in chosen_layers(list(linear_layers), config.target_modules)}
    read = full_precision_weights(folder)
    algebra = TorchAlgebra(config.seed)
    base = vocabulary_log_probs(model, check)

    kl_quantized, block_size, quantize = 0.0, None, None
    if config.quantization == "nf4":
        block_size = config.nf4_block_size
        quantize = quantizer(dtype, block_size)
        originals = {name: linear.weight.data for name, linear in targets.items()}
        for linear in targets.values():
            linear.weight.data = FrozenWeight(linear.weight.data, dtype, block_size, packed=False).dense()
        kl_quantized = mean_kl(base, vocabulary_log_probs(model, check))
        for name, linear in targets.items():
            linear.weight.data = originals[name]

    layers: dict[str, AdapterLinear] = {}
    errors = WeightErrors()
    for done, (name, linear) in enumerate(targets.items()):
        progress(done, len(targets))
        weight = read(f"{name}.weight").to(device)  # float32, whatever the model computes in
        start = initial_adapter(weight, name, config, algebra, quantize)
        scaling = scaling_of(config, name)
        frozen = FrozenWeight(start.frozen, dtype, block_size, packed=weight.is_cuda)
        layers[name] = AdapterLinear(frozen, linear.bias, start.a, start.b, scaling)
        replace_layer(model, name, layers[name])
        built = frozen.dense().float() + scaling * (start.b @ start.a)
        lost = 0.0
        if quantize is not None:
            lost = float((quantize(weight) - weight).square().sum())
        errors.add(name, float((built - weight).square().sum()), lost, float(weight.square().sum()))
    progress(len(targets), len(targets))
    kl_initialised = mean_kl(base, vocabulary_log_probs(model, check))

    trainee = TorchTrainee(model, layers, config)
    seconds = time.perf_counter() - began
    report = errors.report(config, config.quantization, trainee.n_trainable, (kl_initialised, kl_quantized), seconds)
    require_proof(report, WEIGHT_TOLERANCE[dtype], KL_TOLERANCE[dtype])
    return trainee, report


def quantizer(dtype: torch.dtype, block_size: int) -> Quantize:
    """The values that NF4 holds of a matrix, as they enter products in `dtype`, in float32."""
    return lambda matrix: FrozenWeight(matrix, dtype, block_size, packed=False).dense().float()
