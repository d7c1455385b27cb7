"""The quality report as Markdown, and its histogram as a picture."""

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ai_forge.data_pipeline.examples.scoring import ExampleScores
from ai_forge.data_pipeline.schemas import DataQualityMetrics, RAFTExample
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.prompting.prompt import user_turn

__all__ = ["render_report", "score_histogram"]

_N_WORST = 3
_BAR_WIDTH = 40


def render_report(
    dataset: Sequence[RAFTExample],
    metrics: DataQualityMetrics,
    scores: Sequence[ExampleScores],
    *,
    thresholds: Mapping[str, tuple[float | None, str, float]],
    before: int | None,
    rejected: Counter[str],
) -> str:
    """Markdown; `thresholds` maps a name to (value, ≥ or ≤, limit)."""
    parts = [f"# Data quality\n\n{metrics.n_examples} examples", _verdict(thresholds)]
    if not dataset:
        return "\n\n".join([*parts, "There is nothing to score."]) + "\n"
    parts.append(_table("Score", "Value", _score_rows(metrics)))
    if before is not None:
        rows = [("before the filter", str(before)), *((r, f"−{n}") for r, n in rejected.most_common())]
        parts.append("## Filter\n\n" + _table("Step", "Examples", [*rows, ("after", str(metrics.n_examples))]))
    parts.append(
        "## Size\n\n" + _table("Tokens (approximate)", "Median, 90th percentile, largest", _size_rows(dataset))
    )
    parts.append("## Distribution\n\n" + _shares("Difficulty", metrics.by_difficulty))
    parts.append(_shares("Family", metrics.by_family))
    parts.append("## Quality\n\n```\n" + _bars([score.quality for score in scores]) + "\n```")
    failures = "No example contradicts its documents."
    if metrics.rejected:
        failures = _table("Problem", "Examples", [(p, str(n)) for p, n in metrics.rejected.items()])
    parts.append(f"## Failure modes\n\n{failures}")
    parts.append("## The worst examples")
    # By id where the quality is the same: the same data gives the same report.
    worst = sorted(zip(scores, dataset, strict=True), key=lambda pair: (pair[0].quality, pair[1].id))[:_N_WORST]
    parts.extend(_example(example, score) for score, example in worst)
    return "\n\n".join(parts) + "\n"


def score_histogram(scores: Sequence[ExampleScores]) -> bytes:
    """A PNG with the distributions of quality, oracle relevance and distractor relevance."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = {
        "quality": [score.quality for score in scores],
        "oracle relevance": [s.oracle_relevance for s in scores if s.oracle_relevance is not None],
        "distractor relevance": [s.distractor_relevance for s in scores if s.distractor_relevance is not None],
    }
    # Without pyplot, which keeps every figure alive and may look for a display.
    figure = Figure(figsize=(10, 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, values) in zip(figure.subplots(1, 3), series.items(), strict=True):
        axes.hist(values, bins=20, range=(0, 1), color="#3b6ea5")
        axes.set_title(f"{name} (n = {len(values)})")
        axes.set_xlabel("score")
        axes.set_ylabel("examples")
    picture = io.BytesIO()
    # Without the name and version of the program, so that equal scores give equal bytes.
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()


def _verdict(thresholds: Mapping[str, tuple[float | None, str, float]]) -> str:
    lines = []
    for name, (value, sign, limit) in thresholds.items():
        if value is None:
            lines.append(f"- {name}: unscored")
            continue
        misses = value < limit if sign == "≥" else value > limit
        lines.append(f"- {name}: {value:.2f} ({'misses' if misses else 'meets'} {sign} {limit:g})")
    return "\n".join(lines)


def _score_rows(metrics: DataQualityMetrics) -> list[tuple[str, str]]:
    def shown(value: float | None) -> str:
        return "unscored" if value is None else f"{value:.2f}"

    return [
        ("overall", shown(metrics.overall)),
        ("relevance", shown(metrics.relevance)),
        ("diversity of questions", shown(metrics.diversity)),
        ("balance of difficulties", shown(metrics.difficulty_balance)),
        ("duplicates", str(metrics.n_duplicates)),
        ("near-duplicates", str(metrics.n_near_duplicates)),
    ]


def _size_rows(dataset: Sequence[RAFTExample]) -> list[tuple[str, str]]:
    prompts = sorted(approximate_tokens(user_turn(e.question, e.shown_documents)) for e in dataset)
    targets = sorted(approximate_tokens(e.target) for e in dataset)
    return [
        (name, f"{values[len(values) // 2]}, {values[len(values) * 9 // 10]}, {values[-1]}")
        for name, values in (("prompt", prompts), ("target", targets))
    ]


def _table(first: str, second: str, rows: Sequence[tuple[str, str]]) -> str:
    body = "\n".join(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)
    return f"| {first} | {second} |\n|---|---|\n{body}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _shares(name: str, counts: Mapping[str, int]) -> str:
    total = sum(counts.values()) or 1
    return _table(name, "Examples", [(key, f"{n} ({n / total:.0%})") for key, n in counts.items()])


def _bars(values: Sequence[float]) -> str:
    bins = Counter(min(9, int(value * 10)) for value in values)
    most = max(bins.values())
    lines = []
    for low in range(10):
        bar = "█" * math.ceil(bins[low] * _BAR_WIDTH / most)
        lines.append(f"{low / 10:.1f}–{(low + 1) / 10:.1f} {bar} {bins[low]}")
    return "\n".join(lines)


def _example(example: RAFTExample, score: ExampleScores) -> str:
    documents = ", ".join(f"`{d.citation}`" for d in example.oracle_documents) or "none"
    distractors = ", ".join(f"`{d.citation}`" for d in example.distractor_documents) or "none"
    problems = "".join(f"\n- problem: {problem}" for problem in score.problems)
    target = "\n".join(f"> {line}" for line in example.target.splitlines())
    return (
        f"### {example.family}, {example.difficulty}, quality {score.quality:.2f}\n\n"
        f"**{example.question}**\n\n{target}\n\n- oracle: {documents}\n- distractors: {distractors}{problems}"
    )
