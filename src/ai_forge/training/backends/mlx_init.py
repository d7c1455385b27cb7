"""Initialise the adapters of a base on MLX and prove that the model still says what the base says.

The three models of the proof (`adapters.proof`) go through the network together, block by block: a block's full-precision
weights are read, used, decomposed and let go before the next one's, so that a base which fits only in 4 bits can be initialised
where it will be trained.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError
from ai_forge.events import AdapterInitialised
from ai_forge.model_files.tensors import Weights
from ai_forge.training.adapters.initialisation import chosen_layers, initial_adapter, scaling_of
from ai_forge.training.adapters.proof import WeightErrors, require_proof
from ai_forge.training.backends.mlx_backend import MLXTrainee, linear_layers_of, replace_layer
from ai_forge.training.backends.mlx_layers import (
    BITS,
    GROUP_SIZES,
    AdapterLinear,
    FrozenLinear,
    FrozenWeight,
    MLXAlgebra,
    PackedRow,
    hooked_blocks,
)
from ai_forge.training.backends.mlx_model import compute_dtype, head_of, load_model, log_softmax
from ai_forge.training.tokens.packing import IGNORE, Batch

# Rounding alone, by the dtype that the model computes in: of the logits in nats per token, and of s·B·A + frozen relative to
# the weight (Frobenius), where nothing is quantized.
KL_TOLERANCE = {mx.float32: 1e-6, mx.bfloat16: 5e-3}
WEIGHT_TOLERANCE = {mx.float32: 1e-5, mx.bfloat16: 4e-3}


def group_size_of(config: FineTuneConfig, shapes: dict[str, tuple[int, int]]) -> int | None:
    """The input features that share a scale, or None where nothing is quantized.

    Raises:
        InputError: MLX has no groups of that size, or a layer does not divide into them.
    """
    if config.quantization == "none":
        return None
    size = config.nf4_block_size
    fitting = [s for s in GROUP_SIZES if all(n_in % s == 0 for _, n_in in shapes.values())]
    if size in fitting:
        return size
    sizes, advice = "no size that it has", "set training.quantization=none."
    if fitting:
        sizes, advice = ", ".join(map(str, fitting)), f"set training.nf4_block_size={fitting[-1]}."
    raise InputError(f"training.nf4_block_size is {size}; MLX quantizes this base in groups of {sizes}.", advice)


def mean_kl(p: mx.array, q: mx.array) -> float:
    """Mean Kullback–Leibler divergence of log-distributions [n, vocabulary]: Σ p (log p − log q), nats per token."""
    return max(float((mx.exp(p) * (p - q)).sum(axis=1).mean()), 0.0)  # below 0 it is rounding alone


def initialise(
    folder: Path,
    config: FineTuneConfig,
    check: Batch,
    *,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[MLXTrainee, AdapterInitialised]:
    """The base in `folder` with fresh adapters, and what was measured on them with the packed text `check`.

    `exact` computes in float32 whatever the device is good at.

    Raises:
        InputError: the rank, the target modules or the group size do not fit the base.
        InternalError: the logits moved further than quantization explains.
    """
    began = time.perf_counter()
    dtype = compute_dtype(exact=exact)
    model = load_model(folder, dtype=dtype)
    builder = _Builder(model, folder, config, dtype, progress)
    base, quantized, fresh = builder.read(check)
    kl_quantized, quantization = 0.0, "none"
    if builder.group_size:
        kl_quantized, quantization = mean_kl(base, quantized), f"MLX {BITS}-bit groups of {builder.group_size}"
    kl_initialised = mean_kl(base, fresh)
    trainee = MLXTrainee(model, builder.layers, config)
    seconds = time.perf_counter() - began
    report = builder.errors.report(config, quantization, trainee.n_trainable, (kl_initialised, kl_quantized), seconds)
    require_proof(report, WEIGHT_TOLERANCE[dtype], KL_TOLERANCE[dtype])
    return trainee, report


class _Builder:
    """Puts the adapters into a model while a text passes through it."""

    def __init__(
        self, model: Any, folder: Path, config: FineTuneConfig, dtype: mx.Dtype, progress: Callable[[int, int], None]
    ) -> None:
        self.layers: dict[str, AdapterLinear] = {}
        self.errors = WeightErrors()
        self._model, self._config, self._dtype, self._progress = model, config, dtype, progress
        self._weights, self._algebra = Weights(folder), MLXAlgebra(config.seed)
        linear = linear_layers_of(model)
        self._targets = {name: linear[name] for name in chosen_layers(list(linear), config.target_modules)}
        self.group_size = group_size_of(config, {name: linear.weight.shape for name, linear in self._targets.items()})

    def read(self, check: Batch) -> list[mx.array]:
        """Log-probabilities [n_supervised, vocabulary] of base, plainly quantized base and initialised model."""
        inner = self._model.model
        ids = mx.array(np.stack([check.input_ids.astype(np.int32)] * 3))
        with hooked_blocks(inner, self._through):
            hidden = inner(ids, [PackedRow(check)] * len(inner.layers))
        supervised = mx.array(np.flatnonzero(check.targets != IGNORE).astype(np.int32))
        head = head_of(self._model)
        self._progress(len(self._targets), len(self._targets))
        return [log_softmax(head(row[supervised])) for row in hidden]

    def _through(
        self, index: int, block: Any, hidden: mx.array, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> mx.array:
        """Block `index` on three rows: as it is, quantized, with adapters; it keeps the adapters."""

        def run(row: int) -> mx.array:
            result: mx.array = block(hidden[row : row + 1], *args, **kwargs)
            mx.eval(result)  # now, so that the weights it was computed with can be let go
            return result

        names = [name for name in self._targets if name.startswith(f"model.layers.{index}.")]
        as_it_is = plainly_quantized = run(0)
        if self.group_size:
            for name in names:
                linear = self._targets[name]
                frozen = FrozenWeight.of(linear.weight, self._dtype, self.group_size)
                replace_layer(self._model, name, FrozenLinear(frozen, linear.get("bias")))
            plainly_quantized = run(1)
        for name in names:
            self._progress(len(self.layers), len(self._targets))
            self.layers[name] = self._adapted(name, self._targets[name].get("bias"))
            replace_layer(self._model, name, self.layers[name])
            del self._targets[name].weight  # the targets would hold the whole base in full precision
        return mx.concatenate([as_it_is, plainly_quantized, run(2)])

    def _quantized(self, matrix: mx.array) -> mx.array:
        return FrozenWeight.of(matrix, self._dtype, self.group_size).dense()

    def _adapted(self, name: str, bias: mx.array | None) -> AdapterLinear:
        weight = mx.array(self._weights.load(f"{name}.weight"))  # float32, whatever the model computes in
        quantize, lost = None, 0.0
        if self.group_size:
            quantize = self._quantized
            lost = self._algebra.norm(quantize(weight) - weight)
        start = initial_adapter(weight, name, self._config, self._algebra, quantize)
        scaling = scaling_of(self._config, name)
        frozen = FrozenWeight.of(start.frozen, self._dtype, self.group_size)
        layer = AdapterLinear(frozen, bias, start.a, start.b, scaling)
        mx.eval(layer.lora_A, layer.lora_B)
        error = self._algebra.norm(frozen.dense() + scaling * (start.b @ start.a) - weight)
        self.errors.add(name, error**2, lost**2, self._algebra.norm(weight) ** 2)
        return layer
