"""The recipes: which stages make a model of what. Each is a tuple of stages; a stage that is the same stands in several.

repository   mine → notes → dataset (→ natural) (→ completions) → train (→ prefer) → merge → export → evaluate → parity → report
               └→ index ────────↗                                                         base-export ↗
handbook     dataset (→ bake) → train (→ prefer) → merge → export → evaluate → parity → report
                                                base-export ↗
dataset      the same, from a file of examples
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_forge.config import Settings
from ai_forge.errors import InputError
from ai_forge.pipeline.sources import ReadSource, read_code, read_dataset_file, read_handbook_files
from ai_forge.pipeline.stage import Outputs, Stage, StageContext
from ai_forge.pipeline.stages.bake import BAKE
from ai_forge.pipeline.stages.completions import COMPLETIONS
from ai_forge.pipeline.stages.dataset import DATASET
from ai_forge.pipeline.stages.dataset_file import (
    FILE_DATASET,
    FILE_EVALUATE,
    FILE_PARITY,
    FILE_REPORT,
    FILE_TRAIN,
    ChatsSummary,
)
from ai_forge.pipeline.stages.evaluate import EVALUATE
from ai_forge.pipeline.stages.export import BASE_EXPORT, EXPORT
from ai_forge.pipeline.stages.handbook import (
    HANDBOOK_DATASET,
    HANDBOOK_EVALUATE,
    HANDBOOK_PARITY,
    HANDBOOK_REPORT,
    HANDBOOK_TRAIN,
)
from ai_forge.pipeline.stages.index import INDEX
from ai_forge.pipeline.stages.merge import MERGE
from ai_forge.pipeline.stages.mine import MINE
from ai_forge.pipeline.stages.natural import NATURAL
from ai_forge.pipeline.stages.notes import NOTES
from ai_forge.pipeline.stages.report import REPORT
from ai_forge.pipeline.stages.repository import PARITY, TRAIN, plan_repository_training
from ai_forge.pipeline.stages.train import PREFER
from ai_forge.prompting.chat_templates import ALPACA_SYSTEM
from ai_forge.prompting.prompt import SYSTEM_PROMPT

if TYPE_CHECKING:
    from ai_forge.training.forge import TrainingPlan


@dataclass(frozen=True)
class Recipe:
    """How a kind of model is made. `plan_training` measures what its training would cost, where it can be told beforehand."""

    name: str
    stages: tuple[Stage, ...]
    read_source: ReadSource
    plan_training: Callable[[StageContext], TrainingPlan] | None = None

    @property
    def has_index(self) -> bool:
        """Whether its models are asked with documents."""
        return any(stage.name == "index" for stage in self.stages)

    def system_prompt(self, settings: Settings, outputs: Outputs) -> str:
        """What its models are told before every chat: as in training, and nothing where the rules are to hold without it."""
        if self.has_index:
            return SYSTEM_PROMPT
        if settings.training.prompt_template == "alpaca":
            return ALPACA_SYSTEM
        if self.name == "dataset":
            return outputs.summary("dataset", ChatsSummary).system
        return ""


REPOSITORY = Recipe(
    "repository",
    (
        MINE,
        NOTES,
        DATASET,
        INDEX,
        NATURAL,
        COMPLETIONS,
        TRAIN,
        PREFER,
        MERGE,
        EXPORT,
        BASE_EXPORT,
        EVALUATE,
        PARITY,
        REPORT,
    ),
    read_code,
    plan_repository_training,
)
HANDBOOK = Recipe(
    "handbook",
    (
        HANDBOOK_DATASET,
        BAKE,
        HANDBOOK_TRAIN,
        PREFER,
        MERGE,
        EXPORT,
        BASE_EXPORT,
        HANDBOOK_EVALUATE,
        HANDBOOK_PARITY,
        HANDBOOK_REPORT,
    ),
    read_handbook_files,
)
DATASET_FILE = Recipe(
    "dataset",
    (FILE_DATASET, FILE_TRAIN, PREFER, MERGE, EXPORT, BASE_EXPORT, FILE_EVALUATE, FILE_PARITY, FILE_REPORT),
    read_dataset_file,
)
RECIPES = {recipe.name: recipe for recipe in (REPOSITORY, HANDBOOK, DATASET_FILE)}


def recipe_named(name: str | None) -> Recipe:
    """The recipe of that name; the code's own where none is named.

    Raises:
        InputError: there is none of that name.
    """
    chosen = RECIPES.get(name or REPOSITORY.name)
    if chosen is None:
        raise InputError(f"There is no recipe {name!r}.", f"known are {', '.join(RECIPES)}.")
    return chosen
