"""Settings from their layers, each value with where it came from.

Precedence: default < the base's recipe (`models.yaml`) < a named one (`recipes.yaml`) < file < environment
(`AI_FORGE_TRAINING__RANK=32`) < flag.
All problems are reported together, unknown keys with the nearest known one. No file is read from the repository that is
mined: what a repository says never steers AI Forge.
"""

import difflib
import os
from collections.abc import Container, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ai_forge.config.models import load_models
from ai_forge.config.settings import Settings
from ai_forge.errors import InputError
from ai_forge.places import regular_bytes

ENVIRONMENT_PREFIX = "AI_FORGE_"

Layer = tuple[str, Mapping[str, object]]
"""A name to show, and dotted keys with their values."""


class LoadedSettings:
    """`settings`, and for each dotted key the name of the layer that set it."""

    def __init__(self, settings: Settings, sources: Mapping[str, str]) -> None:
        self.settings = settings
        self.sources = sources

    def rows(self) -> list[tuple[str, object, str]]:
        """(dotted key, value, source), in the order of the models."""
        values = flatten(self.settings.model_dump(), leaves=set(known_keys()))
        return [(key, value, self.sources.get(key, "default")) for key, value in values]


def flatten(tree: Mapping[str, Any], prefix: str = "", leaves: Container[str] = ()) -> Iterator[tuple[str, object]]:
    """The leaves of nested mappings with dotted keys; `leaves` are keys whose mappings are values.

    >>> list(flatten({"a": {"b": 1}, "c": 2}))
    [('a.b', 1), ('c', 2)]
    """
    for key, value in tree.items():
        # `rank_pattern` is a mapping and one value: a layer replaces it whole
        if isinstance(value, Mapping) and f"{prefix}{key}" not in leaves:
            yield from flatten(value, f"{prefix}{key}.", leaves)
        else:
            yield f"{prefix}{key}", value


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Every dotted key that can be set."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def load_recipes() -> dict[str, dict[str, object]]:
    """The named recipes of `recipes.yaml`: dotted keys with their values."""
    text = (resources.files("ai_forge.config") / "recipes.yaml").read_text(encoding="utf-8")
    leaves = set(known_keys())
    return {name: dict(flatten(recipe, leaves=leaves)) for name, recipe in yaml.safe_load(text).items()}


def recipe_layer(name: str) -> Layer:
    """The settings of a named recipe.

    Raises:
        InputError: there is none of that name.
    """
    known = load_recipes()
    if name not in known:
        raise InputError(f"There is no recipe {name!r}.", f"known are {', '.join(known)}.")
    return f"recipe {name}", known[name]


def file_layer(path: Path) -> Layer:
    """The settings of a YAML file.

    Raises:
        InputError: it cannot be read, or is not a mapping.
    """
    try:
        content = yaml.safe_load(regular_bytes(path).decode("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"The settings file {path} cannot be read: {error}", "correct it, or leave --config out."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"The settings file {path} holds a {type(content).__name__}, not a mapping of settings.",
            "write one setting a line: training.rank: 16.",
        )
    return f"file {path}", dict(flatten(content, leaves=set(known_keys())))


def environment_layer(environment: Mapping[str, str] = os.environ) -> Layer:
    """Settings such as `AI_FORGE_TRAINING__RANK=32`; `OLLAMA_HOST` counts as `runtime.ollama_host`.

    Raises:
        InputError: a value is not YAML.
    """
    values: dict[str, object] = {}
    if environment.get("OLLAMA_HOST"):
        values["runtime.ollama_host"] = environment["OLLAMA_HOST"]
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:  # AI_FORGE_HOME is no setting
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            try:
                values[key] = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise InputError(
                    f"The environment variable {name} holds {text!r}, which is no value.", "correct it, or unset it."
                ) from error
    return "environment", values


def load_settings(*layers: Layer) -> LoadedSettings:
    """Put `layers` (lowest first) over the defaults.

    The recipe that `models.yaml` has for the base lies between default and file; which base it is may itself come from any
    layer.

    Raises:
        InputError: one or more keys are unknown or values not allowed; the message names them all.
    """
    # first the base: which one it is decides the layer below all others
    base: object = Settings().training.base_model
    for _, values in layers:
        base = values.get("training.base_model", base)
    recipe: dict[str, object] = {}
    found = load_models().find(str(base))
    if found is not None:
        _, entry = found
        recipe = entry.recipe
    tree: dict[str, dict[str, object]] = {"training": {"base_model": base}}
    sources: dict[str, str] = {}
    problems: list[str] = []
    known = list(known_keys())
    for name, values in ((f"recipe of {base}", recipe), *layers):
        for key, value in values.items():
            if key not in known:
                near = [f"; did you mean {word}?" for word in difflib.get_close_matches(key, known, n=1, cutoff=0.5)]
                problems.append("".join([f"{key} ({name}) is not a setting", *near]))
                continue
            part, _, leaf = key.partition(".")
            tree.setdefault(part, {})[leaf] = value
            sources[key] = name
    settings = Settings()
    # validated even where a key is unknown: all problems are told at once
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"][:2])  # what follows is the place inside a list or mapping
            problems.append(f"{key} ({sources.get(key, 'default')}) is {item['input']!r}: {item['msg']}")
    if problems:
        message = "; ".join(problems)
        if not message.endswith("?"):
            message += "."
        raise InputError(message, "`ai-forge config show` lists every setting.")
    return LoadedSettings(settings, sources)
