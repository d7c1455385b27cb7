"""What a study says: each variant at its best learning rate, over its seeds, with intervals; the loss curves.

The best rate is that of the lowest held-out loss (validation examples, mean over seeds), never of the answers that are then
told. A question's figures are averaged over the seeds first and the intervals are bootstrapped over files: neither several
answers to one question nor several questions about one file are taken for independent.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from ai_forge.judge.evaluator import Answer
from ai_forge.judge.report import number
from ai_forge.judge.statistics import Estimate, mean, paired_difference, ratio_of_sums

Record = Mapping[str, Any]
Value = Callable[[Answer], float | None]
FIGURES: dict[str, Value] = {
    "citations": lambda a: float(a.citation_right),
    "facts": lambda a: None if a.facts_right is None else float(a.facts_right),
    "answer_loss": lambda a: a.loss / a.n_tokens,
}


def best_runs(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs of each variant at its best rate; a rate that failed with one seed is none. Variants without any are missing."""
    rates: dict[str, dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        rates[record["variant"]][record["rate"]].append(record)
    chosen = {}
    for variant, runs in rates.items():
        finished = [r for r in runs.values() if not any("failed" in record for record in r)]
        if finished:
            most = max(len(r) for r in finished)
            chosen[variant] = min(
                (r for r in finished if len(r) == most), key=lambda r: fmean(record["held_out_loss"] for record in r)
            )
    return chosen


def over_seeds(answers: Sequence[Sequence[Answer]], value: Value) -> list[float | None]:
    """For each question the mean of `value` over the seeds [seed][question]; None where it is not defined."""
    columns = ([value(answer) for answer in column] for column in zip(*answers, strict=True))
    return [None if None in column else fmean(v for v in column if v is not None) for column in columns]


def estimates(answers: Sequence[Sequence[Answer]]) -> dict[str, Estimate | None]:
    """Citations and facts (shares) and answer loss (nats per token) of one variant."""
    paths = [answer.subject_path for answer in answers[0]]
    told: dict[str, Estimate | None] = {}
    for name in ("citations", "facts"):
        rows = [(v, path) for v, path in zip(over_seeds(answers, FIGURES[name]), paths, strict=True) if v is not None]
        told[name] = mean([v for v, _ in rows], groups=[path for _, path in rows])
    losses = over_seeds(answers, lambda a: a.loss)
    told["answer_loss"] = ratio_of_sums(losses, [a.n_tokens for a in answers[0]], groups=paths)  # type: ignore[arg-type]
    return told


def differences(ours: Sequence[Sequence[Answer]], theirs: Sequence[Sequence[Answer]]) -> dict[str, Estimate | None]:
    """ours − theirs on the same questions.

    Raises:
        ValueError: the questions are not the same.
    """
    if [a.question for a in ours[0]] != [a.question for a in theirs[0]]:
        raise ValueError("the variants were asked different questions")
    told = {}
    for name, value in FIGURES.items():
        columns = zip(over_seeds(ours, value), over_seeds(theirs, value), ours[0], strict=True)
        rows = [(a, b, answer.subject_path) for a, b, answer in columns if a is not None and b is not None]
        a, b, paths = zip(*rows, strict=True) if rows else ((), (), ())
        told[name] = paired_difference(a, b, groups=paths)
    return told


def by_family(answers: Sequence[Sequence[Answer]]) -> dict[str, dict[str, Any]]:
    """Questions, citations and facts of each held-out family, over the seeds."""
    families: dict[str, list[Answer]] = defaultdict(list)
    for answer in (answer for seed in answers for answer in seed):
        families[answer.family].append(answer)
    told = {}
    for family, asked in sorted(families.items()):
        facts = [a.facts_right for a in asked if a.facts_right is not None]
        told[family] = {
            "questions": len(asked) // len(answers),
            "citations": round(fmean(a.citation_right for a in asked), 3),
            "facts": round(fmean(facts), 3) if facts else None,
        }
    return told


def summarise(
    records: Sequence[Record], answers_of: Callable[[Record], list[Answer]], baseline: str
) -> list[dict[str, Any]]:
    """One row for each variant that has finished, with its differences to the variant `baseline`."""
    best = best_runs(records)
    answers = {variant: [answers_of(record) for record in runs] for variant, runs in best.items()}
    rows = []
    for variant, runs in best.items():
        losses = [record["held_out_loss"] for record in runs]
        row: dict[str, Any] = {
            "variant": variant,
            "rate": runs[0]["rate"],
            "seeds": len(runs),
            **{name: [record[name] for record in runs] for name in ("steps", "tokens", "seconds", "train_examples")},
            "held_out_loss": {"mean": fmean(losses), "low": min(losses), "high": max(losses)},
            **{name: _rounded(e) for name, e in estimates(answers[variant]).items()},
            "forgetting": [record["forgetting"] and record["forgetting"]["value"] for record in runs],
            "by_family": by_family(answers[variant]),
        }
        if variant != baseline and baseline in answers:
            told = differences(answers[variant], answers[baseline])
            row[f"against {baseline}"] = {name: _rounded(e) for name, e in told.items()}
        rows.append(row)
    return rows


def _rounded(e: Estimate | None) -> dict[str, Any] | None:
    return e and {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(e).items()}


def table(rows: Sequence[Mapping[str, Any]], records: Sequence[Record], baseline: str) -> str:
    """The summary in Markdown; the last row is the base, each figure from the contender that is best at it."""
    head = [
        "variant",
        "rate",
        "seeds",
        "tokens",
        "s",
        "held-out loss",
        "answer loss",
        "citations",
        "facts",
        "forgetting",
    ]
    lines = [[*head, f"citations − {baseline}", f"answer loss − {baseline}"]]
    for row in rows:
        against, loss = row.get(f"against {baseline}", {}), row["held_out_loss"]
        forgotten = [value for value in row["forgetting"] if value is not None]
        lines.append(
            [
                row["variant"],
                f"{row['rate']:g}",
                f"{row['seeds']}",
                f"{fmean(row['tokens']):,.0f}",
                f"{fmean(row['seconds']):.0f}",
                f"{loss['mean']:.3f} ({loss['low']:.3f}–{loss['high']:.3f})",
                _text(row["answer_loss"], "{:.3f}"),
                _text(row["citations"], "{:.0%}"),
                _text(row["facts"], "{:.0%}"),
                f"{fmean(forgotten):+.1%}" if forgotten else "unscored",
                _text(against["citations"], "{:+.1%}") if against else "",
                _text(against["answer_loss"], "{:+.3f}") if against else "",
            ]
        )
    judged = next((record for record in records if "citations" in record), None)
    if judged is not None:
        base = [
            _text(judged[f"base_{n}"], form)
            for n, form in (("answer_loss", "{:.3f}"), ("citations", "{:.0%}"), ("facts", "{:.0%}"))
        ]
        lines.append(["base at its best", *[""] * 5, *base, *[""] * 3])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(e: Mapping[str, Any] | None, form: str) -> str:
    return number(Estimate(**e) if e else None, form)


def draw(records: Sequence[Record]) -> bytes:
    """A PNG: held-out loss of each variant at its best rate against steps and seconds, and of all against the rate."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    best = best_runs(records)
    rates = sorted({record["rate"] for record in records})
    figure = Figure(figsize=(5 * (2 + (len(rates) > 1)), 4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2 + (len(rates) > 1), sharey=True)
    for colour, (variant, runs) in zip(colormaps["tab10"].colors * len(best), best.items(), strict=False):
        for place, record in enumerate(runs):
            for axes, x in zip(panels, ("step", "seconds"), strict=False):
                label = f"{variant}, {record['rate']:g}" if place == 0 else None
                points = [(point[x], point["loss"]) for point in record["curve"]]
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, alpha=0.8, label=label)
        if len(rates) > 1:
            ends = defaultdict(list)
            for record in records:
                if record["variant"] == variant and "failed" not in record:
                    ends[record["rate"]].append(record["held_out_loss"])
            points = sorted((rate, fmean(losses)) for rate, losses in ends.items())
            panels[2].plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4)
    names = ("optimizer step", "seconds, with initialisation", "learning rate")
    for axes, name in zip(panels, names, strict=False):
        axes.set(xlabel=name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if len(rates) > 1:
        panels[2].set_xscale("log")
    panels[0].set(ylabel="held-out loss (nats per answer token)", yscale="log")
    panels[0].legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
