"""Rows as JSON lines: the one reader and writer of them.

A line ends with a line feed and with nothing else. `str.splitlines` would also end one at U+2028, U+0085, a form feed and five
more, which stand unescaped in JSON strings and in people's code. A row is written whole or not at all: what cannot be UTF-8
(half of a surrogate pair) is an error before the file is touched.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ai_forge.errors import InputError
from ai_forge.places import make_room, regular_bytes

__all__ = ["JsonObject", "append_line", "json_line", "lines_of", "read_jsonl", "whole_characters", "write_jsonl"]

Value = TypeVar("Value", bound=BaseModel)
JsonObject = dict[str, Any]
"""An object of JSON whose fields are not known yet."""


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of the lines that are not blank.

    >>> list(lines_of('{"a": "\\u2028"}\\n\\n{}'))
    [(1, '{"a": "\\u2028"}'), (3, '{}')]
    """
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def json_line(value: object) -> str:
    """A JSON value as a line with its end."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def append_line(path: Path, value: object) -> None:
    """Add a JSON value to a file as a line, in one write: the system keeps those of two processes apart.

    A line before it that a crash left without its end is ended first, or both would be lost.
    """
    make_room(path)
    with path.open("ab+") as file:
        end = b""
        if file.seek(0, 2):
            file.seek(-1, 2)
            end = b"" if file.read(1) == b"\n" else b"\n"
        file.write(end + json_line(whole_characters(value)).encode())


def whole_characters(value: Any) -> Any:
    """A JSON value with U+FFFD for each half of a surrogate pair: `"\\ud83d"` is JSON, but no text that can be saved.

    >>> whole_characters(["\\ud83d", "ok"])
    ['\\ufffd', 'ok']
    """
    written = json.dumps(value, ensure_ascii=False)
    return json.loads(written.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))


def write_jsonl(path: Path, values: Iterable[BaseModel]) -> None:
    """One value a line."""
    # joined first: what cannot be UTF-8 raises before the file is opened
    path.write_bytes("".join(f"{value.model_dump_json()}\n" for value in values).encode("utf-8"))


def read_jsonl(path: Path, kind: type[Value]) -> list[Value]:
    """The values of a JSON-lines file.

    Raises:
        InputError: the file cannot be read, or a line is not of this kind; the message names the line.
    """
    try:
        text = regular_bytes(path).decode("utf-8")  # `read_text` would end a line at a lone carriage return, too
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    values: list[Value] = []
    for number, line in lines_of(text):
        try:
            values.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            reason = first["msg"]
            if first["loc"]:  # empty where the line is no JSON at all
                reason = f"{'.'.join(map(str, first['loc']))}: {reason}"
            raise InputError(
                f"Line {number} of {path} is not a {kind.__name__}: {reason}.",
                "Mend that line, or make the file again.",
            ) from error
    return values
