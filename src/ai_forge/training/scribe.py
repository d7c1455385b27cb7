"""A model that writes for another one to learn from: what it says under a richer prompt, and what it thought at each token.

On a GPU many prompts go at a time, sorted by length. On a CPU one prompt's samples do, and share the reading of it. What is
written is appended to files as it is made, so that an attempt that was cut off continues.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from ai_forge.data_pipeline.search.terms import terms
from ai_forge.events import Progress
from ai_forge.json_lines import JsonObject, json_line, lines_of
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message
from ai_forge.training.tokens.packing import Batch, TeacherTokens, collate, n_packed_tokens, tokenize_chat

ANSWER_TEMPERATURE, TOP_P = 0.7, 0.95
TOP_TOKENS = 16
GPU_TOKENS = 320_000
"""Of prompts and replies that are generated at a time."""
SCORED_TOKENS = 16_384
IMPOSSIBLE = -50.0
"""A log-probability (nats) that adds nothing to a sum in float32, and is a number."""
Span = tuple[int, int]


class Writer(Protocol):
    """A model that writes: `torch_model.TorchGenerator`."""

    reads_many: bool

    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float, top_p: float, seed: int
    ) -> list[tuple[list[int], bool]]:
        """For each prompt an answer, and whether it came to its end; MemoryError where there are too many."""

    def top_tokens(self, batch: Batch, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The likeliest tokens at each supervised position and their log-probabilities."""


@dataclass(frozen=True)
class Put:
    """A question to the writer: its `key` among others, how it is put, why an answer must not be taught, and what is hoped for."""

    key: str
    prompt: list[Message]
    problem_of: Callable[[str], str | None]
    wanted_in: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True)
