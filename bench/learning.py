"""The learning lab: variants of a recipe, each trained on the same number of tokens and asked the same held-out questions.

    python bench/learning.py methods REPO                        LoRA, rsLoRA, QLoRA, rsQLoRA, LoftQ, PiSSA, QPiSSA × 5 rates × 3 seeds
    python bench/learning.py families REPO                       one group of question families left out at a time
    python bench/learning.py distractors REPO                    retrieved, random or no documents beside the oracle
    python bench/learning.py data REPO --other FILE.jsonl        this data against other examples about the same files
    python bench/learning.py methods REPO --only LoRA PiSSA --rates 3e-4 --seeds 1 --tokens 20000

Each variant × rate × seed is one training by the product's own stages; those at a variant's best rate are judged. A lab that
was killed continues where it stopped when the same command is given again (lab.py). `bench/results/learning-STUDY.json` and
`.png` say what came out (learning_table.py); what a variant changes in the data is in lessons.py.

Tokens are those that are computed: a prompt that several questions share counts once. The steps that come nearest to
`--tokens` are counted from the very batches, and the real number is told. Early stopping is off, so all of them are trained;
the result is the adapter of the best evaluation, as always. Seconds are of the steps and the initialisation, without
evaluations.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import yaml

from ai_forge.cli.display import Display
from ai_forge.errors import AIForgeError
from ai_forge.events import ignore
from ai_forge.workspace import Workspace, atomic_write
from lab import Lab, Run, Variant
from learning_table import best_runs, draw, summarise, table
from lessons import Distractors, Instead, WithoutFamilies
from measure import RESULTS

FIRST_SEED = 42
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
GROUPS = {
    "purpose": ("purpose",),
    "interface": ("parameters", "returns", "exceptions", "members"),
    "behaviour": ("edge_case", "pattern", "extend"),
    "relations": ("dependencies", "usage", "callers", "change_impact"),
    "place": ("location",),
    "people's words": ("why", "fits_together"),
    "writing code": ("fill_in_the_middle", "write_docstring", "write_test"),
}
"""Question families by what has to be read to answer them."""


@dataclass(frozen=True)
class Study:
    """Variants to compare, the first of them with all others; no rates means the recipe's."""

    variants: tuple[Variant, ...]
    rates: tuple[float, ...] = ()


def method(name: str, start: str, quantization: str, rslora: bool = False) -> Variant:
    chosen = {"init_method": start, "quantization": quantization, "use_rslora": rslora}
    return Variant(name, {f"training.{key}": value for key, value in chosen.items()})


STUDIES = {
    "methods": Study(
        (
            method("LoRA", "lora", "none"),
            method("rsLoRA", "lora", "none", rslora=True),
            method("QLoRA", "lora", "nf4"),
            method("rsQLoRA", "lora", "nf4", rslora=True),
            method("LoftQ", "loftq", "nf4"),
            method("PiSSA", "pissa", "none"),
            method("QPiSSA", "pissa", "nf4"),
        ),
        RATES,
    ),
    "families": Study(
        (
            Variant("all"),
            *(Variant(f"without {name}", lesson=WithoutFamilies(group)) for name, group in GROUPS.items()),
        )
    ),
    "distractors": Study(
        (
            Variant("hard", lesson=Distractors("hard")),
            Variant("random", lesson=Distractors("random")),
            Variant("none", lesson=Distractors("none")),
            Variant("hard, and questions without an oracle"),
        )
    ),
}


THIS_DATA = Variant("this data")


def runs_of(variants: Sequence[Variant], rates: Sequence[float], n_seeds: int) -> list[Run]:
    """Seed by seed, so that a lab that is stopped early has something of each variant."""
    chosen = rates or (None,)
    return [Run(v, rate, FIRST_SEED + n) for n in range(n_seeds) for v in variants for rate in chosen]


