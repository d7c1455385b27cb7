"""The processes that train together, as the loop sees them.

Each holds the whole model and a share of every step's examples. A step's loss is a sum over its tokens divided by their number,
which every process knows, since all know the whole step (`packing.step_order`): so gradients are summed, never averaged, and the
result is that of one process but for the order of additions. What decides anything (losses, Ctrl-C, the schedule, the
checkpoint to continue from) is made equal everywhere, so all processes take the same branches. Rank 0 alone writes and tells.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Group(Protocol):
    """Processes 0 … `size` − 1; `rank` is this one."""

    rank: int
    size: int

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over all processes."""

    def sum_gradients(self, trainee: Any) -> None:
        """Replace the trainee's gradients by their sums over all processes."""

    def first(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, for all; the others wait for it."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values themselves."""
        return list(values)

    def sum_gradients(self, trainee: Any) -> None:
        """They are the sums."""

    def first(self, make: Callable[[], T]) -> T:
        """What `make` gives."""
        return make()


ALONE = Alone()


def share(items: Sequence[Any], group: Group) -> Sequence[Any]:
    """This process's part of `items`: neighbours, because those share prompts.

    >>> group = Alone()
    >>> group.rank, group.size = 1, 3
    >>> list(share(range(8), group))
    [2, 3, 4]
    """
    n = len(items)
    return items[n * group.rank // group.size : n * (group.rank + 1) // group.size]
