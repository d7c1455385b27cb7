"""From a repository's files to examples that teach: mine, split, index, ask, validate.

    files ── repository ─ miner ──► CodeBlocks ── splits ──► sides ── raft_generator ──► RAFTExamples ── validator ──► kept
                          │                            retrieval, symbols ─┘
                          languages/*.scm

Each step is a function of its arguments and a settings model (`settings`); nothing here writes files, knows a model or
prints. The heavy libraries (scikit-learn, Matplotlib) are imported by the functions that need them.
"""

from ai_forge.data_pipeline.miner import MiningResult, mine, mine_repository, parse_repository
from ai_forge.data_pipeline.raft_generator import SynthesisResult, generate_qa_pairs, synthesize
from ai_forge.data_pipeline.repository import Repository, SourceFile, read_repository
from ai_forge.data_pipeline.retrieval import Hit, Index, Retriever
from ai_forge.data_pipeline.settings import MinerSettings, SplitSettings, SynthesisSettings, ValidatorSettings
from ai_forge.data_pipeline.splits import Split, check_no_leak, split_by_file
from ai_forge.data_pipeline.symbols import SymbolGraph
from ai_forge.data_pipeline.verification import verify_example

__all__ = [
    "Hit",
    "Index",
    "MinerSettings",
    "MiningResult",
    "Repository",
    "Retriever",
    "SourceFile",
    "Split",
    "SplitSettings",
    "SymbolGraph",
    "SynthesisResult",
    "SynthesisSettings",
    "ValidatorSettings",
    "check_no_leak",
    "generate_qa_pairs",
    "mine",
    "mine_repository",
    "parse_repository",
    "read_repository",
    "split_by_file",
    "synthesize",
    "verify_example",
]
