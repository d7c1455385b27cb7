"""MiniLM's vectors of a repository's blocks: packed bfloat16 (`torch_minilm`) against numpy in float32 (`minilm`).

The texts are this repository's own blocks. Correctness first: the least cosine between the two.
"""

import random
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.embedders.embedding import Texts
from ai_forge.data_pipeline.search.embedders.minilm import MiniLmEmbedder
from ai_forge.data_pipeline.search.embedders.torch_minilm import PackedMiniLm, multiplies_bfloat16
from ai_forge.data_pipeline.search.entries import block_entries
from ai_forge.data_pipeline.source.repository import read_repository
from measure import interleaved, record

N_TEXTS = 128


def main() -> None:
    blocks = block_entries(mine_repository(read_repository(Path(__file__).parents[1])).documents)
    written = [f"{e.name} {e.path}\n{e.text}" for e in blocks if e.kind != "test"]
    texts = Texts(random.Random(0).sample(written, N_TEXTS), [])
    plain, packed = MiniLmEmbedder(), PackedMiniLm()
    least = float((plain.embed(texts) * packed.embed(texts)).sum(1).min())
    assert least > 0.999, least
    seconds = interleaved({"numpy float32": lambda: plain.embed(texts), "packed bfloat16": lambda: packed.embed(texts)})
    told = {name: round(one, 3) for name, one in seconds.items()}
    shape = {"texts": N_TEXTS, "threads": torch.get_num_threads(), "native bfloat16": multiplies_bfloat16()}
    record("embedder", {**shape, "seconds": told, "least cosine": round(least, 6)})


if __name__ == "__main__":
    main()
