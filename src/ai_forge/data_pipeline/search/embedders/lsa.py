"""`lsa`: the embedder that needs no model. TF-IDF reduced by a truncated SVD (Deerwester et al. 1990).

Fitted on the repository it knows which of its words go together; it knows nothing else.
"""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ai_forge.data_pipeline.search.embedders.embedding import Matrix, Texts, unit_rows

__all__ = ["LsaEmbedder"]

_MAX_DIMENSIONS = 128


class LsaEmbedder:
    """TF-IDF (sublinear counts, smoothed idf) and a truncated SVD of at most 128 dimensions."""

    name = "lsa"
    weight = 0.5

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}
        self._idf: Matrix = np.zeros(0, dtype=np.float32)
        self._components: Matrix = np.zeros((0, 0), dtype=np.float32)

    def fit(self, texts: Texts) -> None:
        """Learn vocabulary, idf [word] and the leading singular directions [word, dimension]."""
        n_texts = len(texts.words)
        frequency = Counter(word for words in texts.words for word in set(words))
        known = sorted(frequency)
        counts = np.array([frequency[word] for word in known], dtype=np.float32)
        self._vocabulary = {word: i for i, word in enumerate(known)}
        self._idf = (np.log((1 + n_texts) / (1 + counts)) + 1).astype(np.float32)
        n_dimensions = min(_MAX_DIMENSIONS, n_texts - 1, len(known) - 1)
        if n_dimensions < 2:
            self._components = np.eye(len(known), dtype=np.float32)
            return
        from sklearn.decomposition import TruncatedSVD

        svd = TruncatedSVD(n_dimensions, n_iter=4, random_state=0).fit(self._tf_idf(texts.words))
        self._components = np.ascontiguousarray(svd.components_.T.astype(np.float32))

    def embed(self, texts: Texts) -> Matrix:
        """Unit vectors [text, dimension]; a text without a known word is the zero vector."""
        return unit_rows(np.asarray(self._tf_idf(texts.words) @ self._components, dtype=np.float32))

    def save(self, folder: Path) -> None:
        """Write vocabulary and arrays into `folder`."""
        (folder / "vocabulary.json").write_text(json.dumps(list(self._vocabulary)), encoding="utf-8")
        np.save(folder / "idf.npy", self._idf, allow_pickle=False)
        np.save(folder / "components.npy", self._components, allow_pickle=False)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._vocabulary = {word: i for i, word in enumerate(words)}
        self._idf = np.load(folder / "idf.npy", allow_pickle=False)
        self._components = np.load(folder / "components.npy", allow_pickle=False)

    def _tf_idf(self, texts: Sequence[Sequence[str]]) -> Any:
        """Sparse unit rows [text, word]."""
        from scipy.sparse import csr_matrix

        known = [[i for word in words if (i := self._vocabulary.get(word)) is not None] for words in texts]
        ends = np.concatenate(([0], np.cumsum([len(ids) for ids in known])))
        columns = np.fromiter(chain.from_iterable(known), dtype=np.int32, count=int(ends[-1]))
        shape = (len(texts), len(self._vocabulary))
        rows = csr_matrix((np.ones(len(columns), dtype=np.float32), columns, ends), shape=shape)
        rows.sum_duplicates()
        rows.data = (1 + np.log(rows.data)) * self._idf[rows.indices]
        norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        rows.data /= np.repeat(norms, np.diff(rows.indptr))
        return rows
