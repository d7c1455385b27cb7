"""Dense vectors of texts: one small interface, and how an embedder is chosen by name.

* `none`: no dense side;
* `minilm`: a small sentence encoder without PyTorch (`minilm`);
* `ollama:NAME` or `ollama:NAME@URL`: an embedding model of a running Ollama (`ollama`);
* anything else: a folder or a Hugging Face name of a transformer encoder, such as `microsoft/codebert-base`,
  `microsoft/unixcoder-base` or `sentence-transformers/all-MiniLM-L6-v2` (`torch_encoder`).

Vectors have length 1, so a dot product is a cosine. Those of different embedders cannot be compared: an index keeps its
embedder's name and a probe's vector, and says so when the same name gives other vectors later.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ai_forge.errors import InputError

__all__ = [
    "Embedder",
    "Matrix",
    "NoEmbedder",
    "Texts",
    "default_embedder",
    "embedder_named",
    "for_many",
    "load_embedder",
    "save_embedder",
]

Matrix = npt.NDArray[np.float32]
_PROBE = "def read_lines(path):\n    return open(path).read().splitlines()"
_SAME = 0.999


class Texts(NamedTuple):
    """Texts as they are written, and the same split into subwords."""

    written: Sequence[str]
    words: Sequence[Sequence[str]]


class Embedder(Protocol):
    """Texts to unit vectors [text, dimension] float32; zeros for a text of which it knows nothing."""

    @property
    def name(self) -> str:
        """What `embedder_named` takes."""
        ...

    @property
    def weight(self) -> float:
        """What a rank of it counts beside one of BM25."""
        ...

    def embed(self, texts: Texts) -> Matrix:
        """Unit vectors, one row for each text."""
        ...


class NoEmbedder:
    """Vectors of no dimension: nothing is like anything."""

    name = "none"
    weight = 0.0

    def embed(self, texts: Texts) -> Matrix:
        """[text, 0]."""
        return np.zeros((len(texts.written), 0), dtype=np.float32)


def default_embedder() -> str:
    """`minilm` where its weights are on this machine, else `none`."""
    from ai_forge.data_pipeline.search.embedders.minilm import minilm_folder

    return "minilm" if minilm_folder() is not None else "none"


def embedder_named(name: str) -> Embedder:
    """A new embedder. Raises InputError for a name that cannot be one; models are looked for when first used."""
    if name == "none":
        return NoEmbedder()
    if name == "minilm":
        from ai_forge.data_pipeline.search.embedders.minilm import MiniLmEmbedder

        return MiniLmEmbedder()
    if name.startswith("ollama:"):
        from ai_forge.data_pipeline.search.embedders.ollama import OllamaEmbedder

        return OllamaEmbedder(name)
    if "/" not in name and not Path(name).is_dir():
        raise InputError(
            f"Unknown embedder {name!r}.",
            "Known: none, minilm, ollama:NAME, a Hugging Face name (owner/model) or a folder.",
        )
    from ai_forge.data_pipeline.search.embedders.torch_encoder import EncoderEmbedder

    return EncoderEmbedder(name)


def for_many(embedder: Embedder) -> Embedder:
    """What makes the vectors of a whole collection: `embedder`, or what makes the same ones faster on this machine.

    It depends on the machine alone, not on how many texts there are: a collection that grew has the vectors of a new one.
    """
    if embedder.name != "minilm" or importlib.util.find_spec("torch") is None:
        return embedder
    from ai_forge.data_pipeline.search.embedders.torch_minilm import PackedMiniLm, multiplies_bfloat16

    return PackedMiniLm() if multiplies_bfloat16() else embedder


def save_embedder(embedder: Embedder, folder: Path) -> None:
    """Write an embedder's name and the vector of a probe into `folder` (made if missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "embedder.json").write_text(json.dumps({"name": embedder.name}), encoding="utf-8")
    if embedder.name != "none":
        np.save(folder / "probe.npy", embedder.embed(Texts([_PROBE], [])), allow_pickle=False)


def load_embedder(folder: Path) -> Embedder:
    """The saved embedder. Raises InputError where its model gives other vectors than when it was saved."""
    name = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))["name"]
    embedder = embedder_named(name)
    if name != "none":
        was, now = np.load(folder / "probe.npy", allow_pickle=False), embedder.embed(Texts([_PROBE], []))
        if was.shape != now.shape or float(np.sum(was * now)) < _SAME:
            raise InputError(
                f"The embedder {name!r} gives other vectors than when the index was built.", "Build the index again."
            )
    return embedder


def unit_rows(vectors: Matrix) -> Matrix:
    """Rows scaled to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Matrix = np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
    return unit
