"""MiniLM for many texts, where the processor multiplies bfloat16 natively: texts of all lengths in one matrix of tokens.

The arithmetic is that of `minilm`. Only attention sees one text (or several of one length) at a time; all other products run
over the tokens of the whole batch, so nothing is padded and no batch is small. Vectors equal those of `minilm` to a cosine of
0.999, and mix with them: a question's vector is made by `minilm`, which needs no PyTorch.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from ai_forge.data_pipeline.search.embedders.embedding import Matrix, Texts, unit_rows
from ai_forge.data_pipeline.search.embedders.minilm import EPSILON, TOKENS_AT_ONCE, read_minilm

__all__ = ["PackedMiniLm", "multiplies_bfloat16"]


def multiplies_bfloat16() -> bool:
    """Whether this processor does so natively (AMX, AVX-512 BF16, Arm's); elsewhere such products are slower than float32's."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


class PackedMiniLm:
    """The encoder in bfloat16; its sums within a product and its means stay float32."""

    name = "minilm:bfloat16"  # not what `embedder_named` takes: vectors that are kept are told apart by it
    weight = 1.0

    def __init__(self) -> None:
        self._tokenizer, weights, self._n_heads = read_minilm()
        self._weights = _in_bfloat16(weights)
        # float32 as they come: the sum of three embeddings is rounded once
        self._tokens = torch.from_numpy(weights["embeddings.word_embeddings.weight"])
        self._places = torch.from_numpy(
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._layers = sorted(
            {name[: name.index(".", 14) + 1] for name in weights if name.startswith("encoder.layer.")}
        )

    @torch.inference_mode()
    def embed(self, texts: Texts) -> Matrix:
        """Unit vectors [text, 384]."""
        pieces = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts.written))]
        vectors: Matrix = np.zeros((len(pieces), self._places.shape[1]), dtype=np.float32)
        # by length, so that those of one length, whose attention is one product, stand together
        left = sorted(range(len(pieces)), key=lambda number: -len(pieces[number]))
        while left:
            size = max(1, TOKENS_AT_ONCE // len(pieces[left[0]]))
            batch, left = left[:size], left[size:]
            states = self._states([pieces[number] for number in batch])
            for number, of_text in zip(
                batch, torch.split(states.float(), [len(pieces[n]) for n in batch]), strict=True
            ):
                vectors[number] = of_text.mean(0).numpy()
        return unit_rows(vectors)

    def _states(self, pieces: Sequence[Sequence[int]]) -> torch.Tensor:
        """The last layer's states [token of all texts, hidden]."""
        lengths = [len(ids) for ids in pieces]
        alike = [(len(list(same)), length) for length, same in groupby(lengths)]
        at = torch.cat([torch.arange(length) for length in lengths])
        ids = torch.tensor([piece for text in pieces for piece in text])
        embedded = (self._tokens[ids] + self._places[at]).bfloat16()
        states = self._normed(embedded, "embeddings.LayerNorm")
        for layer in self._layers:
            attended = self._attention(states, layer + "attention.self.", alike)
            states = self._normed(
                states + self._linear(attended, layer + "attention.output.dense"), layer + "attention.output.LayerNorm"
            )
            inner = gelu(self._linear(states, layer + "intermediate.dense"))
            states = self._normed(states + self._linear(inner, layer + "output.dense"), layer + "output.LayerNorm")
        return states

    def _attention(self, states: torch.Tensor, name: str, alike: Sequence[tuple[int, int]]) -> torch.Tensor:
        """`alike`: how many texts in a row have which length."""
        all_three = torch.stack([self._linear(states, name + part) for part in ("query", "key", "value")])
        mixed, start = torch.empty_like(states), 0
        for n_texts, length in alike:
            stop = start + n_texts * length
            query, key, value = all_three[:, start:stop].view(3, n_texts, length, self._n_heads, -1).transpose(2, 3)
            of_texts = scaled_dot_product_attention(query, key, value)
            mixed[start:stop] = of_texts.transpose(1, 2).reshape(stop - start, -1)
            start = stop
        return mixed

    def _linear(self, states: torch.Tensor, name: str) -> torch.Tensor:
        return linear(states, self._weights[name + ".weight"], self._weights[name + ".bias"])

    def _normed(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._weights[name + ".weight"], self._weights[name + ".bias"]
        return layer_norm(states, states.shape[-1:], weight, bias, EPSILON)


def _in_bfloat16(weights: Mapping[str, Matrix]) -> dict[str, torch.Tensor]:
    used = {name: value for name, value in weights.items() if name.endswith((".weight", ".bias"))}
    return {name: torch.from_numpy(value).bfloat16() for name, value in used.items()}
