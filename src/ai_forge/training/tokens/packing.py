"""Examples to batches without padding and without reading a prompt twice: segments lie end to end in one row.

    input_ids      [n_tokens]        the segments of a micro batch, one after the other
    position_ids   [n_tokens]        counted from 0 in each example
    boundaries     [n_segments + 1]  where each begins; the last is n_tokens
    parents        [n_segments]      the segment that each continues, −1 for none
    targets        [n_tokens]        the next token where it is supervised, IGNORE elsewhere
    candidates     [n_supervised, k] tokens that are scored besides the targets, or none: a teacher's likeliest ones

Several questions about the same documents share most of their prompt. Neighbours in a micro batch that begin with the
same tokens are laid out as a tree: the common beginning once, then a branch for each. A position sees the positions
before it in its own segment and all of its parent's, and nothing else, so what each example computes is what it computes
alone. Losses and gradients equal those of padded, separate examples (tested).

Only the assistant's turn and the end-of-turn token are supervised: prompt tokens are masked. The trade-off: a batch's
width varies, in return for not one padded or repeated token.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import InputError
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message, messages_for

IGNORE = -100
MIN_SHARED = 64  # tokens that two prompts must have in common to share them: below, a branch costs more than it saves


@dataclass(frozen=True, eq=False)
class TeacherTokens:
    """What a teacher thought at each supervised token: its k likeliest tokens and their log-probabilities (nats).

    ids        [n_supervised, k]  int32
    log_probs  [n_supervised, k]  float32
    """

    ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids of prompt and answer; positions from `n_prompt` on are supervised.

    Examples of one `context` (the id of their documents) are read one after the other. `weights` are those of the supervised
    tokens in the loss, one for each; none means that all count the same. With a `teacher` its distribution is learned instead
    of the tokens themselves.
    """

    ids: tuple[int, ...]
    n_prompt: int
    context: str = ""
    weights: tuple[float, ...] = ()
    teacher: TeacherTokens | None = None

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
    parents: NDArray[np.int32]
    targets: NDArray[np.int64]
    candidates: NDArray[np.int64] | None = None

    @property
    def n_tokens(self) -> int:
        """All tokens that are computed: a shared prompt counts once."""
        return int(self.input_ids.size)

    @property
    def segments(self) -> list[tuple[range, range]]:
        """For each segment the positions of its parent (empty for none) and its own."""
        own = [range(int(first), int(last)) for first, last in itertools.pairwise(self.boundaries)]
        by_parent = [*own, range(0)]  # −1, which stands for no parent, finds the empty one at the end
        return [(by_parent[parent], span) for parent, span in zip(self.parents, own, strict=True)]

    @property
    def n_supervised(self) -> int:
        """Tokens that count in the loss."""
        return int((self.targets != IGNORE).sum())


Weigh = Callable[[RAFTExample], tuple[float, ...]]
"""The weights of an example's supervised tokens; none where all count the same."""


def tokenize_chat(
    messages: Sequence[Message], answer: str, tokenizer: ChatTokenizer, context: str = ""
) -> TokenizedExample:
    """A chat and the answer to be learned."""
    # Encoded apart, so that no token spans the border and the prompt's ids are those the model is given when it is asked.
    prompt = tokenizer.encode_prompt(messages)
    return TokenizedExample((*prompt, *tokenizer.encode_target(answer)), len(prompt), context)


def tokenize(example: RAFTExample, tokenizer: ChatTokenizer, weigh: Weigh = lambda _: ()) -> TokenizedExample:
    """A RAFT example as the trainer reads it."""
    chat = messages_for(example.question, example.shown_documents)
    tokenized = tokenize_chat(chat, example.target, tokenizer, example.context_id)
    return replace(tokenized, weights=weigh(example))


def with_teacher(example: TokenizedExample, teacher: TeacherTokens | None) -> TokenizedExample:
    """`example` with what a teacher thought at each of its supervised tokens.

    Raises:
        InputError: the teacher read another number of tokens.
    """
    if teacher is None:
        return example
    if len(teacher.ids) != example.n_supervised:
        raise InputError(
            f"A teacher's answer has {len(teacher.ids)} tokens, the example {example.n_supervised}.",
            "make the natural questions again: another tokenizer wrote them.",
        )
    return replace(example, teacher=teacher)


