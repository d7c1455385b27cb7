"""Decide: whether to retrain, a pure function of what was observed and the settings. It reads numbers and counts names.

The default: 20 or more files changed since the last training, or a tag `release/*`. Other triggers are off until they are set. Of a
handbook any change that makes other training pairs is enough.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from ai_forge.antigravity_agent.observing.observe import Observation
from ai_forge.config import GuardianSettings

__all__ = ["Decision", "decide"]

Metric = int | float | str | bool | None


class Decision(BaseModel):
    """Whether to retrain and why, with the figures that this was read off."""

    model_config = ConfigDict(frozen=True)

    should_retrain: bool
    reason: str
    metrics: dict[str, Metric]


def decide(observation: Observation, settings: GuardianSettings) -> Decision:
    """The decision on an observation. The same two always give the same one."""
    metrics = metrics_of(observation)
    if observation.problem is not None:
        return Decision(should_retrain=False, reason="the repository cannot be read", metrics=metrics)
    if observation.given_up is not None:
        text = f"nothing changed since the last cycle, which was {observation.given_up}"
        return Decision(should_retrain=False, reason=text, metrics=metrics)
    if observation.last_training is None:
        return Decision(should_retrain=True, reason="no model was trained yet", metrics=metrics)
    triggers = list(_triggers(observation, settings))
    if triggers:
        return Decision(should_retrain=True, reason="; ".join(triggers), metrics=metrics)
    n = len(observation.files)
    text = "nothing changed"
    if n:
        text = f"{n} of {settings.min_files} files changed since the last training"
    return Decision(should_retrain=False, reason=text, metrics=metrics)


def _triggers(seen: Observation, settings: GuardianSettings) -> Iterator[str]:
    """What asks for a training, in words without any of the repository's own."""
    n = len(seen.files)
    if seen.recipe == "handbook":  # its files are named only where other pairs would be trained on: one is enough
        if n:
            yield "the handbook's rules changed"
        return
    if n >= settings.min_files:
        yield f"{n} files changed since the last training (at least {settings.min_files})"
    if seen.tags:
        yield f"{len(seen.tags)} new release tag{'s' if len(seen.tags) > 1 else ''}"
    n_critical = len(seen.critical_files)
    if settings.min_critical_files is not None and n_critical >= settings.min_critical_files:
        yield f"{n_critical} critical files changed (at least {settings.min_critical_files})"
    if _reached(seen.block_share, settings.min_block_share):
        yield f"{seen.block_share:.0%} of the blocks changed (at least {settings.min_block_share:.0%})"
    if n and _reached(seen.age_days, settings.max_age_days):
        yield f"the model is {seen.age_days:.1f} days old (at most {settings.max_age_days:g})"
    if _reached(seen.loss_rise, settings.max_loss_rise):
        yield f"loss on changed code is {seen.loss_rise:+.0%} (at most {settings.max_loss_rise:+.0%})"


def _reached(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value >= limit


def metrics_of(seen: Observation) -> dict[str, Metric]:
    """The figures of an observation; None is not measured."""
    trained = seen.last_training
    return {
        "commits": seen.commits,
        "files_changed": len(seen.files),
        "files_uncommitted": seen.n_uncommitted,
        "critical_files_changed": len(seen.critical_files),
        "release_tags": len(seen.tags),
        "block_share_changed": seen.block_share,
        "age_days": None if seen.age_days is None else round(seen.age_days, 2),
        "loss_rise": seen.loss_rise,
        "compared_with": seen.compared_with,
        "history_rewritten": seen.rewritten,
        "last_training": None if trained is None else trained.version,
        "last_commit": None if trained is None else trained.commit,
        "head": seen.head,
    }
