"""`AlpacaPair`: an instruction, its input and the output; `HandbookPair`: one that an agent's handbook gave."""

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_forge.data_pipeline.schemas.code_blocks import content_id

PairKind = Literal["section", "document", "scenario", "correction", "step", "skill"]
ALPACA_FIELDS = ("instruction", "input", "output")


class AlpacaPair(BaseModel):
    """The three fields of the Alpaca format. `input` may be empty; the other two are not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: str = Field(min_length=1)
    input: str = ""
    output: str = Field(min_length=1)

    @cached_property
    def id(self) -> str:
        """Content hash: equal for equal pairs in every run."""
        return content_id(self.instruction, self.input, self.output)

    @property
    def user_turn(self) -> str:
        """Instruction and input as one message."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction

    def alpaca(self) -> dict[str, str]:
        """The three fields alone."""
        return {"instruction": self.instruction, "input": self.input, "output": self.output}


class HandbookPair(AlpacaPair):
    """A pair with its place in the handbook. All pairs of one rule share `rule_id`, and so one side of the split."""

    kind: PairKind
    path: str = Field(description="file, relative to the agent folder")
    first_line: int = Field(ge=1)
    last_line: int = Field(ge=1)
    rule_id: str