def line(record: Mapping[str, Any]) -> str:
    """A run in one line."""
    name = f"{record['variant']}, rate {record['rate']:g}, seed {record['seed']}"
    trained = f"{record['steps']} steps, {record['tokens']:,} tokens"
    if "failed" in record:
        return f"{name}: {trained}; {record['failed']}"
    told = f"{name}: {trained}, {record['seconds']:.0f} s; held-out loss {record['held_out_loss']:.3f}"
    if "citations" not in record:
        return told
    return f"{told}, answer loss {record['answer_loss']['value']:.3f}, citations {record['citations']['value']:.0%}"


def in_turn(work: Sequence[tuple[Any, ...]], act: Callable[..., tuple[dict[str, Any], bool]]) -> list[dict[str, Any]]:
    """What `act` records of each piece of work; each is told, with the time that is left."""
    records, seconds = [], []
    for number, piece in enumerate(work, 1):
        began = time.monotonic()
        record, is_new = act(*piece)
        records.append(record)
        seconds += [time.monotonic() - began] if is_new else []
        left = f"; {(len(work) - number) * fmean(seconds) / 60:.0f} min left" if is_new else " (known)"
        print(f"[{number}/{len(work)}] {line(record)}{left}", flush=True)
    return records


def write(folder: Path, name: str, lab: Lab, records: Sequence[Mapping[str, Any]], baseline: str) -> str:
    """`learning-NAME.json` and `.png` in `folder`; returns the table."""
    rows = summarise(records, lab.answers, baseline)
    entry = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {platform.system()}",
        "tokens_asked": lab.tokens,
        "table": rows,
        "runs": [{k: v for k, v in r.items() if k not in ("key", "settings", "evaluation")} for r in records],
        "settings": records[0]["settings"],
    }
    atomic_write(folder / f"learning-{name}.json", json.dumps(entry, indent=1) + "\n")
    atomic_write(folder / f"learning-{name}.png", draw(records))
    return table(rows, records, baseline)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=(*STUDIES, "data"))
    parser.add_argument("repo", type=Path)
    parser.add_argument("--other", type=Path, help="RAFT examples, for the study `data`")
    parser.add_argument("--tokens", type=int, default=58_000, help="computed training tokens of a run")
    parser.add_argument("--questions", type=int, default=96, help="held-out questions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", help="learning rates instead of the study's")
    parser.add_argument(
        "--only", nargs="+", metavar="VARIANT", help="these variants; the first is what others are compared to"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "ai-forge-lab")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    if given.study == "data":
        if given.other is None:
            print("The study `data` compares with --other FILE.jsonl.", file=sys.stderr)
            return 2
        study = Study((THIS_DATA, Variant(given.other.stem, lesson=Instead.of(given.other))))
    else:
        study = STUDIES[given.study]
    names = [variant.name for variant in study.variants]
    unknown = sorted(set(given.only or ()) - set(names))
    if unknown:
        print(f"No variant is called {', '.join(unknown)}; there are {', '.join(names)}.", file=sys.stderr)
        return 2
    variants = [variant for variant in study.variants if variant.name in (given.only or names)]
    # all variants answer the same questions, however long that takes
    settings = {"judge.n_questions": given.questions, "judge.time_budget_s": 1e9}
    settings |= {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in given.set)}
    workspace = Workspace.open(given.home)
    try:
        with workspace.lock("lab"), Display() as display:
            emit = display if sys.stderr.isatty() else ignore
            lab = Lab(given.repo, workspace, given.tokens, settings, emit)
            runs = runs_of(variants, given.rates or study.rates, given.seeds)
            records = in_turn(list(zip(runs)), lab.train)
            best = [record["key"] for chosen in best_runs(records).values() for record in chosen]
            to_judge = [(run, record) for run, record in zip(runs, records, strict=True) if record["key"] in best]
            judged = dict(zip([record["key"] for _, record in to_judge], in_turn(to_judge, lab.judge), strict=True))
            records = [judged.get(record["key"], record) for record in records]
            print(write(given.results, given.study, lab, records, variants[0].name))
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
