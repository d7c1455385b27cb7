"""Base and tuned model complete the same gaps, with what stands around and with retrieved context besides.

Both models are asked in the same form, greedily. Of each answer: whether it is the truth (but for white space), how like it is,
whether its names are right; and of the truth itself how unlikely it was (nats per byte), which depends on no cutting.

A time budget is kept by asking the base first, in rounds over all files: the tuned model then gets exactly the gaps that the
base had time for in half of it.
"""

import re
import time
from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rapidfuzz.distance import Indel

from ai_forge.data_pipeline.gaps.cutting import Gap
from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.completions import GapKind
from ai_forge.data_pipeline.text.words import identifiers
from ai_forge.events import Progress
from ai_forge.judge.statistics import Estimate, bootstrap, paired_difference
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.completion import FimTokens, completion_chat, completion_opening, fim_prompt, trimmed
from ai_forge.training.backends.base import Generator

__all__ = ["Completed", "CompletionFigures", "CompletionRow", "complete_all", "figures_of"]

BATCH = 8
TOKENS_OF_A_LINE, TOKENS_OF_MORE = 40, 96
Load = Callable[[bool], Generator]


class CompletionRow(BaseModel):
    """One gap completed by one model. `nats` is −log p of the true text, `n_bytes` its length."""

    model_config = ConfigDict(frozen=True)

    tuned: bool
    context: bool
    path: str
    kind: GapKind
    commit: str | None
    truth: str
    answer: str
    exact: bool
    edit_similarity: float
    names_right: float | None
    nats: float
    n_bytes: int


class Completed(BaseModel):
    """Everything that was completed, in which form the models were asked, and where the gaps came from."""

    model_config = ConfigDict(frozen=True)

    form: Literal["fill-in-the-middle", "chat"]
    source: Literal["commits", "held-out files"]
    n_commits: int
    before: str | None
    skipped: dict[str, int]
    rows: tuple[CompletionRow, ...]


def complete_all(
    gaps: Sequence[Gap],
    load: Load,
    tokenizer: ChatTokenizer,
    context: Callable[[Gap], Sequence[Document]],
    *,
    budget_s: float,
    progress: Progress,
    batch_size: int = BATCH,
) -> list[CompletionRow]:
    """Both models on `gaps`, `batch_size` at a time, or on as many as the time allows; at most one model in memory at a time."""
    fim = FimTokens.of(lambda text: len(tokenizer.encode(text)) == 1)
    shown = {id(gap): tuple(context(gap)) for gap in gaps}
    rows: list[CompletionRow] = []
    todo = list(gaps)
    for tuned in (False, True):
        model = load(tuned)
        began = time.monotonic()
        done: list[Gap] = []
        for start in range(0, len(todo), batch_size):
            if not tuned and done and time.monotonic() - began > budget_s / 2:
                break
            batch = todo[start : start + batch_size]
            for one_line in (True, False):
                part = [gap for gap in batch if gap.one_line is one_line]
                for with_context in (False, True) if part else ():
                    documents = [shown[id(gap)] if with_context else () for gap in part]
                    rows += _rows(model, tokenizer, fim, part, documents, tuned=tuned, with_context=with_context)
            done += batch
            progress(len(done) + len(todo) * tuned, 2 * len(todo), "tuned" if tuned else "base")
        todo = done
        del model  # before the other one is loaded: two may not fit
    return rows


def form_of(tokenizer: ChatTokenizer) -> Literal["fill-in-the-middle", "chat"]:
    """In which form a base is asked."""
    fim = FimTokens.of(lambda text: len(tokenizer.encode(text)) == 1)
    return "chat" if fim is None else "fill-in-the-middle"


