"""A base folder as one of mlx-lm's models: loading, packed log-probabilities, greedy answers.

The head is applied on supervised positions only and the vocabulary's logits exist for `CHUNK` positions at a time, made
again in the backward pass, as in the torch backend. Loading is lazy: a weight that is replaced before it is used is never
read.

mlx-lm's model classes are imported without mlx-lm's own `__init__`: that one pulls in transformers (and torch, where it
is installed) and lowers the limit of open files of the whole process. mlx-lm 0.32 reads `rope_theta` and `rope_scaling`
only; the `rope_parameters` that transformers 5 writes would be passed over and every Llama 3 rotated wrongly, so they
are translated here. A window that is as long as the base's context (`architectures.context_of`) is never met; where
layers differ in it, as in Gemma 3, mlx-lm asks for the mask of each. Soft-capped logits (Gemma 2) are refused.
"""

import functools
import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ai_forge.errors import InputError
from ai_forge.model_files.architectures import completed, unserved
from ai_forge.model_files.gguf.config import attention_factor, rope_of
from ai_forge.model_files.tensors import weight_files
from ai_forge.training.apple import MLX_LM_MODULES
from ai_forge.training.backends.mlx_layers import PackedRow, PositionedRope
from ai_forge.training.tokens.packing import IGNORE, Batch

CHUNK = 256


def mlx_lm_module(name: str) -> ModuleType:
    """`mlx_lm.models.NAME`, without what `import mlx_lm` does besides; see the module's docstring."""
    if "mlx_lm" in sys.modules:
        return importlib.import_module(f"mlx_lm.models.{name}")
    spec = importlib.util.find_spec("mlx_lm")
    assert spec is not None, "the backend is chosen only where mlx-lm is installed"
    sys.modules["mlx_lm"] = importlib.util.module_from_spec(spec)  # found, not executed
    try:
        return importlib.import_module(f"mlx_lm.models.{name}")
    finally:
        del sys.modules["mlx_lm"]  # whoever imports it later gets the whole package


def describe_device() -> str:
    """Its name and memory, for people."""
    info = mx.device_info()
    return f"{info.get('device_name', 'unknown')} (MLX on {'GPU' if on_gpu() else 'CPU'})"


def on_gpu() -> bool:
    """Whether MLX computes on Apple's GPU."""
    return bool(mx.default_device() == mx.gpu)


def compute_dtype() -> mx.Dtype:
    """bfloat16 on the GPU; float32 on a CPU, where MLX adds up bfloat16 products in bfloat16."""
    return mx.bfloat16 if on_gpu() else mx.float32


