"""`CompletionExample`: code that was taken out of a file, with what stands around it and what an editor would send besides."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas.raft_examples import Document

GapKind = Literal["line", "block", "arguments", "body"]


class CompletionExample(BaseModel):
    """`text` stood between the ends of `prefix` and `suffix` in `path`; with a `commit`, that commit wrote it.

    Of a long file the nearest part is kept, more than any prompt shows. `documents` are places in other files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    language: str
    kind: GapKind
    prefix: str
    text: str
    suffix: str
    commit: str | None = None
    documents: tuple[Document, ...] = ()
