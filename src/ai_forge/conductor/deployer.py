"""Deploy and roll back: the runtime and the registry moved in step, by measurement.

    create in the runtime → check → name:latest → registry (the moment it counts) → old versions removed

What survives a crash: the registry's pointer is the truth and moves last, in one transaction. Before that the old
version is active whatever happens; a version that fails its check, or is interrupted, is removed from the runtime again
unless it was registered before. If the process dies between the last two steps, `name:latest` is ahead of the registry
until the next deployment or rollback, which set it again.

Callers that may run at the same time hold `Workspace.lock("deploy")`. Which version deserves it is the verdict's word.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ai_forge.conductor.deployment import Deployment
from ai_forge.conductor.registry import Activation, Registry
from ai_forge.conductor.runtime import Progress, Runtime, silent
from ai_forge.errors import AIForgeError

Check = Callable[[Runtime, Deployment], None]
"""Asks the new version in the runtime and raises `RefusedError` where it is not as it was trained."""


@dataclass(frozen=True)
class Deployed:
    """How a deployment ended. `changed` is False where the version was active already; `removed` are old versions."""

    activation: Activation
    changed: bool
    removed: tuple[str, ...]
    seconds: float


def deploy(
    deployment: Deployment,
    runtime: Runtime,
    registry: Registry,
    *,
    check: Check,
    metrics: Mapping[str, Any] | None = None,
    keep: int = 3,
    progress: Progress = silent,
) -> Deployed:
    """Make `deployment` the active version of its model; `keep` versions stay for rollback.

    Deploying what is active and present already asks the runtime twice and does nothing.

    Raises:
        AIForgeError: what `create` or `check` raised. The version that was active before still is.
    """
    started = time.monotonic()
    known = registry.check_unchanged(deployment)
    current = registry.active(deployment.name)
    is_active = current is not None and (current.version, current.runtime) == (deployment.version, runtime.kind)
    if current is not None and is_active and is_present(deployment, runtime):
        if runtime.active(deployment.name) != deployment.version:
            runtime.activate(deployment.name, deployment.version)
        registry.register(deployment, metrics)  # how it is asked may be new
        return Deployed(current, False, (), time.monotonic() - started)
    latest = runtime.active(deployment.name)
    try:
        runtime.create(deployment, progress)
        progress("checking what it answers", 0, 0)
        check(runtime, deployment)
        runtime.activate(deployment.name, deployment.version)
        registry.register(deployment, metrics)
        activation = registry.activate(deployment.name, deployment.version, runtime.kind)
    except BaseException:
        with contextlib.suppress(AIForgeError):  # the runtime may be what failed
            if latest is not None and runtime.active(deployment.name) != latest:
                runtime.activate(deployment.name, latest)
            if not known:
                runtime.delete(deployment.model)
        raise
    removed = prune(deployment.name, runtime, registry, keep)
    return Deployed(activation, True, removed, time.monotonic() - started)


def rollback(name: str, runtime: Runtime, registry: Registry, *, progress: Progress = silent) -> Activation:
    """Return to the version that the active one replaced, and make it present in `runtime` first if it is not.

    Raises:
        InputError: nothing of that name is active.
        RefusedError: no earlier version is kept.
        PrerequisiteError: it has to be created again and its file is gone.
    """
    target = registry.rollback_target(name)
    version = registry.find(name, target.version)
    if version is not None and not is_present(version.deployment, runtime):
        runtime.create(version.deployment, progress)
    runtime.activate(name, target.version)
    return registry.rollback(name, runtime.kind)


def prune(name: str, runtime: Runtime, registry: Registry, keep: int) -> tuple[str, ...]:
    """Remove the versions beyond the `keep` newest from runtime and registry; returns what was removed."""
    removed = []
    for version in registry.prunable(name, keep):
        runtime.delete(version.deployment.model)
        registry.forget(name, version.deployment.version)
        removed.append(version.deployment.version)
    return tuple(removed)


def is_present(deployment: Deployment, runtime: Runtime) -> bool:
    """Whether the runtime holds this version."""
    return any(served.model == deployment.model for served in runtime.models())
