"""Synthesis and validation of 5,000 examples from the standard library: seconds, and where they go.

The examples are made and judged as `ai-forge run` does it for one side: graph and index over all documents, drafts,
distractors, verification, filter, scores. One process; wall seconds, and CPU seconds, which tell more on a machine that
does other things too. `--profile` prints the costliest functions instead.
"""

import argparse
import cProfile
import pstats
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.config import SynthesisSettings
from ai_forge.data_pipeline.examples.verification import verify_example
from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.search.index import Index
from ai_forge.data_pipeline.source.repository import Repository, read_repository
from ai_forge.data_pipeline.validator import filter_dataset, score_data_quality
from measure import interleaved, record

N_DRAFTS = 5500
"""Some are dropped or alike."""
N_EXAMPLES = 5000
PACKAGES = ("argparse.py", "asyncio", "collections", "concurrent", "configparser.py", "csv.py", "dataclasses.py",
            "difflib.py", "email", "fractions.py", "gzip.py", "heapq.py", "html", "http", "importlib", "inspect.py",
            "json", "logging", "mailbox.py", "multiprocessing", "pathlib.py", "pickle.py", "random.py", "shutil.py",
            "ssl.py", "statistics.py", "tarfile.py", "tempfile.py", "textwrap.py", "threading.py", "tokenize.py",
            "typing.py", "unittest", "urllib", "wsgiref", "xml", "zipfile.py")  # fmt: skip
"""Well documented, and a project's size together."""


def standard_library() -> Repository:
    """The chosen modules."""
    whole = read_repository(sysconfig.get_path("stdlib"))
    kept = tuple(file for file in whole.files if file.path.partition("/")[0] in PACKAGES)
    return Repository(whole.root, "stdlib", None, False, kept)


def make(mined: MiningResult, index: Index, graph: SymbolGraph) -> list[RAFTExample]:
    """Verified examples."""
    settings = SynthesisSettings(max_examples=N_DRAFTS)
    made = synthesize(mined.blocks, documents=mined.documents, settings=settings, index=index, graph=graph)
    return made.examples[:N_EXAMPLES]


def main() -> None:
    """Measure, or profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="print the 40 costliest functions of one round")
    given = parser.parse_args()
    repository = standard_library()
    mined = mine_repository(repository)
    sources = {file.path: file.content for file in repository.files}
    graph = SymbolGraph(mined.documents, mined.imports, sources)
    index = Index.build(mined.documents, graph=graph)
    examples = make(mined, index, graph)
    assert len(examples) == N_EXAMPLES
    assert not [problem for example in examples for problem in verify_example(example)]
    steps: dict[str, Callable[[], object]] = {
        "mine": lambda: mine_repository(repository),
        "graph": lambda: SymbolGraph(mined.documents, mined.imports, sources),
        "index": lambda: Index.build(mined.documents, graph=graph),
        "synthesize": lambda: make(mined, index, graph),
        "validate": lambda: (filter_dataset(examples), score_data_quality(examples)),
    }
    if given.profile:
        profile = cProfile.Profile()
        profile.runcall(lambda: [act() for name, act in steps.items() if name != "mine"])
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    cpu: dict[str, list[float]] = {name: [] for name in steps}

    def clocked(name: str, act: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            start = time.process_time()
            act()
            cpu[name].append(time.process_time() - start)

        return run

    wall = interleaved({name: clocked(name, act) for name, act in steps.items()})
    busy = {name: statistics.median(seconds[1:]) for name, seconds in cpu.items()}
    size = sum(len(file.content) for file in repository.files)
    figures: dict[str, object] = {"files": mined.n_files, "blocks": len(mined.documents), "examples": len(examples)}
    figures["mine_mb_per_s"] = round(size / 1e6 / wall["mine"], 2)
    for kind, seconds in (("wall", wall), ("cpu", busy)):
        figures[f"{kind}_s"] = {name: round(value, 2) for name, value in seconds.items()} | {
            "synthesize and validate": round(seconds["synthesize"] + seconds["validate"], 2),
            "with graph and index": round(sum(seconds.values()) - seconds["mine"], 2),
        }
    record("data", figures)


if __name__ == "__main__":
    main()
