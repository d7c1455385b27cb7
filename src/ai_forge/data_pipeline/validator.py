"""Is the data good enough to train on? Checks of blocks and examples, scores of a dataset, and what to drop.

A check returns every problem it finds. Scores are explained in `scoring`; one that cannot be computed is None, never 0.
5,000 examples take a few seconds. Whether the answers are *useful* no score here can tell: read the worst and some
others in the report.
"""

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.config.data import MinerSettings, ValidatorSettings
from ai_forge.data_pipeline.datasets.quality_report import render_report, score_histogram
from ai_forge.data_pipeline.examples.scoring import ExampleScores, Scorer, distractor_relevance
from ai_forge.data_pipeline.examples.verification import verify_example
from ai_forge.data_pipeline.languages import LANGUAGES
from ai_forge.data_pipeline.mining.filters import file_rejection, subject_rejection
from ai_forge.data_pipeline.schemas import CodeBlock, DataQualityMetrics, RAFTExample
from ai_forge.data_pipeline.schemas.raft_examples import difficulty_of
from ai_forge.data_pipeline.text.near_duplicates import near_duplicate_pairs
from ai_forge.data_pipeline.text.words import subwords
from ai_forge.errors import AIForgeError, InputError
from ai_forge.json_lines import read_jsonl

__all__ = [
    "Assessment",
    "assess",
    "filter_dataset",
    "generate_quality_report",
    "read_dataset",
    "score_data_quality",
    "score_histogram",
    "validate_code_block",
    "validate_raft_example",
]

_NEAR_DUPLICATE_WIDTH = 3


@dataclass(frozen=True)
class Assessment:
    """A dataset's metrics and the scores of each example, in its order."""

    metrics: DataQualityMetrics
    scores: tuple[ExampleScores, ...]
    distractor_relevance: float | None
    mean_quality: float | None


def validate_code_block(block: CodeBlock, settings: MinerSettings | None = None) -> tuple[bool, list[str]]:
    """(whether the block may be a subject, what is wrong with it)."""
    problems: list[str] = []
    meta = block.metadata
    if block.language not in LANGUAGES:
        problems.append(f"unknown language {block.language!r}")
    if block.path.startswith("/") or ".." in block.path.split("/") or "\\" in block.path:
        problems.append(f"path {block.path!r} is not relative to the repository")
    n_lines = block.source_code.count("\n") + 1 - meta.head_lines - meta.tail_lines
    if meta.last_line - meta.first_line + 1 != n_lines:
        problems.append(f"lines {meta.first_line}-{meta.last_line} but {n_lines} lines of source")
    if block.block_type != "module" and block.name not in block.source_code and block.name != "default":
        problems.append(f"the source does not hold the name {block.name!r}")
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", meta.blob_id):
        problems.append("blob_id is no git object id")
    # The miner's own filters once more: blocks may come from elsewhere.
    reason = file_rejection(block.path, block.source_code.encode("utf-8", "replace"))
    reason = reason or subject_rejection(block, settings or MinerSettings())
    if reason is not None:
        problems.append(reason)
    return not problems, problems


def validate_raft_example(example: RAFTExample, settings: ValidatorSettings | None = None) -> tuple[bool, list[str]]:
    """(whether the example may be trained on, what is wrong with it), from the example alone."""
    settings = settings or ValidatorSettings()
    problems = verify_example(example)
    if not example.question.strip() or not example.final_answer.strip():
        problems.append("the question or the answer is empty")
    shown = [document.block_id for document in (*example.oracle_documents, *example.distractor_documents)]
    if not shown:
        problems.append("shows no document")
    if len(shown) != len(set(shown)):
        problems.append("shows a document twice")
    expected = difficulty_of(len(example.oracle_documents), len(example.distractor_documents))
    if example.difficulty != expected:
        problems.append(f"is called {example.difficulty}, its documents make it {expected}")
    relevance = distractor_relevance(example)
    if relevance is not None and relevance > settings.max_distractor_relevance:
        problems.append(f"a distractor holds {relevance:.0%} of the answer")
    return not problems, problems


