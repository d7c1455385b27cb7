"""Deploy and roll back: the runtime and the registry moved in step, by measurement.

    create in the runtime → check → name:latest → registry (the moment it counts) → old versions removed

What survives a crash: the registry's pointer is the truth and moves last, in one transaction. Before that the old
version is active whatever happens; a version that fails its check, or is interrupted, is removed from the runtime again
unless it was registered before. If the process dies between the last two steps, `name:latest` is ahead of the registry
until the next deployment or rollback, which set it again.

Callers that may run at the same time for one model hold a lock of its name; the registry itself is safe for several
processes. Which version deserves it is the verdict's word.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai_forge.errors import AIForgeError, RefusedError
from ai_forge.serving.deployment import Deployment
from ai_forge.serving.registry import Activation, DamagedRowError, Registry
from ai_forge.serving.runtime import Progress, Runtime, silent

# asks the new version in the runtime and raises `RefusedError` where it is not as it was trained
Check = Callable[[Runtime, Deployment], None]

# characters of an answer, or tokens where another build answers, that must be the same: later, rounding leads elsewhere
SAME_START = 8
NEAR_TIE_NATS = 1.0  # two tokens that are closer may be turned round by the rounding of another build


@dataclass(frozen=True)
class ExpectedAnswer:
    """A rendered prompt and how the file continued it greedily before."""

    prompt: str
    text: str


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
    expected: Sequence[ExpectedAnswer] = (),
    metrics: Mapping[str, Any] | None = None,
    keep: int = 3,
    progress: Progress = silent,
) -> Deployed:
    """Make `deployment` the active version of its model; `keep` versions stay for rollback.

    `expected` is what the file answered to a few prompts before; see `require_expected`. Deploying what is active and
    present already asks the runtime twice and does nothing.

    Raises:
        AIForgeError: what `create` or `check` raised. The version that was active before still is.
    """
    started = time.monotonic()
    known = registry.check_unchanged(deployment)
    try:
        current = registry.active(deployment.name)
    except DamagedRowError:  # this deployment is how that is mended
        current = None
    is_active = current is not None and (current.version, current.runtime) == (deployment.version, runtime.kind)
    if current is not None and is_active and runtime.is_whole(deployment.model):
        if runtime.active(deployment.name) != deployment.version:  # another deployment died half-way
            runtime.activate(deployment.name, deployment.version)
        registry.register(deployment, metrics)  # how it is asked may be new
        return Deployed(current, False, (), time.monotonic() - started)
    latest = runtime.active(deployment.name)
    try:
        runtime.create(deployment, progress)
        progress("checking what it answers", 0, 0)
        check(runtime, deployment)
        require_expected(runtime, deployment, expected)
        runtime.activate(deployment.name, deployment.version)
        registry.register(deployment, metrics)
        activation = registry.activate(deployment.name, deployment.version, runtime.kind)
    except BaseException:  # Ctrl-C as well: half a deployment is worse than none
        with contextlib.suppress(AIForgeError):  # the runtime may be what failed
            if latest is not None and runtime.active(deployment.name) != latest:
                runtime.activate(deployment.name, latest)
            if not known:
                runtime.delete(deployment.model)
        raise
    removed = prune(deployment.name, runtime, registry, keep)
    return Deployed(activation, True, removed, time.monotonic() - started)


def require_expected(runtime: Runtime, deployment: Deployment, expected: Sequence[ExpectedAnswer]) -> None:
    """At least half of the answers must begin as the file's did before: a damaged model answers something, but not that.

    Another build of llama.cpp turns near ties round (seen with Ollama: none of three first words the same after three steps of
    training): there each of the first tokens must be about as likely as the likeliest.

    Raises:
        RefusedError: fewer do.
    """
    begun = [answer for answer in expected if answer.text.strip()]
    others = [said for answer in begun if (said := _said_instead(runtime, deployment.model, answer)) is not None]
    if len(others) > len(begun) / 2:
        raise RefusedError(
            f"{deployment.model} answers {len(begun) - len(others)} of {len(begun)} prompts as its file did before; {others[0]}.",
            "export it again: ai-forge export; the version before stays active.",
        )


def _said_instead(runtime: Runtime, model: str, expected: ExpectedAnswer) -> str | None:
    """What `model` says in place of the beginning of the answer; None where it says that."""
    likely = runtime.likely(model, expected.prompt)
    if likely is None:
        start = expected.text.strip()[:SAME_START]
        served = runtime.greedy(model, expected.prompt, SAME_START).text.strip()
        return None if served.startswith(start) else f"it begins with {served[:40]!r} instead of {start!r}"
    before = expected.prompt
    left = expected.text.partition("\ufffd")[0]  # up to a character of which a token holds a part
    for n_said in range(SAME_START):
        if not left:
            return None
        if n_said:
            likely = runtime.likely(model, before)
        if not likely:
            return None
        best = max(likely, key=likely.__getitem__)
        token = max(
            (token for token in likely if token and left.startswith(token)), key=likely.__getitem__, default=None
        )
        if token is None or likely[best] - likely[token] > NEAR_TIE_NATS:
            return f"it goes on with {best[:40]!r} instead of {left[:SAME_START]!r}"
        left, before = left.removeprefix(token), before + token
    return None


def rollback(name: str, runtime: Runtime, registry: Registry, *, progress: Progress = silent) -> Activation:
    """Return to the version that the active one replaced, and make it present in `runtime` first if it is not.

    Raises:
        InputError: nothing of that name is active.
        RefusedError: no earlier version is kept.
        PrerequisiteError: it has to be created again and its file is gone.
    """
    target = registry.rollback_target(name)
    version = registry.find(name, target.version)
    if version is not None and not runtime.is_whole(version.deployment.model):
        runtime.create(version.deployment, progress)
    runtime.activate(name, target.version)
    return registry.rollback(name, runtime.kind)


def prune(name: str, runtime: Runtime, registry: Registry, keep: int) -> tuple[str, ...]:
    """Remove the versions beyond the `keep` newest from runtime and registry; returns what was removed."""
    removed = []
    for version in registry.prunable(name, keep):
        # in this order: a process that dies between leaves a row, and the next pruning deletes again, which is harmless
        runtime.delete(version.deployment.model)
        registry.forget(name, version.deployment.version)
        removed.append(version.deployment.version)
    return tuple(removed)
