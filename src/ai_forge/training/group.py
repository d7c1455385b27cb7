"""The processes that train together, as the loop sees them.

Each holds the whole model and a share of every step's examples. A step's loss is a sum over its tokens divided by their number,
which every process knows, since all know the whole step (`packing.step_order`): so gradients are summed, never averaged, and the
result is that of one process but for the order of additions. What decides anything (losses, Ctrl-C, the schedule, the
checkpoint to continue from, whether memory ran out anywhere) is made equal everywhere, so all processes take the same branches.
Rank 0 alone writes and tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ai_forge.cancel import CancelToken
from ai_forge.errors import CancelledError, TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class RankInfo:
    """Where a process stands: `rank` of `size`, and on its machine `local_rank` of `n_here`.

    `rendezvous` is where they all meet, an init method of torch.distributed: `file:///…`, or `env://` for the address in the
    environment.
    """

    rank: int
    size: int
    local_rank: int
    n_here: int
    rendezvous: str


class LostError(TransientError):
    """Another process went away while this one waited for it: what it says of itself is the cause."""


class Group(Protocol):
    """Processes 0 … `size` − 1; `rank` is this one, and `n_here` of them share this machine's memory."""

    rank: int
    size: int
    n_here: int

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over all processes."""

    def sum_gradients(self, trainee: Any) -> None:
        """Replace the trainee's gradients by their sums over all processes."""

    def gather(self, value: T) -> list[T]:
        """The `value` of each process, by rank."""

    def broadcast(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, for all; the others wait for it. What it raises there, all raise."""


class Alone:
    """One process."""

    rank, size, n_here = 0, 1, 1

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values themselves."""
        return list(values)

    def sum_gradients(self, trainee: Any) -> None:
        """They are the sums."""

    def gather(self, value: T) -> list[T]:
        """The value alone."""
        return [value]

    def broadcast(self, make: Callable[[], T]) -> T:
        """What `make` gives."""
        return make()


ALONE = Alone()


def cancellation(cancel: CancelToken, group: Group) -> CancelledError | None:
    """The error to end with, in all processes of the group, once the work was cancelled in any of them."""
    # Summed, so that all stop after the same step: who stopped alone would leave the others waiting for its gradients.
    (n_cancelled,) = group.sum([cancel.cancelled])
    return CancelledError.because(cancel.reason) if n_cancelled else None


def share(items: Sequence[Any], group: Group) -> Sequence[Any]:
    """This process's part of `items`: neighbours, because those share prompts.

    >>> group = Alone()
    >>> group.rank, group.size = 1, 3
    >>> list(share(range(8), group))
    [2, 3, 4]
    """
    n = len(items)
    return items[n * group.rank // group.size : n * (group.rank + 1) // group.size]
