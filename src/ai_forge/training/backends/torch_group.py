"""`Group` on torch.distributed: NCCL between GPUs, gloo between processes on a CPU.

The adapters' gradients are small (40 MB for rank 64 on the attention of a 3B base), so they are summed in one piece after the
backward pass; overlapping the two would be another design.
"""

import datetime
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

from ai_forge.errors import AIForgeError, InputError, InternalError
from ai_forge.training.group import LostError, RankInfo

T = TypeVar("T")
# How long one may wait for the others: rank 0 decomposes a large base first. A process that dies is noticed at once.
TIMEOUT = datetime.timedelta(hours=12)


class TorchGroup:
    """The process group of this process, which meets the others at `info.rendezvous`; one that exists already is taken.

    Each process gets a GPU of its own, or its share of the machine's cores.

    Raises:
        InputError: there are more processes on this machine than GPUs.
        LostError: the others did not come.
    """

    def __init__(self, info: RankInfo) -> None:
        self.rank, self.size, self.n_here = info.rank, info.size, info.n_here
        self._device, backend = torch.device("cpu"), "gloo"
        if torch.cuda.is_available():
            if info.n_here > torch.cuda.device_count():
                raise InputError(
                    f"{info.n_here} processes are to train on this machine, and it has {torch.cuda.device_count()} GPUs.",
                    f"start {torch.cuda.device_count()}: --nproc, or the launcher's --nproc_per_node.",
                )
            self._device, backend = torch.device("cuda", info.local_rank), "nccl"
            torch.cuda.set_device(self._device)
        else:  # more threads than cores would wait for each other
            torch.set_num_threads(max(1, torch.get_num_threads() // info.n_here))
        self._is_ours = not distributed.is_initialized()
        if self._is_ours:
            with self._lost_told():
                distributed.init_process_group(
                    backend,
                    init_method=info.rendezvous,
                    rank=info.rank,
                    world_size=info.size,
                    timeout=TIMEOUT,
                )

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over all processes, in float64."""
        sums = torch.tensor(values, dtype=torch.float64, device=self._device)  # token counts pass float32's 2^24
        with self._lost_told():
            distributed.all_reduce(sums)
            return [float(value) for value in sums]

    def sum_gradients(self, trainee: Any) -> None:
        """Replace the trainee's gradients by their sums over all processes."""
        parameters = trainee.parameters
        for parameter in parameters:
            if parameter.grad is None:  # this process had no example
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        with self._lost_told():
            distributed.all_reduce(flat)
        parts = torch.split(flat, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def gather(self, value: T) -> list[T]:
        """The `value` of each process, by rank."""
        values: list[Any] = [None] * self.size
        with self._lost_told():
            distributed.all_gather_object(values, value)
        return values

    def broadcast(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, for all; the others wait for it. What it raises there, all raise."""
        box: list[Any] = [None, None]
        problem: Exception | None = None
        if self.rank == 0:
            try:
                box[0] = make()
            except AIForgeError as error:
                box[1] = problem = error
            except Exception as error:  # noqa: BLE001 (raised below, where the others have been told)
                problem = error
                box[1] = InternalError(f"Process 0 failed: {traceback.format_exc()}")
        with self._lost_told():
            distributed.broadcast_object_list(box, src=0)
        if problem is not None or box[1] is not None:
            raise problem or box[1]
        value: T = box[0]
        return value

    def close(self) -> None:
        """Leave the group, when all have nothing more to say."""
        if self._is_ours:
            distributed.destroy_process_group()

    @contextmanager
    def _lost_told(self) -> Iterator[None]:
        """Everything that goes wrong inside a collective is a connection that broke."""
        try:
            yield
        except RuntimeError as error:
            raise LostError(
                f"Process {self.rank} of {self.size} lost the others ({str(error).splitlines()[0]}).",
                "see what they say of themselves, and run the same command again: it continues from the newest checkpoint.",
            ) from error