def assess(dataset: Sequence[RAFTExample], settings: ValidatorSettings | None = None) -> Assessment:
    """Score a dataset as a whole and each of its examples."""
    settings = settings or ValidatorSettings()
    scorer = Scorer(dataset)
    scores = tuple(scorer.score(example) for example in dataset)
    n_duplicates, near = _duplicates(dataset, settings)
    difficulties: Counter[str] = Counter(example.difficulty for example in dataset)
    quality = _mean(score.quality for score in scores)
    diversity = _diversity([example.question for example in dataset])
    balance = _balance(difficulties)
    relevance = _mean(s.oracle_relevance for s in scores if s.oracle_relevance is not None)
    parts = [(0.7, quality), (0.15, diversity), (0.15, balance)]
    known = [(weight, value) for weight, value in parts if value is not None]
    overall = None
    if known:  # what is unscored has no weight: it neither lifts nor lowers the rest
        overall = sum(weight * value for weight, value in known) / sum(weight for weight, _ in known)
    metrics = DataQualityMetrics(
        n_examples=len(dataset),
        overall=_rounded(overall),
        relevance=_rounded(relevance),
        diversity=_rounded(diversity),
        difficulty_balance=_rounded(balance),
        n_duplicates=n_duplicates,
        n_near_duplicates=len(near),
        by_difficulty=dict(difficulties.most_common()),
        by_family=dict(Counter(example.family for example in dataset).most_common()),
        rejected=dict(Counter(problem for score in scores for problem in score.problems).most_common(20)),
    )
    distracting = _mean(s.distractor_relevance for s in scores if s.distractor_relevance is not None)
    return Assessment(metrics, scores, _rounded(distracting), _rounded(quality))


def score_data_quality(dataset: Sequence[RAFTExample], settings: ValidatorSettings | None = None) -> dict[str, object]:
    """The dataset's `DataQualityMetrics` as a dict, with `mean_quality`, `distractor_relevance` and `passes`.

    `passes` tells for each threshold whether the dataset's mean keeps it; None where it is unscored.
    """
    settings = settings or ValidatorSettings()
    assessment = assess(dataset, settings)
    return assessment.metrics.model_dump() | {
        "mean_quality": assessment.mean_quality,
        "distractor_relevance": assessment.distractor_relevance,
        "passes": thresholds_met(assessment, settings),
    }


def thresholds_met(assessment: Assessment, settings: ValidatorSettings) -> dict[str, bool | None]:
    """Which of the three thresholds the dataset's means keep."""
    quality, relevance = assessment.mean_quality, assessment.metrics.relevance
    distracting = assessment.distractor_relevance
    return {
        "quality": None if quality is None else quality >= settings.min_quality,
        "oracle_relevance": None if relevance is None else relevance >= settings.min_oracle_relevance,
        "distractor_relevance": None if distracting is None else distracting <= settings.max_distractor_relevance,
    }


def filter_dataset(
    examples: Sequence[RAFTExample], settings: ValidatorSettings | None = None
) -> tuple[list[RAFTExample], Counter[str]]:
    """(examples worth training on in their order, dropped ones counted by reason).

    Dropped: those that do not validate, the later ones of duplicates and near-duplicates, those of low quality.
    """
    settings = settings or ValidatorSettings()
    rejected: Counter[str] = Counter()
    scorer = Scorer(examples)
    _, near = _duplicates(examples, settings)
    seen: set[str] = set()
    kept: list[RAFTExample] = []
    for position, example in enumerate(examples):
        ok, problems = validate_raft_example(example, settings)
        if not ok:
            rejected["distractor_holds_answer" if problems[0].startswith("a distractor") else "not_valid"] += 1
        elif example.id in seen:
            rejected["duplicate"] += 1
        elif position in near:
            rejected["near_duplicate"] += 1
        elif scorer.score(example, problems).quality < settings.min_quality:
            rejected["low_quality"] += 1
        else:
            kept.append(example)
        seen.add(example.id)
    return kept, rejected


