"""Stage `index`: what a question is answered from: code, documentation, configuration, commits.

The judge asks through the same index as whoever asks the deployed model, so what is judged is what is served. It holds the
text of everything it can find: asking needs the repository no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.search.embedders.embedding import default_embedder, embedder_named
from ai_forge.data_pipeline.search.entries import block_entries, entries_beside_code
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.pipeline.embedder import with_address
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.workspace import file_sha256, stage_key

if TYPE_CHECKING:
    from ai_forge.config import Settings
    from ai_forge.pipeline.run import Run

BESIDE_CODE = ("documentation", "configuration", "commit")


class IndexSummary(Summary):
    """Entries that can be found, by kind; `content` is the hash of the index's files."""

    entries: int
    by_kind: dict[str, int]
    embedder: str
    content: str

    def sentence(self) -> str:
        """In a few words."""
        beside = [f"{self.by_kind[kind]} of {kind}" for kind in BESIDE_CODE if kind in self.by_kind]
        return ", ".join([f"{self.entries} entries", *beside])


def question_embedder(settings: Settings) -> str:
    """The embedder of people's questions, with `auto` made a name."""
    if settings.runtime.embedder == "auto":
        return default_embedder()
    return with_address(settings.runtime.embedder, settings)


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    embedder = question_embedder(run.settings)
    return {"mine": outputs.key("mine"), "beside_code": run.sources["beside_code"], "embedder": embedder}


def _build(context: StageContext) -> IndexSummary:
    name = question_embedder(context.run.settings)
    blocks = block_entries(context.opened.mine(context.report).documents)
    entries = [*blocks, *entries_beside_code(context.opened.repository)]
    what = f"{len(entries)} entries, embedder {name}"
    context.report(0, 0, what)
    embedder = None if name == "none" else embedder_named(name)
    # vectors are kept for the repository, not for the run: of a changed one only new texts are embedded
    kept = context.workspace.cache_dir / "vectors" / stage_key(repository=str(context.run.repository))
    index = QuestionIndex.build(
        entries, embedder, vectors_folder=kept, progress=lambda done, total: context.report(done, total, what)
    )
    index.save(context.folder)
    paths = sorted(path for path in context.folder.rglob("*") if path.is_file())
    files = {str(path.relative_to(context.folder)): file_sha256(path) for path in paths}
    return IndexSummary(
        entries=len(entries),
        by_kind=dict(Counter(entry.kind for entry in entries)),
        embedder=name,
        content=stage_key(**files),
    )


MADE_OF = ("ai_forge.data_pipeline.search.question_index", "ai_forge.data_pipeline.search.entries")
INDEX = Stage("index", ("mine",), 5, _inputs, _build, IndexSummary, MADE_OF)
