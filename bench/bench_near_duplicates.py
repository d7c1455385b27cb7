"""Near-duplicates of questions and answers about this repository and of its blocks: ours against rensa's MinHash LSH.

The rival splits tokens by the same expression, joins shingles in Python, hashes them with rensa and verifies its
candidates by exact Jaccard similarity, with the fewest bands that reach a recall of 0.99. Every fifth text also comes
a second time with one to three words changed, so that there is something to find. Recall of both is told against brute
force, which counts every pair.
"""

import argparse
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from rensa import RMinHash, RMinHashLSH
from scipy.sparse import csr_matrix

from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.data_pipeline.text.near_duplicates import near_duplicate_pairs, shingle
from measure import ROUNDS, interleaved, record

TOKEN = re.compile(r"\w+|[^\w\s]")
N_HASHES = 128


def brute_force(texts: list[str], threshold: float, width: int) -> set[tuple[int, int]]:
    """Every pair that is alike enough, counted."""
    sets = [shingle(text, width) for text in texts]
    _, ids = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(values) for values in sets])
    matrix = csr_matrix((np.ones(len(ids), dtype=np.int32), ids, np.r_[0, np.cumsum(sizes)]))
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(texts), 500):
        common = (matrix[start : start + 500] @ matrix.T).tocoo()
        rows = common.row + start
        alike = common.data >= threshold * (sizes[rows] + sizes[common.col] - common.data)
        pairs.update((a, b) for a, b in zip(rows[alike].tolist(), common.col[alike].tolist(), strict=True) if a < b)
    return pairs


def with_rensa(texts: list[str], threshold: float, width: int, bands: int) -> set[tuple[int, int]]:
    """MinHash LSH with Python shingles, candidates verified exactly."""
    lsh = RMinHashLSH(threshold=threshold, num_perm=N_HASHES, num_bands=bands)
    sets, hashes = [], []
    for number, text in enumerate(texts):
        tokens = TOKEN.findall(text)
        runs = {" ".join(tokens[i : i + width]) for i in range(max(1, len(tokens) - width + 1))} if tokens else set()
        minhash = RMinHash(num_perm=N_HASHES, seed=1)
        minhash.update(list(runs))
        lsh.insert(number, minhash)
        sets.append(runs)
        hashes.append(minhash)
    found = set()
    for number, minhash in enumerate(hashes):
        for other in lsh.query(minhash):
            if other > number and sets[number]:
                common = len(sets[number] & sets[other])
                if common >= threshold * (len(sets[number]) + len(sets[other]) - common):
                    found.add((number, other))
    return found


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


def bands_for(texts: list[str], threshold: float, width: int, truth: set[tuple[int, int]]) -> int:
    """The fewest bands with which rensa finds 99 % of the pairs."""
    for bands in (4, 8, 16, 32, 64):
        if len(with_rensa(texts, threshold, width, bands) & truth) >= 0.99 * len(truth):
            return bands
    return 128


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
        bands = bands_for(texts, threshold, width, truth)
        rivals: dict[str, Callable[[], object]] = {
            "ours": lambda t=texts, s=threshold, w=width: near_duplicate_pairs(t, s, width=w),
            "rensa": lambda t=texts, s=threshold, w=width, b=bands: with_rensa(t, s, w, b),
        }
        seconds = interleaved(rivals, given.rounds)
        ours = {(a, b) for a, b, _ in near_duplicate_pairs(texts, threshold, width=width)}
        theirs = with_rensa(texts, threshold, width, bands)
        figures[name] = {
            "texts": len(texts),
            "pairs": len(truth),
            "recall": round(len(ours & truth) / max(1, len(truth)), 4),
            "false": len(ours - truth),
            "rensa_recall": round(len(theirs & truth) / max(1, len(truth)), 4),
            "rensa_bands": bands,
            "seconds": {rival: round(value, 4) for rival, value in seconds.items()},
            "times": round(seconds["rensa"] / seconds["ours"], 2),
        }
    record("near_duplicates", figures)


if __name__ == "__main__":
    main()
