"""The index of a repository: which blocks answer a question. Training, the judge and the user's questions share it.

Three rankings are fused by reciprocal rank: BM25 over subwords of names, paths and code (bm25s), a dense one from the
chosen embedder, and the names that the question spells out (`Class.method`, `src/a.py`), as code questions often do.
Scores are sums of reciprocal ranks: they order the hits of one query and mean nothing across queries. There is no
reranker: what the three rankings miss together is missed.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ai_forge.data_pipeline.embedding import EMBEDDERS, Embedder, Matrix, load_embedder
from ai_forge.data_pipeline.languages import LANGUAGES
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.symbols import overlap
from ai_forge.data_pipeline.text import subwords
from ai_forge.errors import InputError

__all__ = ["Hit", "Index", "Retriever"]

_RRF = 60
"""The constant of reciprocal rank fusion (Cormack et al. 2009)."""
_POOL = 100
"""Ranks of each list that are fused."""
_CHUNK = 256
"""Queries embedded and scored at once."""
_SPELLED = re.compile(
    r"`([^`\n]+)`|([^\W\d][\w$]*(?:\.[\w$]+)+|\w*_\w+|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z][A-Z]\w*|[\w$]+(?=\())"
)
_EXTENSIONS = "|".join(extension[1:] for row in LANGUAGES.values() for extension in row.extensions)
_PATH = re.compile(rf"[\w.@+-]+(?:/[\w.@+-]+)+|[\w-]+\.(?:{_EXTENSIONS})\b")
_FORMAT = 1


@dataclass(frozen=True)
class Hit:
    """A block and how well it ranks for the query (higher is better)."""

    block: CodeBlock
    score: float


class Retriever(Protocol):
    """What synthesis, the judge and the answerer need."""

    @property
    def blocks(self) -> Sequence[CodeBlock]:
        """The indexed blocks."""
        ...

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        only_paths: Collection[str] | None = None,
        exclude_paths: Collection[str] = (),
        nested: bool = True,
    ) -> list[Hit]:
        """The `k` best blocks for a query, best first."""
        ...

    def search_many(self, queries: Sequence[str], k: int = 5) -> list[list[Hit]]:
        """The same for many queries at once."""
        ...


def block_text(block: CodeBlock) -> str:
    """What is indexed of a block: its names twice (they decide), its place and its source."""
    name = f"{block.metadata.qualified_name} {block.name}"
    return f"{name} {name} {block.path} {block.source_code}"


class Index:
    """BM25, dense and spelled-name rankings over one repository's blocks. Deterministic; safe to read from threads."""

    def __init__(self, blocks: Sequence[CodeBlock], lexical: Any, embedder: Embedder, vectors: Matrix) -> None:
        self._blocks = tuple(blocks)
        self._lexical, self._embedder, self._vectors = lexical, embedder, vectors
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_path: dict[str, list[int]] = defaultdict(list)
        for position, block in enumerate(blocks):
            for name in {block.name, block.metadata.qualified_name}:
                self._by_name[name].append(position)
            for path in {block.path, block.path.rpartition("/")[2]}:
                self._by_path[path].append(position)

    @property
    def blocks(self) -> tuple[CodeBlock, ...]:
        """The indexed blocks."""
        return self._blocks

    @classmethod
    def build(cls, blocks: Sequence[CodeBlock], embedder: str = "lsa") -> "Index":
        """Index `blocks`. Raises InputError for no blocks or an unknown embedder."""
        import bm25s

        if not blocks:
            raise InputError("There are no blocks to index.", "Mine a folder with code first.")
        if embedder not in EMBEDDERS:
            raise InputError(f"Unknown embedder {embedder!r}.", f"Known: {', '.join(EMBEDDERS)}.")
        tokens = [subwords(block_text(block)) for block in blocks]
        lexical = bm25s.BM25(k1=1.2, b=0.75)
        lexical.index([t or ["_"] for t in tokens], show_progress=False)
        dense = EMBEDDERS[embedder].fit(tokens)
        return cls(blocks, lexical, dense, dense.embed(tokens))

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        only_paths: Collection[str] | None = None,
        exclude_paths: Collection[str] = (),
        nested: bool = True,
    ) -> list[Hit]:
        """The `k` best blocks for `query`, best first.

        `only_paths` and `exclude_paths` limit the files. With `nested=False` a block is left out when it holds, or lies
        in, a better one: what one wants to show to a reader.
        """

        def allowed(block: CodeBlock) -> bool:
            return (only_paths is None or block.path in only_paths) and block.path not in exclude_paths

        hits = self._rank([query], allowed, k if nested else _POOL)[0]
        if not nested:
            kept: list[Hit] = []
            for hit in hits:
                if not any(overlap(hit.block, other.block) for other in kept):
                    kept.append(hit)
                if len(kept) == k:
                    break
            hits = kept
        return hits[:k]

    def search_many(self, queries: Sequence[str], k: int = 5) -> list[list[Hit]]:
        """`search` for many queries at once, several times faster."""
        return self._rank(queries, None, k)

    def _rank(self, queries: Sequence[str], allowed: Callable[[CodeBlock], bool] | None, k: int) -> list[list[Hit]]:
        barred = None
        if allowed is not None:
            barred = np.array([not allowed(block) for block in self._blocks], dtype=bool)
        results: list[list[Hit]] = []
        for start in range(0, len(queries), _CHUNK):
            chunk = queries[start : start + _CHUNK]
            tokens = [subwords(query) for query in chunk]
            dense = self._embedder.embed(tokens) @ self._vectors.T
            for query, words, similarity in zip(chunk, tokens, dense, strict=True):
                lexical = self._lexical_scores(words)
                if barred is not None:
                    lexical[barred] = similarity[barred] = -1.0
                results.append(self._fuse(query, lexical, similarity, barred, k))
        return results

    def _lexical_scores(self, words: list[str]) -> Matrix:
        known = [word for word in words if word in self._lexical.vocab_dict]
        if not known:
            return np.zeros(len(self._blocks), dtype=np.float32)
        scores: Matrix = np.array(self._lexical.get_scores(known), dtype=np.float32)
        return scores

    def _fuse(self, query: str, lexical: Matrix, dense: Matrix, barred: Any, k: int) -> list[Hit]:
        scores: dict[int, float] = defaultdict(float)
        for values in (lexical, dense):
            for rank, position in enumerate(_best(values, _POOL), start=1):
                if values[position] > 0:
                    scores[position] += 1 / (_RRF + rank)
        for position, strength in self._spelled(query).items():
            if barred is None or not barred[position]:
                scores[position] += strength * 2 / (_RRF + 1)
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return [Hit(self._blocks[position], round(score, 8)) for position, score in ranked[: max(k, 0)]]

    def _spelled(self, query: str) -> dict[int, float]:
        """Blocks whose name the query spells: 1 for a name that only they have, less for a common one; a path adds."""
        strengths: dict[int, float] = {}
        for match in _SPELLED.finditer(query):
            written = match.group(1) or match.group(2)
            name = written.partition("(")[0].strip()
            found = self._by_name.get(name) or self._by_name.get(name.rpartition(".")[2], [])
            for position in found:
                exact = name in (self._blocks[position].name, self._blocks[position].metadata.qualified_name)
                strengths[position] = max(strengths.get(position, 0.0), (1.0 if exact else 0.5) / len(found) ** 0.5)
        for path in _PATH.findall(query):
            named = self._by_path.get(path, ())
            for position in named:
                if position in strengths:
                    strengths[position] += 1.0
                elif len(named) <= _POOL // 4:
                    strengths[position] = 0.1
        return strengths

    def save(self, folder: str | Path) -> None:
        """Write the index into `folder` (made if missing): JSON and plain arrays, no pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(block.model_dump_json() + "\n" for block in self._blocks)
        (folder / "blocks.jsonl").write_text(lines, encoding="utf-8")
        self._lexical.save(str(folder / "lexical"), show_progress=False)
        self._embedder.save(folder / "dense")
        np.save(folder / "vectors.npy", self._vectors, allow_pickle=False)
        (folder / "index.json").write_text(json.dumps({"format": _FORMAT, "embedder": self._embedder.name}), "utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Index":
        """Read what `save` wrote. Raises InputError where it is not there or of another format."""
        import bm25s

        folder = Path(folder)
        try:
            head = json.loads((folder / "index.json").read_text("utf-8"))
            lines = (folder / "blocks.jsonl").read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no index ({error}).", "Build it again with `ai-forge mine`.") from error
        if head.get("format") != _FORMAT:
            raise InputError(
                f"The index in {folder} has format {head.get('format')}, not {_FORMAT}.", "Build it again."
            )
        blocks = [CodeBlock.model_validate_json(line) for line in lines]
        lexical = bm25s.BM25.load(str(folder / "lexical"), load_corpus=False)
        vectors = np.load(folder / "vectors.npy", allow_pickle=False)
        return cls(blocks, lexical, load_embedder(head["embedder"], folder / "dense"), vectors)


def _best(values: Matrix, n: int) -> Iterable[int]:
    """Positions of the `n` largest values, largest first, ties by position."""
    top = np.sort(np.argpartition(-values, n)[:n]) if len(values) > n else np.arange(len(values))
    order: list[int] = top[np.argsort(-values[top], kind="stable")].tolist()
    return order
