"""Vectors kept by the content of what they were made of: an index that is built again embeds only what is new."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ai_forge.data_pipeline.schemas import content_id
from ai_forge.data_pipeline.search.embedders.embedding import Embedder, Matrix, Texts

__all__ = ["embedded"]

_BATCH = 256


def embedded(
    texts: Texts,
    embedder: Embedder,
    folder: Path | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Matrix:
    """Unit vectors [text, dimension]; with a folder, those that it holds are read and the new ones are put there.

    `progress` hears how many new ones are made, of how many, and may raise to stop: what is made by then is kept.

    The file holds the vectors of the last collection alone, so that it grows no further than what is indexed. One that
    cannot be read counts as empty.
    """
    keys = [content_id(embedder.name, text) for text in texts.written]
    file = folder / f"vectors-{content_id(embedder.name)}.npz" if folder is not None else None
    known = _read(file) if file is not None else {}
    missing = list({key: text for key, text in zip(keys, texts.written, strict=True) if key not in known}.items())
    try:
        for start in range(0, len(missing), _BATCH):
            progress(start, len(missing))
            batch = missing[start : start + _BATCH]
            made = embedder.embed(Texts([text for _, text in batch], []))
            known.update(zip((key for key, _ in batch), made, strict=True))
    finally:
        kept = [key for key in keys if key in known]
        if file is not None and missing and kept:
            _write(file, kept, np.stack([known[key] for key in kept]))
    return np.stack([known[key] for key in keys])


def _write(file: Path, keys: list[str], vectors: Matrix) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, keys=np.array(keys), vectors=vectors)
    temporary.replace(file)


def _read(file: Path) -> dict[str, Matrix]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            vectors = held["vectors"]
            if vectors.ndim != 2 or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
                return {}
            return dict(zip(held["keys"].tolist(), vectors, strict=True))
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        return {}
