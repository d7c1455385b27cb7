import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ai_forge.errors import InputError
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.writer import write_gguf
from ai_forge.model_files.tokenizers.gguf_tokenizer import tokenizer_files
from ai_forge.model_files.tokenizers.pretokenizers import ALIASES, STEPS, WHOLE_PIECES, pre_tokenizer_json, recognise
from ai_forge.training.bases.resolve import resolve_base
from llama_cpp import LlamaCpp
from tiny_models import make_tiny, python_files, tokenizer_json

ODD = [
    "x = 1234567890 + 0xFF_ff  # ١٢٣ ½ ² 3.14e-10\n",
    "don't DON'T we'LL they'Re I'm\t\t\n\n\r\n   \n  x",
    "naïve café ｆｕｌｌ 中文字符 русский עברית 🚀👩‍👩‍👧 e\u0301 \u00a0\u2003\u2028",
    "    def f(self):\n\n\n\n        return {'a': [1, 2]}  \n",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>!!!...---===###",
    "",
    " ",
    "\n",
]


def _sources(n: int) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in python_files(n)]


def test_smollm2s_ids_are_llama_cpps_on_real_files(smollm2: Base, base_gguf: Path) -> None:
    """Measured on 120 files (848,822 tokens): no difference; with GPT-2's splitting 12 of 65 files differ."""
    runtime = LlamaCpp(base_gguf)
    tokenizer = Tokenizer.from_file(str(smollm2.folder / "tokenizer.json"))
    texts = _sources(70) + ODD
    different = [text[:60] for text in texts if runtime.tokenize(text) != tokenizer.encode(text).ids]
    assert len(texts) >= 60
    assert different == []


@pytest.mark.parametrize("pre", STEPS)
def test_every_way_of_splitting_is_llama_cpps(pre: str, tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a", pre=pre), tmp_path / "a.gguf")
    base = resolve_base(str(path), cache_dir=tmp_path / "cache")
    runtime = LlamaCpp(path)
    tokenizer = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    different = [t[:60] for t in _sources(20) + ODD if runtime.tokenize(t) != tokenizer.encode(t).ids]
    assert different == []


@pytest.mark.parametrize("pre", STEPS)
def test_a_split_is_recognised_by_its_expressions(pre: str) -> None:
    assert recognise(pre_tokenizer_json(pre), pre in WHOLE_PIECES) == pre


def test_aliases_lead_to_known_splits() -> None:
    assert set(ALIASES.values()) <= set(STEPS)


@pytest.mark.parametrize("step", [None, {"type": "Whitespace"}, {"type": "ByteLevel", "add_prefix_space": True}])
def test_an_unknown_split_is_refused(step: dict[str, Any] | None) -> None:
    with pytest.raises(InputError, match=r"not one llama\.cpp knows"):
        recognise(step)


def _metadata(**change: Any) -> dict[str, Any]:
    data = tokenizer_json()
    tokens = list(data["model"]["vocab"])
    base = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in data["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return base | {f"tokenizer.ggml.{key}": value for key, value in change.items()}


def test_a_begin_token_is_added_where_the_file_asks_for_it() -> None:
    with_bos = tokenizer_files(_metadata(add_bos_token=True))
    encode = Tokenizer.from_str(json.dumps(with_bos["tokenizer.json"])).encode
    assert encode("a").ids[0] == 1
    assert encode("a", add_special_tokens=False).ids[0] != 1
    without = Tokenizer.from_str(json.dumps(tokenizer_files(_metadata())["tokenizer.json"]))
    assert without.encode("a").ids[0] != 1
    # Llama 3's splitting adds it unless told otherwise, as in llama.cpp
    assert tokenizer_files(_metadata(pre="llama-bpe"))["tokenizer_config.json"]["add_bos_token"] is True


def test_generation_ends_where_llama_cpp_ends_it() -> None:
    assert tokenizer_files(_metadata())["generation_config.json"]["eos_token_id"] == [2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": []}, "damaged"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "2 tokens, 1 distinct"),
        ({"token_type": [1]}, "damaged"),
        ({"merges": ["zzz yyy"]}, "leads outside"),
        ({"merges": ["nospace"]}, "leads outside"),
        ({"bos_token_id": -1}, "outside its vocabulary"),
        ({"model": "bert"}, "byte-level BPE"),
        ({"pre": "unheard-of"}, "unheard-of"),
    ],
)
def test_damaged_vocabularies_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenizer_files(_metadata(**change))
