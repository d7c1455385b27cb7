"""`Trainee` on MLX: one of mlx-lm's models with PiSSA, QPiSSA, LoRA or QLoRA adapters, and the AdamW that trains them.

The same adapters, files and losses as the torch backend, with three differences:

- `nf4` is MLX's own 4-bit format (`mlx_layers`), and the optimizer keeps its moments in float32: MLX has no 8-bit AdamW;
- `residual_mlx.safetensors` holds the packed codes beside `residual.safetensors`, the same values written out in float32
  for the merge: packing those again would choose other groups' scales;
- where `gradient_checkpointing` is auto, a block's activations are made again in the backward pass if keeping those of this
  very batch would take more than half of the memory that is free. That changes the time, not one bit of the result (tested on
  a CPU).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import psutil
from mlx.optimizers import AdamW
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError
from ai_forge.model_files.adapter import PREFIX, WEIGHTS, AdapterFolder
from ai_forge.model_files.tensors import TensorSpec, write_safetensors
from ai_forge.training.backends.base import Loss, TokenSums
from ai_forge.training.backends.mlx_layers import BITS, AdapterLinear, FrozenWeight, hooked_blocks
from ai_forge.training.backends.mlx_model import compute_dtype, load_arrays, load_model, on_gpu, target_log_probs
from ai_forge.training.memory import kept_bytes, mlx_memory_of, recomputed_bytes, score_bytes, shape_in
from ai_forge.training.tokens.packing import Batch

PACKED_RESIDUAL = "residual_mlx.safetensors"
SIDES = ("lora_A", "lora_B")
OUT_OF_MEMORY = ("allocate", "Insufficient Memory")  # in Metal's messages: MLX has no error class of its own for it


def linear_layers_of(model: Any) -> dict[str, nn.Linear]:
    """The linear layers of the model's blocks by full name, block by block."""
    return {
        f"model.layers.{index}.{name}": layer
        for index, block in enumerate(model.model.layers)
        for name, layer in sorted(block.named_modules())
        if isinstance(layer, nn.Linear)
    }


def replace_layer(model: Any, full_name: str, layer: nn.Module) -> None:
    """Put `layer` where `full_name` points."""
    *parents, leaf = full_name.split(".")
    place = model
    for part in parents:
        if part.isdecimal():  # the blocks lie in a plain list, which has no attributes
            place = place[int(part)]
        else:
            place = getattr(place, part)
    setattr(place, leaf, layer)


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Turn what MLX raises where Metal refuses an allocation into Python's MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise MemoryError(str(error)) from None