class Scribe:
    """A writer with its tokenizer; `seed` decides what is drawn, `samples` are drawn of each answer."""

    writer: Writer
    tokenizer: ChatTokenizer
    seed: int
    samples: int

    def at_a_time(self, samples: int = 1) -> int:
        """How many prompts are best asked together, `samples` answers each."""
        return max(1, 512 // samples) if self.writer.reads_many else 1

    def answered(
        self, path: Path, questions: Sequence[Put], max_new_tokens: int, progress: Progress
    ) -> tuple[dict[str, str], Counter[str]]:
        """By key the answers that may be taught, and what the other samples were dropped for.

        Each is added to the file `path` as it is made; what stands there already is not asked again.
        """
        rows = {row["key"]: row for row in rows_of(path)}
        left = [each for each in questions if each.key not in rows]
        per_call = self.at_a_time(self.samples)
        for first in range(0, len(left), per_call):
            now = left[first : first + per_call]
            prompts = [each.prompt for each in now for _ in range(self.samples)]
            told = self.sampled(prompts, max_new_tokens, ANSWER_TEMPERATURE, f"answer {now[0].key}")
            for place, each in enumerate(now):
                own = told[place * self.samples : (place + 1) * self.samples]
                rows[each.key] = {"key": each.key, **best_of(own, each.problem_of, each.wanted_in)}
                append(path, rows[each.key])
            progress(first + len(now), len(left), "answers")
        dropped = sum((Counter(row["dropped"]) for row in rows.values()), Counter[str]())
        return {key: row["answer"] for key, row in rows.items() if row["answer"]}, dropped

    def sampled(
        self, chats: Sequence[list[Message]], max_new_tokens: int, temperature: float, what: str
    ) -> list[tuple[str, bool]]:
        """Replies in the order of `chats`, and whether each came to its end."""
        prompts = [self.tokenizer.encode_prompt(chat) for chat in chats]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        told: dict[int, tuple[str, bool]] = {}
        room = GPU_TOKENS
        waiting = order
        while waiting:
            n = len(waiting)
            if self.writer.reads_many:
                while n > 1 and n * (len(prompts[waiting[n - 1]]) + max_new_tokens) > room:
                    n -= 1
            seed = random.Random(f"{self.seed}/{what}/{waiting[0]}").randrange(2**31)
            try:
                replies = self.writer.sample(
                    [prompts[i] for i in waiting[:n]], max_new_tokens, temperature=temperature, top_p=TOP_P, seed=seed
                )
            except MemoryError:
                if n == 1:
                    raise
                room //= 2
                continue
            for i, (ids, whole) in zip(waiting[:n], replies, strict=True):
                told[i] = self.tokenizer.decode(ids).strip(), whole
            waiting = waiting[n:]
        return [told[i] for i in range(len(prompts))]

    def thoughts(
        self, written: Sequence[tuple[list[Message], str, Sequence[Span]]], progress: Progress
    ) -> list[TeacherTokens]:
        """The likeliest tokens along each answer, under the prompt that it was written under.

        Of each: prompt, answer, and the spans (characters) that checks demand. What is demanded is certain, not what the writer
        would have done in half of its samples. A token that spans the border counts, so the blank before a citation does; a span
        that reaches the answer's end holds the token that ends it.
        """
        rows = [tokenize_chat(prompt, answer, self.tokenizer) for prompt, answer, _ in written]
        made: list[TeacherTokens] = []
        at = 0
        while at < len(rows):
            end = at + 1
            # what neighbours share, such as the rules before every task, is read once
            while end < len(rows) and n_packed_tokens(rows[at : end + 1], end + 1 - at) <= SCORED_TOKENS:
                end += 1
            ids, scores = self.writer.top_tokens(collate(rows[at:end]), TOP_TOKENS)
            first = 0
            for row, (_, answer, spans) in zip(rows[at:end], written[at:end], strict=True):
                last = first + row.n_supervised
                thought = TeacherTokens(ids[first:last], scores[first:last])
                made.append(certain(thought, row.ids[row.n_prompt :], demanded(answer, spans, self.tokenizer)))
                first = last
            at = end
            progress(at, len(rows), "what the writer thought")
        return made


def best_of(
    told: Sequence[tuple[str, bool]],
    problem_of: Callable[[str], str | None],
    wanted_in: Callable[[str], bool] = lambda _: False,
) -> JsonObject:
    """The sample to be taught, empty where none passes, how many pass, and what the others were dropped for.

    Those with something `wanted_in` them come first, then those that agree best with all.
    """
    dropped: Counter[str] = Counter()
    good: list[str] = []
    for text, whole in told:
        problem = problem_of(text) if whole else "cut_off"
        if problem:
            dropped[problem] += 1
        else:
            good.append(text)
    every = [text for text, _ in told]
    answer = max(good, key=lambda text: (wanted_in(text), agreement(text, every), -len(text)), default="")
    return {"answer": answer, "n_good": len(good), "dropped": dict(dropped)}


def agreement(answer: str, others: Sequence[str]) -> float:
    """How much an answer says of what the writer says again and again: the mean likeness (Dice) of its words with all samples'.

    Of several answers the one that agrees best is taken (minimum Bayes risk; for language models Bertsch et al., "It's MBR All
    the Way Down", arXiv 2310.01387): what is said once is more often made up.

    >>> said = ["It raises `Missing`.", "`Missing` is raised.", "It waits for a day."]
    >>> max(said, key=lambda answer: agreement(answer, said))
    'It raises `Missing`.'
    """
    own = set(terms(answer))
    each = [set(terms(other)) for other in others]
    return sum(2 * len(own & other) / max(1, len(own) + len(other)) for other in each) / max(1, len(each))


def demanded(answer: str, spans: Sequence[Span], tokenizer: ChatTokenizer) -> list[bool]:
    """Of each token of an answer, and the one that ends it, whether it lies in one of the `spans`."""
    starts = tokenizer.target_starts(answer)
    ends = [*starts[1:], len(answer)]
    which = [
        any(start < last and first < end for first, last in spans) for start, end in zip(starts, ends, strict=True)
    ]
    return [*which, any(last >= len(answer) for _, last in spans)]


def certain(thought: TeacherTokens, written: Sequence[int], which: Sequence[bool]) -> TeacherTokens:
    """`thought` with no doubt left about the tokens that are `written` where `which` says so."""
    ids, log_probs = thought.ids.copy(), thought.log_probs.copy()
    for place, (token, no_doubt) in enumerate(zip(written, which, strict=True)):
        if no_doubt:
            others = ids[place][ids[place] != token][: ids.shape[1] - 1]
            ids[place] = [token, *others]
            log_probs[place] = [0.0, *[IMPOSSIBLE] * len(others)]
    return TeacherTokens(ids, log_probs)


def rows_of(path: Path) -> list[JsonObject]:
    """What an attempt that was cut off has written."""
    if not path.is_file():
        return []
    rows = []
    for _, line in lines_of(path.read_bytes().decode("utf-8", "replace")):
        try:
            rows.append(json.loads(line))
        except ValueError:  # torn by a crash: made again, and so is what follows
            break
    path.write_text("".join(map(json_line, rows)), encoding="utf-8")
    return rows


def append(path: Path, row: JsonObject) -> None:
    """Add a row to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json_line(row))


def save_thoughts(path: Path, ids: Sequence[str], tokens: Sequence[TeacherTokens]) -> None:
    """Keep what the writer thought along the answers of those `ids`; no file where there is nothing."""
    if not tokens:
        return
    spans, at = {}, 0
    for each_id, each in zip(ids, tokens, strict=True):
        spans[each_id] = [at, at + len(each.ids)]
        at += len(each.ids)
    arrays = {
        "ids": np.concatenate([each.ids for each in tokens]),
        "log_probs": np.concatenate([each.log_probs for each in tokens]),
    }
    save_file(arrays, path, metadata={"spans": json.dumps(spans)})


def load_thoughts(path: Path) -> dict[str, TeacherTokens]:
    """What `save_thoughts` kept, by id."""
    if not path.is_file():
        return {}
    with safe_open(path, framework="np") as file:
        spans = json.loads(file.metadata()["spans"])
        ids, log_probs = file.get_tensor("ids"), file.get_tensor("log_probs")
    return {each_id: TeacherTokens(ids[a:b], log_probs[a:b]) for each_id, (a, b) in spans.items()}
