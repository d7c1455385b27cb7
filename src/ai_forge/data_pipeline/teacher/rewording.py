"""A teacher model rewords what the structure's questions and answers say; what it invents is dropped.

Method: examples that have the same oracles go into one request (`teacher_batch`), several requests go out at a time
(`teacher_concurrency`). Each answer is appended to a file in the cache and fsynced before it counts; the file belongs to one
teacher and one version of the prompt, its records to the structural example's id. A run that was killed, or whose teacher
went away, asks only for what is missing when it is made again; what is checked may change without asking again.

Whatever the teacher wrote goes through `teacher_prompt.problem_of`. Where that finds something, or there is no answer, the
structural example stays, and the reason is counted. So a bad teacher costs time, and no example.

What survives a crash: every answer whose request had ended. A line torn by the crash is asked for again.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ai_forge.config.data import SynthesisSettings, ValidatorSettings
from ai_forge.data_pipeline.examples.scoring import Scorer
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.teacher.client import Teacher, TeacherClient, Unanswered
from ai_forge.data_pipeline.teacher.prompt import (
    Rewording,
    answer_tokens,
    messages_to_teacher,
    problem_of,
    read_rewordings,
    reworded,
)
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.json_lines import JsonObject, json_line

__all__ = ["AnswerCache", "Estimate", "Teaching", "estimate", "teach"]

# So many requests without an answer one after the other mean that the teacher is at fault, not the request
_MAX_UNANSWERED_IN_A_ROW = 3


@dataclass(frozen=True)
class Estimate:
    """What is left to ask, before it is asked. Tokens are approximate; those of the answers as long as the drafts' twice."""

    n_examples: int
    n_cached: int
    n_requests: int
    n_tokens_in: int
    n_tokens_out: int

    def __str__(self) -> str:
        asked = self.n_examples - self.n_cached
        if not asked:
            return f"all {self.n_examples} examples are answered already, nothing to ask."
        return (
            f"{asked} examples in {self.n_requests} requests ({self.n_cached} answered already), about "
            f"{self.n_tokens_in} tokens to read and {self.n_tokens_out} to write."
        )


@dataclass(frozen=True)
class Teaching:
    """The examples, in their order: reworded where that held, else as they were, counted by reason in `kept_as_they_were`.

    Tokens are the teacher's own count, for all answers used and for those that were asked for now.
    """

    examples: list[RAFTExample]
    n_reworded: int
    kept_as_they_were: Counter[str]
    n_requests: int
    n_tokens_in: int
    n_tokens_out: int
    n_new_tokens_in: int
    n_new_tokens_out: int

    def summary(self) -> JsonObject:
        """The counts, for manifests."""
        return {
            "reworded": self.n_reworded,
            "kept_as_they_were": dict(self.kept_as_they_were.most_common()),
            "tokens_in": self.n_tokens_in,
            "tokens_out": self.n_tokens_out,
        }

    def __str__(self) -> str:
        result = f"{self.n_reworded} of {len(self.examples)} examples reworded"
        reasons = ", ".join(f"{reason}: {n}" for reason, n in self.kept_as_they_were.most_common())
        if reasons:
            result += f", the others kept as they were ({reasons})"
        return (
            f"{result}; {self.n_tokens_in} tokens read and {self.n_tokens_out} written, of them "
            f"{self.n_new_tokens_in} and {self.n_new_tokens_out} now."
        )


