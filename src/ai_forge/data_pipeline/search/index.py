"""The index of a repository: which blocks answer a question. Training, the judge and the user's questions share it.

Rankings are fused by reciprocal rank: BM25 over subwords of names, paths and code (`bm25`), a dense one from the chosen
embedder (`embedding`), the names that the question spells out (`Class.method`, `src/a.py`), as code questions often do,
and the graph neighbours of the best hit of these, if the index was built with a graph. Scores are sums of reciprocal
ranks: they order the hits of one query and mean nothing across queries. There is no reranker: what the rankings miss
together is missed. What each contributes is measured by `bench/bench_retrieval.py` and told in `EXPERIMENTS.md`.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from ai_forge.data_pipeline.graph.symbols import SymbolGraph, overlap
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.search.bm25 import Bm25, Scores, best
from ai_forge.data_pipeline.search.embedders.embedding import (
    Embedder,
    Matrix,
    Texts,
    embedder_named,
    load_embedder,
    save_embedder,
)
from ai_forge.data_pipeline.search.spelled import SpelledNames
from ai_forge.data_pipeline.text.words import subwords
from ai_forge.errors import InputError
from ai_forge.json_lines import lines_of

__all__ = ["RANKINGS", "Hit", "Index", "Ranking", "Retriever"]

Ranking = Literal["bm25", "dense", "names", "graph"]
RANKINGS: frozenset[Ranking] = frozenset(("bm25", "dense", "names", "graph"))

_RRF = 60
"""The constant of reciprocal rank fusion (Cormack et al. 2009)."""
_POOL = 100
"""Ranks of each list that are fused."""
_CHUNK = 256
"""Queries embedded and scored at once."""
_GRAPH_WEIGHT = 0.75
"""What a neighbour of the best hit counts beside a rank of BM25."""
_FORMAT = 3


class Hit(NamedTuple):
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
    """The rankings over one repository's blocks. Deterministic; safe to read from threads."""

    def __init__(
        self,
        blocks: Sequence[CodeBlock],
        lexical: Bm25,
        embedder: Embedder,
        vectors: Matrix,
        neighbours: Sequence[Sequence[int]] = (),
    ) -> None:
        """`vectors` [block, dimension]; `neighbours` are positions in `blocks`, one list for each block or none at all."""
        self._blocks = tuple(blocks)
        self._lexical, self._embedder, self._vectors, self._neighbours = lexical, embedder, vectors, neighbours
        self._spelled = SpelledNames((b.name, b.metadata.qualified_name, b.path) for b in blocks)

    @property
    def blocks(self) -> tuple[CodeBlock, ...]:
        """The indexed blocks."""
        return self._blocks

    @classmethod
    def build(cls, blocks: Sequence[CodeBlock], embedder: str = "none", graph: SymbolGraph | None = None) -> "Index":
        """Index `blocks`. Raises InputError for no blocks or an unknown embedder, PrerequisiteError without its model."""
        if not blocks:
            raise InputError("There are no blocks to index.", "Mine a folder with code first.")
        written = [block_text(block) for block in blocks]
        texts = Texts(written, [subwords(text) for text in written])
        dense = embedder_named(embedder)
        positions = {block.id: position for position, block in enumerate(blocks)}
        neighbours: list[list[int]] = []
        if graph is not None:
            for block in blocks:
                near = (positions.get(other.id) for other in graph.neighbours(block))
                neighbours.append([position for position in near if position is not None])
        return cls(blocks, Bm25.build(texts.words), dense, dense.embed(texts), neighbours)

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

    def search_many(
        self, queries: Sequence[str], k: int = 5, *, rankings: Collection[Ranking] = RANKINGS
    ) -> list[list[Hit]]:
        """`search` for many queries at once, several times faster; `rankings` are the ones that are fused."""
        return self._rank(queries, None, k, rankings)

    def _rank(
        self,
        queries: Sequence[str],
        allowed: Callable[[CodeBlock], bool] | None,
        k: int,
        rankings: Collection[Ranking] = RANKINGS,
    ) -> list[list[Hit]]:
        barred = np.zeros(0, dtype=np.int64)
        if allowed is not None:
            barred = np.flatnonzero([not allowed(block) for block in self._blocks])
        shut = frozenset(barred.tolist())
        results: list[list[Hit]] = []
        for start in range(0, len(queries), _CHUNK):
            chunk = queries[start : start + _CHUNK]
            texts = Texts(chunk, [subwords(query) for query in chunk])
            cosines = self._embedder.embed(texts) @ self._vectors.T if "dense" in rankings else None
            for number, query in enumerate(chunk):
                lists: list[tuple[float, Scores]] = []
                if "bm25" in rankings:
                    lists.append((1.0, self._lexical.scores(texts.words[number])))
                if cosines is not None:
                    lists.append((self._embedder.weight, cosines[number]))
                fused: dict[int, float] = defaultdict(float)
                for weight, scores in lists:
                    scores[barred] = -1.0
                    for rank, position in enumerate(best(scores, _POOL).tolist(), start=1):
                        fused[position] += weight / (_RRF + rank)
                for position, strength in self._spelled.strengths(query).items() if "names" in rankings else ():
                    if position not in shut:
                        fused[position] += strength * 2 / (_RRF + 1)
                if "graph" in rankings and self._neighbours:
                    self._add_neighbours(fused, shut)
                ranked = sorted(fused.items(), key=lambda item: (-item[1], item[0]))[: max(k, 0)]
                results.append([Hit(self._blocks[position], round(score, 8)) for position, score in ranked])
        return results

    def _add_neighbours(self, fused: dict[int, float], shut: Collection[int]) -> None:
        """Rank the graph neighbours of the best hit as one more list."""
        if fused:
            seed = min(fused, key=lambda position: (-fused[position], position))
            near = [n for n in self._neighbours[seed] if n not in shut][:_POOL]
            for rank, position in enumerate(near, start=1):
                fused[position] += _GRAPH_WEIGHT / (_RRF + rank)

    def save(self, folder: str | Path) -> None:
        """Write the index into `folder` (made if missing): JSON and plain arrays, no pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(block.model_dump_json() + "\n" for block in self._blocks)
        (folder / "blocks.jsonl").write_text(lines, encoding="utf-8")
        self._lexical.save(folder / "lexical")
        save_embedder(self._embedder, folder / "dense")
        np.save(folder / "vectors.npy", self._vectors, allow_pickle=False)
        (folder / "neighbours.json").write_text(json.dumps(self._neighbours), encoding="utf-8")
        (folder / "index.json").write_text(json.dumps({"format": _FORMAT}), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Index":
        """Read what `save` wrote. Raises InputError where it is not there or of another format."""
        folder = Path(folder)
        try:
            head = json.loads((folder / "index.json").read_text("utf-8"))
            lines = [line for _, line in lines_of((folder / "blocks.jsonl").read_text("utf-8"))]
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no index ({error}).", "Build it again with `ai-forge mine`.") from error
        if head.get("format") != _FORMAT:
            raise InputError(
                f"The index in {folder} has format {head.get('format')}, not {_FORMAT}.", "Build it again."
            )
        blocks = [CodeBlock.model_validate_json(line) for line in lines]
        vectors = np.load(folder / "vectors.npy", allow_pickle=False)
        neighbours = json.loads((folder / "neighbours.json").read_text(encoding="utf-8"))
        return cls(blocks, Bm25.load(folder / "lexical"), load_embedder(folder / "dense"), vectors, neighbours)
