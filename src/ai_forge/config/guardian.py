"""When the Repo Guardian retrains, what it does not deploy, and whom it tells."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GuardianSettings"]


class GuardianSettings(BaseModel):
    """Any one trigger is enough to retrain; those that are None are measured and told, and decide nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_files: int = Field(20, ge=1, description="retrain when this many files changed since the last training")
    tags: tuple[str, ...] = Field(("release/*",), description="retrain when HEAD has a new tag of such a name")
    critical_paths: tuple[str, ...] = Field(("src/core/**",), description="globs of files that count as critical")
    min_critical_files: int | None = Field(None, ge=1, description="retrain when this many critical files changed")
    min_block_share: float | None = Field(
        None, gt=0, le=1, description="retrain when this share of the code's blocks changed, 0–1"
    )
    max_age_days: float | None = Field(
        None, gt=0, description="retrain when the model is this old, days, and anything changed"
    )
    max_loss_rise: float | None = Field(
        None,
        gt=0,
        description="retrain when the deployed model's loss on today's changed code is this much above that on its held-out "
        "code, share",
    )
    loss_budget_s: float = Field(
        0.0, ge=0, le=3600, description="time for measuring that loss at each look, seconds; 0 does not measure"
    )
    min_quality: float = Field(
        0.6, ge=0, le=1, description="mean quality of the examples below which nothing is trained"
    )
    max_documentation_fall: float = Field(
        0.2,
        gt=0,
        le=1,
        description="by how much the share of documentation that speaks of its code may fall against the last training, 0–1; "
        "beyond it nothing is trained",
    )
    retries: int = Field(2, ge=0, le=10, description="how often a task is tried again that may succeed then")
    check_every_h: float = Field(24.0, gt=0, le=720, description="`watch` looks at least this often, hours")
    debounce_s: float = Field(30.0, ge=0, le=3600, description="`watch` looks when a change is this long ago, seconds")
    desktop: bool = Field(
        True, description="a desktop notification when a cycle ends or fails, where there is a desktop"
    )
    webhook: str | None = Field(
        None, description="address that is told too, signed with the secret in AI_FORGE_WEBHOOK_SECRET"
    )
    agent_artifacts: bool = Field(
        False, description="artifacts are also written to the repository's .agents/artifacts/, where agents look"
    )
