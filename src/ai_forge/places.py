"""What lies at the place of a file of ours: its bytes where it is one, room for a new one, and whether it holds what was written.

A home lives for years on disks that people clean, copy and restore. Where a file should be, a folder, a dangling link or a pipe
may lie; a pipe that is opened is waited for, so nothing is read before it is known to be a file. A value that nothing else can
vouch for carries a seal: a byte that flipped inside a string leaves JSON whole and its meaning another.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_forge.errors import InputError, PrerequisiteError

__all__ = ["SEAL", "expanded", "holds_what_was_written", "make_room", "regular_bytes", "sealed"]

SEAL = "seal"


def expanded(path: Path) -> Path:
    """A path with `~` resolved. Raises `InputError` where it names a user who is not here, or a link leads to itself."""
    try:
        whole = path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} names a user who is not here.", "write the folder's full path.") from error
    try:
        whole.resolve()
    except RuntimeError as error:  # until Python 3.13
        raise InputError(f"{path} is a link that leads to itself.", "name what it should lead to.") from error
    return whole


def regular_bytes(path: Path) -> bytes:
    """The content of a file. Raises `OSError` where there is none, or something that is no file."""
    if not path.is_file():
        path.stat()  # raises where there is nothing
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    return path.read_bytes()


def make_room(path: Path) -> None:
    """Take away what is no file where one of ours is to be written: a dangling link, a pipe, an empty folder.

    Raises:
        PrerequisiteError: a folder with something in it lies there, which may be anyone's.
    """
    if path.is_file() or not os.path.lexists(path):
        return
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    except OSError as error:
        raise PrerequisiteError(
            f"{path} is a folder where a file belongs.", f"move it away: mv {path} {path}.moved"
        ) from error


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON reads them (a tuple is a list), with their seal: sixteen hexadecimal digits over all of them.

    >>> holds_what_was_written(sealed({"a": 1})), holds_what_was_written(sealed({"a": 1}) | {"a": 2})
    (True, False)
    """
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return {**plain, SEAL: _digest(plain)}


def holds_what_was_written(values: Mapping[str, Any]) -> bool:
    """Whether the seal is that of the values. What was written before there were seals has none, and holds."""
    seal = values.get(SEAL)
    return seal is None or seal == _digest({key: value for key, value in values.items() if key != SEAL})


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, default=str)  # ASCII: halves of surrogate pairs are written out
    return hashlib.sha256(text.encode()).hexdigest()[:16]
