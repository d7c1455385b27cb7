"""A base folder as one of mlx-lm's models: loading, packed log-probabilities, greedy answers.

The head is applied on supervised positions only and the vocabulary's logits exist for `CHUNK` positions at a time, made
again in the backward pass, as in the torch backend. Loading is lazy: a weight that is replaced before it is used is never
read.

A window that is as long as the base's context (`architectures.context_of`) is never met; where layers differ in it, as in
Gemma 3, mlx-lm asks for the mask of each. Soft-capped logits (Gemma 2) are refused.
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
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.architectures import completed, unserved
from ai_forge.model_files.gguf.config import attention_factor, rope_of
from ai_forge.model_files.tensors import weight_files
from ai_forge.training.apple import MLX_LM_MODULES
from ai_forge.training.backends.mlx_layers import PackedRow, PositionedRope
from ai_forge.training.tokens.packing import IGNORE, Batch

CHUNK = 256


def mlx_lm_module(name: str) -> ModuleType:
    """`mlx_lm.models.NAME`, without what `import mlx_lm` does besides."""
    # mlx-lm's own `__init__` pulls in transformers (and torch, where it is installed) and lowers the limit of open files of
    # the whole process, so an empty module stands in its place while the model's class is imported.
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


def compute_dtype(*, exact: bool = False) -> mx.Dtype:
    """bfloat16 on the GPU unless the result is to be `exact`; float32 on a CPU."""
    if exact or not on_gpu():  # on a CPU MLX adds up bfloat16 products in bfloat16
        return mx.float32
    return mx.bfloat16


def _translated(config: JsonObject) -> JsonObject:
    """The settings of a Hugging Face folder under the names that mlx-lm reads.

    Raises:
        InputError: the base computes something that this backend does not.
    """
    config = completed(config)
    kind, rope = config["model_type"], config.get("rope_parameters") or {}
    local = {}
    if kind == "gemma3_text":  # its layers with a window rotate by another base frequency
        local, rope = rope.get("sliding_attention", {}), rope.get("full_attention", rope)
    rope_type = rope.get("rope_type", "default")
    what: str | None
    if kind not in MLX_LM_MODULES:
        what = f"architecture {kind}"
    elif rope_type == "dynamic" or (kind == "phi3" and rope_type != "default"):
        what = f"rotary embeddings of type {rope_type}"
    elif any(isinstance(value, dict) for value in rope.values()):
        what = "rotary embeddings that differ by layer"
    else:
        what = unserved(config)
    if what is not None:
        raise InputError(
            f"The MLX backend does not serve {what} (it has {', '.join(MLX_LM_MODULES)}).",
            "train this base with training.backend=torch.",
        )
    if rope:
        # mlx-lm 0.32 reads these two names only: the `rope_parameters` that transformers 5 writes would be passed over, and
        # every Llama 3 rotated wrongly.
        config = config | {"rope_theta": rope["rope_theta"], "rope_scaling": None}
        if rope_type == "yarn":
            config["rope_scaling"] = _yarn_for_mlx(rope_of(config))
        elif rope_type != "default":
            config["rope_scaling"] = rope
        config["partial_rotary_factor"] = rope.get("partial_rotary_factor", 1.0)
    if local:
        config["rope_local_base_freq"] = local["rope_theta"]
    return config


def _yarn_for_mlx(rope: JsonObject) -> JsonObject:
    """YaRN as mlx-lm reads it: no attention factor, but an `mscale`, which counts there even where transformers ignores it."""
    factor = float(rope["factor"])
    wanted = attention_factor(rope, factor)
    mscale = 1.0
    if factor > 1:  # mlx-lm multiplies by 0.1 · mscale · ln factor + 1: solved for what is wanted
        mscale = (wanted - 1) / (0.1 * math.log(factor))
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
        flat = " ".join(str(error).split())  # mlx names each weight on a line of its own; an error is one line
        raise InputError(
            f"The weights in {folder} do not fit its config.json: {flat}", "get the model again."
        ) from error
    model.eval()
    for block in model.model.layers:
        block.self_attn.rope = PositionedRope(block.self_attn.rope)
    return model


def head_of(model: Any) -> Callable[[mx.array], mx.array]:
    """Hidden states [..., hidden] to logits [..., vocabulary]."""
    head: Callable[[mx.array], mx.array] = model.model.embed_tokens.as_linear  # tied, unless there is one of its own
    if "lm_head" in model:
        head = model.lm_head
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

    all_scores, all_hits = [], []
    for first in range(0, len(targets), CHUNK):
        scores, hits = mx.checkpoint(functools.partial(score, first=first))(hidden[first : first + CHUNK])
        all_scores.append(scores)
        all_hits.append(hits)
    return mx.concatenate(all_scores), mx.concatenate(all_hits)


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
        model = load_model(folder, dtype=compute_dtype(exact=exact))
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
        new_cache = mlx_lm_module("cache").BatchKVCache  # takes the gaps, and so hides the padding from attention
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
