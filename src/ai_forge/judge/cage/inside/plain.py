"""The values that pass between code under test and its grader: plain data as JSON, never an object with methods.

A returned object whose `__eq__` says yes to everything is the oldest way to pass a test. What the grader compares is
built by the grader: numbers, text, containers. A subclass arrives as its base (a Counter as a dict), an iterator as a
fresh iterator over its items, and anything else as `Opaque`, which equals nothing.
"""

import itertools
import json
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST_MESSAGE_BYTES = 16_000_000
MOST_ITEMS = 1_000_000  # of an iterator, which may have no end
LENGTH_BYTES = 4
Message = dict[str, Any]
"""An object of JSON, as it goes over a `Channel`."""
sys.set_int_max_str_digits(0)  # a factorial may have more digits than the default allows
SCALAR_TYPES = frozenset({int, float, str, bool, type(None)})
_as_json = json.JSONEncoder(separators=(",", ":")).encode  # `dumps` would make an encoder for each message


class Opaque:
    """A value that is no plain data; equal to nothing but itself."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def encode(value: Any) -> Any:
    """`value` as JSON: scalars as they are, each container as a list that begins with its tag.

    >>> encode([1, (2.5, "a"), {3: None}])
    ['list', 1, ['tuple', 2.5, 'a'], ['dict', 3, None]]
    """
    if type(value) in SCALAR_TYPES:
        return value
    for scalar in (int, float, str):
        if isinstance(value, scalar):
            return value if type(value) is scalar else _base_value(scalar, value)
    for tag, kind in CONTAINERS.items():
        if isinstance(value, kind):
            return [tag, *map(encode, kind.__iter__(value))]
    if isinstance(value, dict):
        return ["dict", *itertools.chain.from_iterable((encode(k), encode(v)) for k, v in dict.items(value))]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return [type(value).__name__, value.hex()]
    if isinstance(value, Decimal | Fraction):
        return [type(value).__name__, str(value)]
    if isinstance(value, type({}.keys())):
        return ["keys", *map(encode, value)]
    if isinstance(value, Iterator):
        return ["iterator", *map(encode, itertools.islice(value, MOST_ITEMS))]
    return ["opaque", type(value).__name__]


def _base_value(kind: Any, value: Any) -> Any:
    """The plain number or text below a subclass, whatever the subclass says of itself."""
    if kind is str:
        return str.__str__(value)
    return kind.__int__(value) if kind is int else kind.__float__(value)


def decode(data: Any) -> Any:
    """What `encode` wrote. Raises ValueError, TypeError or IndexError for anything else.

    >>> decode(encode({"a": [1, {2}], (1, 2): range(3)}))
    {'a': [1, {2}], (1, 2): range(0, 3)}
    """
    if not isinstance(data, list):
        if isinstance(data, dict):
            raise ValueError("an object is not plain data here")
        return data
    tag, items = data[0], data[1:]
    if tag in CONTAINERS:
        return CONTAINERS[tag](map(decode, items))
    if tag == "dict":
        return {decode(key): decode(value) for key, value in zip(items[::2], items[1::2], strict=True)}
    if tag == "keys":
        return dict.fromkeys(map(decode, items)).keys()
    if tag == "iterator":
        return iter([decode(item) for item in items])
    if tag in SCALARS:
        return SCALARS[tag](*items)
    if tag == "opaque":
        return Opaque(str(items[0])[:100])
    raise ValueError(f"{tag!r} is no kind of plain data")


CONTAINERS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
SCALARS: dict[str, Callable[[Any], Any]] = {
    "range": range,
    "complex": complex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "Decimal": Decimal,
    "Fraction": Fraction,
}


class Channel:
    """Messages over a socket: each is its length in four bytes, then JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""

    def send(self, message: Any) -> None:
        """Raises ValueError where the message is too long, OSError where nobody listens."""
        body = _as_json(message).encode()
        if len(body) > MOST_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(body)} bytes; at most {MOST_MESSAGE_BYTES} are taken")
        self._connection.sendall(len(body).to_bytes(LENGTH_BYTES, "big") + body)

    def receive(self) -> Any:
        """The next message. Raises EOFError where the other side has ended, ValueError for one that cannot be read."""
        n_bytes = int.from_bytes(self._take(LENGTH_BYTES), "big")
        if n_bytes > MOST_MESSAGE_BYTES:
            raise ValueError(f"a message of {n_bytes} bytes; at most {MOST_MESSAGE_BYTES} are taken")
        return json.loads(self._take(n_bytes))

    def _take(self, n_bytes: int) -> bytes:
        parts, missing = [self._read], n_bytes - len(self._read)
        while missing > 0:
            part = self._connection.recv(1 << 16)  # mostly the whole message at once
            if not part:
                raise EOFError("the other side has ended")
            parts.append(part)
            missing -= len(part)
        whole = b"".join(parts)
        self._read = whole[n_bytes:]
        return whole[:n_bytes]


def send(connection: socket.socket, message: Any) -> None:
    """One message; see `Channel`."""
    Channel(connection).send(message)


def receive(connection: socket.socket) -> Any:
    """The one message that is on its way; what comes behind it is lost. See `Channel`."""
    return Channel(connection).receive()
