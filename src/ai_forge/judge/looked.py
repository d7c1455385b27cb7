"""What was found by looking at one answer, kept beside it: names that exist nowhere, code that compiles, a refusal."""

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas import Document


class Looked(BaseModel):
    """What one answer holds."""

    model_config = ConfigDict(frozen=True)

    inventions: tuple[str, ...]
    """`kind: name` of what exists neither in what was shown, nor in the repository, nor in a library."""
    code: tuple[tuple[str, bool], ...]
    """Language of each piece of code, and whether it compiles or has no syntax error."""
    refused: bool
    cited_shown: bool | None
    """Whether all that is cited was shown; None for an answer that cites nothing."""


Look = Callable[[str, str, Sequence[Document]], Looked]
"""Looks at an answer to a question of a model that was shown these documents."""


class ServedSpeed(BaseModel):
    """How fast the deployed file answers one question at a time on this machine: medians and rates over `n_prompts`."""

    model_config = ConfigDict(frozen=True)

    first_token_s: float
    tokens_per_s: float | None
    """After the first token; None where no answer was longer."""
    n_prompts: int
    prompt_tokens: float
    """Mean length of what was read before it answered."""
