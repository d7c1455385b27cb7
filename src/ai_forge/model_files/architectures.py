"""Tensor names and settings of the bases that are trained: Hugging Face's (`config.json`) and llama.cpp's (GGUF).

Method: one table of tensor names and one of settings, read in both directions by the importer and the exporter, so
that the two cannot drift apart. Llama's q and k rows are stored interleaved by llama.cpp (its rotary embedding pairs
neighbours, Hugging Face's pairs halves): `permute` and `unpermute` are each other's inverse. A Mistral is a Llama to
llama.cpp, and comes back from a GGUF as one.

llama.cpp computes Gemma's sliding windows; those of Mistral and Phi-3 it leaves out, so these are exact as far as the
window reaches and their context ends there (`context_of`).

Sources: llama.cpp `conversion/llama.py`, `qwen.py`, `phi.py`, `gemma.py`, `gguf-py/gguf/tensor_mapping.py`, `src/models/`.
It covers dense text models with RMS norm, gated feed-forward and rotary embeddings (none, linear, YaRN and Llama 3
scaling); no experts, no LongRoPE, no images.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ai_forge.json_lines import JsonObject

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}  # `model_type` of the bases that are trained → transformers' class

GGUF_ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "phi3": "phi3", "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}  # fmt: skip
"""`model_type` → llama.cpp's `general.architecture`."""
# and back; a Mistral comes back as the Llama that it is to llama.cpp
MODEL_TYPES = {arch: kind for kind, arch in GGUF_ARCHITECTURES.items() if kind != "mistral"}

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
# Gemma has norms on both sides of a block, so that the name Llama gives to the one before the feed-forward is taken
_GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OTHERWISE = {
    "phi3": {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
}
# Phi-3 keeps them in attn_qkv and ffn_up: a tensor of such a name is not one of its own
_FUSED_IN_PHI3 = ("attn_q", "attn_k", "attn_v", "ffn_gate")
GEMMA_ARCHITECTURES = ("gemma2", "gemma3")  # in llama.cpp's words
_GLOBAL_BACK = {hf: gguf for gguf, hf in _GLOBAL.items()}


@cache
def _block(arch: str) -> dict[str, str]:
    """Names inside a layer, GGUF's → Hugging Face's, in llama.cpp's architecture `arch`."""
    known = _BLOCK | _OTHERWISE.get(arch, {})
    fused = _FUSED_IN_PHI3 if arch == "phi3" else ()
    return {name: hf for name, hf in known.items() if name not in fused}


def hf_name(gguf_name: str, arch: str) -> str | None:
    """GGUF tensor name → Hugging Face's, or None for one that has no place there.

    >>> hf_name("blk.3.attn_q.weight", "llama")
    'model.layers.3.self_attn.q_proj.weight'
    """
    stem, _, kind = gguf_name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".", 2)
        if not layer.isdecimal():
            return None
        hf = _block(arch).get(part)
        return hf and f"model.layers.{layer}.{hf}.{kind}"
    hf = _GLOBAL.get(stem)
    return hf and f"{hf}.{kind}"


def gguf_name(hf: str, arch: str) -> str | None:
    """Hugging Face tensor name → GGUF's, or None for one that has no place there.

    >>> gguf_name("model.layers.3.post_attention_layernorm.weight", "gemma2")
    'blk.3.post_attention_norm.weight'
    """
    stem, _, kind = hf.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        back = {there: here for here, there in _block(arch).items()}
        if not layer.isdecimal():
            return None
        name = back.get(part)
        return name and f"blk.{layer}.{name}.{kind}"
    name = _GLOBAL_BACK.get(stem)
    return name and f"{name}.{kind}"


def norm_shift(arch: str, name: str) -> float:
    """What a GGUF's tensor holds more than Hugging Face's: Gemma's norms multiply by 1 + weight there, by weight here."""
    return 1.0 if arch in GEMMA_ARCHITECTURES and name.endswith("norm.weight") else 0.0


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
    if ".attn_q." in gguf:  # with the dots: not Qwen's attn_q_norm; biases are permuted like their rows
        return int(config["num_attention_heads"])
    if ".attn_k." in gguf:
        return int(config["num_key_value_heads"])
    return None


