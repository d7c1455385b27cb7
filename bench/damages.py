"""Ways to damage a file, for `damage_home`: what disks, editors, copies and crashes do to one.

Each is a function of a path and a random source. It raises `NotPossibleError` where a file cannot be damaged so: a file that is no
JSON has no field of a wrong type. A database's field is damaged in its newest row, through SQLite: its other bytes are those of a
whole database.
"""

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRONG: tuple[Any, ...] = (None, -1, 0, True, "", "\u2028", [], {}, [None], {"a": 1}, "../../x", 2**70)
HUGE = ("NaN", "Infinity", "-1e999", "1" + "0" * 400)


class NotPossibleError(Exception):
    """The file cannot be damaged in this way."""


Damage = Callable[[Path, random.Random], None]


def flip(where: float) -> Damage:
    """One bit of the byte at that part of the file."""

    def damage(path: Path, chance: random.Random) -> None:
        content = bytearray(_content(path))
        content[min(len(content) - 1, int(where * len(content)))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(content))

    return damage


def cut(where: float) -> Damage:
    """The file ends there."""
    return lambda path, _: _written(path, _content(path)[: int(where * len(_content(path)))])


def holds(content: bytes) -> Damage:
    """The file holds something else."""
    return lambda path, _: _written(path, content)


def bom(path: Path, _: random.Random) -> None:
    """A byte order mark before the text, as some editors write it."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def not_utf8(path: Path, chance: random.Random) -> None:
    """A byte in the middle that no UTF-8 holds."""
    content = _content(path)
    at = chance.randrange(len(content))
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])


def nul(path: Path, _: random.Random) -> None:
    """As long as it was, all zero: what a file system leaves after a power cut."""
    path.write_bytes(bytes(len(_content(path))))


def appended(path: Path, _: random.Random) -> None:
    """Something behind its end."""
    path.write_bytes(path.read_bytes() + b"\x00{garbage\xfe\n")


def doubled(path: Path, _: random.Random) -> None:
    """Its content twice."""
    path.write_bytes(_content(path) * 2)


def wrong_type(path: Path, chance: random.Random) -> None:
    """One field holds a value of another kind."""
    _change_field(path, chance, lambda _: json.dumps(chance.choice(WRONG)))


def huge(path: Path, chance: random.Random) -> None:
    """One field is no number, or one that nothing holds."""
    _change_field(path, chance, lambda _: chance.choice(HUGE))


def field_gone(path: Path, chance: random.Random) -> None:
    """One field is missing."""
    _change_field(path, chance, lambda _: None)


def gone(path: Path, _: random.Random) -> None:
    """No file."""
    path.unlink()


def folder(path: Path, _: random.Random) -> None:
    """A folder in its place."""
    path.unlink()
    path.mkdir()


def dangling(path: Path, _: random.Random) -> None:
    """A link to nothing in its place."""
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def fifo(path: Path, _: random.Random) -> None:
    """A pipe that nobody writes to in its place."""
    path.unlink()
    os.mkfifo(path)


def unreadable(path: Path, _: random.Random) -> None:
    """Nobody may read it; the commands must then run as someone whom that stops."""
    path.chmod(0)


def sibling(path: Path, chance: random.Random) -> None:
    """Another file's content, of those beside it or below the folder above."""
    content = path.read_bytes()
    others = [other for other in sorted(path.parent.parent.rglob("*")) if other.is_file() and other != path]
    others = [other for other in others if other.stat().st_size and other.read_bytes() != content]
    if not others:
        raise NotPossibleError("nothing lies beside it")
    alike = [other for other in others if other.suffix == path.suffix]
    shutil.copyfile(chance.choice(alike or others), path)


DAMAGES: dict[str, Damage] = {
    "flip early": flip(0.02),
    "flip middle": flip(0.5),
    "flip late": flip(0.98),
    "cut at 5 %": cut(0.05),
    "cut at half": cut(0.5),
    "cut at 95 %": cut(0.95),
    "empty": holds(b""),
    "null": holds(b"null\n"),
    "[]": holds(b"[]\n"),
    "{}": holds(b"{}\n"),
    "not JSON": holds(b"<html>502 Bad Gateway</html>\n"),
    "wrong type": wrong_type,
    "huge number": huge,
    "field gone": field_gone,
    "not UTF-8": not_utf8,
    "BOM": bom,
    "zeros": nul,
    "appended": appended,
    "doubled": doubled,
    "gone": gone,
    "folder": folder,
    "dangling link": dangling,
    "pipe": fifo,
    "unreadable": unreadable,
    "sibling's": sibling,
}


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content:
        raise NotPossibleError("it is empty")
    return content


def _written(path: Path, content: bytes) -> None:
    if path.read_bytes() == content:
        raise NotPossibleError("it holds that already")
    path.write_bytes(content)


def _change_field(path: Path, chance: random.Random, value: Callable[[object], str | None]) -> None:
    """Put other JSON in the place of one value, or take its key away; of JSON lines in one line."""
    if path.read_bytes().startswith(b"SQLite format 3"):
        _change_cell(path, chance, value(None))
        return
    try:
        lines = [path.read_bytes().decode()]
        if path.suffix == ".jsonl":
            lines = lines[0].split("\n")
        at = chance.choice([number for number, line in enumerate(lines) if line.strip()])
        tree = json.loads(lines[at])
    except (ValueError, IndexError):
        raise NotPossibleError("it is no JSON") from None
    places = list(_places(tree))
    if not places:
        raise NotPossibleError("it has no field")
    holder, key = chance.choice(places)
    wanted = value(holder[key])
    if wanted is None:
        del holder[key]
        lines[at] = json.dumps(tree)
    else:
        mark = "\x00here\x00"
        holder[key] = mark
        lines[at] = json.dumps(tree).replace(json.dumps(mark), wanted)
    _written(path, "\n".join(lines).encode())


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of the values of a tree, those near its top: a list of thousands has a few."""
    found: list[tuple[Any, Any]] = []
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(6):
        below = []
        for holder in level:
            keys = list(holder) if isinstance(holder, dict) else list(range(min(3, len(holder))))
            found += [(holder, key) for key in keys]
            below += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
        level = below[:50]
    return found


def _change_cell(path: Path, chance: random.Random, wanted: str | None) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        listed = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        tables = [name for (name,) in listed if database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]]
        if not tables:
            raise NotPossibleError("it has no rows")
        table = chance.choice(tables)
        columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
        try:
            database.execute(
                f'UPDATE "{table}" SET "{chance.choice(columns)}" = ? WHERE rowid = (SELECT max(rowid) FROM "{table}")',
                (chance.choice((wanted, b"\xff\x00", -1, 1e308)),),
            )
        except sqlite3.Error as error:
            raise NotPossibleError(f"the schema forbids it: {error}") from error
