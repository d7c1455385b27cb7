"""Is what is served what was trained? The same prompts through the trainer's model and through the GGUF files.

Three comparisons on the same held-out prompts: the prompt as llama.cpp's template engine and tokenizer make it, token for
token; the first greedy tokens of the f16 file, which must be the trainer's (computed in float32 on base, residual and
adapter, not on the merged weights, so that a wrong merge shows too); and how far the deployed type's next-token
distributions are from the trainer's (Kullback–Leibler divergence, nats per token).

The runtime tells its `N_TOP` most likely tokens only; the others count as one, so the divergence told is a lower bound,
close where the top tokens hold nearly all the mass.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ai_forge.errors import RefusedError
from ai_forge.events import Progress
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message
from ai_forge.training.backends.base import Generator
from ai_forge.training.tokens.packing import TokenizedExample, collate

N_TOP = 64
MIN_SAME_ANSWERS = 0.95  # share of the prompts on which the f16 file must repeat the trainer's greedy tokens
NEAR_TIE_NATS = 0.05  # two best tokens that are closer may be turned round by f16's rounding: no sign of a wrong export
MAX_KL_NATS = 1.0  # mean over the tokens of all answers; what is rubbish is several nats off, q4_k_m hundredths
Told = Sequence[tuple[int, Mapping[int, float]]]
"""Generated tokens, each with the log-probabilities of the likeliest ones."""


class ServedFile(Protocol):
    """A GGUF file in llama.cpp."""

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the file's own template."""

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids by the file's own tokenizer; `add_special` adds a begin token where the file asks for one."""

    def greedy_top(self, prompt: Sequence[int], max_tokens: int, n_top: int) -> Told:
        """Greedy tokens, each with the log-probabilities of the `n_top` most likely; none where they are not told."""

    def stops_at(self, prompt: Sequence[int], token: int) -> bool:
        """Whether an answer ends at `token`."""


class Parity(BaseModel):
    """What was compared. `kl_mean` is None where the deployed type is f16 itself or nothing was generated."""

    model_config = ConfigDict(frozen=True)

    n_prompts: int
    n_tokens: int
    same_prompt: int
    same_greedy: int
    near_ties: int
    first_differences: tuple[int, ...]
    kl_mean: float | None
    kl_high: float | None
    quantization: str
    stops: bool = True
    """Whether llama.cpp ends an answer at the token that the trainer ends a turn with."""
    answers: tuple[tuple[int, ...], ...] = ()
    """The deployed file's greedy tokens for each prompt: what it is held to once it is served.

    Not the trainer's: quantization turns near ties round, and how far the file is from the trainer `kl_mean` says.
    """

    @property
    def rows(self) -> dict[str, str]:
        """For tables."""
        greedy = f"{self.same_greedy} of {self.n_prompts}"
        if self.near_ties:
            greedy += f", {self.near_ties} more differ at a near tie"
        rows = {
            "rendered prompt and its tokens equal the trainer's": f"{self.same_prompt} of {self.n_prompts}",
            f"first {self.n_tokens} greedy tokens of the f16 file equal the trainer's": greedy,
        }
        if self.kl_mean is not None:
            rows[f"divergence of {self.quantization} from the trainer"] = (
                f"{self.kl_mean:.4f} nats per token (95th percentile {self.kl_high:.3f})"
            )
        return rows

    def require(self) -> None:
        """Stop a deployment that would serve another model than the trained one.

        Raises:
            RefusedError: a prompt differs, an answer would not end, too few greedy answers are the same, or quantization
                changed the model.
        """
        if self.same_prompt < self.n_prompts:
            raise RefusedError(
                f"llama.cpp makes another prompt than the trainer of {self.n_prompts - self.same_prompt} of {self.n_prompts} chats.",
                "this model would be asked in another form than it was trained in; please report the base that you used.",
            )
        if not self.stops:
            raise RefusedError(
                "llama.cpp does not stop at the token that ends an answer of the trainer's.",
                "this model would go on talking after its answers; please report the base that you used.",
            )
        wrong = self.n_prompts - self.same_greedy - self.near_ties
        if wrong > (1 - MIN_SAME_ANSWERS) * self.n_prompts:
            raise RefusedError(
                f"{wrong} of {self.n_prompts} greedy answers of the f16 file are not the trainer's, where the trainer is "
                f"sure of its token; at most {1 - MIN_SAME_ANSWERS:.0%} may be.",
                "the export changed the model; please report the base that you used.",
            )
        if self.kl_mean is not None and self.kl_mean > MAX_KL_NATS:
            raise RefusedError(
                f"The {self.quantization} file is {self.kl_mean:.2f} nats per token from the trainer; at most {MAX_KL_NATS:g} may be.",
                "export another type: --set export.quantization=q8_0.",
            )


