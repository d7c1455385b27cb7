"""Perplexity: how surprised a model is by text, as Hugging Face computes it, and per word and byte.

`exp` of the summed −log p of all supervised tokens over their number: a token-weighted mean, not a mean of means. Per token
it compares only models with the same tokenizer; per word and per byte it compares any two, because the text is the same.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.judge.metrics.models import Scoring, scoring
from ai_forge.judge.windows import WINDOW, code_windows
from ai_forge.training.tokens.packing import TokenizedExample, collate, tokenize

if TYPE_CHECKING:
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.backends.base import Generator

Measured = TokenizedExample | RAFTExample | str
"""What perplexity is measured on: supervised tokens, an example's answer after its prompt, or a text, its first token given."""


@dataclass(frozen=True)
class Perplexity:
    """Perplexity per unit of what was scored, at least 1; `batches` is that of each batch, in order.

    Words (separated by white space) and bytes are those of the scored tokens' text; None where no tokenizer told them.
    """

    per_token: float
    per_word: float | None
    per_byte: float | None
    batches: tuple[float, ...]
    nats: float
    n_tokens: int
    n_words: int | None
    n_bytes: int | None


def compute_perplexity(
    model: "Generator | Scoring | str | Path", eval_dataset: Sequence[Measured], *, window: int = WINDOW
) -> float:
    """Perplexity per token over all of `eval_dataset`. Arguments and errors as `measure_perplexity`."""
    return measure_perplexity(model, eval_dataset, window=window).per_token


def measure_perplexity(
    model: "Generator | Scoring | str | Path",
    eval_dataset: Sequence[Measured],
    *,
    batch_size: int = 8,
    window: int = WINDOW,
) -> Perplexity:
    """Perplexity of `model` per token, word, byte and batch of `batch_size` examples.

    Args:
        model: a `Scoring`, a folder of weights or the name of a base; a bare `Generator` for examples that are tokenized.
        window: tokens of a longer text that are read in one piece; what stands before a piece is not seen.

    Raises:
        ValueError: no token is supervised.
        TypeError: text is to be scored with a bare `Generator`, which has no tokenizer.
    """
    if isinstance(model, str | Path):
        model = scoring(model)
    tokenizer = None
    generator = model
    if isinstance(model, Scoring):
        generator, tokenizer = model.generator, model.tokenizer
    examples = [example for given in eval_dataset for example in _tokenized(given, tokenizer, window)]
    n_tokens = sum(example.n_supervised for example in examples)
    if n_tokens == 0:
        raise ValueError("perplexity needs at least one supervised token")
    nats = [-float(generator.log_probs(collate([example])).sum(dtype="float64")) for example in examples]  # type: ignore[union-attr]
    starts = range(0, len(examples), batch_size)
    batches = [_perplexity(nats[i : i + batch_size], _lengths(examples[i : i + batch_size])) for i in starts]
    n_words = n_bytes = None
    if tokenizer is not None:
        texts = [tokenizer.decode(example.ids[example.n_prompt :]) for example in examples]
        n_words = sum(len(text.split()) for text in texts)
        n_bytes = sum(len(text.encode()) for text in texts)
    return Perplexity(
        per_token=math.exp(sum(nats) / n_tokens),
        per_word=_perplexity(nats, n_words),
        per_byte=_perplexity(nats, n_bytes),
        batches=tuple(batch for batch in batches if batch is not None),
        nats=sum(nats),
        n_tokens=n_tokens,
        n_words=n_words,
        n_bytes=n_bytes,
    )


def _perplexity(nats: Iterable[float], n: int | None) -> float | None:
    if not n:
        return None
    return math.exp(sum(nats) / n)


def _lengths(examples: Iterable[TokenizedExample]) -> int:
    return sum(example.n_supervised for example in examples)


def _tokenized(given: Measured, tokenizer: "ChatTokenizer | None", window: int) -> list[TokenizedExample]:
    if isinstance(given, TokenizedExample):
        return [given]
    if tokenizer is None:
        raise TypeError("a bare generator has no tokenizer: give tokenized examples, or Scoring(generator, tokenizer)")
    if isinstance(given, RAFTExample):
        return [tokenize(given, tokenizer)]
    return code_windows(tokenizer.encode(given), window)
