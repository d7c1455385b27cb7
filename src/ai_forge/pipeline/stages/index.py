"""Stage `index`: the retriever over the whole repository. It holds the blocks, so asking needs the repository no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.search.index import Index
from ai_forge.pipeline.embedder import embedder_of
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.workspace import file_sha256, stage_key

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run


class IndexSummary(Summary):
    """How many blocks can be found; `content` is the hash of the index's files."""

    blocks: int
    content: str

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.blocks} blocks"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    return {"mine": outputs.key("mine"), "embedder": embedder_of(run.settings)}


def _build(context: StageContext) -> IndexSummary:
    documents = context.opened.mine().documents
    index = Index.build(documents, embedder_of(context.run.settings), context.opened.graph(documents))
    index.save(context.folder)
    found = sorted(path for path in context.folder.rglob("*") if path.is_file())
    files = {str(path.relative_to(context.folder)): file_sha256(path) for path in found}
    return IndexSummary(blocks=len(index.blocks), content=stage_key(**files))


INDEX = Stage("index", ("mine",), 2, _inputs, _build, IndexSummary, ("ai_forge.data_pipeline.search.index",))
