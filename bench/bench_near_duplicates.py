"""Near-duplicates of questions and answers about this repository and of its blocks: recall against brute force, seconds.

Every fifth text also comes a second time with one to three words changed, so that there is something to find. Brute force
counts every pair.
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from scipy.sparse import csr_matrix

from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.data_pipeline.text.near_duplicates import near_duplicate_pairs, shingle
from measure import ROUNDS, interleaved, record


def brute_force(texts: list[str], threshold: float, width: int) -> set[tuple[int, int]]:
    """Every pair that is alike enough, counted."""
    sets = [list(shingle(text, width)) for text in texts]
    _, ids = np.unique(np.array([run for runs in sets for run in runs]), return_inverse=True)
    sizes = np.array([len(runs) for runs in sets])
    matrix = csr_matrix((np.ones(len(ids), dtype=np.int32), ids, np.r_[0, np.cumsum(sizes)]))
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(texts), 500):
        common = (matrix[start : start + 500] @ matrix.T).tocoo()
        rows = common.row + start
        alike = common.data >= threshold * (sizes[rows] + sizes[common.col] - common.data)
        pairs.update((a, b) for a, b in zip(rows[alike].tolist(), common.col[alike].tolist(), strict=True) if a < b)
    return pairs


def with_copies(texts: list[str]) -> list[str]:
    """The texts, and every fifth again with a few words changed."""
    rng = random.Random(0)
    copies = []
    for text in texts[::5]:
        words = text.split(" ")
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words))] = f"changed{rng.randrange(1000)}"
        copies.append(" ".join(words))
    return texts + copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    mined = mine_repository(read_repository(Path(__file__).parents[1]))
    graph = SymbolGraph(mined.documents, mined.imports)
    examples = synthesize(mined.blocks, documents=mined.documents, graph=graph).examples
    sets = {
        "examples": ([f"{e.question}\n{e.target}" for e in examples][:5000], 0.9, 3),
        "blocks": ([block.source_code for block in mined.documents][:5000], 0.8, 5),
    }
    figures: dict[str, object] = {}
    for name, (found, threshold, width) in sets.items():
        texts = with_copies(found)
        truth = brute_force(texts, threshold, width)
        pairs = {(a, b) for a, b, _ in near_duplicate_pairs(texts, threshold, width=width)}
        seconds = interleaved(
            {name: lambda t=texts, s=threshold, w=width: near_duplicate_pairs(t, s, width=w)}, given.rounds
        )
        figures[name] = {
            "texts": len(texts),
            "pairs": len(truth),
            "recall": round(len(pairs & truth) / max(1, len(truth)), 4),
            "false": len(pairs - truth),
            "seconds": round(seconds[name], 4),
        }
    record("near_duplicates", figures)


if __name__ == "__main__":
    main()
