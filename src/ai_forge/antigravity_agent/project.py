"""`ProjectConfig`: which repository a guardian keeps, in which workspace, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ai_forge.config import Settings, environment_layer, flatten, known_keys, load_settings, recipe_layer
from ai_forge.errors import InputError
from ai_forge.pipeline.identity import known_model_of
from ai_forge.workspace import Workspace

__all__ = ["ProjectConfig"]


class ProjectConfig(BaseModel):
    """A project. `settings` may be given as a mapping, nested or with dotted keys, over the environment's.

    `recipe` is `repository` (its code) or `handbook` (the rules of its `.agent` folder), `name` what the model is called,
    `home` the workspace (`AI_FORGE_HOME` where it is left out).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: Path
    recipe: str = "repository"
    name: str | None = None
    home: Path | None = None
    settings: Settings = Field(default_factory=lambda: load_settings(environment_layer()).settings)

    @model_validator(mode="before")
    @classmethod
    def _with_settings(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or isinstance(values.get("settings"), Settings):
            return values
        layers = [environment_layer()]
        if values.get("recipe", "repository") != "repository":
            layers.insert(0, recipe_layer(str(values["recipe"])))
        given = dict(flatten(values.get("settings") or {}, leaves=set(known_keys())))
        return {**values, "settings": load_settings(*layers, ("project", given)).settings}

    @classmethod
    def of(cls, given: ProjectConfig | Mapping[str, Any] | Path | str) -> ProjectConfig:
        """A project from itself, from a mapping of its fields, or from the path of its repository.

        Raises:
            InputError: a field or a setting is unknown or not allowed.
        """
        if isinstance(given, ProjectConfig):
            return given
        values = {"repository": given} if isinstance(given, Path | str) else given
        try:
            return cls.model_validate(values)
        except ValueError as error:
            raise InputError(f"This is no project: {error}", "give at least its repository.") from error

    def workspace(self) -> Workspace:
        """Where everything of it is kept."""
        return Workspace.open(self.home)

    def model(self, workspace: Workspace) -> str | None:
        """What its model is called; None where none was made yet."""
        if self.name is not None:
            return self.name
        try:
            return known_model_of(self.repository, self.recipe, workspace)
        except InputError:
            return None
