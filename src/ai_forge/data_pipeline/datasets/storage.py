"""The pipeline's values as files: JSON lines and datasets.

A dataset is a folder: each part (train, valid, test) as `NAME.jsonl` and `NAME.parquet`, which hold the same, and
`dataset.json`, written last: counts, schema version, a hash over all ids, each file's SHA-256, where it comes from and
the settings that made it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from ai_forge.data_pipeline.datasets.rows import write_rows
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject, read_jsonl, write_jsonl

__all__ = [
    "DATASET_MANIFEST",
    "read_examples",
    "read_jsonl",
    "read_manifest",
    "write_dataset",
    "write_jsonl",
]

DATASET_MANIFEST = "dataset.json"
SCHEMA_VERSION = 1
"""Raised when a value of a dataset is stored otherwise than before."""


def read_examples(path: Path) -> list[RAFTExample]:
    """The RAFT examples of a JSON-lines file."""
    return read_jsonl(path, RAFTExample)


def write_dataset(
    folder: Path,
    parts: Mapping[str, Sequence[BaseModel]],
    kind: type[BaseModel],
    *,
    provenance: Mapping[str, object],
    settings: Mapping[str, object],
) -> JsonObject:
    """Write the parts of a dataset, all of `kind`, and its manifest, which is returned."""
    files: dict[str, str] = {}
    for name, values in parts.items():
        write_jsonl(folder / f"{name}.jsonl", values)
        write_rows(folder / f"{name}.parquet", [value.model_dump(mode="json") for value in values], kind)
        for path in (folder / f"{name}.jsonl", folder / f"{name}.parquet"):
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    # Over the ids and not the files: what is the same content has the same hash, however its bytes are laid out.
    ids = "".join(f"{name} {value.id}\n" for name, values in parts.items() for value in values)  # type: ignore[attr-defined]
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind.__name__,
        "counts": {name: len(values) for name, values in parts.items()},
        "hash": hashlib.sha256(ids.encode()).hexdigest(),
        "files": files,
        "provenance": dict(provenance),
        "settings": dict(settings),
    }
    # Last: a folder with a manifest is whole, whatever happened while it was written.
    (folder / DATASET_MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> JsonObject:
    """The manifest of a dataset folder, after a check of its files.

    Raises:
        InputError: there is none, it is of another version, or a file is not the one that it lists.
    """
    try:
        manifest: JsonObject = json.loads((folder / DATASET_MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["schema_version"], dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} has no readable {DATASET_MANIFEST}.", "Give a dataset file, or a folder with one."
        ) from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{folder} is of schema version {version}; this program reads {SCHEMA_VERSION}.", "Make it anew."
        )
    for name, digest in files.items():
        # The bare name: a manifest of others must not make this program read elsewhere.
        path = folder / Path(name).name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(
                f"{path} is not the file that {DATASET_MANIFEST} lists.", "Make it anew, or give the file itself."
            )
    return manifest
