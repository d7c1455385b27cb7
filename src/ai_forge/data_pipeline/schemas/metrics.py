"""`DataQualityMetrics`: what the validator measures on a dataset."""

from pydantic import BaseModel, ConfigDict, Field


class DataQualityMetrics(BaseModel):
    """Scores in 0–1 (1 is best) and counts. `None` is "unscored", never 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_examples: int = Field(ge=0)
    overall: float | None = None
    relevance: float | None = Field(default=None, description="mean cosine of question and oracle")
    diversity: float | None = Field(default=None, description="1 − mean pairwise similarity of questions")
    difficulty_balance: float | None = Field(default=None, description="normalised entropy of easy/medium/hard")
    n_duplicates: int = 0
    n_near_duplicates: int = 0
    by_difficulty: dict[str, int] = {}
    by_family: dict[str, int] = {}
    rejected: dict[str, int] = {}
