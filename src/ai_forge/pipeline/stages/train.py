"""Stages `train` and `prefer`: the adapter, supervised, then on preference pairs where there are any.

Both continue where they were cut off. Before either begins, everything that would end it later is found out: memory, disk,
and whether what is trained can be exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.datasets.formats import read_dataset
from ai_forge.data_pipeline.examples.asked import asks_the_same
from ai_forge.data_pipeline.schemas.preference_pairs import PreferencePair
from ai_forge.events import Notice
from ai_forge.model_files.gguf.writer import check_exportable
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.dataset import team_questions
from ai_forge.preflight import Check, require
from ai_forge.workspace import require_disk

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run
    from ai_forge.training.forge import FineTuneTrainer
    from ai_forge.training.record import TrainingResult

# settings that change nothing but the speed (and the order of additions): the same run on another machine is continued
HOW_IT_IS_COMPUTED = {"nproc", "gradient_checkpointing", "sharded"}
# not in the key of the first phase: another loss for the pairs must not train the first phase again
SECOND_PHASE = {"preferences", "dpo_loss", "dpo_beta", "dpo_learning_rate", "dpo_epochs"}
# on disk, at the most: residual, adapter, checkpoints, the merged model and its GGUF files, about five copies in 16 bit
BYTES_PER_PARAMETER = 10
MADE_OF = (
    "ai_forge.training.forge",
    "ai_forge.training.backends.torch_backend",
    "ai_forge.training.backends.mlx_backend",
)


class TrainSummary(Summary):
    """Losses are held out, in nats per token; `trained_*` are those of what was trained on, where they were measured."""

    best_step: int
    n_steps: int
    first_loss: float
    last_loss: float
    n_too_long: int
    trained_first_loss: float | None = None
    trained_last_loss: float | None = None

    def sentence(self) -> str:
        """In a few words."""
        held_out = f"held-out loss {self.first_loss:.3f} → {self.last_loss:.3f} in {self.n_steps} steps"
        if self.trained_first_loss is None or self.trained_last_loss is None:
            return held_out
        return f"loss {self.trained_first_loss:.3f} → {self.trained_last_loss:.3f}, {held_out}"


Fit = Callable[[StageContext], "TrainingResult"]
"""Trains in the context's folder, or continues there."""


def training_stage(
    fit: Fit, data: Callable[[Outputs], Any], made_of: tuple[str, ...] = (), *, needs: tuple[str, ...] = ("dataset",)
) -> Stage:
    """The stage `train` of a recipe: `fit` does it, `data` is the hash of what is trained on."""

    def inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
        from ai_forge.training.backends import backend_name

        config = run.settings.training
        return {
            "recipe": run.recipe,
            "base": run.base,
            "backend": backend_name(config.backend),  # "auto" made a name: the key is of what computes
            "data": data(outputs),
            "config": config.model_dump(exclude=HOW_IT_IS_COMPUTED | SECOND_PHASE),
        }

    def build(context: StageContext) -> TrainSummary:
        require_trainable(context)
        if "prefer" in context.outputs:
            check_preferences(context)  # before the first phase: it may be hours until the second
        return _summary(fit(context))

    return Stage("train", needs, 7, inputs, build, TrainSummary, (*MADE_OF, *made_of), resumable=True)


def _summary(result: TrainingResult) -> TrainSummary:
    # without the folder: a manifest is read wherever the workspace was moved to
    return TrainSummary.model_validate({k: v for k, v in asdict(result).items() if k != "folder"})


def run_training(context: StageContext, kind: type[FineTuneTrainer], method: str, *data: Any, **more: Any) -> Any:
    """What the `method` of a trainer makes of `data`, in as many processes as are set; `more` are parts of its own."""
    from ai_forge.training.distributed.launcher import run_trainer

    return run_trainer(kind, context.run.settings.training, method, *data, **trainer_parts(context), **more)


def trainer_parts(context: StageContext) -> dict[str, Any]:
    """What every trainer is given, and what its processes listen to."""
    given = {"base": context.opened.base, "folder": context.folder, "workspace": context.workspace}
    return given | {"emit": context.emit, "cancel": context.cancel}


