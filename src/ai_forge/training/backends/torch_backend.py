"""`Trainee` on torch: a base with PiSSA, QPiSSA, LoRA or QLoRA adapters, and the 8-bit AdamW that trains them.

Weights are decomposed in float32, read one matrix at a time from the base's safetensors, whatever dtype the model
computes in. The adapters are stored in PEFT's format; beside them lies `residual.safetensors`, the frozen weights that
were really trained on: merging onto anything else ships another model than the trained one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from bitsandbytes.optim import AdamW8bit
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError
from ai_forge.model_files.adapter import PREFIX, RESIDUAL, WEIGHTS, AdapterFolder
from ai_forge.training.backends.base import Loss, TokenSums
from ai_forge.training.backends.torch_layers import AdapterLinear, FrozenWeight
from ai_forge.training.backends.torch_model import (
    compute_dtype,
    load_model,
    out_of_memory_told,
    pick_device,
    recompute_layers,
    target_log_probs,
)
from ai_forge.training.backends.torch_shards import shard_layers
from ai_forge.training.tokens.packing import Batch

PACKED_RESIDUAL = "residual_nf4.safetensors"  # beside `residual.safetensors` on CUDA, which trains on packed weights


def linear_layers_of(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the model by full name, in its order."""
    return {full: layer for full, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def replace_layer(model: nn.Module, full_name: str, layer: nn.Module) -> None:
    """Put `layer` where `full_name` points."""
    parent, _, leaf = full_name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)


def full_precision_weights(folder: Path) -> Callable[[str], Tensor]:
    """A function that reads one weight of a Hugging Face folder as float32, by its full name."""
    index, places = folder / "model.safetensors.index.json", {}
    if index.exists():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]

    def read(name: str) -> Tensor:
        with safe_open(folder / places.get(name, "model.safetensors"), framework="pt") as file:
            weight: Tensor = file.get_tensor(name).float()
        return weight

    return read


def packed_weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    """By layer what `FrozenWeight.packed` gave, where the adapter in `folder` was made on packed weights."""
    path = folder / PACKED_RESIDUAL
    layers: dict[str, dict[str, Tensor]] = {}
    if not path.is_file():
        return layers
    for key, tensor in load_file(path).items():
        name, _, part = key.rpartition("/")
        layers.setdefault(name, {})[part] = tensor
    return layers


def packed_weight(
    adapter: AdapterFolder, name: str, parts: dict[str, Tensor], dtype: torch.dtype, device: torch.device
) -> FrozenWeight:
    """The packed weight of a layer, which must be what `residual.safetensors` holds: that is what is merged.

    Raises:
        InputError: it is not. Compared are the shape and the first row.
    """
    row = adapter.frozen(name, 1)
    try:
        weight = FrozenWeight.from_packed(parts, dtype, device)
        dense = weight.dense()
        if tuple(dense.shape) != adapter.shape(name):
            raise ValueError(f"it has the shape {list(dense.shape)}")
        # to bf16's rounding; one row is enough to tell another training's weight
        if row is None or not torch.allclose(dense[:1].float().cpu(), torch.from_numpy(row), rtol=2**-7, atol=1e-6):
            raise ValueError("it is another weight")
    except ValueError as error:
        raise InputError(
            f"{adapter.folder / PACKED_RESIDUAL} does not fit {RESIDUAL} beside it: {name}, {error}.",
            f"remove {PACKED_RESIDUAL}: it saves memory only.",
        ) from error
    return weight


