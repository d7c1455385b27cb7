"""Looking at a dataset: examples to read, figures, and what changed from one to another."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ai_forge.data_pipeline.datasets.formats import Dataset, Record, chat_of
from ai_forge.data_pipeline.schemas import RAFTExample, content_id
from ai_forge.data_pipeline.schemas.chats import TextExample
from ai_forge.data_pipeline.schemas.preference_pairs import PreferencePair
from ai_forge.data_pipeline.text.words import approximate_tokens, one_line
from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.prompting.prompt import citations_in

__all__ = ["Difference", "compare", "figures", "headline", "readable", "select"]


def select(dataset: Dataset, *, family: str | None = None, difficulty: str | None = None) -> list[Record]:
    """The records of a family (or a preference pair's kind) and a difficulty.

    Raises InputError: the dataset has no such thing, or none with this value; the message names those it has.
    """
    chosen = list(dataset.records)
    for name, value, of in (("family", family, _family), ("difficulty", difficulty, _difficulty)):
        if value is None:
            continue
        known = sorted({v for v in map(of, dataset.records) if v is not None})
        if value not in known:
            raise InputError(
                f"No record has the {name} {value!r}.",
                f"There are: {', '.join(known) or f'none, {dataset.format} has no {name}'}.",
            )
        chosen = [record for record in chosen if of(record) == value]
    return chosen


def _family(record: Record) -> str | None:
    if isinstance(record, RAFTExample):
        return record.family
    return record.kind if isinstance(record, PreferencePair) else None


def _difficulty(record: Record) -> str | None:
    return record.difficulty if isinstance(record, RAFTExample) else None


def readable(record: Record) -> str:
    """A record as text to read."""
    if isinstance(record, RAFTExample):
        oracles = {document.block_id for document in record.oracle_documents}
        lines = [f"{record.id}  {record.family}, {record.difficulty}", f"Q {record.question}"]
        lines.append("  documents (* holds the answer)")
        for document in record.shown_documents:
            mark = "*" if document.block_id in oracles else " "
            n_tokens = approximate_tokens(document.text)
            lines.append(f"  {mark} {document.citation}  {document.name}  ({n_tokens} tokens)")
        return "\n".join([*lines, f"A {record.target}"])
    if isinstance(record, PreferencePair):
        asked = record.prompt[-1].content
        return f"{record.id}  {record.kind}, {record.origin.path}\nQ {asked}\n+ {record.chosen}\n- {record.rejected}"
    if isinstance(record, TextExample):
        return f"{record.id}\n{record.text}"
    chat = chat_of(record)
    assert chat is not None, "only text has no roles"
    return "\n".join([record.id, *(f"{turn.role}: {turn.content}" for turn in chat.messages)])


def figures(dataset: Dataset) -> JsonObject:
    """Counts and approximate tokens; for RAFT also families, difficulties, oracles and citations. A share of nothing is None."""
    records = dataset.records
    ids = Counter(record.id for record in records)
    found: JsonObject = {
        "format": dataset.format,
        "records": len(records),
        "duplicates": len(records) - len(ids),
        "tokens": _tokens(records),
    }
    raft = [record for record in records if isinstance(record, RAFTExample)]
    pairs = [record for record in records if isinstance(record, PreferencePair)]
    if raft:
        with_oracle = [example for example in raft if example.oracle_documents]
        cited = sum(bool(citations_in(example.target)) for example in with_oracle)
        found |= {
            "by_family": dict(Counter(example.family for example in raft).most_common()),
            "by_difficulty": dict(Counter(example.difficulty for example in raft).most_common()),
            "files": len({example.subject_path for example in raft}),
            "subjects": len({example.subject_id for example in raft}),
            "without_oracle_share": (len(raft) - len(with_oracle)) / len(raft),
            "citation_share": cited / len(with_oracle) if with_oracle else None,
            "documents_mean": statistics.fmean(len(example.shown_documents) for example in raft),
        }
    if pairs:
        found |= {
            "by_kind": dict(Counter(pair.kind for pair in pairs).most_common()),
            "files": len({pair.origin.path for pair in pairs}),
        }
    if dataset.manifest:
        found["parts"] = dataset.manifest["counts"]
        found["hash"] = dataset.manifest["hash"]
    return found


def _tokens(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Approximate tokens of prompts and answers (or of the texts): sum, mean, median, the 95th of a hundred, most."""
    sides: dict[str, list[int]] = {}
    for record in records:
        chat = chat_of(record)
        if chat is None:
            sides.setdefault("text", []).append(approximate_tokens(getattr(record, "text", "")))
            continue
        prompt = sum(approximate_tokens(turn.content) for turn in chat.messages[:-1])
        sides.setdefault("prompt", []).append(prompt)
        sides.setdefault("answer", []).append(approximate_tokens(chat.messages[-1].content))
        if isinstance(record, PreferencePair):
            sides.setdefault("rejected", []).append(approximate_tokens(record.rejected))
    return {name: _spread(counts) for name, counts in sides.items()}


def _spread(counts: list[int]) -> dict[str, float]:
    ordered = sorted(counts)
    return {
        "sum": sum(ordered),
        "mean": round(statistics.fmean(ordered), 1),
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }


@dataclass(frozen=True)
class Difference:
    """Records of the second dataset that the first lacks, the other way round, and (before, after) of changed ones.

    Two records with different ids are one that changed where they ask the same (for RAFT: of the same family, about the
    same file) and answer or show something else.
    """

    added: tuple[Record, ...]
    removed: tuple[Record, ...]
    changed: tuple[tuple[Record, Record], ...]
    n_same: int

    def summary(self) -> JsonObject:
        """Counts and ids."""
        return {
            "same": self.n_same,
            "added": [record.id for record in self.added],
            "removed": [record.id for record in self.removed],
            "changed": [{"before": before.id, "after": after.id} for before, after in self.changed],
        }


def compare(first: Dataset, second: Dataset) -> Difference:
    """What changed from `first` to `second`. Raises InputError: they are of different formats."""
    if first.format != second.format:
        told = f"One dataset is {first.format}, the other {second.format}."
        raise InputError(told, "Convert one: ai-forge data convert IN OUT --to FORMAT.")
    before = {record.id: record for record in first.records}
    after = {record.id: record for record in second.records}
    gone = [record for record in before.values() if record.id not in after]
    by_question = {_asked(record): record for record in gone}
    added: list[Record] = []
    changed: list[tuple[Record, Record]] = []
    for record in after.values():
        if record.id in before:
            continue
        # Taken out: of several that ask the same, one is the changed one and the others are new.
        old = by_question.pop(_asked(record), None)
        if old is None:
            added.append(record)
        else:
            changed.append((old, record))
    paired = {old.id for old, _ in changed}
    left = tuple(record for record in gone if record.id not in paired)
    return Difference(tuple(added), left, tuple(changed), len(before.keys() & after.keys()))


def _asked(record: Record) -> str:
    """What a record asks, as a key; a text is only like itself."""
    if isinstance(record, RAFTExample):
        return content_id(record.family, record.question, record.subject_path)
    if isinstance(record, PreferencePair):
        return content_id(*(turn.content for turn in record.prompt))
    chat = chat_of(record)
    if chat is None:
        return record.id
    return content_id(*(turn.content for turn in chat.messages[:-1]))


def headline(record: Record) -> str:
    """One line that names a record: its id and what it asks."""
    if isinstance(record, RAFTExample):  # its turn in a chat begins with the documents
        asked = record.question
    elif isinstance(record, TextExample):
        asked = record.text
    else:
        chat = chat_of(record)
        assert chat is not None, "only text has no roles"
        asked = chat.messages[-2].content
    return f"{record.id}  {one_line(asked)[:100]}"
