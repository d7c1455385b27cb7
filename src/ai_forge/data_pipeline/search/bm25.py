"""BM25 as one sparse matrix: the same scores as bm25s, built and asked several times faster.

Method (Lucene's variant, as bm25s computes it): a word that stands n times in a text of length l weighs
idf · n / (n + k1 (1 − b + b l / l_mean)) with idf = ln(1 + (N − df + ½) / (df + ½)). All weights are computed at once when
the index is built, so that a query is a sum of rows: for many queries one product of two sparse matrices, and a dense one
for the words that most of them share ("what", "does"). Against bm25s 0.3 on its numpy backend with the same words, one
thread: see `bench/bench_retrieval.py`.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Bm25", "best"]

Scores = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
_K1, _B = 1.2, 0.75
_CHUNK = 256
"""Queries scored at once: their scores are held densely, [query, text]."""
_DENSE_FROM = 2
"""Uses of a word in a chunk times the share of texts that have it, from which its row is cheaper as a dense one."""
_BLOCKS_PER_RANK, _MAX_BLOCK = 4, 64
_ARRAYS = ("data", "indices", "indptr")


class Bm25:
    """Word weights of texts, [word, text] float32 in compressed rows. Read only."""

    def __init__(self, vocabulary: dict[str, int], weights: Any) -> None:
        self._vocabulary, self._weights = vocabulary, weights

    @classmethod
    def build(cls, texts: Sequence[Sequence[str]]) -> "Bm25":
        """Index texts that are split into words."""
        from scipy.sparse import coo_matrix

        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        vocabulary: dict[str, int] = defaultdict(lambda: len(vocabulary))
        n_words = int(lengths.sum())
        rows = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(texts)), dtype=np.int32, count=n_words)
        columns = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
        ones = np.ones(n_words, dtype=np.float32)
        weights = coo_matrix((ones, (rows, columns)), shape=(len(vocabulary), len(texts))).tocsr()  # adds repeats up
        frequency = np.diff(weights.indptr)
        idf = np.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        dampening = (_K1 * (1 - _B + _B * lengths / (lengths.mean() or 1.0))).astype(np.float32)
        weights.data *= np.repeat(idf, frequency) / (weights.data + dampening[weights.indices])
        return cls(dict(vocabulary), weights)

    def scores(self, queries: Sequence[Sequence[str]]) -> Scores:
        """[query, text]; words that no text has count nothing, a repeated word counts again."""
        from scipy.sparse import csr_matrix

        n_words, n_texts = self._weights.shape
        known = [[i for word in query if (i := self._vocabulary.get(word)) is not None] for query in queries]
        ends = np.concatenate(([0], np.cumsum([len(words) for words in known])))
        columns = np.fromiter(chain.from_iterable(known), dtype=np.int32, count=int(ends[-1]))
        ones = np.ones(len(columns), dtype=np.float32)
        asked = csr_matrix((ones, columns, ends), shape=(len(queries), n_words))
        asked.sum_duplicates()
        uses = np.bincount(asked.indices, minlength=n_words)
        is_common = uses * np.diff(self._weights.indptr) > _DENSE_FROM * n_texts
        common = np.flatnonzero(is_common)
        dense: Scores = asked[:, common].toarray() @ self._weights[common].toarray()
        asked.data[is_common[asked.indices]] = 0
        asked.eliminate_zeros()
        dense += (asked @ self._weights).toarray()
        return dense

    def top(self, queries: Sequence[Sequence[str]], k: int) -> list[tuple[Positions, Scores]]:
        """(texts, their scores) of the `k` best texts of each query, best first, ties by position; scores above 0."""
        found: list[tuple[Positions, Scores]] = []
        for start in range(0, len(queries), _CHUNK):
            scores = self.scores(queries[start : start + _CHUNK])
            found.extend((positions, row[positions]) for row, positions in zip(scores, best(scores, k), strict=True))
        return found

    def save(self, folder: Path) -> None:
        """Write the vocabulary and the matrix into `folder`: JSON and plain arrays."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocabulary.json").write_text(json.dumps(list(self._vocabulary)), encoding="utf-8")
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self._weights, name), allow_pickle=False)
        np.save(folder / "shape.npy", np.array(self._weights.shape), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "Bm25":
        """Read what `save` wrote."""
        from scipy.sparse import csr_matrix

        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        arrays = [np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS]
        shape = tuple(np.load(folder / "shape.npy", allow_pickle=False).tolist())
        return cls({word: i for i, word in enumerate(words)}, csr_matrix(tuple(arrays), shape=shape))


def best(scores: Scores, k: int) -> list[Positions]:
    """Positions of the `k` largest values above 0 of each row, largest first, ties by position.

    The largest values of blocks give a bound that few values reach: cheaper than partitioning whole rows.
    """
    n = scores.shape[1]
    if k < 1 or n == 0:
        return [np.zeros(0, dtype=np.int64) for _ in scores]
    width = min(_MAX_BLOCK, n // (_BLOCKS_PER_RANK * k))
    if width > 1:
        n_blocks = n // width
        highest = scores[:, : n_blocks * width].reshape(len(scores), width, n_blocks).max(axis=1)
    else:
        highest = scores
    rank = max(highest.shape[1] - k, 0)
    bounds = np.maximum(np.partition(highest, rank, axis=1)[:, rank], np.finfo(np.float32).tiny)
    rows, positions = np.divmod(np.flatnonzero(scores >= bounds[:, None]), n)
    order = np.lexsort((positions, -scores[rows, positions], rows))
    positions = positions[order]
    ends = np.cumsum(np.bincount(rows, minlength=len(scores)))
    return [positions[start:end][:k] for start, end in zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True)]
