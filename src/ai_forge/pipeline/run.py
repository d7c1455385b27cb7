"""A run: what is to be made, from what, in which way. A small frozen value that fits into a row of a queue as JSON.

Its id is the hash of everything that decides what it makes: the state of what it reads, the base's weights, the settings. So
the same call makes the same run, which is then continued, and a file that changed makes another one. A run does not follow
its repository: a stage that has to read it again finds out whether it still is what it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ai_forge.config import ConductorSettings, GuardianSettings, ServiceSettings, Settings
from ai_forge.events import Sink, StageFinished, StageStarted, ignore
from ai_forge.json_lines import JsonObject
from ai_forge.places import holds_what_was_written
from ai_forge.workspace import Workspace, read_json, stage_key

RECORD = "run.json"
# settings of a runtime that change no version: how it answers makes another one, where it does so does not
WHERE_IT_IS_SERVED = {"kind", "ollama_host", "keep_versions", "keep_questions", "deploy"}


class Run(BaseModel):
    """What is to be made. `base` is the fingerprint of the base's weights, `sources` the state of what is read, by kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    recipe: str
    repository: Path
    repository_name: str
    model: str
    commit: str | None
    base: str
    sources: Mapping[str, str]
    settings: Settings


def new_run(
    repository: Path,
    settings: Settings,
    workspace: Workspace,
    *,
    recipe: str | None = None,
    name: str | None = None,
    emit: Sink = ignore,
) -> Run:
    """The run that makes a model of `repository` as it is now.

    Args:
        repository: a folder, or for `--recipe dataset` a file of examples.
        settings: all of them, resolved.
        workspace: where names of models are remembered and bases converted.
        recipe: one of `recipes.RECIPES`; the code itself where it is left out.
        name: what the model is to be called; the repository's name where it is left out.
        emit: hears of the base, whose conversion may take a while.

    Raises:
        InputError: there is no such repository, recipe or base, or the name belongs to another repository.
    """
    # here, because they bring every stage along: a queue that only passes runs on starts without them
    from ai_forge.pipeline.dropped import dropped_examples
    from ai_forge.pipeline.identity import model_name_for, model_suffix
    from ai_forge.pipeline.recipes import recipe_named
    from ai_forge.pipeline.stages.train import HOW_IT_IS_COMPUTED
    from ai_forge.training.bases.resolve import resolve_base

    chosen = recipe_named(recipe)
    source = chosen.read_source(repository, settings)  # a wrong path is told before anything is loaded
    began = time.monotonic()
    emit(StageStarted("base"))  # shown as a stage, though it is none: the id of the run depends on it
    base = resolve_base(settings.training.base_model, cache_dir=workspace.cache_dir)
    lossy = " (lossy source)" if base.origin.lossy else ""
    counts = {"name": base.name, "parameters": base.n_parameters, "lossy": base.origin.lossy}
    text = f"{base.name}, {base.n_parameters / 1e6:.0f} M parameters{lossy}"
    emit(StageFinished("base", time.monotonic() - began, False, counts, text))
    model = model_name_for(source.root, source.name, model_suffix(chosen.name), workspace, wanted=name, emit=emit)
    states = dict(source.states)
    if dropped := dropped_examples(workspace, model):
        states["dropped"] = stage_key(examples=sorted(dropped))
    # how jobs are kept, answers served and a guardian acts decides nothing, and an address may hold a password: no record has them
    others = {"conductor": ConductorSettings(), "service": ServiceSettings(), "guardian": GuardianSettings()}
    settings = settings.model_copy(update=others)
    left_out: Mapping[str, set[str] | bool] = {
        "runtime": WHERE_IT_IS_SERVED,
        "training": HOW_IT_IS_COMPUTED,
        **dict.fromkeys(others, True),
    }
    decisive = settings.model_dump(exclude=left_out)
    decided = stage_key(recipe=chosen.name, sources=states, base=base.fingerprint, settings=decisive)
    return Run(
        id=decided[:12],
        recipe=chosen.name,
        repository=source.root,
        repository_name=source.name,
        model=model,
        commit=source.commit,
        base=base.fingerprint,
        sources=states,
        settings=settings,
    )


def read_record(folder: Path) -> JsonObject | None:
    """`run.json` of a run's folder; None where it is missing or is not what was written."""
    record = read_json(folder / RECORD)
    if record is None or not holds_what_was_written(record):
        return None
    return record


def read_run(folder: Path) -> Run | None:
    """The run whose folder this is; None where its record is damaged or of a version of AI Forge that had other settings."""
    record = read_record(folder)
    try:
        return None if record is None else Run.model_validate(record.get("run"))
    except ValidationError:
        return None
