"""`Group` on torch.distributed: NCCL between GPUs, gloo between processes on a CPU.

The adapters' gradients are small (40 MB for rank 64 on the attention of a 3B base), so they are summed in one piece after the
backward pass; overlapping the two, and sharding the frozen weights (FSDP), would be other designs.
"""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from ai_forge.errors import InputError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(hours=12)
"""How long one may wait for the others: rank 0 decomposes a large base first. A process that dies is noticed at once."""


class TorchGroup:
    """The process group of this process; `meeting_place` is a file that does not exist yet.

    Each process gets a GPU of its own, or its share of the cores.

    Raises:
        InputError: there are more processes than GPUs.
    """

    def __init__(self, rank: int, size: int, meeting_place: Path) -> None:
        self.rank, self.size = rank, size
        self._device = torch.device("cpu")
        if torch.cuda.is_available():
            if size > torch.cuda.device_count():
                raise InputError(
                    f"training.nproc is {size}, and there are {torch.cuda.device_count()} GPUs.",
                    f"add --nproc {torch.cuda.device_count()}.",
                )
            self._device = torch.device("cuda", rank)
            torch.cuda.set_device(self._device)
        else:
            torch.set_num_threads(max(1, torch.get_num_threads() // size))
        distributed.init_process_group(
            "nccl" if self._device.type == "cuda" else "gloo",
            init_method=meeting_place.as_uri(),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over all processes, in float64."""
        sums = torch.tensor(values, dtype=torch.float64, device=self._device)
        distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def sum_gradients(self, trainee: Any) -> None:
        """Replace the trainee's gradients by their sums over all processes."""
        parameters = trainee.parameters
        for parameter in parameters:
            if parameter.grad is None:  # this process had no example
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def first(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, for all; the others wait for it."""
        box = [make() if self.rank == 0 else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]