def tokenize_all(
    examples: Iterable[RAFTExample], tokenizer: ChatTokenizer, max_seq_len: int, weigh: Weigh = lambda _: ()
) -> tuple[list[TokenizedExample], int]:
    """The examples that fit into `max_seq_len` tokens, and how many did not."""
    return fitting([tokenize(example, tokenizer, weigh) for example in examples], max_seq_len)


def fitting(examples: Sequence[TokenizedExample], max_seq_len: int) -> tuple[list[TokenizedExample], int]:
    """Those of at most `max_seq_len` tokens, and how many are longer: cut ones would teach answers without an end."""
    kept = [example for example in examples if len(example.ids) <= max_seq_len]
    return kept, len(examples) - len(kept)


def require_both_sides(n_train: int, n_held_out: int, n_too_long: int, limit: int, what: str, advice: str) -> None:
    """Raises `InputError`, with `advice`, where no `what` (a plural) is left to train on or to watch."""
    if not n_train or not n_held_out:
        raise InputError(
            f"{n_train} training and {n_held_out} held-out {what} fit into {limit} tokens "
            f"({n_too_long} are longer); at least one of each is needed.",
            advice,
        )


def code_replay(
    examples: Iterable[RAFTExample], tokenizer: ChatTokenizer, n: int, max_tokens: int, seed: int
) -> list[TokenizedExample]:
    """`n` pieces of the code that `examples` show, as plain text with every token supervised, drawn by `seed`.

    Training on answers alone wears away the base's grasp of code, and quantization has taken its share before; a little
    plain code among the answers gives it back. Fewer than `n` come back only where no shown block has two tokens.
    """
    shown = {document.text for example in examples for document in example.shown_documents}
    encoded = [tokenizer.encode(text) for text in sorted(shown)]  # a set's own order differs from run to run
    encoded = [ids for ids in encoded if len(ids) > 1]  # the first token of a piece is given, so it takes a second
    draw = random.Random(f"{seed}/replay")
    pieces: list[TokenizedExample] = []
    while encoded and len(pieces) < n:
        ids = draw.choice(encoded)
        first = draw.randrange(max(1, len(ids) - max_tokens + 1))
        # a context of its own, so that the pieces are spread over the steps of an epoch
        pieces.append(TokenizedExample(tuple(ids[first : first + max_tokens]), 1, f"replay {len(pieces)}"))
    return pieces


def shared_prompts(examples: Sequence[TokenizedExample]) -> list[tuple[int, int]]:
    """Runs of neighbours that share the beginning of their prompts: (number of examples, number of shared tokens).

    The last prompt token is never shared, because it predicts the first token of the answer. A neighbour joins a run
    where that makes the row shorter.

    >>> a, b, c = (TokenizedExample((*range(90), 100 + n, 7), 91) for n in range(3))
    >>> shared_prompts([a, b, c, TokenizedExample((1, 2), 1)])
    [(3, 90), (1, 0)]
    """
    runs: list[tuple[int, int]] = []
    for index, example in enumerate(examples):
        n, shared = runs[-1] if runs else (0, 0)
        common = 0
        if n:
            before = examples[index - 1]
            # A run shares what all of it has in common: who joins a run of several may shorten that, never lengthen it.
            shareable = before.n_prompt - 1 if n == 1 else shared
            common = _n_common(before.ids, example.ids, min(example.n_prompt - 1, shareable))
        lost = n * (shared - common) if n > 1 else 0  # tokens that each of the run would have to repeat from now on
        if common >= MIN_SHARED and common > lost:
            runs[-1] = n + 1, common
        else:
            runs.append((1, 0))
    return runs


