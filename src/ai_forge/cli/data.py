"""`ai-forge data …` and `ai-forge handbook`: datasets are read, counted, compared, converted and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson
from ai_forge.cli.output import show, warn
from ai_forge.errors import InputError

if TYPE_CHECKING:
    from ai_forge.data_pipeline.datasets.formats import Dataset, Format
    from ai_forge.data_pipeline.handbook.files import Written
    from ai_forge.data_pipeline.handbook.handbook import Handbook

data_app = typer.Typer(help="Datasets: convert, read, count, compare; preference pairs.", no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(help="A dataset: .jsonl, .json, .parquet, .txt, or a folder with dataset.json.")
]
Target = Annotated[Path, typer.Argument(help="The file to write: .jsonl, .json, .parquet or .txt.")]
From = Annotated[str | None, typer.Option("--from", help="The format, where the first record does not tell it.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def _require_free(path: Path, force: bool) -> None:
    """Raise InputError where a file would be overwritten."""
    if path.exists() and not force:
        raise InputError(f"{path} is there already.", "Give another name, or replace it with --force.")


def _read(path: Path, format: str | None = None) -> Dataset:
    from ai_forge.data_pipeline.datasets.formats import read_dataset

    return read_dataset(path, _format(format) if format else None)


def _format(name: str) -> Format:
    from ai_forge.data_pipeline.datasets.formats import FORMATS

    found = next((known for known in FORMATS if known == name), None)
    if found is None:
        raise InputError(f"{name!r} is no format.", f"Known are {', '.join(FORMATS)}.")
    return found


@data_app.command("convert")
def convert(
    source: Source,
    target: Target,
    to: Annotated[str, typer.Option("--to", help="raft, preference, alpaca, sharegpt, messages or text.")],
    format: From = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Write a dataset in another format, and say what is lost on the way."""
    from ai_forge.data_pipeline.datasets import formats

    if source.resolve() == target.resolve():
        raise InputError(f"{target} is the dataset itself.", "Give another file to write.")
    _require_free(target, force)
    made = formats.convert(_read(source, format), _format(to))
    formats.write_records(target, made)

    def text() -> None:
        print(f"{len(made.records)} records as {to} in {target}")
        for loss in made.losses:
            warn(f"lost: {loss}")

    value = {"file": str(target), "format": to, "records": len(made.records), "lost": list(made.losses)}
    show(value, text, json)


@data_app.command("show")
def show_records(
    source: Source,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 3,
    family: Annotated[
        str | None, typer.Option("--family", help="Only this family (or kind of preference pair).")
    ] = None,
    difficulty: Annotated[str | None, typer.Option("--difficulty", help="Only this: easy, medium or hard.")] = None,
    format: From = None,
    json: AsJson = False,
) -> None:
    """Print examples to read."""
    from ai_forge.data_pipeline.datasets import views as dataset_views

    chosen = dataset_views.select(_read(source, format), family=family, difficulty=difficulty)[:n]
    values = [{"id": record.id, **record.model_dump(mode="json")} for record in chosen]
    show(values, "\n\n".join(map(dataset_views.readable, chosen)), json)


@data_app.command("stats")
def stats(source: Source, format: From = None, json: AsJson = False) -> None:
    """Count: families, difficulties, tokens, citations, duplicates."""
    from ai_forge.data_pipeline.datasets import views as dataset_views

    found = dataset_views.figures(_read(source, format))

    def text() -> None:
        for name, value in found.items():
            if isinstance(value, dict):
                print(name)
                for key, inner in value.items():
                    print(f"  {key:<20} {_counts(inner) if isinstance(inner, dict) else inner}")
            else:
                print(f"{name:<22} {f'{value:.3f}' if isinstance(value, float) else value}")

    show(found, text, json)


def _counts(counts: Mapping[str, object]) -> str:
    """Counts by name, in a line."""
    return ", ".join(f"{name} {n}" for name, n in counts.items())


@data_app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(help="The dataset before.")],
    second: Annotated[Path, typer.Argument(help="The dataset after.")],
    json: AsJson = False,
) -> None:
    """What was added, removed and changed from one dataset to another."""
    from ai_forge.data_pipeline.datasets import views as dataset_views

    found = dataset_views.compare(_read(first), _read(second))

    def text() -> None:
        changed = [after for _, after in found.changed]
        for mark, records in (("+", found.added), ("-", found.removed), ("~", changed)):
            for record in records:
                print(f"{mark} {dataset_views.headline(record)}")
        counts = f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed"
        print(f"{counts}, {found.n_same} the same")

    show(found.summary(), text, json)