_GEMMA_DEFAULTS = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 4096,
    "rms_norm_eps": 1e-6,
}
# what published `config.json` leave out because it is transformers' default
DEFAULTS: dict[str, JsonObject] = {
    "gemma2": _GEMMA_DEFAULTS
    | {"max_position_embeddings": 8192, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _GEMMA_DEFAULTS
    | {"max_position_embeddings": 131_072, "attn_logit_softcapping": None, "final_logit_softcapping": None},
}
# every how many layers one sees the whole context; the others see a window
SWA_PATTERN = {"gemma2": 2, "gemma3_text": 6}


def completed(config: Mapping[str, Any]) -> JsonObject:
    """A `config.json` with the settings that it leaves to transformers' defaults."""
    known = {"num_key_value_heads": config.get("num_attention_heads")} | DEFAULTS.get(str(config.get("model_type")), {})
    return {**known, **config}


def context_of(config: Mapping[str, Any]) -> int:
    """Tokens that a model with this (completed) `config.json` reads exactly, here and in llama.cpp; 0 for unknown."""
    kind = config["model_type"]
    context = int(config.get("max_position_embeddings") or 0)
    if kind not in ("mistral", "phi3") and not config.get("use_sliding_window"):
        return context
    window = config.get("sliding_window", None if kind == "phi3" else 4096)  # transformers' defaults
    return min(context, int(window)) if window else context


def unserved(config: Mapping[str, Any]) -> str | None:
    """What a model with this (completed) `config.json` computes that is not computed exactly here or in llama.cpp, in words.

    None if nothing.

    >>> unserved({"model_type": "qwen3", "attention_bias": True})
    'attention biases in a qwen3 model'
    """
    kind = config["model_type"]
    if kind in SWA_PATTERN:
        activation, served = config.get("hidden_activation"), "gelu_pytorch_tanh"
    else:
        activation, served = config.get("hidden_act", "silu"), "silu"
    if activation != served:
        return f"the activation {activation}"
    if kind not in ("llama", "qwen2") and config.get("attention_bias"):
        return f"attention biases in a {kind} model"
    if kind == "phi3":
        head_dim = int(config.get("head_dim") or 0)
        even_head_dim = int(config.get("hidden_size") or 0) // int(config.get("num_attention_heads") or 1)
        if head_dim not in (0, even_head_dim):
            return f"heads of {head_dim} units in a phi3 model"
    if kind in SWA_PATTERN:
        return _unserved_in_gemma(config, kind)
    return None


def _unserved_in_gemma(config: Mapping[str, Any], kind: str) -> str | None:
    scalar, expected = config["query_pre_attn_scalar"], gemma_scalar(config)
    if scalar != expected:
        return f"attention scores divided by √{scalar} where llama.cpp divides by √{expected}"
    if config.get("use_bidirectional_attention"):
        return "bidirectional attention"
    period, layers = SWA_PATTERN[kind], layer_types(config)
    # older files say how often, newer ones list every layer
    is_usual = config.get("sliding_window_pattern", period) == period and config.get("layer_types", layers) == layers
    if not is_usual or not config["sliding_window"]:
        return "an unusual pattern of sliding windows"
    attention, final = config["attn_logit_softcapping"], config["final_logit_softcapping"]
    is_capped_otherwise = not (attention and final)
    if kind == "gemma3_text":
        is_capped_otherwise = attention is not None or final == 0
    return f"soft-capping by {attention} and {final}" if is_capped_otherwise else None


def layer_types(config: Mapping[str, Any]) -> list[str]:
    """Which layers of a Gemma see a window and which the whole context, in transformers' words."""
    period = SWA_PATTERN[config["model_type"]]
    n_layers = int(config["num_hidden_layers"])
    return ["sliding_attention" if layer % period else "full_attention" for layer in range(1, n_layers + 1)]


def gemma_scalar(config: Mapping[str, Any]) -> int:
    """By whose root llama.cpp divides attention scores: the head's width, but in the 27B models (known by their layers)."""
    layers_of_27b = {"gemma2": 46, "gemma3_text": 62}
    if config["num_hidden_layers"] == layers_of_27b[config["model_type"]]:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def linear_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Name inside a layer → [out, in] of its linear layers, for a (completed) `config.json`."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    if config.get("model_type") == "qwen3":
        head_dim = config["head_dim"]  # does not follow from the hidden size there
    else:
        head_dim = config.get("head_dim") or hidden // heads
    queries, keys = heads * head_dim, config["num_key_value_heads"] * head_dim
    if config.get("model_type") == "phi3":
        first = {"self_attn.qkv_proj": (queries + 2 * keys, hidden), "mlp.gate_up_proj": (2 * inner, hidden)}
    else:
        first = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
        }
    return first | {"self_attn.o_proj": (hidden, queries), "mlp.down_proj": (hidden, inner)}


def named_layers(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Full name → [out, in] of every linear layer in the blocks, for a (completed) `config.json`."""
    linear = linear_shapes(config)
    n_layers = int(config["num_hidden_layers"])
    return {f"model.layers.{i}.{name}": shape for i in range(n_layers) for name, shape in linear.items()}


def expected_shapes(config: JsonObject) -> dict[str, tuple[int, ...]]:
    """Hugging Face name → shape of every tensor that a model with this (completed) `config.json` has."""
    hidden, kind = config["hidden_size"], config["model_type"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    linear = linear_shapes(config)
    head_dim = linear["self_attn.o_proj"][1] // config["num_attention_heads"]
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind.startswith("gemma"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}{name}.weight": (hidden,) for name in norms}
        shapes |= {f"{at}{name}.weight": shape for name, shape in linear.items()}
        if kind in ("qwen3", "gemma3_text"):
            shapes |= {f"{at}self_attn.{p}_norm.weight": (head_dim,) for p in ("q", "k")}
        shapes |= {f"{at}{name}.bias": linear[name][:1] for name in linear if _has_bias(config, name)}
    shapes["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _has_bias(config: Mapping[str, Any], layer: str) -> bool:
    """Whether the linear layer of this name adds a bias."""
    if config["model_type"] == "qwen2":  # has no setting for them
        return layer in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    part = "attention_bias" if layer.startswith("self_attn.") else "mlp_bias"
    return config["model_type"] == "llama" and bool(config.get(part))