class AnswerCache:
    """The answers of one teacher to one version of the prompt: JSON lines, appended and fsynced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, JsonObject] = {}
        torn = False
        if path.exists():
            content = path.read_bytes()
            torn = not content.endswith(b"\n")
            for line in content.split(b"\n"):
                record = _record(line)
                if record is not None:
                    self._records[record["id"]] = record
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if torn:  # a crash in the middle of a line: what is appended must not become part of it
            self._file.write(b"\n")

    def __contains__(self, example_id: str) -> bool:
        return example_id in self._records

    def record(self, example_id: str) -> Mapping[str, Any] | None:
        """What the teacher said to an example, or None where it was not asked."""
        return self._records.get(example_id)

    def add(self, records: Sequence[JsonObject]) -> None:
        """Keep the answers of one request; they are on the disk when this returns."""
        lines = "".join(map(json_line, records))
        self._file.write(lines.encode("utf-8", "backslashreplace"))  # one write: another run may append as well
        os.fsync(self._file.fileno())
        self._records.update({record["id"]: record for record in records})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def estimate(examples: Sequence[RAFTExample], settings: SynthesisSettings, cache: AnswerCache) -> Estimate:
    """What `teach` has still to ask."""
    batches = _batches(examples, settings.teacher_batch, cache)
    asked = [example for batch in batches for example in batch]
    return Estimate(
        n_examples=len(examples),
        n_cached=len(examples) - len(asked),
        n_requests=len(batches),
        n_tokens_in=sum(approximate_tokens(m["content"]) for batch in batches for m in messages_to_teacher(batch)),
        n_tokens_out=2 * sum(approximate_tokens(f"{e.question} {e.target}") for e in asked),
    )


def teach(
    examples: Sequence[RAFTExample],
    teacher: Teacher,
    settings: SynthesisSettings,
    cache: AnswerCache,
    *,
    validator: ValidatorSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    first_wait_s: float = 1.0,
) -> Teaching:
    """Ask for what `cache` lacks, then put the teacher's words where they hold. `progress` hears (examples done, all).

    Raises:
        AIForgeError: the teacher cannot be used, or went away; the answers so far are in the cache.
    """
    batches = _batches(examples, settings.teacher_batch, cache)
    n_to_ask = sum(len(batch) for batch in batches)

    def tell(n_left: int) -> None:
        progress(len(examples) - n_left, len(examples))

    tell(n_to_ask)
    lesson = _Lesson(batches, cache, tell, n_to_ask)
    try:
        asyncio.run(lesson.hold(teacher, settings, first_wait_s))
    except BaseExceptionGroup as group:  # what ended one worker ended them all: it is what is to be told
        raise group.exceptions[0] from None
    return _with_answers(examples, cache, lesson, validator or ValidatorSettings())


class _Lesson:
    """The requests of one call: who is asked next, what went unanswered, what it cost."""

    def __init__(
        self, batches: Sequence[Sequence[RAFTExample]], cache: AnswerCache, tell: Callable[[int], None], n_left: int
    ) -> None:
        self._queue = iter(batches)
        self._cache, self._tell, self._n_left = cache, tell, n_left
        self._unanswered_in_a_row = 0
        self.unanswered: dict[str, str] = {}
        self.n_requests = len(batches)
        self.n_tokens_in = self.n_tokens_out = 0

    async def hold(self, teacher: Teacher, settings: SynthesisSettings, first_wait_s: float) -> None:
        """Ask everything; the first error ends all workers."""
        client = TeacherClient(teacher, timeout_s=settings.teacher_timeout_s, first_wait_s=first_wait_s)
        async with client, asyncio.TaskGroup() as workers:
            for _ in range(min(settings.teacher_concurrency, self.n_requests)):
                workers.create_task(self._work(client))

    async def _work(self, client: TeacherClient) -> None:
        for batch in self._queue:
            try:
                answer = await client.ask(messages_to_teacher(batch), answer_tokens(batch))
            except Unanswered as none:
                self._unanswered_in_a_row += 1
                if self._unanswered_in_a_row >= _MAX_UNANSWERED_IN_A_ROW:
                    raise none.error from none
                self.unanswered |= dict.fromkeys((example.id for example in batch), none.reason)
            else:
                self._unanswered_in_a_row = 0
                self.n_tokens_in += answer.n_tokens_in
                self.n_tokens_out += answer.n_tokens_out
                words = read_rewordings(answer.text, len(batch))
                records: list[JsonObject] = [{"id": example.id} for example in batch]
                for record, said in zip(records, words, strict=True):
                    if said is not None:  # else the id alone, so that it is not asked for again
                        record |= said.model_dump()
                # Of the whole request, once: the sum over the cache is what the teacher counted.
                records[0] |= {"tokens_in": answer.n_tokens_in, "tokens_out": answer.n_tokens_out}
                self._cache.add(records)
            self._n_left -= len(batch)
            self._tell(self._n_left)


def _with_answers(
    examples: Sequence[RAFTExample], cache: AnswerCache, lesson: _Lesson, validator: ValidatorSettings
) -> Teaching:
    scorer = Scorer(examples)
    kept: Counter[str] = Counter()
    result: list[RAFTExample] = []
    n_reworded = n_tokens_in = n_tokens_out = 0
    for before in examples:
        record = cache.record(before.id)
        if record is None:
            kept[lesson.unanswered[before.id]] += 1
            result.append(before)
            continue
        n_tokens_in += record.get("tokens_in", 0)
        n_tokens_out += record.get("tokens_out", 0)
        after, problem = before, None
        if "question" not in record:
            problem = "malformed"
        else:
            after = reworded(before, Rewording.model_validate(record))
            # Checked at every run and not when it was answered: the checks may have become stricter since.
            problem = problem_of(before, after, validator)
            if problem is None and scorer.score(after).quality < validator.min_quality:
                problem = "low_quality"
        if problem is None:
            n_reworded += 1
            result.append(after)
        else:
            kept[problem] += 1
            result.append(before)
    spent = (n_tokens_in, n_tokens_out, lesson.n_tokens_in, lesson.n_tokens_out)
    return Teaching(result, n_reworded, kept, lesson.n_requests, *spent)


def _batches(examples: Sequence[RAFTExample], size: int, cache: AnswerCache) -> list[list[RAFTExample]]:
    """What is not in the cache, at most `size` together; those together have the same oracles."""
    missing = {example.id: example for example in examples if example.id not in cache}
    oracles = {key: tuple(document.block_id for document in e.oracle_documents) for key, e in missing.items()}
    ordered = sorted(missing, key=lambda key: oracles[key])  # a stable sort: the rest stays in the order it came
    groups = [[missing[key] for key in group] for _, group in groupby(ordered, key=lambda key: oracles[key])]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def _record(line: bytes) -> JsonObject | None:
    """A record of the cache, or None where the line is torn or something else."""
    try:
        record = json.loads(line)
        if "question" in record:
            Rewording.model_validate(record)
        return record if isinstance(record["id"], str) else None
    except (ValueError, LookupError, TypeError):
        return None
