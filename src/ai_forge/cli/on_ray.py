"""`ai-forge` on a Ray cluster: Ray starts the processes, and they train as those of torchrun do.

    python -m ai_forge.cli.on_ray --workers 4 --gpu train REPO [flags of ai-forge]

Ray Train's `TorchTrainer` places the workers, sets the variables that torchrun sets and joins their group; `cluster` does the
rest, so what it says of `AI_FORGE_HOME` holds here too. Ray is an extra: pip install 'ai-forge[ray]'.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import TypedDict

from ai_forge.cli import app as cli
from ai_forge.errors import AIForgeError, PrerequisiteError


class Job(TypedDict):
    """What a worker is sent."""

    words: list[str]
    folder: str


def main(words: list[str] | None = None) -> int:
    """The command; returns the exit code of the first worker's."""
    parser = argparse.ArgumentParser(prog="python -m ai_forge.cli.on_ray", description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, required=True, help="processes, wherever Ray has room for them")
    parser.add_argument("--gpu", action="store_true", help="a GPU for each")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="what to say to ai-forge: train REPO …")
    chosen = parser.parse_args(words)
    try:
        return _run(chosen.workers, chosen.gpu, chosen.words)
    except AIForgeError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_code


def _run(n_workers: int, gpu: bool, words: list[str]) -> int:
    if importlib.util.find_spec("ray") is None:
        raise PrerequisiteError("Ray is not installed here.", "pip install 'ai-forge[ray]'")
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    # the folder too: paths among the words are relative to where the command was given, and workers start elsewhere
    job: Job = {"words": words, "folder": str(Path.cwd())}
    trainer = TorchTrainer(
        work, train_loop_config=job, scaling_config=ScalingConfig(num_workers=n_workers, use_gpu=gpu)
    )
    return int(trainer.fit().return_value)


def work(job: Job) -> int:
    """What each worker does: `ai-forge` with the words and in the folder of whoever started it; returns the exit code."""
    os.chdir(job["folder"])
    sys.argv = ["ai-forge", *job["words"]]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)


if __name__ == "__main__":
    from ai_forge.cli.on_ray import (
        main as entry,  # so that workers find `work` under its module's name
    )

    sys.exit(entry())
