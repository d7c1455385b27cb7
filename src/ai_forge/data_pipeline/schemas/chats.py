"""`ChatExample`: a conversation that ends with the answer to be learnt; `TextExample`: text as it is."""

from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ai_forge.data_pipeline.schemas.code_blocks import content_id
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage


class ChatExample(BaseModel):
    """Turns of user and assistant by turns, after a system message or none; the last is the assistant's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[ChatMessage, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _turns_alternate(self) -> Self:
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        if turns != ["user", "assistant"] * (len(turns) // 2) or not turns:
            expected = "turns must go user, assistant, …, assistant after an optional system"
            raise ValueError(f"{expected}; got {', '.join(roles)}")
        return self

    @cached_property
    def id(self) -> str:
        """Content hash: equal for equal conversations in every run."""
        return content_id(*(part for turn in self.messages for part in (turn.role, turn.content)))


class TextExample(BaseModel):
    """Text without roles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1)

    @cached_property
    def id(self) -> str:
        """Content hash: equal for equal texts in every run."""
        return content_id(self.text)
