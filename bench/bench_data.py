"""Mining, synthesis and validation of this repository: seconds, scaled to 5,000 examples."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.repository import read_repository
from ai_forge.data_pipeline.symbols import SymbolGraph
from ai_forge.data_pipeline.validator import filter_dataset, score_data_quality
from ai_forge.data_pipeline.verification import verify_example
from measure import interleaved, record


def main() -> None:
    repository = read_repository(Path(__file__).parents[1])
    mined = mine_repository(repository)
    graph = SymbolGraph(mined.documents, mined.imports)
    examples = synthesize(mined.blocks, documents=mined.documents, graph=graph).examples
    assert not [problem for example in examples for problem in verify_example(example)]
    seconds = interleaved(
        {
            "mine": lambda: mine_repository(repository),
            "synthesize": lambda: synthesize(mined.blocks, documents=mined.documents, graph=graph),
            "validate": lambda: (filter_dataset(examples), score_data_quality(examples)),
        }
    )
    per_5000 = {name: round(seconds[name] * 5000 / len(examples), 2) for name in ("synthesize", "validate")}
    size = sum(len(file.content) for file in repository.files)
    record(
        "data",
        {
            "files": mined.n_files,
            "examples": len(examples),
            "mine_mb_per_s": round(size / 1e6 / seconds["mine"], 2),
            "seconds_per_5000_examples": per_5000,
        },
    )


if __name__ == "__main__":
    main()
