"""A base folder as a torch model: loading, memory, packed log-probabilities, greedy answers.

The head is applied on supervised positions only and the vocabulary's logits exist for `CHUNK` positions at a time; with
gradients they are recomputed in the backward pass (a chunk of 256 × 49k float32 logits is 50 MB; all would be GBs).
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.search.embedders.torch_minilm import multiplies_bfloat16
from ai_forge.training.backends.torch_cache import repeated, reserved_cache
from ai_forge.training.backends.torch_kernels import FrozenRMSNorm
from ai_forge.training.backends.torch_layers import CACHED_ATTENTION, PACKED_ATTENTION
from ai_forge.training.memory import memory_of
from ai_forge.training.tokens.packing import IGNORE, Batch, n_common_to_all

CHUNK = 256
# Norms that are weight · x / rms(x); others (Gemma's 1 + weight) are left as they are.
PLAIN_RMS_NORMS = ("LlamaRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "MistralRMSNorm", "Phi3RMSNorm")

transformers_logging.disable_progress_bar()


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU (Apple's GPU is served by the MLX backend)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_device(device: torch.device) -> str:
    """Its name and memory, for people."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    return f"CPU, {torch.get_num_threads()} threads"


def gpu_bytes(device: torch.device) -> int:
    """Memory of a GPU; 0 for the CPU, whose memory is the machine's."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory)


def compute_dtype(device: torch.device, *, exact: bool = False) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively and the result need not be `exact`, else float32."""
    if device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)  # a T4 only emulates it
    else:
        is_native = multiplies_bfloat16()
    return torch.bfloat16 if is_native and not exact else torch.float32


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step; the process stays as large as it was at its peak."""
    # A step allocates and frees the same gigabytes over and over: 8 % of its CPU time were page faults.
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than on glibc there is nothing to tell
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def load_model(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal language model in a Hugging Face folder (safetensors only), frozen, in evaluation mode."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=PACKED_ATTENTION,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,  # or who sits before a terminal would be asked
    )
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":  # where autograd moves much more memory than it computes, see `torch_kernels`
        keep_freed_memory()
        for name, module in list(model.named_modules()):
            if type(module).__name__ in PLAIN_RMS_NORMS:
                model.set_submodule(name, FrozenRMSNorm(module.weight, module.variance_epsilon))
    return model


def recompute_layers(model: Any) -> None:
    """Let each decoder layer keep only its input for the backward pass and compute the rest again there.

    The same operations on the same values: on a CPU the gradients are equal bit by bit.
    """
    for layer in model.model.layers:
        layer.forward = functools.partial(_recomputed, type(layer).forward.__get__(layer))


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # nothing in these layers draws random numbers, so no generator's state has to be kept
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def free_bytes(n_processes: int = 1) -> int:
    """Memory that each of `n_processes` on this machine may still take: of its GPU, or its share of the machine's."""
    if pick_device().type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available) // n_processes


def memory_needed(folder: Path, config: FineTuneConfig) -> dict[str, int]:
    """Bytes by component at the peak of training the base in `folder` here; see `memory.memory_of`."""
    device = pick_device()
    packed = device.type == "cuda" and not config.sharded
    return memory_of(folder, config, dtype_bytes=compute_dtype(device).itemsize, packed_nf4=packed)


