"""Next-commit completion of a base and of an adapter on it, with torch, outside of any run: on a GPU where there is one.

    python bench/completion.py REPO --base FOLDER --adapter FOLDER --held-out split.json --gaps 120 --out FILE

Gaps are what the newest commits wrote in held-out files, as in `ai-forge evaluate --completion`: both models, each without and
with what retrieval finds in the repository as it stood before those commits. `--held-out` is the `split.json` of a run's stage
`dataset` (its sides valid and test), or a JSON list of paths. FILE holds every answer and the figures with paired intervals.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from ai_forge.config import FineTuneConfig
from ai_forge.errors import AIForgeError, InputError
from ai_forge.judge.completion.measure import BATCH, complete_all, figures_of, form_of
from ai_forge.pipeline.completing import gaps_of_newest_commits
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.backends.base import Generator
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_model import TorchGenerator
from ai_forge.workspace import atomic_write

GPU_BATCH = 32


def held_out_files(path: Path) -> set[str]:
    """The paths of a JSON list, or of the sides valid and test of a `split.json`."""
    read = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(read, dict):
        read = [*read["valid"], *read["test"]]
    return set(read)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="folder with config.json, tokenizer.json, weights")
    parser.add_argument("--adapter", type=Path, required=True, help="folder that training left")
    parser.add_argument("--held-out", type=Path, required=True, help="split.json of a run, or a JSON list of paths")
    parser.add_argument("--gaps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--for", dest="budget_s", type=float, default=1800, help="seconds for both models together")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        return measure(given)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def measure(given: argparse.Namespace) -> int:
    began = time.monotonic()
    tokenizer = ChatTokenizer(given.base)
    end = tokenizer.end_of_turn_id

    def load(tuned: bool) -> Generator:
        model = TorchGenerator.load(given.base, end)
        if tuned:
            model = TorchGenerator(TorchTrainee.from_adapter(given.base, given.adapter, FineTuneConfig()).model, end)
        return model

    asked = gaps_of_newest_commits(given.repo, held_out_files(given.held_out), given.gaps, given.seed)
    if asked is None or not asked.gaps:
        raise InputError(f"The newest commits of {given.repo} wrote nothing in held-out files.", "give other ones.")
    rows = complete_all(
        asked.gaps,
        load,
        tokenizer,
        asked.find,
        budget_s=given.budget_s,
        progress=lambda done, total, note: print(f"{note}: {done} of {total}", file=sys.stderr),
        batch_size=GPU_BATCH if torch.cuda.is_available() else BATCH,
    )
    figures = [one.model_dump(mode="json") for one in figures_of(rows)]
    made = {
        "form": form_of(tokenizer),
        "commits": asked.history.n_commits,
        "before": asked.history.before,
        "seconds": round(time.monotonic() - began, 1),
        "figures": figures,
        "rows": [row.model_dump(mode="json") for row in rows],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(given.out, json.dumps(made, indent=1, ensure_ascii=False))
    print(json.dumps({name: value for name, value in made.items() if name != "rows"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
