"""Dense vectors of texts: one small interface, and `lsa`, the embedder that needs no model.

LSA (Deerwester et al. 1990) is TF-IDF reduced by a truncated SVD. Fitted on the repository it knows which of its words
go together; it knows nothing else. Vectors have length 1, so a dot product is a cosine.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

_MAX_DIMENSIONS = 128


class Embedder(Protocol):
    """Texts, already split into subwords, to unit vectors [text, dimension] float32."""

    name: ClassVar[str]

    @classmethod
    def fit(cls, texts: Sequence[Sequence[str]]) -> "Embedder":
        """An embedder that suits `texts`; a pretrained one ignores them."""
        ...

    def embed(self, texts: Sequence[Sequence[str]]) -> Matrix:
        """Unit vectors, one row for each text."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` needs into `folder`."""
        ...

    @classmethod
    def load(cls, folder: Path) -> "Embedder":
        """Read what `save` wrote."""
        ...


class LsaEmbedder:
    """TF-IDF (sublinear counts, smoothed idf) and a truncated SVD of at most 128 dimensions."""

    name: ClassVar[str] = "lsa"

    def __init__(self, vocabulary: dict[str, int], idf: Matrix, components: Matrix) -> None:
        """`idf` [word], `components` [word, dimension]."""
        self._vocabulary, self._idf, self._components = vocabulary, idf, components

    @classmethod
    def fit(cls, texts: Sequence[Sequence[str]]) -> "LsaEmbedder":
        """Learn vocabulary, idf and the leading singular directions of `texts`."""
        frequency = Counter(word for text in texts for word in set(text))
        words = sorted(frequency)
        counts = np.array([frequency[word] for word in words], dtype=np.float32)
        idf = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)
        identity = cls({word: i for i, word in enumerate(words)}, idf, np.zeros((len(words), 0), dtype=np.float32))
        n_dimensions = min(_MAX_DIMENSIONS, len(texts) - 1, len(words) - 1)
        if n_dimensions < 2:
            return cls(identity._vocabulary, idf, np.eye(len(words), dtype=np.float32))
        from sklearn.decomposition import TruncatedSVD

        svd = TruncatedSVD(n_dimensions, n_iter=4, random_state=0).fit(identity._tf_idf(texts))
        return cls(identity._vocabulary, idf, np.ascontiguousarray(svd.components_.T.astype(np.float32)))

    def _tf_idf(self, texts: Sequence[Sequence[str]]) -> Any:
        """Sparse unit rows [text, word]."""
        from scipy.sparse import csr_matrix

        data: list[float] = []
        columns: list[int] = []
        ends = [0]
        for text in texts:
            counted = Counter(i for word in text if (i := self._vocabulary.get(word)) is not None)
            values = np.array([1 + np.log(n) for n in counted.values()], dtype=np.float32)
            values *= self._idf[list(counted)] if counted else 1
            norm = float(np.linalg.norm(values)) or 1.0
            data.extend((values / norm).tolist())
            columns.extend(counted)
            ends.append(len(columns))
        return csr_matrix((data, columns, ends), shape=(len(texts), len(self._vocabulary)), dtype=np.float32)

    def embed(self, texts: Sequence[Sequence[str]]) -> Matrix:
        """Unit vectors [text, dimension]; a text without a known word is the zero vector."""
        vectors: Matrix = np.asarray(self._tf_idf(texts) @ self._components, dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Matrix = np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
        return unit

    def save(self, folder: Path) -> None:
        """Write vocabulary and arrays into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocabulary.json").write_text(json.dumps(list(self._vocabulary)), encoding="utf-8")
        np.save(folder / "idf.npy", self._idf, allow_pickle=False)
        np.save(folder / "components.npy", self._components, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "LsaEmbedder":
        """Read what `save` wrote."""
        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        arrays = [np.load(folder / name, allow_pickle=False) for name in ("idf.npy", "components.npy")]
        return cls({word: i for i, word in enumerate(words)}, arrays[0], arrays[1])


EMBEDDERS: dict[str, type[LsaEmbedder]] = {LsaEmbedder.name: LsaEmbedder}
"""By name; another one is a row here."""


def load_embedder(name: str, folder: Path) -> Embedder:
    """The saved embedder of that name."""
    return EMBEDDERS[name].load(folder)
