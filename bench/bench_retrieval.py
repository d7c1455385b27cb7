"""Retrieval on this repository: BM25's speed, and which ranking finds the oracles of its questions.

`--lib` adds CPython's library, a larger index. What people ask is measured by `bench_questions.py`. Recall@5 is the mean
share of a question's oracle documents among the first five hits. Most questions spell the name of their subject;
*descriptions* do not: the first sentence of a docstring asks for its code, indexed without docstrings.
"""

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.schemas import CodeBlock, RAFTExample
from ai_forge.data_pipeline.search.bm25 import Bm25
from ai_forge.data_pipeline.search.index import Index, Ranking, block_text
from ai_forge.data_pipeline.source.repository import Repository, read_repository
from ai_forge.data_pipeline.text.words import first_sentence, subwords
from measure import ROUNDS, interleaved, record

K = 10
_DOCSTRING = re.compile(r'"""(?:.|\n)*?"""')
RIVALS: dict[str, tuple[Ranking, ...]] = {
    "bm25": ("bm25",),
    "dense": ("dense",),
    "bm25 + dense": ("bm25", "dense"),
    "bm25 + dense + names": ("bm25", "dense", "names"),
    "bm25 + dense + graph": ("bm25", "dense", "graph"),
    "all": ("bm25", "dense", "names", "graph"),
}


def speed(blocks: Sequence[CodeBlock], questions: list[str], rounds: int) -> dict[str, float]:
    """Seconds to build a lexical index, and to answer all questions from it."""
    index = Index.build(blocks)
    seconds = interleaved(
        {
            "build": lambda: Bm25.build([subwords(block_text(block)) for block in blocks]),
            "queries": lambda: index.search_many(questions, K, rankings=("bm25",)),
        },
        rounds,
    )
    return {name: round(value, 4) for name, value in seconds.items()} | {
        "blocks": len(blocks),
        "queries": len(questions),
    }


def recall_at_5(index: Index, asked: list[tuple[str, set[str]]], rankings: Collection[Ranking]) -> float:
    """Mean share of the wanted blocks (by citation) among the first five hits."""
    hits = index.search_many([question for question, _ in asked], 5, rankings=rankings)
    shares = [
        len(wanted & {h.block.citation for h in found}) / len(wanted)
        for (_, wanted), found in zip(asked, hits, strict=True)
    ]
    return round(sum(shares) / len(shares), 4)


def questions_of(examples: list[RAFTExample]) -> list[tuple[str, set[str]]]:
    """Questions and the citations of their oracles."""
    return [
        (e.question, {document.citation for document in e.oracle_documents}) for e in examples if e.oracle_documents
    ]


def descriptions(mined: MiningResult) -> tuple[list[CodeBlock], list[tuple[str, set[str]]]]:
    """The Python blocks without their docstrings, and the docstrings' first sentences: code from its description."""
    blocks, asked = [], []
    for block in mined.documents:
        bare = _DOCSTRING.sub("", block.source_code, count=1) if block.language == "python" else block.source_code
        blocks.append(block.model_copy(update={"source_code": bare}))
        sentence = first_sentence(block.docstring or "").replace("`", "")
        if bare != block.source_code and len(sentence.split()) >= 4 and block.block_type in ("function", "method"):
            asked.append((sentence, {block.citation}))
    return blocks, asked


def quality(repository: Repository, mined: MiningResult, embedder: str) -> tuple[dict[str, object], list[str]]:
    """Recall of each rival: over all questions, those with two oracles, and descriptions; and the questions."""
    graph = SymbolGraph(mined.documents, mined.imports, {file.path: file.content for file in repository.files})
    index = Index.build(mined.documents, embedder, graph)
    made = synthesize(mined.blocks, documents=mined.documents, graph=graph, index=index).examples
    asked = questions_of(made)
    bare, described = descriptions(mined)
    bare_index = Index.build(bare, embedder, SymbolGraph(bare, mined.imports))
    figures = {
        name: {
            "questions": recall_at_5(index, asked, rankings),
            "two oracles": recall_at_5(index, [a for a in asked if len(a[1]) > 1], rankings),
            "descriptions": recall_at_5(bare_index, described, rankings),
        }
        for name, rankings in RIVALS.items()
    }
    counts = {"questions": len(asked), "two oracles": sum(len(a[1]) > 1 for a in asked), "descriptions": len(described)}
    return {"embedder": embedder, "asked": counts, "recall_at_5": figures}, [question for question, _ in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lib", action="store_true", help="also time an index of this Python's own library")
    parser.add_argument("--embedder", default="none", help="dense side of the index whose recall is measured")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    repository = read_repository(Path(__file__).parents[1])
    mined = mine_repository(repository)
    found, questions = quality(repository, mined, given.embedder)
    figures = {"quality": found, "this repository": speed(mined.documents, questions, given.rounds)}
    if given.lib:
        library = mine_repository(read_repository(Path(argparse.__file__).parent))
        figures["library"] = speed(library.documents, questions, given.rounds)
    record("retrieval", figures)


if __name__ == "__main__":
    main()