@dataclass(frozen=True)
class Files:
    """The f16 file and the deployed one (the same where f16 is deployed)."""

    f16: ServedFile
    deployed: ServedFile
    quantization: str


def compare(
    trainer: Generator,
    files: Files,
    tokenizer: ChatTokenizer,
    chats: Sequence[Sequence[Message]],
    n_tokens: int,
    progress: Progress,
) -> Parity:
    """Put `chats` through trainer and files."""
    prompts = [tokenizer.encode_prompt(chat) for chat in chats]
    end = tokenizer.end_of_turn_id
    same_prompt = near_ties = 0
    differences: list[int] = []
    divergences: list[float] = []
    deployed: list[tuple[int, ...]] = []
    progress(0, len(chats))
    answers = trainer.generate(prompts, n_tokens)
    for done, (chat, prompt, expected) in enumerate(zip(chats, prompts, answers, strict=True)):
        progress(done, len(chats))
        # llama.cpp takes a begin token off what it renders, to add it again where it reads the prompt
        same_prompt += files.f16.tokenize(files.f16.render(chat), add_special=True) == prompt
        told = files.f16.greedy_top(prompt, n_tokens, 1)
        served = _until(end, told)
        difference = first_difference(expected, served)
        if difference is not None:
            differences.append(difference)
            ours, theirs = [*expected, end], [*served, end]  # one may have ended where the other went on
            lead = _lead(trainer, (*prompt, *ours[:difference]), ours[difference], theirs[difference])
            near_ties += lead < NEAR_TIE_NATS
        if files.deployed is not files.f16:  # that is held to the trainer's very tokens already
            told = files.deployed.greedy_top(prompt, n_tokens, N_TOP)
            divergences += _divergences(trainer, prompt, told)
        deployed.append(tuple(_until(end, told)))
    progress(len(chats), len(chats))
    kl_mean = kl_high = None
    if divergences:
        kl_mean, kl_high = float(np.mean(divergences)), float(np.quantile(divergences, 0.95))
    return Parity(
        n_prompts=len(chats),
        n_tokens=n_tokens,
        same_prompt=same_prompt,
        same_greedy=len(chats) - len(differences),
        near_ties=near_ties,
        first_differences=tuple(differences),
        kl_mean=kl_mean,
        kl_high=kl_high,
        quantization=files.quantization,
        stops=files.f16.stops_at(prompts[0], end) if prompts else True,
        answers=tuple(deployed),
    )


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first position at which two answers differ, or None.

    >>> first_difference([1, 2], [1, 2]), first_difference([1, 2], [1, 3]), first_difference([1, 2], [1])
    (None, 1, 1)
    """
    for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):  # as far as both go
        if a != b:
            return position
    if len(ours) == len(theirs):
        return None
    return min(len(ours), len(theirs))  # one of them ended earlier


def _lead(trainer: Generator, before: Sequence[int], ours: int, theirs: int) -> float:
    """By how many nats the trainer prefers its own token to the other one after `before`."""
    row = trainer.vocabulary_log_probs(collate([TokenizedExample((*before, ours), len(before))]))[0]
    return float(row[ours] - row[theirs])


def _until(end: int, told: Told) -> list[int]:
    """The tokens before the one that ends an answer."""
    return list(itertools.takewhile(lambda token: token != end, (token for token, _ in told)))


def _divergences(trainer: Generator, prompt: Sequence[int], told: Told) -> list[float]:
    """KL(trainer ‖ served) at each token that the served model generated and told probabilities of."""
    if not told:
        return []
    answer = TokenizedExample((*prompt, *(token for token, _ in told)), len(prompt))
    truth = trainer.vocabulary_log_probs(collate([answer]))
    return [bucketed_kl(row, top) for row, (_, top) in zip(truth, told, strict=True) if top]


def bucketed_kl(truth: NDArray[np.float32], top: Mapping[int, float]) -> float:
    """KL(p ‖ q), nats, over the tokens of `top` and one bucket for all others; `truth` is log p over the vocabulary.

    >>> p = np.log(np.array([0.5, 0.25, 0.25], dtype=np.float32))
    >>> round(bucketed_kl(p, {0: math.log(0.5), 1: math.log(0.25)}), 6)
    0.0
    """
    ids = np.fromiter(top, dtype=np.int64)
    log_p = truth[ids].astype(np.float64)
    log_q = np.fromiter(top.values(), dtype=np.float64)
    p, q = np.exp(log_p), np.exp(log_q)
    # sums of rounded shares may exceed 1; a rest of 0 in q would make the divergence endless
    rest_p, rest_q = max(1 - float(p.sum()), 0.0), max(1 - float(q.sum()), 1e-9)
    total = float((p * (log_p - log_q)).sum())
    if rest_p > 0:
        total += rest_p * math.log(rest_p / rest_q)
    return max(total, 0.0)
