"""From a repository's files to examples that teach: mine, split, index, ask, validate.

    files ─ repository ─ miner ─► CodeBlocks ─ splits ─► sides ─ raft_generator ─► RAFTExamples ─ validator ─► kept
                           │                                          │
                    languages/*.scm                           retrieval, symbols

Each step is a function of its arguments and a settings model (`config.data`); nothing here writes files, knows a model or
prints. The exports are loaded on first use, and Matplotlib by the functions that need it.
"""

from typing import TYPE_CHECKING

from ai_forge.lazy import lazy_exports

if TYPE_CHECKING:
    from ai_forge.data_pipeline.examples.splits import Split, check_no_leak, split_by_file
    from ai_forge.data_pipeline.examples.verification import verify_example
    from ai_forge.data_pipeline.graph.symbols import SymbolGraph
    from ai_forge.data_pipeline.miner import MiningResult, mine, mine_repository, parse_repository
    from ai_forge.data_pipeline.raft_generator import SynthesisResult, generate_qa_pairs, synthesize
    from ai_forge.data_pipeline.search.index import Hit, Index, Retriever
    from ai_forge.data_pipeline.source.repository import Repository, SourceFile, read_repository
    from ai_forge.data_pipeline.validator import filter_dataset, generate_quality_report, score_data_quality

_HOMES = {
    "MiningResult": "miner",
    "mine": "miner",
    "mine_repository": "miner",
    "parse_repository": "miner",
    "SynthesisResult": "raft_generator",
    "generate_qa_pairs": "raft_generator",
    "synthesize": "raft_generator",
    "Repository": "source.repository",
    "SourceFile": "source.repository",
    "read_repository": "source.repository",
    "Hit": "search.index",
    "Index": "search.index",
    "Retriever": "search.index",
    "Split": "examples.splits",
    "check_no_leak": "examples.splits",
    "split_by_file": "examples.splits",
    "SymbolGraph": "graph.symbols",
    "filter_dataset": "validator",
    "generate_quality_report": "validator",
    "score_data_quality": "validator",
    "verify_example": "examples.verification",
}

__all__ = [
    "Hit",
    "Index",
    "MiningResult",
    "Repository",
    "Retriever",
    "SourceFile",
    "Split",
    "SymbolGraph",
    "SynthesisResult",
    "check_no_leak",
    "filter_dataset",
    "generate_qa_pairs",
    "generate_quality_report",
    "mine",
    "mine_repository",
    "parse_repository",
    "read_repository",
    "score_data_quality",
    "split_by_file",
    "synthesize",
    "verify_example",
]

__getattr__ = lazy_exports(__name__, _HOMES)
