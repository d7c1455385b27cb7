"""Records in files: JSON lines, a JSON array, Parquet, or plain text whose pages are divided by form feeds.

A reader gives each record with its place, so that an error can name it; it knows nothing of what a record means.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ai_forge.data_pipeline.datasets.parquet import read_rows, write_rows_as
from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject, json_line, lines_of, whole_characters
from ai_forge.workspace import atomic_file, atomic_write

__all__ = ["ENDINGS", "numbered_rows", "write_rows"]

ENDINGS = (".jsonl", ".json", ".parquet", ".txt")
_FORM_FEED = "\f"


def numbered_rows(path: Path, repairs: Counter[str]) -> Iterator[tuple[str, Any]]:
    """("Line 3", value) of each record of a file; the ending says how it is stored. What is mended counts in `repairs`.

    Raises InputError: it cannot be read; the message names the line.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(
            f"{path} ends with {ending or 'nothing'}.", f"Give a file that ends with {', '.join(ENDINGS)}."
        )
    if ending == ".parquet":
        if not path.is_file():
            raise InputError(f"{path} does not exist.", "Give a dataset file or folder.")
        yield from ((f"Row {number}", row) for number, row in enumerate(read_rows(path), start=1))
        return
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of its encoding
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.", "Give a dataset file or folder.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}.", "Save it as UTF-8.") from error
    if ending == ".txt":
        for number, page in enumerate(text.split(_FORM_FEED), start=1):
            if page.strip():
                yield f"Page {number}", {"text": page.strip("\n")}
    elif text.lstrip().startswith("["):
        for where, value in _array(text, path):
            yield where, _mended(value, repairs)
    else:
        for number, line in lines_of(text):
            yield f"Line {number}", _mended(_parsed(line, f"Line {number}", path), repairs)


def _mended(value: Any, repairs: Counter[str]) -> Any:
    """A record that can be saved again."""
    whole = whole_characters(value)
    repairs["half of a character (a lone surrogate, now U+FFFD)"] += whole != value
    return whole


def _parsed(line: str, where: str, path: Path) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} of {path} is no JSON: {error}.", "Write one JSON object a line, or one array."
        ) from error


def _array(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a JSON array with the line on which each begins."""
    # One by one and not by `json.loads`: that knows no lines, and an error has to name the record's.
    decoder = json.JSONDecoder()
    position, line, counted = text.index("[") + 1, 1, 0
    separator = ""
    while True:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        where = f"Line {line}"
        found = text[position : position + 1]
        if found == "]":
            return
        if separator and found != ",":
            raise InputError(f"{where} of {path} is no JSON: a comma or ] is missing.", "Write one JSON array.")
        if separator:
            position, separator = position + 1, ""
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "lineno", line)  # a recursion knows none: then it is the line where the value begins
            raise InputError(f"Line {at} of {path} is no JSON: {error}.", "Write one JSON array.") from error
        separator = ","
        yield where, value


def write_rows(path: Path, rows: Sequence[JsonObject], kind: type[BaseModel] | None) -> None:
    """Write records to a file; it appears whole or not at all. `kind` gives a Parquet file its types."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        with atomic_file(path) as file:
            write_rows_as(file, rows, kind)
    elif ending == ".txt":
        atomic_write(path, f"\n{_FORM_FEED}\n".join(row["text"] for row in rows) + "\n")
    elif ending == ".json":
        atomic_write(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    else:
        atomic_write(path, "".join(map(json_line, rows)))
