"""Tiny random models in Hugging Face folders, with a BPE tokenizer trained on the standard library's text."""

import json
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ai_forge.training.architectures import ARCHITECTURES
from ai_forge.training.gguf_import import expected_shapes
from ai_forge.training.pretokenizers import pre_tokenizer_json
from ai_forge.training.tensor_files import TensorSpec, to_storage, write_safetensors

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
    if architecture == "qwen3":
        config["head_dim"] = 2 * hidden // heads  # as in the real ones, more than the hidden width in all
    if architecture == "mistral":
        config["sliding_window"] = None
    random = np.random.default_rng(seed)
    tensors = []
    for name, shape in expected_shapes(config).items():
        values = random.normal(0.0, 0.1, shape).astype(np.float32)
        if name.endswith("norm.weight"):
            values = values + np.float32(1.0)
        tensors.append((TensorSpec(name, dtype, shape), to_storage(values, dtype)))
    write_safetensors(folder / "model.safetensors", tensors, [spec for spec, _ in tensors])
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(pre)))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
