"""`python -m ai_forge.training.forge`: train an adapter on a dataset of RAFT examples, outside of any run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from ai_forge.cancel import cancelled_by_interrupt
from ai_forge.config import environment_layer, load_settings
from ai_forge.data_pipeline.datasets.storage import read_examples
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import AIForgeError, InputError
from ai_forge.events import EvalFinished, Event, Notice, StepLogged
from ai_forge.workspace import Workspace

__all__ = ["main"]

HELD_OUT = 10  # one example in so many, where no other file is given
LOGGED_STEPS = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Train, tell of it on stderr, print the result as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m ai_forge.training.forge",
        description="Fine-tune a base on a dataset; the same command again continues where the last one stopped.",
    )
    parser.add_argument(
        "dataset", type=Path, help="RAFT examples in JSON lines, or a folder with train.jsonl and valid.jsonl"
    )
    parser.add_argument("--eval", type=Path, help="examples to stop on (default: one in ten of the dataset)")
    parser.add_argument("--base", help="a name of `ai-forge models`, a Hugging Face id, a folder, a .gguf file")
    parser.add_argument("--output", type=Path, help="folder for the adapter (default: one in the workspace)")
    parser.add_argument("--epochs", type=int, help="passes over the examples, at the most")
    parser.add_argument("--steps", type=int, help="optimizer steps, at the most")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting: rank=16")
    parser.add_argument("--home", type=Path, help="where bases are cached; AI_FORGE_HOME otherwise")
    given = parser.parse_args(argv)
    try:
        return _train(given)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _train(given: argparse.Namespace) -> int:
    from ai_forge.training.forge import FineTuneTrainer

    chosen = {"training.base_model": given.base, "training.num_epochs": given.epochs, "training.max_steps": given.steps}
    values: dict[str, object] = {key: value for key, value in chosen.items() if value is not None}
    if given.steps is not None or given.epochs is not None:
        values["training.time_budget_s"] = None  # who counts steps does not want the clock to count too
    for text in given.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text} has no value.", "write --set rank=16.")
        values[f"training.{key.removeprefix('training.')}"] = yaml.safe_load(value)
    config = load_settings(environment_layer(), ("flag", values)).settings.training
    train, held_out = _sides(given.dataset, given.eval)
    with cancelled_by_interrupt() as token:
        trainer = FineTuneTrainer(
            config, folder=given.output, workspace=Workspace.open(given.home), emit=_tell, cancel=token
        )
        result = trainer.train(train, held_out)
    row = {key: value for key, value in vars(result).items() if value is not None}
    print(json.dumps(row, default=str))
    return 0


def _sides(dataset: Path, held_out: Path | None) -> tuple[list[RAFTExample], list[RAFTExample]]:
    """What is trained on and what is stopped on."""
    if dataset.is_dir():
        held_out = held_out or dataset / "valid.jsonl"
        dataset = dataset / "train.jsonl"
    for path in (dataset, held_out):
        if path is not None and not path.is_file():
            raise InputError(f"{path} is not a file.", "give a dataset in JSON lines: ai-forge synthesize makes one.")
    examples = read_examples(dataset)
    if held_out is not None:
        return examples, read_examples(held_out)
    if len(examples) < 2:
        raise InputError(f"{len(examples)} examples are too few to hold one out.", "give more, or --eval.")
    # by id, so that the order of the lines decides nothing
    ranked = sorted(examples, key=lambda example: example.id)
    n_held_out = max(1, len(ranked) // HELD_OUT)
    return ranked[n_held_out:], ranked[:n_held_out]


def _tell(event: Event) -> None:
    text = None
    if isinstance(event, StepLogged) and event.step % LOGGED_STEPS == 0:
        text = f"step {event.step}/{event.n_steps}: loss {event.loss:.3f}, {event.tokens_per_s:.0f} tokens/s"
    elif isinstance(event, EvalFinished):
        text = f"step {event.step}: held-out loss {event.loss:.3f}"
    elif isinstance(event, Notice):
        text = event.message
    if text is not None:
        print(text, file=sys.stderr)