def _rows(
    model: Generator,
    tokenizer: ChatTokenizer,
    fim: FimTokens | None,
    gaps: Sequence[Gap],
    documents: Sequence[Sequence[Document]],
    *,
    tuned: bool,
    with_context: bool,
) -> list[CompletionRow]:
    prompts = []
    for gap, shown in zip(gaps, documents, strict=True):
        if fim is not None:
            prompts.append(tokenizer.encode(fim_prompt(fim, gap.path, gap.prefix, gap.suffix, shown)))
        else:
            chat = tokenizer.render(completion_chat(gap.path, gap.language, gap.prefix, gap.suffix, shown))
            prompts.append(tokenizer.encode(chat + completion_opening(gap.language, gap.prefix)))
    truths = [tokenizer.encode(gap.text) for gap in gaps]
    longest = TOKENS_OF_A_LINE if gaps[0].one_line else TOKENS_OF_MORE
    answers = model.answer(prompts, truths, longest)
    # where a served model stops as well: behind the end of a middle a base goes on with another file
    ends = {i for token in (fim.end, fim.file) if token for i in tokenizer.encode(token)} if fim is not None else set()
    return [
        _row(
            gap,
            trimmed(tokenizer.decode(_up_to(ids, ends)), gap.suffix, one_line=gap.one_line),
            nats,
            tuned,
            with_context,
        )
        for gap, (ids, nats) in zip(gaps, answers, strict=True)
    ]


def _up_to(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first of `ends`."""
    return list(takewhile(lambda token: token not in ends, ids))


def _row(gap: Gap, answer: str, nats: float, tuned: bool, with_context: bool) -> CompletionRow:
    truth, written = _plain(gap.text), _plain(answer)
    names, ours = set(identifiers(truth)), set(identifiers(written))
    return CompletionRow(
        tuned=tuned,
        context=with_context,
        path=gap.path,
        kind=gap.kind,
        commit=gap.commit,
        truth=gap.text,
        answer=answer,
        exact=truth == written,
        edit_similarity=Indel.normalized_similarity(truth, written),
        names_right=2 * len(names & ours) / (len(names) + len(ours)) if names else None,
        nats=nats,
        n_bytes=len(gap.text.encode()),
    )


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# -- figures ------------------------------------------------------------------------------------------------------------


class CompletionFigures(BaseModel):
    """Of one way of asking: base, tuned, and tuned − base with its paired interval over files."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    context: bool
    n: int
    n_files: int
    base: dict[str, float]
    tuned: dict[str, float]
    difference: dict[str, Estimate]


def figures_of(rows: Sequence[CompletionRow], confidence: float = 0.95, seed: int = 0) -> list[CompletionFigures]:
    """The figures without and with context; none of what nobody completed."""
    found = []
    for context in (False, True):
        base, tuned = (_in_order(rows, context, tuned) for tuned in (False, True))
        if not base or len(base) != len(tuned):
            continue
        difference: dict[str, Estimate] = {}
        means: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for name in ("exact", "edit_similarity", "names_right"):
            pairs = [
                (getattr(t, name), getattr(b, name), b.path)
                for b, t in zip(base, tuned, strict=True)
                if getattr(b, name) is not None
            ]
            ours, theirs, paths = zip(*pairs, strict=True) if pairs else ((), (), ())
            estimate = paired_difference(ours, theirs, groups=paths, confidence=confidence, seed=seed)
            if estimate is not None:
                difference[name] = estimate
                means[0][name], means[1][name] = float(np.mean(theirs)), float(np.mean(ours))
        nats = [(t.nats, b.nats, b.n_bytes) for b, t in zip(base, tuned, strict=True)]
        estimate = bootstrap(nats, _nats_per_byte, groups=[b.path for b in base], confidence=confidence, seed=seed)
        assert estimate is not None, "there are rows"
        difference["nats_per_byte"] = estimate
        n_bytes = sum(b.n_bytes for b in base)
        means[0]["nats_per_byte"] = sum(b.nats for b in base) / n_bytes
        means[1]["nats_per_byte"] = sum(t.nats for t in tuned) / n_bytes
        n_files = len({b.path for b in base})
        found.append(
            CompletionFigures(
                context=context, n=len(base), n_files=n_files, base=means[0], tuned=means[1], difference=difference
            )
        )
    return found


def _in_order(rows: Sequence[CompletionRow], context: bool, tuned: bool) -> list[CompletionRow]:
    chosen = [row for row in rows if row.context is context and row.tuned is tuned]
    return sorted(chosen, key=lambda row: (row.path, row.kind, row.truth))


def _nats_per_byte(data: NDArray[np.float64]) -> float:
    """Tuned − base, of columns tuned nats, base nats, bytes."""
    return float((data[:, 0].sum() - data[:, 1].sum()) / data[:, 2].sum())