def hidden_at_targets(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Last hidden states [n_supervised, hidden] and target ids [n_supervised] of a packed batch."""
    device = model.device
    targets = torch.from_numpy(batch.targets).to(device)
    supervised = (targets != IGNORE).nonzero().squeeze(1)
    output = model.model(
        input_ids=torch.from_numpy(batch.input_ids).to(device)[None],
        position_ids=torch.from_numpy(batch.position_ids).to(device)[None],
        segments=batch.segments,
        use_cache=False,
    )
    return output.last_hidden_state[0].index_select(0, supervised), targets[supervised]


def _logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits [n, vocabulary] of hidden states [n, hidden], float32, soft-capped where the model does so."""
    logits = functional.linear(hidden, model.get_output_embeddings().weight).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits


def _score(model: Any, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each of `tokens` [n, 1 + k], and whether the first of a row is the most likely one of all."""
    logits = _logits(model, hidden)
    return logits.gather(1, tokens) - logits.logsumexp(1, keepdim=True), logits.argmax(1) == tokens[:, 0]


def target_log_probs(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability [n_supervised] (float32, nats) of each target and whether it was the top-1 prediction.

    Of a batch with candidates [n_supervised, 1 + k]: of the target, then of its candidates.
    """
    hidden, targets = hidden_at_targets(model, batch)
    tokens = targets[:, None]
    if batch.candidates is not None:
        tokens = torch.cat([tokens, torch.from_numpy(batch.candidates).to(targets.device)], dim=1)
    scores, hits = [], []
    for first in range(0, len(targets), CHUNK):
        part = model, hidden[first : first + CHUNK], tokens[first : first + CHUNK]
        if hidden.requires_grad:
            score, hit = checkpoint(_score, *part, use_reentrant=False)
        else:
            score, hit = _score(*part)
        scores.append(score)
        hits.append(hit)
    log_probs = torch.cat(scores)
    if batch.candidates is None:
        log_probs = log_probs.squeeze(1)
    return log_probs, torch.cat(hits)


@torch.no_grad()
def top_tokens(model: Any, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
    """The `k` likeliest tokens at each supervised position and their log-probabilities [n_supervised, k]."""
    hidden, _ = hidden_at_targets(model, batch)
    ids, scores = [], []
    for first in range(0, len(hidden), CHUNK):
        best = _logits(model, hidden[first : first + CHUNK]).log_softmax(1).topk(k, dim=1)
        ids.append(best.indices)
        scores.append(best.values)
    return torch.cat(ids), torch.cat(scores)


def vocabulary_log_probs(model: Any, batch: Batch) -> Tensor:
    """Log-probabilities over the whole vocabulary [n_supervised, vocabulary], float32."""
    with torch.no_grad():
        hidden, _ = hidden_at_targets(model, batch)
        return _logits(model, hidden).log_softmax(1)


@contextlib.contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Turn torch's ways of running out of memory into Python's MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error).partition(". ")[0]) from None
    except RuntimeError as error:  # on a CPU torch has no error class of its own for it, but names its allocator
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise MemoryError(str(error).partition("DefaultCPUAllocator: ")[2].partition(". ")[0]) from None


class TorchGenerator:
    """`Generator` on a torch model: answers and log-probabilities.

    `end_of_turn_id` ends an answer. Prompts of a call are padded on the left and answered together, so the caller sorts
    them by length where that pays.
    """

    def __init__(self, model: Any, end_of_turn_id: int) -> None:
        self.model = model
        self._end = end_of_turn_id

    @classmethod
    def load(cls, folder: Path, end_of_turn_id: int, *, exact: bool = False) -> "TorchGenerator":
        """The model in `folder`; `exact` computes in float32."""
        device = pick_device()
        return cls(load_model(folder, device=device, dtype=compute_dtype(device, exact=exact)), end_of_turn_id)

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations, without the prompt, up to and without the end-of-turn token."""
        return [reply for reply, _ in self.answer(prompts, [()] * len(prompts), max_new_tokens)]

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Sequence[int]], references: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[list[int], float]]:
        """For each prompt the greedy answer and the summed −log p (nats) of its reference, from one pass over the prompt.

        What all prompts begin with is read once. The rest is padded on the left, references on the right. The cache of
        the prompts is read twice: once with the references behind it, then, cut back, by the answers.
        """
        with self._cached_attention():
            logits, mask, cache = self._read(prompts, max(max_new_tokens, *map(len, references)))
            nats = self._score_references(logits, references, mask, cache)
            replies = self._decode(logits, mask, cache, max_new_tokens, lambda scores: scores.argmax(1))
            return [(reply, n) for (reply, _), n in zip(replies, nats, strict=True)]

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float, top_p: float, seed: int
    ) -> list[tuple[list[int], bool]]:
        """For each prompt an answer drawn from the model, and whether it came to its end.

        Of each distribution, sharpened by `temperature`, the likeliest tokens that hold `top_p` together are drawn from.
        """
        generator = torch.Generator(device=self.model.device).manual_seed(seed)

        def draw(scores: Tensor) -> Tensor:
            probabilities, order = (scores.float() / temperature).softmax(1).sort(1, descending=True)
            before = probabilities.cumsum(1) - probabilities
            probabilities = probabilities.masked_fill(before >= top_p, 0.0)
            return order.gather(1, torch.multinomial(probabilities, 1, generator=generator)).squeeze(1)

        with self._cached_attention(), out_of_memory_told():
            logits, mask, cache = self._read(prompts, max_new_tokens)
            return self._decode(logits, mask, cache, max_new_tokens, draw)

    @property
    def reads_many(self) -> bool:
        """Whether many prompts at a time cost hardly more than one: on a GPU, not on a CPU."""
        return bool(self.model.device.type == "cuda")

    @contextlib.contextmanager
    def _cached_attention(self) -> Iterator[None]:
        self.model.set_attn_implementation(CACHED_ATTENTION)
        try:
            yield
        finally:
            self.model.set_attn_implementation(PACKED_ATTENTION)

    def _read(self, prompts: Sequence[Sequence[int]], n_more: int) -> tuple[Tensor, Tensor, Any]:
        """Logits after the prompts, their mask, and a cache with room for `n_more` tokens."""
        longest = max(map(len, prompts)) + n_more
        window = getattr(self.model.config, "sliding_window", None)
        shared = n_common_to_all(prompts)
        # a window counts rows of the cache, so nothing may be padded between the beginning and the rest
        if window is not None and window < longest:
            shared = 0
        ids, mask = self._padded([prompt[shared:] for prompt in prompts], left=True)
        mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
        cache = self._beginning(prompts[0][:shared], len(prompts), longest)
        return self._continue(ids, mask, cache), mask, cache

    def _beginning(self, ids: Sequence[int], n_rows: int, capacity: int) -> Any:
        """A cache with room for `capacity` tokens in each of `n_rows`, which all begin with `ids`."""
        if not ids:
            return reserved_cache(capacity)
        row, mask = self._padded([ids], left=True)
        cache = reserved_cache(len(ids))
        self._continue(row, mask, cache)
        return repeated(cache.layers, n_rows, capacity)

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        """Ids and mask [batch, width]."""
        width = max(len(row) for row in rows)
        ids, mask = [], []
        for row in rows:
            gap, ones = width - len(row), [1] * len(row)
            if left:
                ids.append([self._end] * gap + list(row))
                mask.append([0] * gap + ones)
            else:
                ids.append(list(row) + [self._end] * gap)
                mask.append(ones + [0] * gap)
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _continue(self, ids: Tensor, mask: Tensor, cache: Any, *, keep: int = 1) -> Tensor:
        """Logits [batch, keep, vocabulary] of the last `keep` positions of `ids`, which follow what `cache` holds."""
        # padding counts for no position, so that a prompt is rotated as it would be alone
        positions = (mask.cumsum(1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits

    def _score_references(
        self, first: Tensor, references: Sequence[Sequence[int]], mask: Tensor, cache: Any
    ) -> list[float]:
        if not any(references):
            return [0.0] * len(references)
        ids, supervised = self._padded(references, left=False)
        width = ids.shape[1]
        rest = self._continue(ids, torch.cat([mask, supervised], dim=1), cache, keep=width)
        cache.crop(-width)  # the answers are to follow the prompts, not the references
        nats = []
        for row, (reference, kept) in enumerate(zip(ids, supervised, strict=True)):
            n = int(kept.sum())
            logits = torch.cat([first[row], rest[row, : n - 1]]).float()  # each predicts the token after it
            nats.append(-float(logits.log_softmax(1).gather(1, reference[:n, None]).sum()))
        return nats

    def _decode(
        self, logits: Tensor, mask: Tensor, cache: Any, max_new_tokens: int, choose: Callable[[Tensor], Tensor]
    ) -> list[tuple[list[int], bool]]:
        """Replies of tokens that `choose` takes from logits [batch, vocabulary], and whether each came to its end."""
        replies: list[list[int]] = [[] for _ in range(len(mask))]
        running = set(range(len(mask)))
        for _ in range(max_new_tokens):
            chosen = choose(logits[:, -1])
            for row, token in enumerate(chosen.tolist()):
                if row not in running:
                    continue
                if token == self._end:
                    running.discard(row)
                else:
                    replies[row].append(token)
            if not running:
                break
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._continue(chosen[:, None], mask, cache)
        return [(reply, row not in running) for row, reply in enumerate(replies)]

    def log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probability of each supervised target [n_supervised]."""
        with torch.no_grad():
            values: NDArray[np.float32] = target_log_probs(self.model, batch)[0].float().cpu().numpy()
        return values

    def top_tokens(self, batch: Batch, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The `k` likeliest tokens at each supervised position and their log-probabilities [n_supervised, k]."""
        ids, scores = top_tokens(self.model, batch, k)
        return ids.int().cpu().numpy(), scores.cpu().numpy()

    def vocabulary_log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probabilities over the whole vocabulary at each supervised target [n_supervised, vocabulary]."""
        values: NDArray[np.float32] = vocabulary_log_probs(self.model, batch).cpu().numpy()
        return values
