"""The flags that commands share, and what they mean: settings, a workspace, a run that is being worked on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from ai_forge.cli.output import warn
from ai_forge.errors import InputError
from ai_forge.places import expanded

if TYPE_CHECKING:
    from ai_forge.cli.display import Display
    from ai_forge.config import LoadedSettings
    from ai_forge.pipeline.runner import Runner
    from ai_forge.workspace import Workspace

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
    typer.Option(
        "--recipe",
        help="repository (its code), handbook (the rules that `ai-forge handbook` read), dataset (a file of examples).",
        show_default="repository",
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="What the model is called.", show_default="the repository's name")
]
Nproc = Annotated[
    int | None, typer.Option("--nproc", min=1, help="Processes that share the training, one for each GPU.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting: training.rank=16. See `ai-forge config show`."),
]
AllowLicence = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-licence",
        metavar="NAME",
        help="A licence beside the repository's own, such as MIT or 'BSD-*'; several times.",
    ),
]
Config = Annotated[Path | None, typer.Option("--config", help="A YAML file with settings.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where everything is kept; AI_FORGE_HOME otherwise.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as in a pipe.")]


WHOLE = 200  # characters of a first sentence: all of it
STOPPING = "Stopping at the next safe point, keeping what was done. Ctrl-C again stops at once."


@dataclass(frozen=True)
class Options:
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
    name: Name = None
    nproc: Nproc = None

    def settings(self) -> LoadedSettings:
        """All layers put together."""
        import yaml

        from ai_forge.config import environment_layer, file_layer, load_settings, recipe_layer

        flags: dict[str, object] = {}
        for text in self.set or []:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                what = "value" if key.strip() else "name before its value"
                raise InputError(f"--set {text} has no {what}.", "write --set training.rank=16.")
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
        layers = []
        if self.recipe:
            layers.append(recipe_layer(self.recipe))
        if self.config:
            layers.append(file_layer(self.config))
        return load_settings(*layers, environment_layer(), ("flag", flags))

    def workspace(self) -> Workspace:
        """The workspace that was asked for."""
        from ai_forge.workspace import Workspace

        return Workspace.open(self.home)

    @contextmanager
    def running(self, repo: Path) -> Iterator[tuple[Runner, Display]]:
        """A runner on `repo` whose events are shown and recorded. The first Ctrl-C cancels, a second one stops at once."""
        from ai_forge.cancel import cancelled_by_interrupt
        from ai_forge.cli.display import Display
        from ai_forge.events import Event
        from ai_forge.pipeline.run import new_run
        from ai_forge.pipeline.runner import Runner

        settings = self.settings().settings  # which tells of a recipe that there is not
        early: list[Event] = []  # what happens before the run has a folder to be written to
        with Display() as display, cancelled_by_interrupt(lambda: warn(STOPPING)) as token:

            def emit(event: Event) -> None:
                early.append(event)
                display(event)

            workspace = self.workspace()
            run = new_run(readable(repo), settings, workspace, recipe=self.recipe, name=self.name, emit=emit)
            with Runner(run, workspace, display, token, tuple(early)) as runner:
                yield runner, display


def readable(path: Path) -> Path:
    """A path as it was typed, with `~` resolved.

    Raises:
        InputError: there is no such user, or it is no text (its bytes cannot be decoded).
    """
    try:
        str(path).encode("utf-8")  # bytes that are no UTF-8 arrive as surrogates, which no file of ours could hold
        return expanded(path)
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "replace").decode()
        raise InputError(f"The path {shown} is no valid text.", "rename the folder.") from error


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes `command(options, …)` a command with the flags `names` of `Options` (none named: all) behind its own.

    Typer reads a command's signature, so one is put together here: the command's own parameters, then a keyword for each
    flag. That way a flag that twelve commands share is written once.
    """
    shared = [field for field in fields(Options) if not names or field.name in names]
    kinds = get_type_hints(Options, include_extras=True)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(**given: Any) -> None:
            command(Options(**{field.name: given.pop(field.name) for field in shared}), **given)

        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in list(inspect.signature(command).parameters.values())[1:]
        ]
        flags = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kinds[field.name])
            for field in shared
        ]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        # typer reads the signature for the names and the annotations for the types: both have to say the same
        called.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
        return called

    return decorate


class Words(TyperGroup):
    """Commands under their headings, each with the whole first sentence of what it does, however narrow the terminal."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write them; typer's own writes one list and cuts each line."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            heading = command.rich_help_panel or "Commands"
            headings.setdefault(heading, []).append((name, command.get_short_help_str(WHOLE)))
        for heading, rows in headings.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def seconds_of(text: str) -> float:
    """A duration with its unit, in seconds.

    >>> seconds_of("90s"), seconds_of("4m"), seconds_of("1.5h"), seconds_of("45")
    (90.0, 240.0, 5400.0, 45.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a duration.", "write 90s, 4m or 2h.")
    return float(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[match[2]]
