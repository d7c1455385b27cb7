"""`PreferencePair`: a prompt with a better and a worse answer, as DPO takes it (arXiv 2305.18290)."""

from functools import cached_property
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ai_forge.data_pipeline.schemas.code_blocks import content_id

PreferenceKind = Literal["fix", "revert", "review", "correction", "wrong_citation", "invented_symbol"]


class ChatMessage(BaseModel):
    """One turn of a prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class PairOrigin(BaseModel):
    """Where a pair comes from. `path` is the file whose side of the split the pair is on.

    From git: `commit` holds the better state and `parent` the worse one, the lines are those of the better state.
    From an answer: `example_id` is the `RAFTExample`. From a handbook: `rule_id`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    unit: str | None = Field(default=None, description="qualified name")
    first_line: int | None = Field(default=None, ge=1)
    last_line: int | None = Field(default=None, ge=1)
    commit: str | None = None
    parent: str | None = None
    path_before: str | None = Field(default=None, description="where the commit moved the file")
    example_id: str | None = None
    rule_id: str | None = None


class PreferencePair(BaseModel):
    """`chosen` is the better answer to `prompt`, whose last turn is the user's; `rejected` another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: tuple[ChatMessage, ...] = Field(min_length=1)
    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)
    kind: PreferenceKind
    origin: PairOrigin

    @model_validator(mode="after")
    def _is_a_choice(self) -> Self:
        if self.prompt[-1].role != "user":
            raise ValueError(f"the last turn of a prompt is the user's, not the {self.prompt[-1].role}'s")
        if self.chosen.strip() == self.rejected.strip():
            raise ValueError("chosen and rejected are the same text")
        return self

    @cached_property
    def id(self) -> str:
        """Content hash: equal for equal pairs in every run."""
        turns = [part for turn in self.prompt for part in (turn.role, turn.content)]
        return content_id(*turns, self.chosen, self.rejected)