def generate_quality_report(
    dataset: Sequence[RAFTExample],
    settings: ValidatorSettings | None = None,
    *,
    before: int | None = None,
    rejected: Counter[str] | None = None,
) -> str:
    """The quality report in Markdown: size, distribution, scores, failure modes, histogram, the worst examples in full.

    `before` and `rejected` (number of examples before the filter, and its reasons) add the before/after table.
    """
    settings = settings or ValidatorSettings()
    assessment = assess(dataset, settings)
    return render_report(
        dataset,
        assessment.metrics,
        assessment.scores,
        thresholds={
            "mean quality": (assessment.mean_quality, "≥", settings.min_quality),
            "oracle relevance": (assessment.metrics.relevance, "≥", settings.min_oracle_relevance),
            "distractor relevance": (assessment.distractor_relevance, "≤", settings.max_distractor_relevance),
        },
        before=before,
        rejected=rejected or Counter(),
    )


def read_dataset(path: str | Path) -> list[RAFTExample]:
    """Examples from a JSON Lines file. Raises InputError with the line that is not one."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file.", "Give a dataset in JSON Lines.")
    return read_jsonl(path, RAFTExample)


def _duplicates(dataset: Sequence[RAFTExample], settings: ValidatorSettings) -> tuple[int, set[int]]:
    """(number of exact duplicates, positions of the later one of each near-duplicate pair)."""
    n_duplicates = len(dataset) - len({example.id for example in dataset})
    texts = [f"{example.question}\n{example.target}" for example in dataset]
    pairs = near_duplicate_pairs(texts, settings.near_duplicate, width=_NEAR_DUPLICATE_WIDTH)
    return n_duplicates, {later for first, later, _ in pairs if dataset[first].id != dataset[later].id}


def _diversity(questions: Sequence[str]) -> float | None:
    """1 − mean cosine of two different questions' subword counts; None for fewer than two."""
    n = len(questions)
    if n < 2:
        return None
    # The squared length of the sum of n unit vectors is n plus twice the sum of all pairs' cosines: no pair is visited.
    total: Counter[str] = Counter()
    for question in questions:
        counts = Counter(subwords(question))
        norm = math.sqrt(sum(c * c for c in counts.values())) or 1.0
        for word, count in counts.items():
            total[word] += count / norm  # type: ignore[assignment]
    squared = sum(value * value for value in total.values())
    return max(0.0, 1 - (squared - n) / (n * (n - 1)))


def _balance(difficulties: Counter[str]) -> float | None:
    """Entropy of the three difficulties over its maximum."""
    n = sum(difficulties.values())
    if not n:
        return None
    return -sum(c / n * math.log(c / n) for c in difficulties.values() if c) / math.log(3)


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(min(1.0, max(0.0, value)), 4)


def main(arguments: list[str] | None = None) -> int:
    """`python -m ai_forge.data_pipeline.validator DATASET.jsonl`: scores as JSON, or the Markdown report."""
    parser = argparse.ArgumentParser(prog="python -m ai_forge.data_pipeline.validator", description=main.__doc__)
    parser.add_argument("dataset", help="RAFT examples, JSON Lines")
    parser.add_argument("--report", action="store_true", help="print the Markdown report instead")
    parser.add_argument("--histogram", type=Path, metavar="FILE.png", help="write the histogram of the scores here")
    given = parser.parse_args(arguments)
    try:
        dataset = read_dataset(given.dataset)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    kept, rejected = filter_dataset(dataset)
    if given.histogram:
        given.histogram.write_bytes(score_histogram(assess(dataset).scores))
    if given.report:
        print(generate_quality_report(kept, before=len(dataset), rejected=rejected))
    else:
        print(json.dumps(score_data_quality(dataset) | {"kept": len(kept), "filtered": dict(rejected)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
