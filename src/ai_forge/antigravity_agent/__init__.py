"""The Repo Guardian: watches a repository and keeps its model fresh; what agents drive it with.

    observe ─► decide ─► plan ─► tasks of a cycle ─► artifacts

`observe` looks at a repository and at what its model was trained on, `decide` is a pure function of that and the settings. The
exports are loaded on first use.
"""

from typing import TYPE_CHECKING

from ai_forge.lazy import lazy_exports

if TYPE_CHECKING:
    from ai_forge.antigravity_agent.decide import Decision
    from ai_forge.antigravity_agent.observing.observe import Observation
    from ai_forge.antigravity_agent.project import ProjectConfig
    from ai_forge.antigravity_agent.repo_guardian import RepoGuardian

_HOMES = {
    "Decision": "decide",
    "Observation": "observing.observe",
    "ProjectConfig": "project",
    "RepoGuardian": "repo_guardian",
}
# `decide` is a module, so the function of that name is imported from it and not from here
__all__ = ["Decision", "Observation", "ProjectConfig", "RepoGuardian"]
__getattr__ = lazy_exports(__name__, _HOMES)