def _translated(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a Hugging Face folder under the names that mlx-lm reads.

    Raises:
        InputError: the base computes something that this backend does not.
    """
    config = completed(config)
    kind, rope = config["model_type"], config.get("rope_parameters") or {}
    local = {}
    if kind == "gemma3_text":
        local, rope = rope.get("sliding_attention", {}), rope.get("full_attention", rope)
    rope_type = rope.get("rope_type", "default")
    unserved_here = {
        f"architecture {kind}": kind not in MLX_LM_MODULES,
        f"rotary embeddings of type {rope_type}": rope_type == "dynamic" or (kind == "phi3" and rope_type != "default"),
        "rotary embeddings that differ by layer": any(isinstance(value, dict) for value in rope.values()),
    }
    what = next((name for name, found in unserved_here.items() if found), None) or unserved(config)
    if what:
        raise InputError(
            f"The MLX backend does not serve {what} (it has {', '.join(MLX_LM_MODULES)}).",
            "train this base with training.backend=torch.",
        )
    if rope:
        config = config | {"rope_theta": rope["rope_theta"]}
        config["rope_scaling"] = None if rope_type == "default" else rope
        if rope_type == "yarn":
            config["rope_scaling"] = _yarn_for_mlx(rope_of(config))
        config["partial_rotary_factor"] = rope.get("partial_rotary_factor", 1.0)
    if local:
        config["rope_local_base_freq"] = local["rope_theta"]
    return config


def _yarn_for_mlx(rope: dict[str, Any]) -> dict[str, Any]:
    """YaRN as mlx-lm reads it: no attention factor, but an `mscale`, which counts there even where transformers ignores it."""
    factor = float(rope["factor"])
    wanted = attention_factor(rope, factor)
    mscale = (wanted - 1) / (0.1 * math.log(factor)) if factor > 1 else 1.0
    left_out = {key for key in ("beta_fast", "beta_slow") if not rope.get(key)}  # the defaults are meant
    kept = {key: value for key, value in rope.items() if key not in left_out}
    return kept | {"mscale": mscale, "mscale_all_dim": 0}


def load_arrays(path: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file, each read when it is used."""
    arrays: Any = mx.load(str(path))
    return dict(arrays)


def load_model(folder: Path, *, dtype: mx.Dtype) -> Any:
    """The causal language model in a Hugging Face folder (safetensors only), in evaluation mode, its weights lazy.

    Raises:
        InputError: an architecture that this backend does not serve, or weights that do not fit the configuration.
    """
    config = _translated(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    module = mlx_lm_module(MLX_LM_MODULES[config["model_type"]])
    model = module.Model(module.ModelArgs.from_dict(config))
    weights: dict[str, mx.array] = {}
    for path in weight_files(folder):
        weights |= load_arrays(path)
    sanitize = getattr(model, "sanitize", dict)  # Phi-3's has nothing to change
    weights = {name: value.astype(dtype) for name, value in sanitize(weights).items()}
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        told = " ".join(str(error).split())
        raise InputError(
            f"The weights in {folder} do not fit its config.json: {told}", "get the model again."
        ) from error
    model.eval()
    for block in model.model.layers:
        block.self_attn.rope = PositionedRope(block.self_attn.rope)
    return model


def head_of(model: Any) -> Callable[[mx.array], mx.array]:
    """Hidden states [..., hidden] to logits [..., vocabulary]."""
    head: Callable[[mx.array], mx.array] = model.lm_head if "lm_head" in model else model.model.embed_tokens.as_linear
    return head


def hidden_at_targets(model: Any, batch: Batch) -> tuple[mx.array, mx.array]:
    """Last hidden states [n_supervised, hidden] and target ids [n_supervised] of a packed batch."""
    supervised = np.flatnonzero(batch.targets != IGNORE)
    ids = mx.array(batch.input_ids.astype(np.int32))[None]
    hidden = model.model(ids, [PackedRow(batch)] * len(model.model.layers))[0]
    return hidden[mx.array(supervised.astype(np.int32))], mx.array(batch.targets[supervised].astype(np.int32))


def target_log_probs(model: Any, batch: Batch) -> tuple[mx.array, mx.array]:
    """Log-probability [n_supervised] (float32, nats) of each target and whether it was the top-1 prediction."""
    hidden, targets = hidden_at_targets(model, batch)
    head = head_of(model)

    def score(rows: mx.array, first: int) -> tuple[mx.array, mx.array]:
        wanted = targets[first : first + CHUNK]
        logits = head(rows).astype(mx.float32)
        chosen = mx.take_along_axis(logits, wanted[:, None], axis=1)[:, 0]
        return chosen - mx.logsumexp(logits, axis=1), mx.argmax(mx.stop_gradient(logits), axis=1) == wanted

    starts = range(0, len(targets), CHUNK)
    parts = [mx.checkpoint(functools.partial(score, first=i))(hidden[i : i + CHUNK]) for i in starts]
    return mx.concatenate([scores for scores, _ in parts]), mx.concatenate([hits for _, hits in parts])


def log_softmax(logits: mx.array) -> mx.array:
    """Log-probabilities over the last axis, float32."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def vocabulary_log_probs(model: Any, batch: Batch) -> mx.array:
    """Log-probabilities over the whole vocabulary [n_supervised, vocabulary], float32."""
    hidden, _ = hidden_at_targets(model, batch)
    return log_softmax(head_of(model)(hidden))


class MLXGenerator:
    """`Generator` on one of mlx-lm's models: answers and log-probabilities.

    `end_of_turn_id` ends an answer. Prompts of a call are padded on the left and answered together.
    """

    def __init__(self, model: Any, end_of_turn_id: int) -> None:
        self.model = model
        self._end = end_of_turn_id

    @classmethod
    def load(cls, folder: Path, end_of_turn_id: int, *, exact: bool = False) -> "MLXGenerator":
        """The model in `folder`; `exact` computes in float32."""
        model = load_model(folder, dtype=mx.float32 if exact else compute_dtype())
        mx.eval(model.parameters())
        return cls(model, end_of_turn_id)

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations, without the prompt, up to and without the end-of-turn token."""
        return [reply for reply, _ in self.answer(prompts, [()] * len(prompts), max_new_tokens)]

    def answer(
        self, prompts: Sequence[Sequence[int]], references: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[list[int], float]]:
        """For each prompt the greedy answer and the summed −log p (nats) of its reference, from one pass over the prompt.

        The cache of the prompts is read twice: once with the references behind it, then, cut back, by the answers.
        """
        width = max(len(prompt) for prompt in prompts)
        gaps = [width - len(prompt) for prompt in prompts]
        new_cache = mlx_lm_module("cache").BatchKVCache
        cache = [new_cache(gaps) for _ in self.model.model.layers]
        rows = [[self._end] * gap + list(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
        logits = self._continue(rows, cache)
        nats = self._score_references(logits, references, cache)
        return list(zip(self._greedy(logits, cache, max_new_tokens), nats, strict=True))

    def _continue(self, rows: list[list[int]], cache: list[Any], *, keep: int = 1) -> mx.array:
        """Logits [batch, keep, vocabulary] of the last `keep` positions of `rows`, which follow what `cache` holds."""
        hidden = self.model.model(mx.array(rows), cache)
        logits = head_of(self.model)(hidden[:, -keep:])
        mx.eval(logits, [layer.state for layer in cache])
        return logits

    def _score_references(self, first: mx.array, references: Sequence[Sequence[int]], cache: list[Any]) -> list[float]:
        width = max(len(reference) for reference in references)
        if width == 0:
            return [0.0] * len(references)
        rows = [list(reference) + [self._end] * (width - len(reference)) for reference in references]
        rest = self._continue(rows, cache, keep=width)
        for layer in cache:
            layer.trim(width)
        nats = []
        for row, reference in enumerate(references):
            # each position predicts the token after it; an empty reference is kept at one row, which counts nothing
            predicted = log_softmax(mx.concatenate([first[row], rest[row]])[: max(len(reference), 1)])
            nats.append(-sum(float(predicted[at, token]) for at, token in enumerate(reference)))
        return nats

    def _greedy(self, logits: mx.array, cache: list[Any], max_new_tokens: int) -> list[list[int]]:
        replies: list[list[int]] = [[] for _ in range(logits.shape[0])]
        running = set(range(logits.shape[0]))
        for _ in range(max_new_tokens):
            chosen: Any = mx.argmax(logits[:, -1], axis=1).tolist()
            for row in list(running):
                token = chosen[row]
                if token == self._end:
                    running.discard(row)
                else:
                    replies[row].append(token)
            if not running:
                break
            logits = self._continue([[token] for token in chosen], cache)
        return replies

    def log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probability of each supervised target [n_supervised]."""
        return np.asarray(target_log_probs(self.model, batch)[0], dtype=np.float32)

    def vocabulary_log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probabilities over the whole vocabulary at each supervised target [n_supervised, vocabulary]."""
        return np.asarray(vocabulary_log_probs(self.model, batch), dtype=np.float32)
