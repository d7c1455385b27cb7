"""The settings of a model: `config.json` ↔ a GGUF's metadata.

Method: both directions stand side by side, so that they cannot drift apart. A setting that a GGUF does not hold because
llama.cpp takes it for granted (Gemma's layer pattern, Llama 3's other rope factors) comes back as what is taken for granted.
Source: llama.cpp `conversion/`, `src/models/`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.architectures import (
    ARCHITECTURES,
    DEFAULTS,
    GEMMA_ARCHITECTURES,
    GGUF_ARCHITECTURES,
    MODEL_TYPES,
    context_of,
    gemma_scalar,
    layer_types,
)
from ai_forge.model_files.gguf.metadata import float32, string, uint32

# rope scalings that llama.cpp computes as transformers does, by `model_type`; only a Llama has a tensor for llama3's
SERVED_SCALINGS = {
    "llama": ("default", "linear", "yarn", "llama3"),
    "mistral": ("default", "linear", "yarn", "llama3"),
    "qwen2": ("default", "linear", "yarn"),
    "qwen3": ("default", "linear", "yarn"),
    "phi3": ("default",),
    "gemma2": ("default", "linear", "yarn"),
    "gemma3_text": ("default", "linear", "yarn"),
}
# what every published Llama 3 has: a GGUF does not hold them
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_of(config: Mapping[str, Any]) -> JsonObject:
    """Rope settings in transformers 5's form, from either form of `config.json`; of the layers that see everything."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if isinstance(
        full := rope.get("full_attention"), dict
    ):  # Gemma 3 has two embeddings; the other is `local_rope_theta`
        rope = dict(full)
    default_theta = 1_000_000.0 if config["model_type"] == "gemma3_text" else 10_000.0
    rope.setdefault("rope_theta", config.get("rope_theta", default_theta))
    rope.setdefault("rope_type", rope.get("type", "default"))  # "type" in files of older transformers
    if rope["rope_type"] in ("yarn", "llama3"):
        # as transformers: what stands beside wins, else the model's own length counts
        original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
        rope["original_max_position_embeddings"] = original or config.get("max_position_embeddings")
    return rope


def local_rope_theta(config: Mapping[str, Any]) -> float:
    """The rotary base of Gemma 3's windowed layers."""
    local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    return float(local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0)))


