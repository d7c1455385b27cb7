"""How fast a deployed model answers, as its users wait for it: through its runtime, one question after the other."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ai_forge.prompting.prompt import Message
from ai_forge.serving.runtime import Runtime

Clock = Callable[[], float]


@dataclass(frozen=True)
class Speed:
    """Seconds and tokens of `n_answers` answers. `tokens_per_s` and `ms_per_token` count from an answer's first piece on.

    `counted_by` is `tokens`, or `pieces` for a runtime that tells no tokens: then it counts what it sent at a time.
    """

    first_piece_s: float
    """Median from the question to the first piece of its answer: loading the prompt."""
    answer_s: float
    """Median from the question to the end of its answer."""
    slowest_answer_s: float
    tokens_per_s: float | None
    ms_per_token: float | None
    n_answers: int
    n_tokens: int
    counted_by: str


def measure_speed(
    runtime: Runtime,
    model: str,
    chats: Sequence[Sequence[Message]],
    *,
    max_tokens: int = 128,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Ask `model` (`name:version`) of `runtime` each chat, greedily; one more before them loads it and is not counted.

    Raises:
        ValueError: there is nothing to ask.
        InputError, TransientError: as the runtime's.
    """
    if not chats:
        raise ValueError("speed needs at least one chat")
    for _ in runtime.chat(model, chats[0], max_tokens=1, temperature=0.0):
        pass
    waits, totals, writing_s, n_tokens = [], [], 0.0, 0
    counted_by = "tokens"
    for chat in chats:
        begun = clock()
        first = None
        pieces = []
        for piece in runtime.chat(model, chat, max_tokens=max_tokens, temperature=0.0):
            first = first or clock()
            pieces.append(piece)
        ended = clock()
        totals.append(ended - begun)
        waits.append((first or ended) - begun)
        ids = runtime.tokenize(model, "".join(pieces))
        n = len(pieces)
        if ids is None:
            counted_by = "pieces"
        else:
            n = len(ids)
        if n > 1 and first is not None:  # the first token is what was waited for
            writing_s += ended - first
            n_tokens += n - 1
    is_told = n_tokens > 0 and writing_s > 0
    return Speed(
        first_piece_s=median(waits),
        answer_s=median(totals),
        slowest_answer_s=max(totals),
        tokens_per_s=n_tokens / writing_s if is_told else None,
        ms_per_token=1000 * writing_s / n_tokens if is_told else None,
        n_answers=len(chats),
        n_tokens=n_tokens,
        counted_by=counted_by,
    )
