"""Examples that a person read and threw out: kept by model in `dropped/<model>.json`, left out when the data is made again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from ai_forge.errors import InputError
from ai_forge.workspace import Workspace, atomic_write

EXAMPLE_ID = re.compile(r"[0-9a-f]{16}")
_IDS = TypeAdapter(list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]])


def dropped_examples(workspace: Workspace, model: str) -> frozenset[str]:
    """The ids of the examples that `model` is not to be trained on.

    Raises:
        InputError: the file that holds them is damaged; to pass over it would train on what was thrown out.
    """
    path = _file(workspace, model)
    if not path.exists():
        return frozenset()
    if not path.is_file():
        raise InputError(f"{path}, the list of dropped examples, is no file.", "remove it.")
    try:
        return frozenset(_IDS.validate_json(path.read_bytes(), strict=True))
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[-2 if isinstance(error, ValidationError) else 0].strip()
        raise InputError(
            f"{path}, the list of dropped examples, cannot be read: {reason}", "correct it, or remove it."
        ) from error


def drop_example(workspace: Workspace, model: str, example: str, *, keep: bool = False) -> None:
    """Throw an example out, or with `keep` take it back. The same again is harmless.

    Raises:
        InputError: `example` is no id of an example.
    """
    if not EXAMPLE_ID.fullmatch(example):
        raise InputError(f"{example!r} is no example's id.", "ai-forge data show prints them: 16 hexadecimal digits.")
    with workspace.lock(f"dropped-{model}", wait_s=5.0):
        known = dropped_examples(workspace, model)
        changed = known - {example} if keep else known | {example}
        atomic_write(_file(workspace, model), json.dumps(sorted(changed), indent=1))


def _file(workspace: Workspace, model: str) -> Path:
    return workspace.root / "dropped" / f"{model}.json"
