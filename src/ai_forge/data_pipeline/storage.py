"""The pipeline's values as files: JSON lines for blocks and examples, one JSON for what was mined."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from ai_forge.data_pipeline.miner import MiningResult
from ai_forge.data_pipeline.schemas import CodeBlock, Import, RAFTExample
from ai_forge.errors import InputError

Value = TypeVar("Value", bound=BaseModel)


def write_jsonl(path: Path, values: Iterable[BaseModel]) -> None:
    """One value a line."""
    path.write_text("".join(value.model_dump_json() + "\n" for value in values), encoding="utf-8")


def read_jsonl(path: Path, kind: type[Value]) -> list[Value]:
    """The values of a JSON-lines file.

    Raises:
        InputError: the file cannot be read, or a line is not of this kind; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    values: list[Value] = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(kind.model_validate_json(line))
        except ValueError as error:
            raise InputError(f"Line {number} of {path} is not a {kind.__name__}: {error}") from error
    return values


def read_examples(path: Path) -> list[RAFTExample]:
    """The RAFT examples of a JSON-lines file."""
    return read_jsonl(path, RAFTExample)


def save_mining(folder: Path, result: MiningResult) -> None:
    """Write what was mined: `blocks.jsonl` and `mining.json`."""
    write_jsonl(folder / "blocks.jsonl", result.documents)
    rest = {
        "subject_ids": sorted(result.subject_ids),
        "rejected": result.rejected,
        "skipped": result.skipped,
        "n_files": result.n_files,
        "imports": result.imports,
        "require_docstring": result.require_docstring,
    }
    (folder / "mining.json").write_text(json.dumps(rest, indent=1), encoding="utf-8")


def load_mining(folder: Path) -> MiningResult:
    """Read what `save_mining` wrote."""
    rest = json.loads((folder / "mining.json").read_text(encoding="utf-8"))
    return MiningResult(
        documents=tuple(read_jsonl(folder / "blocks.jsonl", CodeBlock)),
        subject_ids=frozenset(rest["subject_ids"]),
        rejected=Counter(rest["rejected"]),
        skipped=Counter(rest["skipped"]),
        n_files=rest["n_files"],
        imports={path: tuple(Import(*names) for names in found) for path, found in rest["imports"].items()},
        require_docstring=rest["require_docstring"],
    )
