"""The flags that commands share, and what they mean as settings."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ai_forge.config import LoadedSettings, environment_layer, file_layer, load_settings, recipe_layer
from ai_forge.errors import InputError
from ai_forge.events import Sink, ignore
from ai_forge.pipeline.handbook import HandbookPipeline
from ai_forge.pipeline.repository import Pipeline
from ai_forge.workspace import Workspace

PIPELINES: dict[str | None, type[Pipeline]] = {kind.recipe: kind for kind in (Pipeline, HandbookPipeline)}
"""What a recipe works on; its settings stand in `config/recipes.yaml`."""

Repo = Annotated[Path, typer.Argument(help="The repository: a folder, under git or not.", show_default="this folder")]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", help="A name of `ai-forge models`, a Hugging Face id, a folder, a .gguf file or ollama:NAME."
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimizer steps, at the most.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the examples, at the most.")]
Budget = Annotated[str | None, typer.Option("--time-budget", help="Time for training, such as 90s, 4m or 2h.")]
Teacher = Annotated[
    str | None,
    typer.Option("--teacher", help="A model that rewords the examples: ollama:NAME, or URL#MODEL (OpenAI-compatible)."),
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="handbook: about the rules that `ai-forge handbook` read, instead of the code."),
]
Nproc = Annotated[
    int | None, typer.Option("--nproc", min=1, help="Processes that share the training, one for each GPU.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting: training.rank=16. See `ai-forge config show`.")
]
AllowLicence = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-licence", help="A licence beside the repository's own, such as MIT or 'BSD-*'; several times."
    ),
]
Config = Annotated[Path | None, typer.Option("--config", help="A YAML file with settings.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where everything is kept; AI_FORGE_HOME otherwise.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass(frozen=True)
class Choices:
    """The flags that commands share; a field is a flag."""

    base: Base = None
    steps: Steps = None
    epochs: Epochs = None
    time_budget: Budget = None
    teacher: Teacher = None
    set: Set = None
    config: Config = None
    home: Home = None
    allow_licence: AllowLicence = None
    recipe: Recipe = None
    nproc: Nproc = None

    def settings(self) -> LoadedSettings:
        """All layers put together."""
        flags: dict[str, Any] = {}
        for text in self.set or []:
            key, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"--set {text} has no value.", "write --set training.rank=16.")
            try:
                flags[key.strip()] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise InputError(f"--set {text} is no value.", "write --set training.rank=16.") from error
        named = {
            "training.base_model": self.base,
            "training.max_steps": self.steps,
            "training.nproc": self.nproc,
            "training.num_epochs": self.epochs,
            "miner.allow_licence": self.allow_licence or None,
            "synthesis.teacher": self.teacher,
            "training.time_budget_s": None if self.time_budget is None else seconds_of(self.time_budget),
        }
        flags |= {key: value for key, value in named.items() if value is not None}
        if (self.steps is not None or self.epochs is not None) and self.time_budget is None:
            flags.setdefault("training.time_budget_s", None)  # who counts steps does not want the clock to count too
        layers = [recipe_layer(self.recipe)] if self.recipe else []
        layers += [file_layer(self.config)] if self.config else []
        return load_settings(*layers, environment_layer(), ("flag", flags))

    def workspace(self) -> Workspace:
        """The workspace that was asked for."""
        return Workspace.open(self.home)

    def pipeline(self, repo: Path, emit: Sink = ignore) -> Pipeline:
        """The pipeline that was asked for."""
        settings = self.settings()  # which tells of a recipe that there is not
        return PIPELINES[self.recipe](repo, settings, self.workspace(), emit)


def taking(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes `command(choices, …)` a command with the flags `names` of `Choices` (none named: all) behind its own."""
    shared = [field for field in fields(Choices) if not names or field.name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(**given: Any) -> None:
            command(Choices(**{field.name: given.pop(field.name) for field in shared}), **given)

        own = list(inspect.signature(command).parameters.values())[1:]
        flags = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=field.type)
            for field in shared
        ]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
        return called

    return decorate


def seconds_of(text: str) -> float:
    """A duration with its unit, in seconds.

    >>> seconds_of("90s"), seconds_of("4m"), seconds_of("1.5h"), seconds_of("45")
    (90.0, 240.0, 5400.0, 45.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a duration.", "write 90s, 4m or 2h.")
    return float(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[match[2]]


def show(value: Any) -> None:
    """Print data on stdout."""
    print(json.dumps(value, indent=1, default=str, ensure_ascii=False))
