"""A base that no single device holds: its decoder layers in pieces, one a process (FSDP, torch's `fully_shard`).

A layer's frozen weights are put together for as long as the layer computes, forward and backward, and lie in pieces
otherwise. Whole in every process stay the vocabulary's matrices, norms' weights on a CPU, and the adapters: their gradients,
optimizer and checkpoints are those of `torch_backend`. The base is read into the host's memory first, and goes to the device
layer by layer.

All processes must do the same number of passes, because putting a layer together takes all of them: `MicroBatches` sees to
that, and nobody can go on alone where memory runs out.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def shard_layers(model: Any, device: torch.device) -> None:
    """Cut the layers of `model`, which lies in the host's memory, into this process's pieces on `device`."""
    for layer in model.model.layers:
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        _move(trained, device)
        # the adapters stay whole, so that gradients, optimizer and checkpoints are those of an unsharded training
        fully_shard(layer, reshard_after_forward=True, ignored_params=trained)
    whole = {parameter for parameter in model.parameters() if not isinstance(parameter, DTensor)}
    _move(whole, device)
    fully_shard(model.model, ignored_params=whole)


def _move(parameters: set[nn.Parameter], device: torch.device) -> None:
    for parameter in parameters:
        parameter.data = parameter.data.to(device)
