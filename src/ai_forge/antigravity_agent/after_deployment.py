"""After a deployment: the served model is asked again what it was asked then, and the version before returns where it fails.

`expected.json` beside a deployed version's index holds how the trainer's model began to answer a few prompts. A runtime that was
updated, a file that was damaged, a template that was changed show in what is answered now. A version that was taken back, by this or
by a person, is not deployed again by the guardian.
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from ai_forge.errors import AIForgeError, RefusedError, TransientError
from ai_forge.pipeline import actions
from ai_forge.serving.choosing import choose_runtime
from ai_forge.serving.deployer import ExpectedAnswer, require_expected
from ai_forge.serving.registry import Registry

if TYPE_CHECKING:
    from ai_forge.antigravity_agent.repo_guardian import RepoGuardian

__all__ = ["broken", "take_back_if_broken"]


def broken(guardian: RepoGuardian) -> str | None:
    """What is wrong with the answers of the deployed version; None where nothing is, or nothing can be told.

    Raises:
        AIForgeError: the runtime is not there, which says nothing of the version.
    """
    workspace, model = guardian.workspace, guardian.project.model(guardian.workspace)
    if model is None or not workspace.registry_path.is_file():
        return None
    with Registry(workspace.registry_path) as registry:
        active = registry.active(model)
        version = None if active is None else registry.find(model, active.version)
    if active is None or version is None:
        return None
    expected = _expected(guardian, model, active.version)
    if not expected:
        return None
    settings = guardian.project.settings.runtime.model_copy(update={"kind": active.runtime})
    try:
        version.deployment.check_file()
    except AIForgeError as error:
        return error.message
    if active.runtime != "embedded":  # Ollama holds a file by its hash: damage is found without asking
        return None
    with closing(choose_runtime(settings, workspace)) as runtime:
        try:
            require_expected(runtime, version.deployment, expected)
        except RefusedError as error:
            return error.message
    return None


def _expected(guardian: RepoGuardian, model: str, version: str) -> list[ExpectedAnswer]:
    path = guardian.workspace.served_dir / model / version / "expected.json"
    try:
        return [ExpectedAnswer(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # deployed by hand, or by a version that did not keep it
        return []


def take_back_if_broken(guardian: RepoGuardian) -> str | None:
    """Return to the version before where the deployed one answers otherwise than it was deployed with; what was done, in a
    sentence, or None where all is well."""
    try:
        problem = broken(guardian)
        if problem is None:
            return None
        model = str(guardian.project.model(guardian.workspace))
        activation = actions.rollback(model, guardian.project.settings.runtime, guardian.workspace)
    except TransientError:  # a deployment is just under way: the next look sees what came of it
        return None
    except RefusedError as error:
        return f"{problem} {error.message}"
    except AIForgeError as error:
        return f"The deployed model could not be checked: {error.message}"
    return f"{problem} {activation.name}:{activation.version} is active again."
