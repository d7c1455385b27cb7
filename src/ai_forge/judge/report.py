"""`report.html` and `report.md`: the verdict first, then the evidence, then what is not known.

The HTML is one file with its pictures inside, readable offline and years later. Both come from the same values.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from ai_forge.judge.evaluation import BASE_AS_SERVED, CONTENDERS, TUNED, Answer, Evaluation
from ai_forge.judge.looked import ServedSpeed
from ai_forge.judge.named import named_figures, not_measured, perplexities_of
from ai_forge.judge.questions.people import FIGURES, PeopleAnswer
from ai_forge.judge.scoring import rouge_l
from ai_forge.judge.statistics import Estimate
from ai_forge.judge.verdict import BASES, Row, Verdict, best_base, in_points
from ai_forge.model_files.base import Origin
from ai_forge.training.callbacks import draw_loss_curve
from ai_forge.training.record import TrainingRecord
from ai_forge.workspace import atomic_write

INK, MUTED, ACCENT = "#22313f", "#9db4c0", "#c1440e"
N_SHOWN = 8


@dataclass(frozen=True)
class ReportData:
    """Everything that the report tells."""

    repository: str
    commit: str | None
    run_id: str
    created: str
    base: Mapping[str, Any]
    counts: Sequence[tuple[str, str]]
    training: TrainingRecord
    evaluation: Evaluation
    verdict: Verdict
    parity: Mapping[str, Any] | None
    unknowns: Sequence[str]
    max_new_tokens: int
    model: str
    speed: ServedSpeed | None = None
    """Of the tuned model's file; None where it was not measured."""


def unknowns(training: TrainingRecord, origin: Origin) -> list[str]:
    """What a reader must not conclude."""
    texts = [
        "The held-out questions are made by the same rules as the training questions, about other files: they show "
        "what was learned about answering from code, not how people will ask.",
        "A right citation and the right names do not make a whole sentence right; read the answers themselves.",
        "What was forgotten is measured as likelihood of held-out code and of 24 short general texts; that the model still "
        "writes and talks as well (HumanEval, conversations) is not measured here.",
        "One training with one seed: another would end within a few points of this one.",
    ]
    if origin.lossy:
        texts.append(
            f"The base came as {origin.quantization} and was already rounded; nothing here compares with the "
            "original weights."
        )
    if training.n_too_long:
        texts.append(f"{training.n_too_long} training examples were longer than the model was trained on and left out.")
    return texts


def number(e: Estimate | None, form: str = "{:.2f}") -> str:
    """An estimate as text, `value (low to high)`."""
    if e is None:
        return "unscored"
    if e.low is None or e.high is None:
        return f"{form.format(e.value)} (n = {e.n}, no interval)"
    return f"{form.format(e.value)} ({form.format(e.low)} to {form.format(e.high)})"


def percent(e: Estimate | None) -> str:
    """A proportion as text."""
    return number(e, "{:.0%}")


def counted(e: Estimate | None, form: str = "{:.2f}") -> str:
    """An estimate with its interval and of how many it is.

    >>> counted(Estimate(0.5, 0.25, 0.75, 4), "{:.0%}")
    '50% (25% to 75%), n = 4'
    """
    if e is None or e.low is None:
        return number(e, form)
    return f"{number(e, form)}, n = {e.n}"


ADVICE = {
    "promote": "It answers better than the model it was made from and lost nothing beyond its budgets: it may be deployed.",
    "hold": "It is not shown to be better: keep the model that is deployed. More questions or another training may show it.",
    "reject": "It became surely worse in what is named: do not deploy it.",
}


def about_intervals(verdict: Verdict) -> str:
    """Which level the intervals have, what is resampled, and what is corrected for."""
    level = f"{verdict.confidence:.1%}".replace(".0%", "%")
    return (
        f"In brackets {level} intervals: shares by Wilson's formula over single questions, which is too narrow "
        "where questions of one file stand or fall together; losses, likeness and all differences by a bootstrap of whole "
        "files. To promote, all checks must pass, which needs no correction; to reject, one is enough, so each is held to a "
        "stricter level (Bonferroni); looks at the questions before all were asked count as well."
    )


def about_questions(evaluation: Evaluation, verdict: Verdict) -> str:
    """Whose questions these are, how many, and what was left out before they were asked."""
    recall = number(verdict.retrieval_recall, "{:.0%}")
    return (
        f"The {len(evaluation.of(TUNED))} questions are written by the pipeline and not by people: by rule from held-out files, "
        "only such whose answer lies in an indexed block; more were not asked once these told the contenders apart. The code that "
        f"answers was among what was shown in {recall} of them, which says nothing of the questions that were left out."
    )


