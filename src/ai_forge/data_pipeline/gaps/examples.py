"""The gaps that are trained on: of training files only, those that past commits wrote before any others.

Commits whose changes to held-out files the judge takes apart are held out whole: what they wrote in training files is not
asked for either, and no gap is taken whose text stands in a held-out file as well.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.data_pipeline.gaps.cutting import MAX_BYTES, Gap, chosen, gaps_in
from ai_forge.data_pipeline.gaps.history import as_before, newest_commits
from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.mining.parsing import normalise
from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.completions import CompletionExample
from ai_forge.data_pipeline.secrets.masking import scrub, without_secrets

__all__ = ["TrainingGaps", "completion_examples", "training_gaps"]

MIN_BYTES = 50  # shorter ones say little of how this project writes
MAX_GAPS_OF_FILE = 16
NEIGHBOURS_SHARE = 0.5
KEPT_PREFIX, KEPT_SUFFIX = 8 * MAX_BYTES, 4 * MAX_BYTES  # characters; several times what a prompt shows
_EVERY = 1_000_000


@dataclass(frozen=True)
class TrainingGaps:
    """The gaps, those of past commits first, and why others were left out."""

    gaps: tuple[Gap, ...]
    dropped: Counter[str]


def training_gaps(
    files: Mapping[str, bytes],
    train: Collection[str],
    n: int,
    *,
    history: Path | None,
    placeholder: str,
    seed: int,
) -> TrainingGaps:
    """At most `n` gaps of the files `train`.

    Args:
        files: the content of all files by path; those that are not in `train` are held out.
        train: the paths that may be trained on.
        n: how many.
        history: the repository whose past commits come first; None where there is no history.
        placeholder: what stands in place of secrets; a gap with one is left out.
        seed: decides which are taken.
    """

    def read(content: bytes) -> bytes:
        return scrub(normalise(content), placeholder).content

    allowed, held_out = set(train), set(files) - set(train)
    written: Sequence[Gap] = ()
    states = {path: files[path] for path in sorted(allowed) if path in files}
    if history is not None:
        judged = newest_commits(history, held_out.__contains__, n_gaps=_EVERY).gaps
        without = {gap.commit for gap in judged if gap.commit}
        states |= {path: old for path, old in as_before(history, without).items() if path in states}
        newest = newest_commits(
            history, allowed.__contains__, n_gaps=_EVERY, without=without, min_bytes=MIN_BYTES, read=read
        )
        written = newest.gaps
    standing = []
    for path, content in states.items():
        language = language_of(path, content)
        if language is not None:
            text = read(content).decode("utf-8", "replace")
            standing += gaps_in(path, language, text, min_bytes=MIN_BYTES)
    dropped: Counter[str] = Counter()
    taught = _teachable([_squeezed(files[path].decode("utf-8", "replace")) for path in sorted(held_out)], placeholder)
    first = chosen(_kept(written, taught, dropped), n, per_file=MAX_GAPS_OF_FILE, seed=seed)
    known = {(gap.path, gap.text) for gap in first}
    others = [gap for gap in _kept(standing, taught, dropped) if (gap.path, gap.text) not in known]
    rest = chosen(others, n - len(first), per_file=MAX_GAPS_OF_FILE, seed=seed)
    return TrainingGaps((*first, *rest), dropped)


Reason = Callable[[Gap], str | None]


def _teachable(held_out: Sequence[str], placeholder: str) -> Reason:
    every = "\n".join(held_out)

    def reason(gap: Gap) -> str | None:
        if placeholder in gap.text:
            return "secret"
        return "in_held_out_file" if _squeezed(gap.text) in every else None

    return reason


def _kept(gaps: Sequence[Gap], reason: Reason, dropped: Counter[str]) -> list[Gap]:
    kept = []
    for gap in gaps:
        if why := reason(gap):
            dropped[why] += 1
        else:
            kept.append(gap)
    return kept


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def completion_examples(
    gaps: Sequence[Gap], find: Callable[[Gap], Sequence[Document]], seed: int
) -> tuple[list[CompletionExample], Counter[str]]:
    """The gaps in an order drawn by `seed`, half of them with what `find` gives, and why others were left out."""
    draw = random.Random(f"{seed}/completions")
    rows = []
    for gap in draw.sample(list(gaps), len(gaps)):
        documents: Sequence[Document] = ()
        if draw.random() < NEIGHBOURS_SHARE:
            documents = find(gap)
        around = {"prefix": gap.prefix[-KEPT_PREFIX:], "suffix": gap.suffix[:KEPT_SUFFIX]}
        rows.append(CompletionExample(**gap.model_dump() | around, documents=tuple(documents)))
    return without_secrets(rows)
