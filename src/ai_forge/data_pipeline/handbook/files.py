"""The files that a handbook makes, beside whatever its owner has written there.

A file is ours where `fine-tuning-made.json` says so: it lists the rows that we wrote. Everything else is the owner's data and is
never replaced, removed or changed; ours then lies beside it under another name, or is merged into it on request. Rows of our own
files that were edited, added or taken out by hand stay so when the handbook is read again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ai_forge.data_pipeline.datasets.rows import numbered_rows
from ai_forge.data_pipeline.datasets.storage import read_jsonl
from ai_forge.data_pipeline.handbook.handbook import (
    FINE_TUNING_FILE,
    HELD_OUT_FILE,
    PREFERENCES_FILE,
    PROBES_FILE,
    Handbook,
)
from ai_forge.data_pipeline.schemas.probes import ComplianceProbe
from ai_forge.errors import InputError
from ai_forge.json_lines import json_line
from ai_forge.places import regular_bytes
from ai_forge.workspace import atomic_write

__all__ = ["BESIDE", "MADE_FILE", "Written", "beside", "read_probes", "write_handbook"]

MADE_FILE = "fine-tuning-made.json"
BESIDE = ".from-handbook"
"""Stands before the ending of a file of ours whose name is taken by one of the owner's."""
Row = Mapping[str, object]
State = Literal["written", "kept edits", "merged", "beside yours", "removed"]


@dataclass(frozen=True)
class Written:
    """A file that was written (or removed), and how it stands to what was there; `n_kept` rows of the owner are in it."""

    path: Path
    state: State
    n_rows: int
    n_kept: int = 0


def beside(name: str) -> str:
    """The name of our file where the owner has one of that name.

    >>> beside("fine-tuning-file.json")
    'fine-tuning-file.from-handbook.json'
    """
    stem, _, ending = name.rpartition(".")
    return f"{stem}{BESIDE}.{ending}"


def write_handbook(made: Handbook, *, merge: bool = False, force: bool = False) -> list[Written]:
    """Write a handbook's files into its agent folder.

    `merge` adds our rows to files of the owner's, after their own; `force` replaces them, and edits in ours as well.

    Raises InputError: a file to be merged, or one of ours that was edited, is no dataset.
    """
    root = made.folder.root
    known = _known(root)
    written: list[Written] = []
    rows_made: dict[str, list[str]] = {}
    for name, rows in _rows_of(made).items():
        path = root / name
        is_ours = name in known or not path.exists() or force
        if not is_ours and not merge:
            is_ours = _holds_no_more(path, rows)
        if not is_ours and not merge:
            path = root / beside(name)
        file = _combined(path, rows, known.get(path.name), force=force)
        if file.state == "written" and path.name == beside(name):
            file = Written(path, "beside yours", file.n_rows)
        if not is_ours and merge:
            file = Written(path, "merged", file.n_rows, file.n_kept)
        if file.n_rows or file.state == "removed":
            written.append(file)
        # What lay beside a file of the owner's that is now ours again would be trained on twice.
        stale = root / beside(name)
        if path.name == name and stale.name in known and stale.exists():
            written.append(_combined(stale, [], known[stale.name], force=False))
        if file.n_rows:
            rows_made[path.name] = sorted(_hashes(rows))
    # Last: after a crash the list is the earlier one, and rows that it lacks count as the owner's, so that none is lost.
    atomic_write(root / MADE_FILE, json.dumps({"version": 1, "files": rows_made}, indent=1) + "\n")
    return sorted(written, key=lambda file: file.path.name)


def read_probes(folder: Path) -> list[ComplianceProbe]:
    """The probes that lie in `folder`; none where no rule can be checked by a machine."""
    path = folder / PROBES_FILE
    return read_jsonl(path, ComplianceProbe) if path.is_file() else []


def _combined(path: Path, rows: Sequence[Row], before: list[str] | None, *, force: bool) -> Written:
    """Write our rows with what the owner changed: `before` are the hashes of those that we wrote last."""
    ours = set(before or ())
    there: list[Row] = []
    taken_out: set[str] = set()
    existed = path.exists()
    if existed and not force:
        there = _read(path)
        taken_out = ours - _hashes(there)  # what was edited counts as a row taken out and another put in
    new = [row for row in rows if _hash(row) not in taken_out]
    own = [row for row in there if _hash(row) not in ours | _hashes(rows)]
    # A file of the owner's begins with what is theirs, one of ours with what is ours.
    whole = [*own, *new] if before is None else [*new, *own]
    if not whole:
        path.unlink(missing_ok=True)  # ours, of an earlier run: no longer true
        return Written(path, "removed" if existed else "written", 0)
    if path.suffix == ".jsonl":
        atomic_write(path, "".join(map(json_line, whole)))
    else:
        atomic_write(path, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    return Written(path, "kept edits" if own or taken_out else "written", len(whole), len(own))


def _rows_of(made: Handbook) -> dict[str, list[Row]]:
    return {
        FINE_TUNING_FILE: [dict(pair.alpaca()) for pair in made.train_pairs],
        HELD_OUT_FILE: [dict(pair.alpaca()) for pair in made.held_out_pairs],
        PREFERENCES_FILE: [pair.model_dump(mode="json") for pair in made.train_preferences],
        PROBES_FILE: [probe.model_dump(mode="json") for probe in made.probes],
    }


def _read(path: Path) -> list[Row]:
    rows = [row for _, row in numbered_rows(path, Counter())]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} holds something else than records.", "Mend it, or replace it with --force.")
    return rows


def _holds_no_more(path: Path, rows: Sequence[Row]) -> bool:
    """Whether all that a file holds is in ours: an earlier version wrote it, and nothing is lost with it."""
    try:
        return _hashes(_read(path)) <= _hashes(rows)
    except InputError:
        return False


def _known(root: Path) -> dict[str, list[str]]:
    """By name: the hashes of the rows that we wrote last; nothing where the list is gone or damaged."""
    try:
        files = json.loads(regular_bytes(root / MADE_FILE))["files"]
        return {str(name): [str(row) for row in rows] for name, rows in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _hash(row: Row) -> str:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False)  # the order of the fields is the editor's affair
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _hashes(rows: Sequence[Row]) -> set[str]:
    return {_hash(row) for row in rows}