def about_people(evaluation: Evaluation, verdict: Verdict, max_new_tokens: int) -> str:
    """How many of the team's questions were asked, in which way; or how to write some."""
    people = evaluation.people
    if not people.n_written:
        return (
            "Nobody has written questions of their own (.ai-forge/questions.yaml in the repository): what follows is asked by the "
            'pipeline alone. Write some: ai-forge questions add "…" --file PATH, or see ai-forge questions suggest.'
        )
    found = sum(answer.score.found_among for answer in people.of(TUNED))
    late = people.n_written - people.n_asked - len(people.left_out)
    text = (
        f"{people.n_asked} of the {people.n_written} questions that people wrote (.ai-forge/questions.yaml) were put to both, with "
        f"the documents that the deployed model is shown, in at most {max_new_tokens} tokens of an answer; of {found} a right file "
        "was among the first three that were found. Right is an answer that cites a place that answers the question and nothing "
        f"that it was not shown, and says what it must and nothing that it must not. "
        f"{verdict.people_confidence:.0%} intervals over questions."
    )
    if late > 0:
        text += f" {late} more did not fit into the time for answers (judge.time_budget_s)."
    return text


def people_side_by_side(evaluation: Evaluation) -> list[tuple[PeopleAnswer, PeopleAnswer]]:
    """(tuned, base) answers to every question of people."""
    return list(zip(evaluation.people.of(TUNED), evaluation.people.of(BASE_AS_SERVED), strict=True))


def measures(evaluation: Evaluation, confidence: float) -> list[tuple[str, Estimate | None, Estimate | None]]:
    """(name, base, tuned) of each measure that people know by name, as served with retrieval; none where nothing was looked at."""
    base, tuned = (named_figures(evaluation, name, confidence) for name in (BASE_AS_SERVED, TUNED))
    names = [*tuned, *(name for name in base if name not in tuned)]
    found = [(name, base.get(name), tuned.get(name)) for name in names]
    return [row for row in found if row[1] is not None or row[2] is not None]


def families(evaluation: Evaluation, rival: str) -> list[tuple[str, int, int, int]]:
    """For each kind of question: its name, how many, right citations of the tuned model and of the rival."""
    found: dict[str, tuple[int, int, int]] = {}
    for ours, theirs in zip(evaluation.of(TUNED), evaluation.of(rival), strict=True):
        n, right, rivals = found.get(ours.family, (0, 0, 0))
        found[ours.family] = (n + 1, right + ours.citation_right, rivals + theirs.citation_right)
    return [(family, *counts) for family, counts in sorted(found.items(), key=lambda item: (-item[1][0], item[0]))]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # else the bytes change with matplotlib's version
    return buffer.getvalue()


def markdown_text(text: str) -> str:
    """A model's words on one line of Markdown, without markup of their own: escaped but in code spans, which show it.

    >>> markdown_text("`a -> b` is <b>\\nfine")
    '`a -> b` is &lt;b&gt; fine'
    """
    flat = text.replace("\n", " ")
    pieces = flat.split("`")
    spans_are_whole = len(pieces) % 2 and "``" not in flat  # else what opens a span does not surely end one
    for place, piece in enumerate(pieces):
        if not (spans_are_whole and place % 2):
            pieces[place] = html.escape(piece, quote=False)
    return "`".join(pieces)