def require_trainable(context: StageContext) -> None:
    """Find out before training starts what would end it, or what comes after it: everything at once.

    Raises:
        InputError, PrerequisiteError: what stands in the way; with several problems all are told.
    """
    settings = context.run.settings

    def exportable() -> None:
        check_exportable(
            context.opened.base.folder,
            settings.export.quantization,
            prompt_template=settings.training.prompt_template,
            ollama=settings.runtime.kind == "ollama",
        )

    require([*room_checks(context), exportable])


def room_checks(context: StageContext) -> list[Check]:
    """That disk and memory will do."""
    from ai_forge.training.distributed.launcher import n_processes
    from ai_forge.training.fit import require_fit

    base, config = context.opened.base, context.run.settings.training
    n, n_here = n_processes(config)
    n_bytes = BYTES_PER_PARAMETER * base.n_parameters
    return [
        lambda: require_disk(context.workspace.root, n_bytes, "Training, merging and exporting"),
        # a launcher such as torchrun says how many processes there are, whatever the setting says
        lambda: require_fit(base.folder, config.model_copy(update={"nproc": n}), n_here),
    ]


# -- the second phase ---------------------------------------------------------------------------------------------------


def preference_pairs(context: StageContext) -> list[PreferencePair]:
    """The pairs of `training.preferences` that are neither about held-out files nor ask what the team's questions ask.

    Raises:
        InputError: the file is not there, or holds something else.
    """
    records = read_dataset(Path(str(context.run.settings.training.preferences)), "preference").records
    # pairs are mined from the whole history, so some are about files that the judge asks about
    pairs = [record for record in records if isinstance(record, PreferencePair)]
    held_out: set[str] = set()
    # a handbook's pairs are held out by rule, a dataset file's by conversation: neither has a split of files
    if (context.outputs.folder("dataset") / "split.json").is_file():
        sides = context.opened.split(context.outputs)
        held_out.update(sides["valid"], sides["test"])
    kept = [pair for pair in pairs if pair.origin.path not in held_out]
    _tell_left_out(context, len(pairs) - len(kept), len(pairs), "are about held-out files")
    # a correction is a pair at first; once it stands in the team's file it is judged on and trained on no more
    team = team_questions(context.outputs)
    fair = [pair for pair in kept if not any(asks_the_same(q.question, _asked_in(pair)) for q in team)]
    _tell_left_out(context, len(kept) - len(fair), len(pairs), "ask what the team's own questions ask")
    return fair


def _asked_in(pair: PreferencePair) -> str:
    """The question of a pair, without the documents before it."""
    return pair.prompt[-1].content.rpartition("Question: ")[2]


def _tell_left_out(context: StageContext, n: int, n_all: int, why: str) -> None:
    if n:
        context.emit(Notice("info", f"{n} of {n_all} preference pairs {why} and are left out."))


def check_preferences(context: StageContext) -> None:
    """Raises `InputError` where the second phase has no or too few pairs, or cannot train this base."""
    from ai_forge.training.dpo import require_whole_base, split_pairs

    require_whole_base(context.run.settings.training)
    split_pairs(preference_pairs(context))


def _prefer_inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    config = run.settings.training.model_dump(exclude=HOW_IT_IS_COMPUTED | {"preferences"})
    team = {
        name: run.sources[name] for name in ("team_questions",) if name in run.sources
    }  # pairs that ask these are left out
    return {"train": outputs.key("train"), "pairs": run.sources.get("preferences"), "config": config, **team}


def _prefer(context: StageContext) -> TrainSummary:
    from ai_forge.training.dpo import PreferenceTrainer, split_pairs

    sides = split_pairs(preference_pairs(context))
    adapter = context.outputs.folder("train")
    return _summary(run_training(context, PreferenceTrainer, "train_preferences", *sides, adapter=adapter))


PREFER = Stage(
    "prefer",
    ("train", "dataset"),
    2,
    _prefer_inputs,
    _prefer,
    TrainSummary,
    ("ai_forge.training.dpo", *MADE_OF),
    resumable=True,
    applies=lambda run: run.settings.training.preferences is not None,
)


def adapter_stage(outputs: Outputs) -> str:
    """The stage whose adapter is merged: that of the last phase."""
    return "prefer" if "prefer" in outputs else "train"
