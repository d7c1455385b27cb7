"""`ai-forge data …` and `ai-forge handbook`: datasets are read, counted, compared, converted and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Words
from ai_forge.cli.output import show, warn
from ai_forge.errors import InputError
from ai_forge.places import expanded

if TYPE_CHECKING:
    from ai_forge.data_pipeline.datasets.formats import Dataset, Format
    from ai_forge.data_pipeline.handbook.files import Written
    from ai_forge.data_pipeline.handbook.handbook import Handbook

data_app = typer.Typer(
    cls=Words, help="Datasets: convert, read, count, compare; preference pairs.", no_args_is_help=True
)

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

    for known in FORMATS:
        if known == name:
            return known
    raise InputError(f"{name!r} is no format.", f"Known are {', '.join(FORMATS)}.")


@data_app.command("convert")
def convert(
    source: Source,
    target: Target,
    to: Annotated[str, typer.Option("--to", help="raft, preference, alpaca, sharegpt, messages or text.")],
    format: From = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Write a dataset in another format. It is said what is lost on the way."""
    from ai_forge.data_pipeline.datasets import formats

    if (
        expanded(source).resolve() == expanded(target).resolve()
    ):  # not even with --force: what is lost would be lost for good
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
    """Families, difficulties, tokens, citations, duplicates."""
    from ai_forge.data_pipeline.datasets import views as dataset_views

    found = dataset_views.figures(_read(source, format))
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines.append(name)
            lines += [f"  {key:<20} {_counts(n) if isinstance(n, dict) else n}" for key, n in value.items()]
        elif isinstance(value, float):
            lines.append(f"{name:<22} {value:.3f}")
        else:
            lines.append(f"{name:<22} {value}")
    show(found, "\n".join(lines), json)


def _counts(counts: Mapping[str, object]) -> str:
    """Counts by name, in a line."""
    return ", ".join(f"{name} {n}" for name, n in counts.items())


@data_app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(help="The dataset before.")],
    second: Annotated[Path, typer.Argument(help="The dataset after.")],
    json: AsJson = False,
) -> None:
    """What was added, removed and changed between two datasets."""
    from ai_forge.data_pipeline.datasets import views as dataset_views

    found = dataset_views.compare(_read(first), _read(second))
    marked = {"+": found.added, "-": found.removed, "~": [after for _, after in found.changed]}
    lines = [f"{mark} {dataset_views.headline(record)}" for mark, records in marked.items() for record in records]
    counts = f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed"
    show(found.summary(), "\n".join([*lines, f"{counts}, {found.n_same} the same"]), json)


@data_app.command("preferences")
def preferences(
    repo: Annotated[Path, typer.Argument(help="A git repository.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .jsonl, .json or .parquet.")],
    answers: Annotated[Path | None, typer.Option("--answers", help="RAFT examples to make pairs of as well.")] = None,
    max_commits: Annotated[int, typer.Option("--max-commits", min=1, help="Newest commits to look at.")] = 2000,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Preference pairs from git and from spoiled answers. Fixes, reverts and review fix-ups; answers spoiled on purpose."""
    from ai_forge.data_pipeline.datasets.formats import Dataset, write_records
    from ai_forge.data_pipeline.examples.preferences import answer_pairs, mine_preferences
    from ai_forge.data_pipeline.schemas import RAFTExample

    _require_free(out, force)
    made = [mine_preferences(repo, max_commits=max_commits)]
    if answers is not None:
        records = _read(answers).records
        # all of them or none: of a mixture the user would not know which records the pairs were made of
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
    kinds = [kind for part in made for kind in Counter(pair.kind for pair in part.pairs).most_common()]
    lines = [*(f"{kind:<16} {n}" for kind, n in kinds), f"{len(pairs)} pairs in {out}"]
    value = {"file": str(out), "pairs": len(pairs), "sources": [part.summary() for part in made]}
    show(value, "\n".join(lines), json)


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
    """Turn an agent's handbook into training pairs. They are fine-tuning-file.json and its companions, in the agent folder."""
    from ai_forge.data_pipeline.handbook.files import write_handbook
    from ai_forge.data_pipeline.handbook.handbook import read_handbook

    made = read_handbook(path, hold_out=hold_out)
    written = [] if dry_run else write_handbook(made, merge=merge, force=force)
    value = made.summary()
    value["written"] = [str(file.path) for file in written if file.n_rows]  # a file without rows was removed
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
