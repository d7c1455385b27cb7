"""Examples to batches without padding: documents lie end to end in one row, and no position sees another document.

    input_ids      [n_tokens]    the examples of a micro batch, one after the other
    position_ids   [n_tokens]    counted from 0 in each
    boundaries     [n + 1]       where each begins; the last is n_tokens (`cu_seqlens` of varlen attention)
    targets        [n_tokens]    the next token where it is supervised, IGNORE elsewhere

Only the assistant's turn and the end-of-turn token are supervised: prompt tokens are masked. The trade-off: a batch's
width varies, in return for not one padded token. Packed and padded losses are equal (tested).
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_forge.data_pipeline.prompt import messages_for
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.training.chat import ChatTokenizer

IGNORE = -100


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids of prompt and answer; positions from `n_prompt` on are supervised."""

    ids: tuple[int, ...]
    n_prompt: int

    @property
    def n_supervised(self) -> int:
        """Tokens that count in the loss."""
        return len(self.ids) - self.n_prompt


@dataclass(frozen=True)
class Batch:
    """A micro batch, see the module's docstring for the arrays."""

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    boundaries: NDArray[np.int32]
    targets: NDArray[np.int64]

    @property
    def n_tokens(self) -> int:
        """All tokens."""
        return int(self.input_ids.size)

    @property
    def n_supervised(self) -> int:
        """Tokens that count in the loss."""
        return int((self.targets != IGNORE).sum())


def tokenize(example: RAFTExample, tokenizer: ChatTokenizer) -> TokenizedExample:
    """A RAFT example as the trainer reads it.

    Prompt and answer are encoded apart, so that the prompt's ids are those the model is given when it is asked.
    """
    prompt = tokenizer.encode_prompt(messages_for(example.question, example.shown_documents))
    return TokenizedExample((*prompt, *tokenizer.encode_target(example.target)), len(prompt))


def tokenize_all(
    examples: Iterable[RAFTExample], tokenizer: ChatTokenizer, max_seq_len: int
) -> tuple[list[TokenizedExample], int]:
    """The examples that fit into `max_seq_len` tokens, and how many did not."""
    tokenized = [tokenize(example, tokenizer) for example in examples]
    kept = [t for t in tokenized if len(t.ids) <= max_seq_len]
    return kept, len(tokenized) - len(kept)


def code_replay(
    examples: Iterable[RAFTExample], tokenizer: ChatTokenizer, n: int, max_tokens: int, seed: int
) -> list[TokenizedExample]:
    """`n` pieces of the code that `examples` show, as plain text with every token supervised, drawn by `seed`.

    Training on answers alone wears away the base's grasp of code, and quantisation has taken its share before; a little
    plain code among the answers gives it back. Fewer than `n` come back only where no shown block has two tokens.
    """
    texts = sorted({document.text for example in examples for document in example.shown_documents})
    draw = random.Random(f"{seed}/replay")
    encoded = [ids for text in texts if len(ids := tokenizer.encode(text)) > 1]
    pieces: list[TokenizedExample] = []
    while encoded and len(pieces) < n:
        ids = draw.choice(encoded)
        first = draw.randrange(max(1, len(ids) - max_tokens + 1))
        pieces.append(TokenizedExample(tuple(ids[first : first + max_tokens]), 1))
    return pieces


def collate(examples: Sequence[TokenizedExample]) -> Batch:
    """Lay `examples` end to end.

    >>> batch = collate([TokenizedExample((5, 6, 7), 2), TokenizedExample((8, 9), 1)])
    >>> batch.position_ids.tolist(), batch.boundaries.tolist(), batch.targets.tolist()
    ([0, 1, 2, 0, 1], [0, 3, 5], [-100, 7, -100, 9, -100])
    """
    lengths = [len(e.ids) for e in examples]
    targets = np.full(sum(lengths), IGNORE, dtype=np.int64)
    start = 0
    for example, length in zip(examples, lengths, strict=True):
        targets[start + example.n_prompt - 1 : start + length - 1] = example.ids[example.n_prompt :]
        start += length
    return Batch(
        input_ids=np.concatenate([np.asarray(e.ids, dtype=np.int64) for e in examples]),
        position_ids=np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]),
        boundaries=np.cumsum([0, *lengths], dtype=np.int32),
        targets=targets,
    )


def step_order(n_examples: int, examples_per_step: int, step: int, seed: int) -> list[int]:
    """Which examples optimizer step `step` (from 0) reads: a function of its arguments alone, so a resume needs no cursor.

    Each epoch is a fresh permutation; a step may straddle two epochs. All examples are read once before any is read twice.

    >>> a = step_order(5, 3, 0, seed=1) + step_order(5, 3, 1, seed=1)
    >>> sorted(a[:5])
    [0, 1, 2, 3, 4]
    """
    chosen: list[int] = []
    for position in range(step * examples_per_step, (step + 1) * examples_per_step):
        epoch, offset = divmod(position, n_examples)
        if not chosen or offset == 0:
            permutation = list(range(n_examples))
            random.Random(f"{seed}/{epoch}").shuffle(permutation)
        chosen.append(permutation[offset])
    return chosen
