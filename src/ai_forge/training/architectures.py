"""Llama, Mistral, Qwen2 and Qwen3 under their two sets of names: Hugging Face's (`config.json`) and llama.cpp's (GGUF).

Method: one table of tensor names and one of settings, read in both directions by the importer and the exporter, so
that the two cannot drift apart. Llama's q and k rows are stored interleaved by llama.cpp (its rotary embedding pairs
neighbours, Hugging Face's pairs halves): `permute` and `unpermute` are each other's inverse. A Mistral without sliding
window is a Llama to llama.cpp, and comes back from a GGUF as one.

Sources: llama.cpp `conversion/llama.py`, `conversion/qwen.py`, `gguf-py/gguf/tensor_mapping.py`.
It covers dense models with RMS norm, SwiGLU and rotary embeddings (none, linear, YaRN and Llama 3 scaling); no experts,
no sliding windows, no soft-capping.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ai_forge.errors import InputError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""`model_type` of the bases that are trained → transformers' class."""

GGUF_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""`model_type` → llama.cpp's `general.architecture`."""

_GLOBAL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK_BACK = {hf: gguf for gguf, hf in _BLOCK.items()}
_GLOBAL_BACK = {hf: gguf for gguf, hf in _GLOBAL.items()}

LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def hf_name(gguf_name: str) -> str | None:
    """GGUF tensor name → Hugging Face's, or None for one that has no place there.

    >>> hf_name("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    stem, _, kind = gguf_name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".", 2)
        return f"model.layers.{layer}.{_BLOCK[part]}.{kind}" if part in _BLOCK and layer.isdecimal() else None
    return f"{_GLOBAL[stem]}.{kind}" if stem in _GLOBAL else None


def gguf_name(hf: str) -> str | None:
    """Hugging Face tensor name → GGUF's, or None for one that has no place there.

    >>> gguf_name("model.layers.3.mlp.down_proj.weight")
    'blk.3.ffn_down.weight'
    """
    stem, _, kind = hf.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{_BLOCK_BACK[part]}.{kind}" if part in _BLOCK_BACK and layer.isdecimal() else None
    return f"{_GLOBAL_BACK[stem]}.{kind}" if stem in _GLOBAL_BACK else None


def permute(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Hugging Face → llama.cpp order of the rows of q or k, `[n_heads * head_dim, ...]`."""
    half = rows.shape[0] // n_heads // 2
    return rows.reshape(n_heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """llama.cpp → Hugging Face order: the inverse of `permute`."""
    half = rows.shape[0] // n_heads // 2
    return rows.reshape(n_heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def permuted_heads(architecture: str, gguf: str, config: Mapping[str, Any]) -> int | None:
    """Number of heads by which this tensor is permuted in a GGUF of `architecture`, or None if it is stored as it is."""
    if architecture != "llama":
        return None
    if ".attn_q." in gguf:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".attn_k." in gguf else None


def unserved(config: Mapping[str, Any]) -> str | None:
    """What a model with this `config.json` computes that AI Forge would not compute exactly, in words; None if nothing.

    A window as long as the context never cuts anything off, so it is none. Defaults are transformers'.

    >>> unserved({"model_type": "mistral", "max_position_embeddings": 32768})
    'a sliding window of 4096 tokens in a context of 32768'
    """
    kind = config["model_type"]
    window = None
    if kind == "mistral" or config.get("use_sliding_window"):
        window = config.get("sliding_window", 4096)
    context = int(config.get("max_position_embeddings") or 0)
    biased = kind in ("mistral", "qwen3") and config.get("attention_bias")
    found = {
        f"a sliding window of {window} tokens in a context of {context}": window is not None and window < context,
        f"the activation {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
        f"attention biases in a {kind} model": biased,
    }
    return next((what for what, is_so in found.items() if is_so), None)


def config_from_gguf(
    metadata: Mapping[str, Any], *, vocab_size: int, tied: bool, rope_freqs: np.ndarray | None
) -> dict[str, Any]:
    """The `config.json` of a GGUF's model. Raises `InputError` for another architecture or a missing setting."""
    arch = metadata.get("general.architecture")
    known = sorted(set(GGUF_ARCHITECTURES.values()))
    if arch not in known:
        raise InputError(
            f"The architecture {arch!r} is not supported; AI Forge trains GGUFs of {', '.join(known)}.",
            "choose another base: ai-forge models.",
        )
    if int(metadata.get(f"{arch}.expert_count", 0)):
        raise InputError("Mixture-of-experts models are not supported.", "choose a dense base: ai-forge models.")

    def need(key: str) -> Any:
        if f"{arch}.{key}" not in metadata:
            raise InputError(f"The GGUF lacks {arch}.{key}.", "convert the model again with a current llama.cpp.")
        return metadata[f"{arch}.{key}"]

    heads = int(need("attention.head_count"))
    hidden = int(need("embedding_length"))
    if heads < 1 or hidden % heads:
        raise InputError(f"The GGUF claims {hidden} hidden units in {heads} heads, which does not divide.")
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[arch]],
        "model_type": arch,
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": int(need("feed_forward_length")),
        "num_hidden_layers": int(need("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(metadata.get(f"{arch}.attention.head_count_kv", heads)),
        "hidden_act": "silu",
        "max_position_embeddings": int(need("context_length")),
        # the stored float32 prints as 9.999999747378752e-06; seven digits give back what was meant
        "rms_norm_eps": float(f"{need('attention.layer_norm_rms_epsilon'):.7g}"),
        "tie_word_embeddings": tied,
        "rope_parameters": _rope_from_gguf(metadata, arch, rope_freqs),
        "attention_dropout": 0.0,
        "use_cache": True,
    }
    if arch == "llama":
        config |= {
            "attention_bias": False,
            "mlp_bias": False,
            "head_dim": int(metadata.get("llama.attention.key_length", hidden // heads)),
        }
    if arch == "qwen3":
        config |= {"attention_bias": False, "head_dim": int(need("attention.key_length"))}
    return config


def _rope_from_gguf(metadata: Mapping[str, Any], arch: str, rope_freqs: np.ndarray | None) -> dict[str, Any]:
    theta = float(metadata.get(f"{arch}.rope.freq_base", 10_000.0))
    if rope_freqs is not None:
        # Llama 3.1+ stores only the resulting factors; their maximum is `factor`, the other three never varied.
        rope = {"rope_type": "llama3", "rope_theta": theta, "factor": float(rope_freqs.max()), **LLAMA3_ROPE}
        if not np.allclose(llama3_rope_factors(rope, 2 * len(rope_freqs)), rope_freqs, rtol=1e-3):
            raise InputError(
                "The GGUF's rope_freqs follow no published Llama 3 rule.", "name the original model instead."
            )
        return rope
    kind = metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind in ("none", ""):
        return {"rope_type": "default", "rope_theta": theta}
    if kind not in ("linear", "yarn"):
        raise InputError(f"Rope scaling {kind!r} is not supported (none, linear, yarn, llama3).")
    rope = {"rope_type": kind, "rope_theta": theta, "factor": float(metadata.get(f"{arch}.rope.scaling.factor", 1.0))}
    original = metadata.get(f"{arch}.rope.scaling.original_context_length")
    return rope | ({"original_max_position_embeddings": int(original)} if original and kind == "yarn" else {})


def llama3_rope_factors(rope: Mapping[str, Any], head_dim: int) -> np.ndarray:
    """The divisors of Llama 3's rotary frequencies, float32 `[head_dim / 2]` (llama.cpp's `rope_freqs.weight`)."""
    freqs = 1.0 / (float(rope["rope_theta"]) ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim))
    low, high, factor = (float(rope[key]) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    original = float(rope["original_max_position_embeddings"])
    factors = []
    for freq in freqs.tolist():
        wavelength = 2 * math.pi / freq
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)