class MLXTrainee:
    """A base model with adapters; see `backends.base.Trainee`."""

    def __init__(self, model: Any, layers: Mapping[str, AdapterLinear], config: FineTuneConfig) -> None:
        self.model = model
        self.layers = layers
        self._config = config
        self._parameters = {
            f"{PREFIX}{name}.{side}.weight": getattr(layer, side) for name, layer in layers.items() for side in SIDES
        }
        self.gradients: dict[str, mx.array] = {}
        self.n_trainable = sum(p.size for p in self._parameters.values())
        self.optimizer = AdamW(
            config.learning_rate, betas=[0.9, 0.999], weight_decay=config.weight_decay, bias_correction=True
        )
        self.optimizer.init(self._parameters)

    # -- making one ---------------------------------------------------------------------------------------------

    @classmethod
    def from_adapter(
        cls, folder: Path, adapter_folder: Path, config: FineTuneConfig, *, exact: bool = False
    ) -> "MLXTrainee":
        """The base in `folder` with an adapter, ours or PEFT's, on the weights that it was trained on.

        `exact` computes in float32, on the same values.

        Raises:
            InputError: there is no such adapter, or it does not fit the base.
        """
        dtype = compute_dtype(exact=exact)
        model = load_model(folder, dtype=dtype)
        adapter = AdapterFolder(adapter_folder)
        packed = _packed_residual(adapter_folder, dtype)
        linear_layers = linear_layers_of(model)
        layers: dict[str, AdapterLinear] = {}
        for name in adapter.layers:
            linear = linear_layers.get(name)
            if linear is None or linear.weight.shape != adapter.shape(name):
                raise InputError(
                    f"{adapter_folder} adapts {name} {list(adapter.shape(name))}, which {folder} does not have.",
                    "name the base it was trained on.",
                )
            frozen = packed.get(name)
            if frozen is None:
                held = adapter.frozen(name)  # a plain LoRA has no residual: it was trained on the base's own weights
                weight = linear.weight
                if held is not None:
                    weight = mx.array(held)
                frozen = FrozenWeight.of(weight, dtype, None)
            a, b = map(mx.array, adapter.pair(name))
            layers[name] = AdapterLinear(frozen, linear.get("bias"), a, b, adapter.scaling(name))
            replace_layer(model, name, layers[name])
        mx.eval(model.parameters())  # only now: a weight that was replaced is never read
        return cls(model, layers, config)

    # -- the loop's verbs ---------------------------------------------------------------------------------------

    def forward_backward(self, batch: Batch, loss: Loss, divisor: float) -> TokenSums:
        """Add the gradients of `loss / divisor`; the sums are undivided.

        Raises:
            MemoryError: the memory does not hold this batch; the gradients added so far are to be discarded.
        """

        def objective(parameters: dict[str, mx.array]) -> tuple[mx.array, mx.array, mx.array]:
            self._put(parameters)
            log_probs, hits = target_log_probs(self.model, batch)
            total = loss(log_probs)
            return total / divisor, total, hits

        with out_of_memory_told():
            with self._recomputing(batch):
                try:
                    (_, total, hits), gradients = mx.value_and_grad(objective)(self._parameters)
                finally:
                    self._put(self._parameters)  # else the layers keep the tracers that they were differentiated with
            if self.gradients:
                gradients = {name: gradient + self.gradients[name] for name, gradient in gradients.items()}
            mx.eval(total, hits, gradients)  # MLX is lazy: memory runs out here, which the handler must still see
        self.gradients = gradients
        return TokenSums(float(total), hits.size, int(hits.sum()))

    def _put(self, parameters: Mapping[str, mx.array]) -> None:
        """Let the layers compute with `parameters`."""
        for name, layer in self.layers.items():
            for side in SIDES:
                setattr(layer, side, parameters[f"{PREFIX}{name}.{side}.weight"])

    def keeps_activations(self, batch: Batch) -> bool:
        """Whether the activations of `batch` may stay in memory until the backward pass.

        Raises:
            MemoryError: not even one block's have room. MLX itself would not say so: it swaps, or the process dies.
        """
        args = self.model.args
        heads = args.num_attention_heads
        sides: dict[str, int] = {
            "n_layers": args.num_hidden_layers,
            "hidden": args.hidden_size,
            "inner": args.intermediate_size,
            "n_tokens": batch.n_tokens,
            "value_bytes": self.model.model.norm.weight.itemsize,
        }
        scores = score_bytes(heads=heads, n_tokens=batch.n_tokens)
        least, free = recomputed_bytes(**sides) + scores, free_bytes()
        if least > free:
            raise MemoryError(f"{batch.n_tokens} tokens need {least / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        if self._config.gradient_checkpointing != "auto":
            return self._config.gradient_checkpointing == "off"
        return kept_bytes(heads=heads, **sides) + scores < free / 2  # half: the estimate is computed, not measured

    @contextmanager
    def _recomputing(self, batch: Batch) -> Iterator[None]:
        """Make each block's activations again in the backward pass, where they would not fit."""
        if self.keeps_activations(batch):
            yield
            return
        blocks: dict[int, list[AdapterLinear]] = {}
        for name, layer in self.layers.items():
            blocks.setdefault(int(name.split(".")[2]), []).append(layer)

        def call(
            index: int, block: Any, hidden: mx.array, args: tuple[Any, ...], kwargs: Mapping[str, Any]
        ) -> mx.array:
            layers = blocks.get(index, [])

            # The factors are arguments, not read from the layers: mx.checkpoint gives gradients of arguments only.
            def run(hidden: mx.array, pairs: list[list[mx.array]]) -> mx.array:
                for layer, pair in zip(layers, pairs, strict=True):
                    layer.lora_A, layer.lora_B = pair
                result: mx.array = block(hidden, *args, **kwargs)
                return result

            return mx.checkpoint(run)(hidden, [[layer.lora_A, layer.lora_B] for layer in layers])

        with hooked_blocks(self.model.model, call):
            yield

    def evaluate(self, batch: Batch) -> TokenSums:
        """The sums of −log p and of top-1 hits, without gradients."""
        log_probs, hits = target_log_probs(self.model, batch)
        return TokenSums(-float(log_probs.sum()), hits.size, int(hits.sum()))

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the gradients to at most `max_norm`; return the global norm before."""
        norm = mx.sqrt(mx.stack([mx.square(g).sum() for g in self.gradients.values()]).sum())
        scale = mx.minimum(max_norm / (norm + 1e-6), 1.0)  # torch's clip_grad_norm_
        self.gradients = {name: gradient * scale for name, gradient in self.gradients.items()}
        return float(norm)

    def step(self, learning_rate: float) -> None:
        """One optimizer step; gradients are cleared."""
        self.optimizer.learning_rate = learning_rate
        self._parameters = self.optimizer.apply_gradients(self.gradients, self._parameters)
        mx.eval(self._parameters, self.optimizer.state)
        self._put(self._parameters)
        self.discard_gradients()

    def discard_gradients(self) -> None:
        """Forget the gradients added so far."""
        self.gradients = {}

    # -- storing one --------------------------------------------------------------------------------------------

    def adapter(self) -> Mapping[str, NDArray[np.float32]]:
        """The adapter's tensors under PEFT's names."""
        return {name: np.array(p) for name, p in self._parameters.items()}

    def save_residual(self, path: Path) -> None:
        """Write the frozen weights of the adapted layers, as they enter the product, and packed ones packed beside."""
        frozen = {f"{name}.weight": layer.frozen for name, layer in self.layers.items()}
        specs = [TensorSpec(name, "F32", weight.shape) for name, weight in frozen.items()]
        write_safetensors(path, ((spec, np.array(frozen[spec.name].dense())) for spec in specs), specs)
        packed: dict[str, mx.array] = {}
        for name, weight in frozen.items():
            if weight.group_size is not None:
                packed |= {f"{name}.{index}": array for index, array in enumerate(weight.arrays)}
        if packed:
            mx.save_safetensors(str(path.with_name(PACKED_RESIDUAL)), packed)

    def save_state(self, folder: Path) -> None:
        """Write adapter and optimizer so that `load_state` continues bit by bit."""
        save_file(dict(self.adapter()), folder / WEIGHTS)
        state = self.optimizer.state
        moments = {f"{name}/{kind}": np.array(state[name][kind]) for name in self._parameters for kind in "mv"}
        save_file(moments | {"step": np.array(state["step"])}, folder / "optimizer.safetensors")

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""
        adapter = load_file(folder / WEIGHTS)
        stored = load_file(folder / "optimizer.safetensors")
        self._parameters = {name: mx.array(adapter[name]) for name in self._parameters}
        self._put(self._parameters)
        state = self.optimizer.state
        state["step"] = mx.array(stored["step"])
        for name in self._parameters:
            state[name] = {kind: mx.array(stored[f"{name}/{kind}"]) for kind in "mv"}

    def memory_bytes(self) -> int:
        """Memory in use now: MLX's on the GPU, that of this process elsewhere."""
        if on_gpu():
            return int(mx.get_active_memory())
        return int(psutil.Process().memory_info().rss)

    def memory_total_bytes(self) -> int:
        """Memory that there is."""
        return memory_total_bytes()


def memory_total_bytes() -> int:
    """Memory that there is: on the GPU what Metal recommends to use of it."""
    if on_gpu():
        return int(mx.device_info()["max_recommended_working_set_size"])
    return int(psutil.virtual_memory().total)


def free_bytes(n_processes: int = 1) -> int:
    """Memory that each of `n_processes` on this machine may still take."""
    free = int(psutil.virtual_memory().available)
    if on_gpu():
        free = min(free, memory_total_bytes() - int(mx.get_active_memory()))
    return free // n_processes


def memory_needed(folder: Path, config: FineTuneConfig) -> dict[str, int]:
    """Bytes by component at the peak of training the base in `folder` here; see `memory.mlx_memory_of`."""
    return mlx_memory_of(shape_in(folder), config, value_bytes=compute_dtype().size)


def _packed_residual(folder: Path, dtype: mx.Dtype) -> dict[str, FrozenWeight]:
    """By layer the packed frozen weights beside an adapter that MLX made; a folder from torch has none."""
    path = folder / PACKED_RESIDUAL
    if not path.exists():
        return {}
    arrays, first = load_arrays(path), ".weight.0"
    weights = {}
    for name in sorted(key.removesuffix(first) for key in arrays if key.endswith(first)):
        codes, *rest = (arrays[f"{name}.weight.{index}"] for index in range(3))
        scales, offsets = (part.astype(dtype) for part in rest)  # never to fewer bits than they were stored in
        n_in = codes.shape[1] * (32 // BITS)  # codes lie packed in words of 32 bits
        weights[name] = FrozenWeight((codes, scales, offsets), n_in // scales.shape[1])
    return weights