def draw_contenders(rows: Sequence[Row]) -> bytes:
    """Citations and facts of each contender with their intervals, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.9), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    from_below = rows[::-1]  # so that the first row stands on top
    names = [row.contender for row in from_below]
    panels = (
        (left, "right citations", [row.citations for row in from_below]),
        (right, "facts stated right", [row.facts for row in from_below]),
    )
    for axes, title, estimates in panels:
        for place, (name, e) in enumerate(zip(names, estimates, strict=True)):
            if e is None:
                axes.text(0.02, place, "unscored", va="center", color=INK)
                continue
            axes.barh(place, e.value, color=ACCENT if name == TUNED else MUTED, height=0.6)
            if e.low is not None and e.high is not None:
                axes.plot([e.low, e.high], [place, place], color=INK, linewidth=1.4)
        n = max((e.n for e in estimates if e is not None), default=0)
        axes.set(xlim=(0, 1), title=f"{title} (n = {n})", yticks=range(len(names)), yticklabels=names)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def draw_loss_distribution(evaluation: Evaluation, rival: str) -> bytes:
    """Answer loss per question, tuned against the best base, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    ours = [a.loss / a.n_tokens for a in evaluation.of(TUNED)]
    theirs = [a.loss / a.n_tokens for a in evaluation.of(rival)]
    top = max([*ours, *theirs, 0.1])
    bins = [top * i / 30 for i in range(31)]
    axes.hist(theirs, bins=bins, color=MUTED, alpha=0.8, label=f"{rival} (n = {len(theirs)})")
    axes.hist(ours, bins=bins, color=ACCENT, alpha=0.8, label=f"{TUNED} (n = {len(ours)})")
    axes.set(xlabel="answer loss of a question (nats per token)", ylabel="questions")
    figure.legend(frameon=False, loc="outside upper right", ncols=2)  # above: no bar is hidden by it
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def side_by_side(evaluation: Evaluation, rival: str) -> list[tuple[Answer, Answer]]:
    """(tuned, rival) answers of up to `N_SHOWN` questions: those that differ most, the others right and wrong in turn."""
    pairs = list(zip(evaluation.of(TUNED), evaluation.of(rival), strict=True))
    by_difference = sorted(pairs, key=lambda pair: rouge_l(pair[0].answer, pair[1].answer))
    chosen = by_difference[: N_SHOWN // 4]
    left = [pair for pair in pairs if pair not in chosen]
    # a question that asks for no facts is right by its citation alone
    right = [p for p in left if p[0].citation_right and p[0].facts_right is not False]
    wrong = [p for p in left if p not in right]
    n_left = N_SHOWN - len(chosen)
    n_wrong = min(len(wrong), n_left // 2)
    return right[: n_left - n_wrong] + wrong[:n_wrong] + chosen


def environment() -> Environment:
    """The judge's templates: HTML escapes what it is given, and Markdown has the filter `markdown` for a model's words."""
    made = Environment(
        loader=PackageLoader("ai_forge.judge"),
        # not in Markdown, where entities within code spans are shown as they stand: its filter leaves those out
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["markdown"] = markdown_text
    return made


def write_report(folder: Path, data: ReportData) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into `folder`; return their paths."""
    rival = best_base(data.verdict.rows, lambda r: r.citations)
    loss_rival = best_base(data.verdict.rows, lambda r: r.answer_loss, lowest=True)
    steps = [(event.step, event.loss) for event in data.training.steps]
    evaluations = [(event.step, event.loss) for event in data.training.evaluations]
    pictures = {
        "contenders": draw_contenders(data.verdict.rows),
        "loss_curve": draw_loss_curve(steps, evaluations),
        "loss_distribution": draw_loss_distribution(data.evaluation, loss_rival),
    }
    for name, picture in pictures.items():
        atomic_write(folder / "pictures" / f"{name}.png", picture)
    templates = environment()
    values = {
        "data": data,
        "verdict": data.verdict,
        "rival": rival,
        "tuned": TUNED,
        "bases": BASES,
        "contenders": CONTENDERS,
        "evaluations": evaluations,
        "pairs": side_by_side(data.evaluation, rival),
        "advice": ADVICE[data.verdict.decision],
        "about_intervals": about_intervals(data.verdict),
        "about_questions": about_questions(data.evaluation, data.verdict),
        "families": families(data.evaluation, rival),
        "people": data.evaluation.people,
        # a figure that no question asks for is no column
        "people_figures": [
            name for name in FIGURES if any(row.figures[name] is not None for row in data.verdict.people)
        ],
        "people_pairs": people_side_by_side(data.evaluation),
        "about_people": about_people(data.evaluation, data.verdict, data.max_new_tokens),
        "base_as_served": BASE_AS_SERVED,
        "measures": measures(data.evaluation, data.verdict.people_confidence),
        "perplexities": {name: perplexities_of(data.evaluation.of(name)) for name in (BASE_AS_SERVED, TUNED)},
        "speed": data.speed,
        "not_measured": not_measured(data.model),
        "marks": {True: "✓", False: "✗", None: "–"},
        "n_shown": N_SHOWN,
        "counted": counted,
        "in_points": in_points,
        "number": number,
        "percent": percent,
        "pictures": {name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
    }
    paths = folder / "report.html", folder / "report.md"
    for path in paths:
        atomic_write(path, templates.get_template(f"{path.name}.j2").render(values))
    return paths
