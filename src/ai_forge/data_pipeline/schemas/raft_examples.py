"""`RAFTExample`: a question, the documents shown with it, an answer that cites its oracle (RAFT, arXiv 2403.10131)."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ai_forge.data_pipeline.schemas.code_blocks import CodeBlock, content_id

Difficulty = Literal["easy", "medium", "hard"]
FactKind = Literal["name", "parameter", "exception", "call", "base", "method", "location", "type", "decorator"]


def difficulty_of(n_oracles: int, n_distractors: int) -> Difficulty:
    """How hard it is to find the answer among the documents that are shown.

    >>> difficulty_of(1, 0), difficulty_of(0, 2), difficulty_of(1, 3), difficulty_of(2, 0)
    ('easy', 'medium', 'hard', 'hard')
    """
    if n_oracles > 1 or n_distractors > 2:
        return "hard"
    return "medium" if n_distractors else "easy"


class Document(BaseModel):
    """One code block, section or commit as it is shown in a prompt, and where it comes from.

    Provenance is `None` where there is none: a commit message has no path and no lines, what lies outside of git no commit;
    datasets that were written before these fields existed have none of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    block_id: str
    name: str = Field(description="the block's qualified name")
    citation: str = Field(description="`path:first-last`")
    language: str
    text: str
    path: str | None = Field(default=None, description="relative to the repository")
    first_line: int | None = Field(default=None, ge=1)
    last_line: int | None = Field(default=None, ge=1)
    commit: str | None = Field(default=None, description="the repository's commit when it was read; a commit's own id")
    blob: str | None = Field(default=None, description="git's blob id of the file")

    @classmethod
    def from_block(cls, block: CodeBlock) -> "Document":
        """The block as a document."""
        return cls(
            block_id=block.id,
            name=block.metadata.qualified_name,
            citation=block.citation,
            language=block.language,
            text=block.source_code,
            path=block.path,
            first_line=block.metadata.first_line,
            last_line=block.metadata.last_line,
            commit=block.metadata.commit,
            blob=block.metadata.blob_id,
        )


def prompt_order(documents: Iterable[Document]) -> tuple[Document, ...]:
    """The order in which documents are shown: fixed by their content alone.

    So the oracle's place tells nothing, and prompts about the same documents begin with the same tokens.
    """
    shown = tuple(documents)
    # By a hash of both: by its own alone, a block with a low one would come first wherever it is shown.
    together = content_id(*sorted(document.block_id for document in shown))
    return tuple(sorted(shown, key=lambda document: content_id(together, document.block_id)))


class Fact(BaseModel):
    """One thing the answer must state, checkable against the code: a parameter's name, an exception, a callee."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FactKind
    value: str


class RAFTExample(BaseModel):
    """A question with oracle and distractor documents, a reasoning that cites the oracle, and the answer.

    No oracle document means that the context does not hold the answer, and `final_answer` says so. `facts` are what
    the judge checks; `wrong_facts` are values of the same kinds that only the distractors hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    oracle_documents: tuple[Document, ...]
    distractor_documents: tuple[Document, ...]
    reasoning: str
    final_answer: str
    difficulty: Difficulty
    family: str = Field(description="question family: purpose, parameters, exceptions, dependencies, …")
    subject_id: str = Field(description="id of the block the question is about")
    subject_path: str = Field(description="file of that block; the split is by file")
    facts: tuple[Fact, ...] = ()
    wrong_facts: tuple[Fact, ...] = ()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without the id of the original."""
        copied = super().model_copy(update=update, deep=deep)
        # A cached property lies among the fields and is copied with them; it would be the id of other content.
        copied.__dict__.pop("id", None)
        return copied

    @cached_property
    def id(self) -> str:
        """Content hash: equal for equal examples in every run."""
        shown = [d.block_id for d in (*self.oracle_documents, *self.distractor_documents)]
        return content_id(self.question, *shown, self.reasoning, self.final_answer)

    @property
    def shown_documents(self) -> tuple[Document, ...]:
        """Oracle and distractors in the order of the prompt."""
        return prompt_order((*self.oracle_documents, *self.distractor_documents))

    @property
    def context_id(self) -> str:
        """Equal for examples that show the same documents."""
        return content_id(*(document.block_id for document in self.shown_documents))

    @property
    def target(self) -> str:
        """The assistant's turn: reasoning, then answer."""
        return f"{self.reasoning}\n{self.final_answer}".strip()
