"""Keys and values of a generation, in memory that is reserved once.

Transformers' own cache copies all of itself for every token that is generated, which on a CPU is most of what a token
costs. How long a generation may get is known before it starts, so its room is, too.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class ReservedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values [batch, heads, n, head_dim]: views of the first n of `capacity` rows."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append rows; returns all of them."""
        states = key_states, value_states
        if self._rooms is None:
            self.lazy_initialization(key_states, value_states)
            batch, heads, _, width = key_states.shape
            key_room, value_room = (state.new_empty(batch, heads, self._capacity, width) for state in states)
            self._rooms = key_room, value_room
            self.keys, self.values = (room[:, :, :0] for room in self._rooms)
        n = self.keys.shape[2]  # not a counter: who crops the cache shortens the views
        m = n + key_states.shape[2]
        for room, state in zip(self._rooms, states, strict=True):
            room[:, :, n:m] = state
        self.keys, self.values = (room[:, :, :m] for room in self._rooms)
        return self.keys, self.values


def reserved_cache(capacity: int) -> Any:
    """An empty cache with room for `capacity` tokens a row."""
    return Cache(layer_class_to_replicate=partial(ReservedLayer, capacity))


def repeated(layers: Sequence[Any], batch: int, capacity: int) -> Any:
    """A cache whose `batch` rows all begin with what `layers` hold of one row."""
    cache = reserved_cache(capacity)
    for place, layer in enumerate(layers):
        keys, values = (x.expand(batch, -1, -1, -1) for x in (layer.keys, layer.values))
        cache.update(keys, values, place)
    return cache