@data_app.command("preferences")
def preferences(
    repo: Annotated[Path, typer.Argument(help="A git repository.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .jsonl, .json or .parquet.")],
    answers: Annotated[Path | None, typer.Option("--answers", help="RAFT examples to make pairs of as well.")] = None,
    max_commits: Annotated[int, typer.Option("--max-commits", min=1, help="Newest commits to look at.")] = 2000,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Preference pairs of fixes, reverts and review fix-ups in git, and of answers that are spoiled on purpose."""
    from ai_forge.data_pipeline.datasets.formats import Dataset, write_records
    from ai_forge.data_pipeline.examples.preferences import answer_pairs, mine_preferences
    from ai_forge.data_pipeline.schemas import RAFTExample

    _require_free(out, force)
    made = [mine_preferences(repo, max_commits=max_commits)]
    if answers is not None:
        records = _read(answers).records
        examples = [record for record in records if isinstance(record, RAFTExample)]
        if len(examples) < len(records):
            raise InputError(f"{answers} holds no RAFT examples.", "Give the train.jsonl of a run's dataset.")
        made.append(answer_pairs(examples))
    pairs = tuple(pair for part in made for pair in part.pairs)
    if not pairs:
        reasons = ", ".join(f"{reason} {n}" for part in made for reason, n in part.rejected.most_common(5))
        raise InputError(
            f"No preference pair in {repo} ({reasons}).", "Look further back with --max-commits, or give --answers."
        )
    write_records(out, Dataset("preference", pairs))

    def text() -> None:
        for part in made:
            for kind, n in Counter(pair.kind for pair in part.pairs).most_common():
                print(f"{kind:<16} {n}")
        print(f"{len(pairs)} pairs in {out}")

    show({"file": str(out), "pairs": len(pairs), "sources": [part.summary() for part in made]}, text, json)


def handbook(
    path: Annotated[
        Path, typer.Argument(help="A repository with an .agent or .agents folder, or that folder.")
    ] = Path(),
    hold_out: Annotated[
        float, typer.Option("--hold-out", min=0, max=0.9, help="Share of the rules that only the judge sees, 0–0.9.")
    ] = 0.1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Write nothing; show the counts and every probe, since probes decide a deployment."
        ),
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add the pairs to files of your own; by default they lie beside them.")
    ] = False,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Turn an agent's handbook into training pairs: fine-tuning-file.json and its companions, in the agent folder."""
    from ai_forge.data_pipeline.handbook.files import write_handbook
    from ai_forge.data_pipeline.handbook.handbook import read_handbook

    made = read_handbook(path, hold_out=hold_out)
    written = [] if dry_run else write_handbook(made, merge=merge, force=force)
    value = made.summary() | {"written": [str(file.path) for file in written if file.n_rows]}
    if dry_run:
        value["probe_list"] = [probe.model_dump(mode="json") for probe in made.probes]
    show(value, lambda: _print_handbook(made, written, with_probes=dry_run), json)


def _print_handbook(made: Handbook, written: Sequence[Written], *, with_probes: bool) -> None:
    for kind, n in Counter(pair.kind for pair in made.pairs).most_common():
        print(f"{kind:<12} {n}")
    n_rules = len({pair.rule_id for pair in made.pairs})
    print(
        f"{len(made.pairs)} pairs of {n_rules} rules: {len(made.train_pairs)} to train on, "
        f"{len(made.held_out_pairs)} of {len(made.held_out_rules)} rules held out"
    )
    print(f"{len(made.preferences)} preference pairs, {len(made.probes)} compliance probes")
    for probe in made.probes if with_probes else ():
        print(f"\n{probe.path}:{probe.first_line}  {probe.rule}")
        print(f"  asked   {probe.prompt}\n  passes  {probe.check.told()}")
    for file in written:
        kept = f", {file.n_kept} of your own rows kept" if file.n_kept else ""
        print(f"{file.path}  ({file.state}: {file.n_rows} rows{kept})")
    repaired = Counter(repair for file in made.folder.files for repair in file.repairs)
    for name, reasons in (("skipped", made.folder.skipped), ("rejected", made.rejected), ("repaired", repaired)):
        if reasons:
            warn(f"{name}: {_counts(dict(reasons.most_common()))}", style="none")
    for contradiction in made.contradictions:
        warn(f"contradiction: {contradiction}")
