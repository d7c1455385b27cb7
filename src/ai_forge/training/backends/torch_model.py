"""A base folder as a torch model: loading, packed log-probabilities, greedy answers.

The head is applied on supervised positions only and the vocabulary's logits exist for `CHUNK` positions at a time; with
gradients they are recomputed in the backward pass (a chunk of 256 × 49k float32 logits is 50 MB; all would be GBs).
"""

import contextlib
import ctypes
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from ai_forge.training.backends.torch_kernels import FrozenRMSNorm
from ai_forge.training.backends.torch_layers import PACKED_ATTENTION
from ai_forge.training.packing import IGNORE, Batch

CHUNK = 256
PLAIN_RMS_NORMS = ("LlamaRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "MistralRMSNorm")
"""Norms that are weight · x / rms(x); others (Gemma's 1 + weight) are left as they are."""

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


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32.

    On a CPU without AMX or AVX-512 BF16, bf16 products are emulated and slower than float32 ones.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of handing it back and faulting it in again.

    A training step allocates and frees the same gigabytes over and over: 8 % of its CPU time here were page faults.
    The process stays as large as it was at its peak. Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def load_model(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal language model in a Hugging Face folder (safetensors only), frozen, in evaluation mode."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=PACKED_ATTENTION, use_safetensors=True, local_files_only=True
    )
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cpu" and dtype == torch.bfloat16:
        for name, module in list(model.named_modules()):
            if type(module).__name__ in PLAIN_RMS_NORMS:
                model.set_submodule(name, FrozenRMSNorm(module.weight, module.variance_epsilon))
    return model


def hidden_at_targets(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Last hidden states [n_supervised, hidden] and target ids [n_supervised] of a packed batch."""
    device = model.device
    targets = torch.from_numpy(batch.targets).to(device)
    supervised = (targets != IGNORE).nonzero().squeeze(1)
    output = model.model(
        input_ids=torch.from_numpy(batch.input_ids).to(device)[None],
        position_ids=torch.from_numpy(batch.position_ids).to(device)[None],
        boundaries=batch.boundaries.tolist(),
        use_cache=False,
    )
    return output.last_hidden_state[0].index_select(0, supervised), targets[supervised]


def _score(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and whether it is the most likely token."""
    logits = functional.linear(hidden, head).float()
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    return chosen - logits.logsumexp(1), logits.argmax(1) == targets


def target_log_probs(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability [n_supervised] (float32, nats) of each target and whether it was the top-1 prediction."""
    hidden, targets = hidden_at_targets(model, batch)
    head = model.get_output_embeddings().weight
    scores, hits = [], []
    for first in range(0, len(targets), CHUNK):
        part = hidden[first : first + CHUNK], head, targets[first : first + CHUNK]
        score, hit = checkpoint(_score, *part, use_reentrant=False) if hidden.requires_grad else _score(*part)
        scores.append(score)
        hits.append(hit)
    return torch.cat(scores), torch.cat(hits)


def vocabulary_log_probs(model: Any, batch: Batch) -> Tensor:
    """Log-probabilities over the whole vocabulary [n_supervised, vocabulary], float32."""
    with torch.no_grad():
        hidden, _ = hidden_at_targets(model, batch)
        return functional.linear(hidden, model.get_output_embeddings().weight).float().log_softmax(1)


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
        dtype = torch.float32 if exact else compute_dtype(device)
        return cls(load_model(folder, device=device, dtype=dtype), end_of_turn_id)

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations, without the prompt, up to and without the end-of-turn token."""
        width = max(len(p) for p in prompts)
        device = self.model.device
        ids = torch.tensor([[self._end] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        self.model.set_attn_implementation("sdpa")
        try:
            with torch.no_grad():
                output = self.model.generate(
                    ids,
                    attention_mask=mask,
                    generation_config=GenerationConfig(
                        do_sample=False,
                        max_new_tokens=max_new_tokens,
                        eos_token_id=self._end,
                        pad_token_id=self._end,
                    ),
                )
        finally:
            self.model.set_attn_implementation(PACKED_ATTENTION)
        return [list(self._until_end(row)) for row in output[:, width:].tolist()]

    def _until_end(self, row: list[int]) -> Iterator[int]:
        for token in row:
            if token == self._end:
                return
            yield token

    def log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probability of each supervised target [n_supervised]."""
        with torch.no_grad():
            values: NDArray[np.float32] = target_log_probs(self.model, batch)[0].float().cpu().numpy()
        return values

    def vocabulary_log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probabilities over the whole vocabulary at each supervised target [n_supervised, vocabulary]."""
        values: NDArray[np.float32] = vocabulary_log_probs(self.model, batch).cpu().numpy()
        return values
