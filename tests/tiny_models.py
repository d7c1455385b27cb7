"""Tiny random models in Hugging Face folders, with a BPE tokenizer trained on the standard library's text."""

import json
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from ai_forge.model_files.architectures import ARCHITECTURES, completed, expected_shapes
from ai_forge.model_files.tensors import TensorSpec, Weights, to_storage, write_safetensors
from ai_forge.model_files.tokenizers.pretokenizers import pre_tokenizer_json
from ai_forge.model_files.tokenizers.spm_vocabulary import decoder_json, normalizer_json, splits

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def python_files(n: int) -> list[Path]:
    """The first `n` modules of the standard library: real source text that every machine has."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:n]


@cache
def tokenizer_json(pre: str = "smollm", n_tokens: int = 512) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((path.read_text(encoding="utf-8") for path in python_files(6)), trainer)
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = pre_tokenizer_json(pre)
    data["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data["model"]["ignore_merges"] = pre == "llama-bpe"
    return data


@cache
def spm_json(
    special: tuple[str, ...] = tuple(SPECIAL), n_tokens: int = 512, *, add_space_prefix: bool = True
) -> dict[str, Any]:
    """A `tokenizer.json` as transformers makes it of a SentencePiece model: byte tokens, and all splits as merges.

    The first of `special` is the unknown token. Few characters have a token of their own: the rest falls back to bytes.
    """
    reserved = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁\n]*\n?"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=n_tokens - len(reserved), limit_alphabet=60, show_progress=False)
    tokenizer.train_from_iterator((path.read_text(encoding="utf-8") for path in python_files(6)), trainer)
    learned = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    vocab = {token: index for index, token in enumerate([*reserved, *(token for token, _ in learned)])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    return data | {
        "added_tokens": [{"id": index, "content": token, **flags} for index, token in enumerate(special)],
        "normalizer": normalizer_json(add_space_prefix=add_space_prefix),
        "pre_tokenizer": None,
        "decoder": decoder_json(add_space_prefix=add_space_prefix),
        "model": data["model"]
        | {
            "unk_token": special[0],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [list(pair) for token in vocab for pair in splits(token, vocab)],
        },
    }


GEMMA_SPECIAL = ("<unk>", "<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>")
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
"""Gemma 2's published template, which refuses system messages."""


def with_gemma_tokenizer(folder: Path) -> Path:
    """Gives a tiny model a tokenizer like Gemma 2's: SentencePiece, a begin token, no system turn."""
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    data = spm_json(GEMMA_SPECIAL, add_space_prefix=False) | {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, bos, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
        }
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": GEMMA2}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names))
    return folder


def make_tiny(
    folder: Path,
    architecture: str = "llama",
    *,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    layers: int = 2,
    inner: int = 128,
    tied: bool = True,
    dtype: str = "F32",
    pre: str = "smollm",
    rope: dict[str, Any] | None = None,
    vocab_size: int = 512,
    window: int = 64,
    seed: int = 0,
) -> Path:
    """A random model that is loud enough (std 0.1) for its next-token probabilities to differ."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[architecture]],
        "model_type": architecture,
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "rope_parameters": rope or {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype],
    }
    if architecture in ("qwen3", "gemma2", "gemma3_text"):
        config["head_dim"] = 2 * hidden // heads  # as in the real ones, more than the hidden width in all
    if architecture == "mistral":
        config["sliding_window"] = None
    if architecture == "phi3":
        config |= {"pad_token_id": None, "sliding_window": None, "original_max_position_embeddings": 512}
    if architecture.startswith("gemma"):
        config |= {"query_pre_attn_scalar": config["head_dim"], "sliding_window": window, "tie_word_embeddings": True}
        config |= {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
    if architecture == "gemma2":
        config |= {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}  # low enough to bend these logits
    if architecture == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": 1000.0}
        config["rope_parameters"] = {"full_attention": config["rope_parameters"], "sliding_attention": local}
    config = completed(config)
    random = np.random.default_rng(seed)
    tensors = []
    for name, shape in expected_shapes(config).items():
        values = random.normal(0.0, 0.1, shape).astype(np.float32)
        if name.endswith("norm.weight") and not architecture.startswith("gemma"):
            values = values + np.float32(1.0)
        tensors.append((TensorSpec(name, dtype, shape), to_storage(values, dtype)))
    write_safetensors(folder / "model.safetensors", tensors, [spec for spec, _ in tensors])
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(spm_json() if pre == "spm" else tokenizer_json(pre)))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>")


def make_tiny_fim(folder: Path, **changes: Any) -> Path:
    """A tiny model whose vocabulary has Qwen2.5-Coder's fill-in-the-middle tokens, behind all others."""
    make_tiny(folder, vocab_size=512 + len(FIM), **changes)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] += [{"id": 512 + n, "content": token, **flags} for n, token in enumerate(FIM)]
    path.write_text(json.dumps(data))
    return folder


def with_another_rope(folder: Path) -> Path:
    """The model as a converter leaves it that lost the base of its rotary embedding."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config.get("rope_theta", 10_000.0) / 1000
    config.pop("rope_parameters", None)
    path.write_text(json.dumps(config))
    return folder


def with_a_merge_onto_codes(folder: Path) -> Path:
    """The model as a merge leaves it that took the codes of a quantised base for its weights: few levels a tensor."""
    weights = Weights(folder)
    rows = []
    for name, spec in weights.specs.items():
        values = weights.load(name)
        if ".self_attn." in name:
            step = np.abs(values).max() / 4
            values = np.round(values / step) * step
        rows.append((spec, to_storage(values, spec.dtype, name)))
    write_safetensors(folder / "new", rows, [spec for spec, _ in rows])
    (folder / "new").replace(folder / "model.safetensors")
    return folder