def head_dim(config: Mapping[str, Any]) -> int:
    """Units of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def settings_to_gguf(config: Mapping[str, Any]) -> dict[str, bytes]:
    """Key → encoded value of the settings in a (completed) `config.json`. Raises `InputError` for other rope scalings."""
    arch = GGUF_ARCHITECTURES[config["model_type"]]
    rope = rope_of(config)
    values = {
        "general.architecture": string(arch),
        "general.type": string("model"),
        f"{arch}.block_count": uint32(config["num_hidden_layers"]),
        f"{arch}.context_length": uint32(context_of(config)),
        f"{arch}.embedding_length": uint32(config["hidden_size"]),
        f"{arch}.feed_forward_length": uint32(config["intermediate_size"]),
        f"{arch}.attention.head_count": uint32(config["num_attention_heads"]),
        f"{arch}.attention.head_count_kv": uint32(config["num_key_value_heads"]),
        f"{arch}.rope.freq_base": float32(float(rope["rope_theta"])),
        f"{arch}.attention.layer_norm_rms_epsilon": float32(float(config["rms_norm_eps"])),
    }
    if config.get("head_dim"):
        values |= {f"{arch}.attention.{part}_length": uint32(config["head_dim"]) for part in ("key", "value")}
    if arch == "llama":
        values |= {
            "llama.vocab_size": uint32(config["vocab_size"]),
            "llama.rope.dimension_count": uint32(head_dim(config)),
        }
    if arch == "phi3":
        rotated = float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)))
        original = config.get("original_max_position_embeddings") or config["max_position_embeddings"]
        values |= {
            "phi3.rope.dimension_count": uint32(int(head_dim(config) * rotated)),
            "phi3.rope.scaling.original_context_length": uint32(original),
            "phi3.attention.sliding_window": uint32(config.get("sliding_window") or 0),
        }
    if arch.startswith("gemma"):
        values[f"{arch}.attention.sliding_window"] = uint32(config["sliding_window"])
        for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
            if config[cap] is not None:
                values[f"{arch}.{cap}"] = float32(float(config[cap]))
    if arch == "gemma3":
        values["gemma3.rope.freq_base_swa"] = float32(local_rope_theta(config))
    return values | _scaling_to_gguf(config, arch, rope)


def _scaling_to_gguf(config: Mapping[str, Any], arch: str, rope: Mapping[str, Any]) -> dict[str, bytes]:
    """How rotary embeddings are stretched, where llama.cpp does it as the trainer does."""
    scaling = rope["rope_type"]
    served = SERVED_SCALINGS[config["model_type"]]
    if scaling not in served:
        raise InputError(
            f"Rope scaling {scaling!r} cannot be exported from a {config['model_type']} model ({', '.join(served)} can).",
            "choose another base: ai-forge models.",
        )
    if scaling in ("default", "llama3"):  # llama3's factors are a tensor of their own
        return {}
    factor = _factor(config, rope)
    values = {
        f"{arch}.rope.scaling.type": string(scaling),
        f"{arch}.rope.scaling.factor": float32(factor),
    }
    if original := rope.get("original_max_position_embeddings"):
        values[f"{arch}.rope.scaling.original_context_length"] = uint32(int(original))
    if scaling == "yarn":
        if unlike := _unlike_llama_cpps(config, rope, factor):
            raise InputError(
                f"YaRN with {unlike} cannot be exported: llama.cpp would stretch positions in another way.",
                "choose another base: ai-forge models.",
            )
        # llama.cpp multiplies by YaRN's own factor in any case: the file holds what is beyond it
        ratio = attention_factor(rope, factor) / _yarn_scale(factor)
        if abs(ratio - 1) > 1e-6:
            values[f"{arch}.rope.scaling.attn_factor"] = float32(ratio)
    return values


def _factor(config: Mapping[str, Any], rope: Mapping[str, Any]) -> float:
    if rope.get("factor") is not None:
        return float(rope["factor"])
    original = rope.get("original_max_position_embeddings")
    if rope["rope_type"] != "yarn" or not original:
        raise InputError(f"Rope scaling {rope['rope_type']!r} in config.json has no factor.", "get the model again.")
    return float(config["max_position_embeddings"] / original)


def _yarn_scale(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(max(factor, 1.0)) + 1.0


def attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    """What YaRN multiplies cosines and sines by, as transformers works it out (`_compute_yarn_parameters`).

    >>> round(attention_factor({}, 4.0), 4), attention_factor({"mscale": 0.7, "mscale_all_dim": 0.7}, 4.0)
    (1.1386, 1.0)
    """
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    mscale, of_all = rope.get("mscale"), rope.get("mscale_all_dim")
    if mscale and of_all:  # 0 counts as not given there
        return _yarn_scale(factor, mscale) / _yarn_scale(factor, of_all)
    return _yarn_scale(factor)


def _unlike_llama_cpps(config: Mapping[str, Any], rope: Mapping[str, Any], factor: float) -> str | None:
    """A YaRN setting that llama.cpp does not read from the file, in words.

    Measured on random models of all seven architectures, f16: what is let through is at most 0.003 nats off, the betas
    1.2, untruncated bounds 0.73, an attention factor in Gemma 3 0.59. The keys `yarn_beta_fast` and `yarn_beta_slow`
    exist, but the server's own defaults win.
    """
    fast, slow = rope.get("beta_fast") or 32, rope.get("beta_slow") or 1  # transformers takes null and 0 as not given
    if (fast, slow) != (32, 1):
        return f"beta_fast {fast:g} and beta_slow {slow:g} (llama.cpp: 32 and 1)"
    if rope.get("truncate", True) is False:
        return "bounds that are not rounded (truncate false)"
    if float(rope.get("partial_rotary_factor") or 1) != 1:
        return f"partial_rotary_factor {rope['partial_rotary_factor']:g}"
    if config["model_type"] == "gemma3_text" and abs(attention_factor(rope, factor) - _yarn_scale(factor)) > 1e-6:
        return "an attention factor of its own in a gemma3_text model"
    return None


def config_from_gguf(
    metadata: Mapping[str, Any], *, vocab_size: int, tied: bool, rope_freqs: np.ndarray | None
) -> JsonObject:
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
    if heads < 1 or (hidden % heads and f"{arch}.attention.key_length" not in metadata):
        raise InputError(f"The GGUF claims {hidden} hidden units in {heads} heads, which does not divide.")
    config: JsonObject = {
        "architectures": [ARCHITECTURES[MODEL_TYPES[arch]]],
        "model_type": MODEL_TYPES[arch],
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
        config["head_dim"] = int(metadata.get("llama.attention.key_length", hidden // heads))
    if arch == "qwen3":
        config |= {"attention_bias": False, "head_dim": int(need("attention.key_length"))}
    if arch == "phi3":
        config |= _phi3_from_gguf(metadata, config)
    if arch in GEMMA_ARCHITECTURES:
        config |= _gemma_from_gguf(metadata, arch, config)
    return config


def _phi3_from_gguf(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> JsonObject:
    whole = head_dim(config)
    rotated = int(metadata.get("phi3.rope.dimension_count", whole))
    rope = dict(config["rope_parameters"])
    if rotated != whole:
        rope["partial_rotary_factor"] = rotated / whole
    original = metadata.get("phi3.rope.scaling.original_context_length", config["max_position_embeddings"])
    return {
        "rope_parameters": rope,
        "original_max_position_embeddings": int(original),
        "sliding_window": int(metadata.get("phi3.attention.sliding_window", 0)) or None,
        # said in any case: transformers' default lies outside small vocabularies
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _gemma_from_gguf(metadata: Mapping[str, Any], arch: str, config: Mapping[str, Any]) -> JsonObject:
    defaults = DEFAULTS[config["model_type"]]
    made: JsonObject = {
        "hidden_act": defaults["hidden_activation"],
        "hidden_activation": defaults["hidden_activation"],
        "head_dim": int(metadata.get(f"{arch}.attention.key_length", defaults["head_dim"])),
    }
    made["query_pre_attn_scalar"] = gemma_scalar({**config, **made})
    made["sliding_window"] = int(metadata.get(f"{arch}.attention.sliding_window", 0)) or defaults["sliding_window"]
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        value = metadata.get(f"{arch}.{cap}", defaults[cap])
        made[cap] = float(value) if value else None  # a GGUF may say 0 for none
    made["layer_types"] = layer_types({**config, **made})
    if arch == "gemma3":
        local = {"rope_type": "default", "rope_theta": float(metadata.get("gemma3.rope.freq_base_swa", 10_000.0))}
        made["rope_parameters"] = {"full_attention": config["rope_parameters"], "sliding_attention": local}
    return made


def _rope_from_gguf(metadata: Mapping[str, Any], arch: str, rope_freqs: np.ndarray | None) -> JsonObject:
    default_theta = 1_000_000.0 if arch == "gemma3" else 10_000.0  # as in `rope_of`
    theta = float(metadata.get(f"{arch}.rope.freq_base", default_theta))
    rope: JsonObject
    if rope_freqs is not None:
        # Llama 3.1+ stores only the resulting factors; their maximum is `factor`, the other three never varied.
        rope = {"rope_type": "llama3", "rope_theta": theta, "factor": float(rope_freqs.max()), **LLAMA3_ROPE}
        # a file made otherwise would train on one embedding and be served with another
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
    prefix = f"{arch}.rope.scaling."
    rope = {"rope_type": kind, "rope_theta": theta, "factor": float(metadata.get(f"{prefix}factor", 1.0))}
    original = metadata.get(f"{prefix}original_context_length")
    if original and kind == "yarn":
        rope["original_max_position_embeddings"] = int(original)
    ratio = float(metadata.get(f"{prefix}attn_factor", 1.0))
    if kind == "yarn" and ratio != 1:
        rope["attention_factor"] = float(f"{ratio * _yarn_scale(rope['factor']):.7g}")  # seven digits, as above
    elif ratio != 1:
        raise InputError(f"The GGUF scales attention by {ratio:g}, which transformers does for YaRN only.")
    usual = {
        "yarn_ext_factor": 1,
        "yarn_attn_factor": 1,
        "yarn_beta_fast": 32,
        "yarn_beta_slow": 1,
        "yarn_log_multiplier": 0,
    }
    for key, value in usual.items():
        if (found := metadata.get(f"{prefix}{key}", value)) not in (value, -1):  # -1: llama.cpp's own choice
            raise InputError(
                f"The GGUF has {prefix}{key} {found:g} (served exactly: {value}).",
                "choose another base: ai-forge models.",
            )
    return rope


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