def _n_common(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """Length of the longest common beginning, at most `limit`."""
    return next((i for i in range(limit) if a[i] != b[i]), limit)


def by_context(examples: Sequence[TokenizedExample]) -> list[TokenizedExample]:
    """The examples with those of a context together; contexts in the order in which they first appear."""
    first: dict[str, int] = {}
    for example in examples:
        first.setdefault(example.context, len(first))
    return sorted(examples, key=lambda example: first[example.context])


def n_common_to_all(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all of several prompts begin with and that are worth sharing; the last token of each is never shared."""
    if len(prompts) < 2:
        return 0
    limit = min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        limit = _n_common(prompts[0], prompt, limit)
    return limit if limit >= MIN_SHARED else 0


def n_packed_tokens(examples: Sequence[TokenizedExample], micro_batch_size: int) -> int:
    """Tokens that are computed when `examples` are read in this order."""
    n_tokens = sum(len(example.ids) for example in examples)
    for first in range(0, len(examples), micro_batch_size):
        runs = shared_prompts(examples[first : first + micro_batch_size])
        n_tokens -= sum((n - 1) * shared for n, shared in runs)
    return n_tokens


def collate(examples: Sequence[TokenizedExample]) -> Batch:
    """Lay `examples` end to end, the prompt that neighbours share only once.

    >>> batch = collate([TokenizedExample((5, 6, 7), 2), TokenizedExample((8, 9), 1)])
    >>> batch.position_ids.tolist(), batch.boundaries.tolist(), batch.targets.tolist()
    ([0, 1, 2, 0, 1], [0, 3, 5], [-100, 7, -100, 9, -100])
    """
    pieces: list[tuple[TokenizedExample, int, int, int]] = []  # example, first and last token, parent
    ahead = iter(examples)
    for n, shared in shared_prompts(examples):
        run = list(itertools.islice(ahead, n))
        parent = -1
        if shared:
            parent = len(pieces)
            pieces.append((run[0], 0, shared, -1))
        pieces.extend((example, shared, len(example.ids), parent) for example in run)
    ids = itertools.chain.from_iterable(example.ids[a:b] for example, a, b, _ in pieces)
    return Batch(
        input_ids=np.fromiter(ids, dtype=np.int64),
        position_ids=np.concatenate([np.arange(a, b, dtype=np.int64) for _, a, b, _ in pieces]),
        boundaries=np.cumsum([0, *(b - a for _, a, b, _ in pieces)], dtype=np.int32),
        parents=np.asarray([parent for *_, parent in pieces], dtype=np.int32),
        targets=np.concatenate([_targets(example, a, b) for example, a, b, _ in pieces]),
        candidates=_candidates(examples),
    )


def _candidates(examples: Sequence[TokenizedExample]) -> NDArray[np.int64] | None:
    """The teachers' tokens, in the order of the supervised positions; where there is no teacher, the target again."""
    widths = [example.teacher.ids.shape[1] for example in examples if example.teacher is not None]
    if not widths:
        return None
    k, rows = max(widths), []
    for example in examples:
        targets = np.asarray(example.ids[example.n_prompt :], dtype=np.int64)[:, None]
        known = targets[:, :0]
        if example.teacher is not None:
            known = example.teacher.ids.astype(np.int64)
        rows.append(np.concatenate([known, np.repeat(targets, k - known.shape[1], axis=1)], axis=1))
    return np.concatenate(rows)


def _targets(example: TokenizedExample, first: int, last: int) -> NDArray[np.int64]:
    """The next token of positions `first` to `last` where it is supervised."""
    following = (*example.ids[first + 1 : last + 1], IGNORE)[: last - first]  # nothing follows the last token of all
    targets = np.asarray(following, dtype=np.int64)
    first_supervised = min(example.n_prompt - 1, last)  # the prompt's last token predicts the first of the answer
    targets[: max(0, first_supervised - first)] = IGNORE
    return targets


def step_order(contexts: Sequence[str], examples_per_step: int, step: int, seed: int) -> list[int]:
    """Which examples optimizer step `step` (from 0) reads: a function of its arguments alone, so a resume needs no cursor.

    Each epoch is a fresh permutation that keeps the examples of a context together; a step may straddle two epochs. All
    examples are read once before any is read twice.

    >>> contexts = ["a", "b", "a", "c", "b"]
    >>> order = step_order(contexts, 3, 0, seed=1) + step_order(contexts, 3, 1, seed=1)
    >>> sorted(order[:5]), [contexts[i] for i in order[:5]]
    ([0, 1, 2, 3, 4], ['a', 'a', 'b', 'b', 'c'])
    """
    chosen: list[int] = []
    for position in range(step * examples_per_step, (step + 1) * examples_per_step):
        epoch, offset = divmod(position, len(contexts))
        if not chosen or offset == 0:  # drawn anew for each step, so that a step depends on none before it
            permutation = _epoch_order(contexts, random.Random(f"{seed}/{epoch}"))
        chosen.append(permutation[offset])
    return chosen


def _epoch_order(contexts: Sequence[str], draw: random.Random) -> list[int]:
    members: dict[str, list[int]] = {}
    for index, context in enumerate(contexts):
        members.setdefault(context, []).append(index)
    groups = list(members.values())
    draw.shuffle(groups)
    for group in groups:
        draw.shuffle(group)
    return list(itertools.chain.from_iterable(groups))
