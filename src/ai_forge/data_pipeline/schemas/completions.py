"""`Gap`: code that is taken out of a file; `CompletionExample`: one to train on, with what an editor would send besides."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas.raft_examples import Document

__all__ = ["CompletionExample", "Gap", "GapKind"]

GapKind = Literal["line", "block", "arguments", "body"]


class Gap(BaseModel):
    """What is taken out of a file, and what stands before and after it; with a `commit`, that commit wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    language: str
    kind: GapKind
    prefix: str
    text: str
    suffix: str
    commit: str | None = None

    @property
    def one_line(self) -> bool:
        """Whether an editor would ask for the rest of one line."""
        return "\n" not in self.text


class CompletionExample(Gap):
    """A gap of which, in a long file, the nearest part is kept, more than any prompt shows. `documents` are places in other files."""

    documents: tuple[Document, ...] = ()
