"""Hallucination: the share of a model's answers that speak of what exists nowhere (`inventions`)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.data_pipeline.schemas import CodeBlock, RAFTExample
from ai_forge.judge.metrics.inventions import Invention, inventions_in
from ai_forge.judge.metrics.known_names import KnownNames
from ai_forge.judge.metrics.models import MAX_NEW_TOKENS, Answering, Served, opened
from ai_forge.prompting.prompt import messages_for


@dataclass(frozen=True)
class HallucinationReport:
    """`rate`: the share of answers with an invention. `by_kind` counts inventions."""

    rate: float
    n_answers: int
    by_kind: Mapping[str, int]
    inventions: tuple[tuple[Invention, ...], ...]
    """Of each answer."""


def evaluate_hallucination_rate(
    model: Answering | str | Path,
    raft_test_set: Sequence[RAFTExample],
    *,
    blocks: Iterable[CodeBlock] = (),
    known: KnownNames | None = None,
) -> float:
    """The share of `model`'s answers that invent something, 0–1. Arguments and errors as `measure_hallucination`."""
    return measure_hallucination(model, raft_test_set, blocks=blocks, known=known).rate


def measure_hallucination(
    model: Answering | str | Path,
    raft_test_set: Sequence[RAFTExample],
    *,
    blocks: Iterable[CodeBlock] = (),
    known: KnownNames | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> HallucinationReport:
    """Ask `model` each question with its documents and look for what it invents.

    Args:
        model: see `models`: a name or path, or whatever has `reply`.
        blocks: what was mined of the repository. Without it a deployed model's index says what exists, for any other model
            only what the examples show.
        known: names that were gathered already, instead of `blocks`.

    Raises:
        ValueError: there is nothing to ask.
    """
    if not raft_test_set:
        raise ValueError("a hallucination rate needs at least one question")
    given = list(blocks)
    if known is None:
        known = KnownNames.of(given)
    for example in raft_test_set:
        for document in example.shown_documents:
            known.add_document(document)
    found = []
    with opened(model) as asked:
        if isinstance(asked, Served) and not given:
            for document in asked.documents():
                known.add_document(document)
        for example in raft_test_set:
            answer = asked.reply(messages_for(example.question, example.shown_documents), max_new_tokens)
            found.append(inventions_in(answer, example.question, example.shown_documents, known))
    kinds = Counter[str](invention.kind for inventions in found for invention in inventions)
    rate = sum(map(bool, found)) / len(found)
    return HallucinationReport(rate, len(found), dict(kinds), tuple(found))