class TorchTrainee:
    """A base model with adapters; see `backends.base.Trainee`."""

    def __init__(self, model: Any, layers: Mapping[str, AdapterLinear], config: FineTuneConfig) -> None:
        self.model = model
        self.layers = layers
        self._config = config
        self.parameters = [p for layer in layers.values() for p in (layer.lora_A, layer.lora_B)]
        self.n_trainable = sum(p.numel() for p in self.parameters)
        if config.gradient_checkpointing == "on":  # the trainer has settled auto
            recompute_layers(model)
        self.optimizer = AdamW8bit(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999)
        )

    # -- making one ---------------------------------------------------------------------------------------------

    @classmethod
    def from_adapter(
        cls,
        folder: Path,
        adapter_folder: Path,
        config: FineTuneConfig,
        *,
        exact: bool = False,
        sharded: bool = False,
    ) -> "TorchTrainee":
        """The base in `folder` with an adapter, ours or PEFT's, on the weights that it was trained on.

        `exact` computes in float32; `sharded` leaves this process of the group its piece of the layers only.

        Raises:
            InputError: there is no such adapter, or it does not fit the base.
        """
        device = computes_on = pick_device()
        if sharded:  # no device may hold the whole base: its pieces go there later
            device = torch.device("cpu")
        dtype = compute_dtype(computes_on, exact=exact)
        model = load_model(folder, device=device, dtype=dtype)
        adapter = AdapterFolder(adapter_folder)
        packed: dict[str, dict[str, Tensor]] = {}
        if device.type != "cpu" and not exact:
            packed = packed_weights(adapter_folder)
        linear_layers = linear_layers_of(model)
        layers: dict[str, AdapterLinear] = {}
        for name in adapter.layers:
            linear = linear_layers.get(name)
            if linear is None or tuple(linear.weight.shape) != adapter.shape(name):
                raise InputError(
                    f"{adapter_folder} adapts {name} {list(adapter.shape(name))}, which {folder} does not have.",
                    "name the base it was trained on.",
                )
            a, b = (torch.from_numpy(side).to(device) for side in adapter.pair(name))
            if name in packed:
                frozen = packed_weight(adapter, name, packed[name], dtype, device)
            else:
                weight, held = linear.weight.data, adapter.frozen(name)
                if held is not None:
                    weight = torch.from_numpy(held).to(device)
                frozen = FrozenWeight(weight, dtype, None, packed=False)
            layers[name] = AdapterLinear(frozen, linear.bias, a, b, adapter.scaling(name))
            replace_layer(model, name, layers[name])
        if sharded:
            shard_layers(model, computes_on)
        return cls(model, layers, config)

    # -- the loop's verbs ---------------------------------------------------------------------------------------

    def forward_backward(self, batch: Batch, loss: Loss, divisor: float) -> TokenSums:
        """Add the gradients of `loss / divisor`; the sums are undivided."""
        with out_of_memory_told():
            log_probs, hits = target_log_probs(self.model, batch)
            total = loss(log_probs)
            (total / divisor).backward()
            return TokenSums(float(total.detach()), len(hits), int(hits.sum()))

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> TokenSums:
        """The sums of −log p and of top-1 hits, without gradients."""
        with out_of_memory_told():
            log_probs, hits = target_log_probs(self.model, batch)
            return TokenSums(-float(log_probs.sum()), len(hits), int(hits.sum()))

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the gradients to at most `max_norm`; return the global norm before."""
        return float(nn.utils.clip_grad_norm_(self.parameters, max_norm))

    def step(self, learning_rate: float) -> None:
        """One optimizer step; gradients are cleared."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.discard_gradients()

    def discard_gradients(self) -> None:
        """Forget the gradients added so far."""
        self.optimizer.zero_grad(set_to_none=True)

    # -- storing one --------------------------------------------------------------------------------------------

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The adapter's parameters under PEFT's names."""
        for name, layer in self.layers.items():
            yield f"{PREFIX}{name}.lora_A.weight", layer.lora_A
            yield f"{PREFIX}{name}.lora_B.weight", layer.lora_B

    def adapter(self) -> Mapping[str, NDArray[np.float32]]:
        """The adapter's tensors under PEFT's names."""
        return {name: p.detach().cpu().numpy() for name, p in self.named_parameters()}

    def save_residual(self, path: Path) -> None:
        """Write the frozen weights of the adapted layers, as they enter the product, and packed ones packed beside."""
        frozen = {name: layer.frozen for name, layer in self.layers.items()}
        save_file({f"{name}.weight": weight.dense().cpu().contiguous() for name, weight in frozen.items()}, path)
        packed: dict[str, Tensor] = {}
        for name, weight in frozen.items():
            packed |= {f"{name}/{part}": tensor.cpu() for part, tensor in weight.packed().items()}
        if packed:
            save_file(packed, path.with_name(PACKED_RESIDUAL))

    def save_state(self, folder: Path) -> None:
        """Write adapter and optimizer so that `load_state` continues bit by bit."""
        save_file({name: p.detach().contiguous() for name, p in self.named_parameters()}, folder / WEIGHTS)
        flat = dict(flatten(self.optimizer.state_dict()["state"]))
        # safetensors holds tensors only; a clone, because it refuses tensors that share their memory
        tensors = {key: value.contiguous().clone() for key, value in flat.items() if isinstance(value, Tensor)}
        numbers = {key: value for key, value in flat.items() if not isinstance(value, Tensor)}
        save_file(tensors, folder / "optimizer.safetensors", metadata={"numbers": json.dumps(numbers, sort_keys=True)})

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""
        adapter = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(adapter[name])
        with safe_open(folder / "optimizer.safetensors", framework="pt") as file:
            flat: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            flat |= json.loads((file.metadata() or {}).get("numbers", "{}"))
        states = {int(index): state for index, state in unflatten(flat).items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})

    def memory_bytes(self) -> int:
        """Memory in use now: of the device on CUDA, of this process elsewhere."""
        if self.model.device.type == "cuda":
            return int(torch.cuda.memory_allocated())
        return int(psutil.Process().memory_info().rss)

    def memory_total_bytes(self) -> int:
        """Memory that there is."""
        if self.model.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.model.device).total_memory)
        return int(psutil.virtual_memory().total)


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with `/` between the keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dicts that `flatten` came from; keys are strings.

    >>> unflatten({"0/a": 1, "0/b/c": 2})
    {'0': {'a': 1, 'b': {'c': 2}}}
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
