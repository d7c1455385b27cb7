"""What several stages of a run read, opened once in a process: the base, the repository, its blocks, the index.

Nothing here makes anything. A repository that is no longer what the run was made from is refused: the stages that are done
stay good, and everything from the index on needs it no more.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING

from ai_forge.data_pipeline.datasets.storage import read_examples
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.source.repository import Repository, read_repository
from ai_forge.errors import InputError
from ai_forge.events import Notice, Progress, Sink
from ai_forge.file_cache import FileCache
from ai_forge.model_files.base import Base
from ai_forge.pipeline.stage import Outputs
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.workspace import Workspace, stage_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_forge.data_pipeline.graph.symbols import SymbolGraph
    from ai_forge.data_pipeline.schemas import CodeBlock
    from ai_forge.data_pipeline.search.question_index import QuestionIndex
    from ai_forge.pipeline.run import Run


def files_state(repository: Repository) -> str:
    """The hash of a repository's source files with what holds for them."""
    files = [(file.path, file.blob_id, file.folder_licence) for file in repository.files]
    return stage_key(files=files, licence=repository.licence)


class Opened:
    """The inputs of a run's stages."""

    def __init__(self, run: Run, workspace: Workspace, emit: Sink) -> None:
        self._run = run
        self._workspace = workspace
        self._emit = emit
        self._mined: MiningResult | None = None
        self._indexes: dict[str, QuestionIndex] = {}

    @cached_property
    def base(self) -> Base:
        """The base model.

        Raises:
            InputError: under its name lie other weights than when the run was made.
        """
        base = resolve_base(self._run.settings.training.base_model, cache_dir=self._workspace.cache_dir)
        if base.fingerprint != self._run.base:
            raise InputError(
                f"The base {base.name} has changed since run {self._run.id} was made.", "start it anew: ai-forge run."
            )
        return base

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """The tuned model's tokenizer, with the template that it is asked through."""
        tokenizer = ChatTokenizer(self.base.folder, self._run.settings.training.prompt_template)
        if tokenizer.replaced:
            text = (
                f"The base's chat template leaves out system messages; the plain one of {tokenizer.replaced} is used."
            )
            self._emit(Notice("info", text))
        return tokenizer

    @cached_property
    def repository(self) -> Repository:
        """The repository's files.

        Raises:
            InputError: they are not what the run was made from.
        """
        max_file_bytes = self._run.settings.miner.max_file_bytes
        repository = read_repository(self._run.repository, max_file_bytes=max_file_bytes)
        if files_state(repository) != self._run.sources["files"]:
            raise InputError(
                f"The files of {repository.root} have changed since run {self._run.id} was made.",
                "start it anew: ai-forge run. What was made of unchanged files is kept.",
            )
        return repository

    def mine(self, progress: Progress | None = None) -> MiningResult:
        """The repository's blocks. Files that were mined before, in whatever state of the repository, are not mined again."""
        if self._mined is None:
            # one cache a repository: how many values are kept follows from how many files it has
            place = stage_key(root=str(self.repository.root))
            cache = FileCache(self._workspace.cache_dir / "files" / f"{place}.db")
            self._mined = mine_repository(self.repository, self._run.settings.miner, progress=progress, cache=cache)
        return self._mined

    def graph(self, blocks: Sequence[CodeBlock]) -> SymbolGraph:
        """Who calls whom among `blocks`, which are of this repository."""
        from ai_forge.data_pipeline.graph.symbols import SymbolGraph

        sources = {file.path: file.content for file in self.repository.files}
        return SymbolGraph(blocks, self.mine().imports, sources)

    def index(self, outputs: Outputs) -> QuestionIndex:
        """What questions are answered from, as the stage `index` made it."""
        from ai_forge.data_pipeline.search.question_index import QuestionIndex

        key = outputs.key("index")  # by key: a runner may be asked again after the index was made anew
        if key not in self._indexes:
            self._indexes[key] = QuestionIndex.load(outputs.folder("index"))
        return self._indexes[key]

    def examples(self, outputs: Outputs, side: str) -> list[RAFTExample]:
        """The examples of a side of the dataset."""
        return read_examples(outputs.folder("dataset") / f"{side}.jsonl")

    def split(self, outputs: Outputs) -> dict[str, list[str]]:
        """The files of each side."""
        text = (outputs.folder("dataset") / "split.json").read_text(encoding="utf-8")
        files: dict[str, list[str]] = json.loads(text)
        return files
