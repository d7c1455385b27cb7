"""`ai-forge complete FILE:LINE[:COLUMN]`: what the deployed model would write there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ai_forge.cli.model import OF_DEPLOYED, Model, OfRepo, open_model
from ai_forge.cli.options import AsJson, Options, readable, with_options
from ai_forge.cli.output import show, warn
from ai_forge.errors import InputError
from ai_forge.places import expanded

MAX_BYTES = 2_000_000


@with_options(*OF_DEPLOYED)
def complete(
    options: Options,
    place: Annotated[str, typer.Argument(metavar="FILE:LINE[:COLUMN]", help="Where; both counted from 1.")],
    repo: OfRepo = Path(),
    model: Model = None,
    k: Annotated[
        int, typer.Option("-k", "--k", min=0, max=20, help="Places of the repository that are shown with it.")
    ] = 2,
    json: AsJson = False,
) -> None:
    """What the deployed model would write at a place in a file. The rest of a line, or the line where it is empty."""
    from ai_forge.serving.completing import complete_code

    file, prefix, suffix = split_at(place)
    root = expanded(repo).resolve()
    path = file.resolve().relative_to(root).as_posix() if file.resolve().is_relative_to(root) else file.name
    with open_model(options, repo, model) as served:
        made = complete_code(served, path, prefix, suffix, k=k)
    show({"place": place, **made.model_dump()}, made.text, json)
    for note in made.notes:
        warn(f"  {note}")


def split_at(place: str) -> tuple[Path, str, str]:
    """The file that `FILE:LINE[:COLUMN]` names, and its text before and after the place.

    Without a column it is where the line's text ends. A column behind the end of its line is the end.

    Raises:
        InputError: it is no place, there is no such file or line, or the file is no text.
    """
    match = re.fullmatch(r"(.+?):(\d+)(?::(\d+))?", place)
    if match is None:
        raise InputError(f"{place!r} is no place in a file.", "write FILE:LINE or FILE:LINE:COLUMN.")
    file = readable(Path(match[1]))
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file} is longer than {MAX_BYTES:,} bytes.", "give a smaller file.")
        lines = file.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.", "give the path of a file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no UTF-8 text.", "give a file of code.") from error
    number = int(match[2])
    if not 1 <= number <= len(lines):
        raise InputError(f"{file} has {len(lines)} lines; {number} is not one of them.", f"give 1 to {len(lines)}.")
    line = lines[number - 1]
    written = line.rstrip() or line  # of a blank line, its indentation
    column = int(match[3]) if match[3] else len(written) + 1
    if column < 1:
        raise InputError("Columns are counted from 1.", f"write {file}:{number}:1.")
    before = "\n".join([*lines[: number - 1], line[: column - 1]])
    after = "\n".join([line[column - 1 :], *lines[number:]])
    return file, before, after
