"""Ids of the trainer against llama.cpp's, before training. What is refused here would have been trained wrongly."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ai_forge.errors import InputError
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.gguf.writer import check_exportable, write_gguf
from ai_forge.model_files.tokenizers.probe import probe_texts
from ai_forge.prompting.chat import ChatTokenizer
from llama_cpp import LlamaCpp
from tiny_models import make_tiny, tokenizer_json, with_gemma_tokenizer

DECOMPOSED = "cafe\u0301 A\u030angstro\u0308m \u1112\u1161\u11ab"  # é, å and a Hangul syllable in parts
PREPEND = {"type": "Prepend", "prepend": "▁"}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def changed(folder: Path, model: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Changes entries of a folder's `tokenizer.json`."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8")) | changes
    data["model"] |= model or {}
    path.write_text(json.dumps(data), encoding="utf-8")
    return folder


def added(index: int, content: str, **flags: bool) -> dict[str, Any]:
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": index, "content": content} | usual | flags


def with_added(folder: Path, *rows: dict[str, Any]) -> Path:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return changed(folder, added_tokens=[*data["added_tokens"], *rows])


@pytest.mark.parametrize(
    "normalizer", [{"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}, {"type": "Sequence", "normalizers": []}]
)  # fmt: skip
def test_what_only_composes_is_left_out_in_training_as_in_llama_cpp(tmp_path: Path, normalizer: Any) -> None:
    folder = changed(make_tiny(tmp_path / "a", "qwen2", pre="qwen2"), normalizer=normalizer)
    check_exportable(folder)
    runtime, ids = LlamaCpp(write_gguf(folder, tmp_path / "a.gguf")), ChatTokenizer(folder).encode(DECOMPOSED)
    assert runtime.tokenize(DECOMPOSED) == ids
    if normalizer.get("type") == "NFC":
        assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(DECOMPOSED).ids != ids


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Lowercase"},
        {"type": "NFKC"},
        {"type": "NFD"},
        {"type": "StripAccents"},
        {"type": "Strip", "strip_left": True, "strip_right": False},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        {"type": "Replace", "pattern": {"String": "  "}, "content": " "},
        {"type": "Prepend", "prepend": " "},
    ],
    ids=lambda value: value["type"],
)
def test_normalisers_that_llama_cpp_has_not_are_refused(tmp_path: Path, normalizer: Any) -> None:
    folder = changed(make_tiny(tmp_path / "a"), normalizer=normalizer)
    with pytest.raises(InputError, match=r"^llama\.cpp cuts .* into the tokens .* the base's tokenizer into"):
        check_exportable(folder)


def test_the_message_names_the_normaliser(tmp_path: Path) -> None:
    folder = changed(make_tiny(tmp_path / "a"), normalizer={"type": "Lowercase"})
    with pytest.raises(InputError, match="The tokenizer has the normaliser Lowercase"):
        check_exportable(folder)


def with_unmade_words(folder: Path, *words: str, ignore_merges: bool) -> Path:
    """Puts whole words into the vocabulary to which no merges lead."""
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    more = {word: len(vocab) + at for at, word in enumerate(words)}
    return changed(folder, model={"vocab": vocab | more, "ignore_merges": ignore_merges})


@pytest.mark.parametrize("ignore_merges", [True, False])
@pytest.mark.parametrize("words", [("Ġcitation",), ("zebra", "Ġquux"), ("日本".encode().decode("latin-1"),)])
def test_whole_words_before_merges_are_told_to_llama_cpp(
    tmp_path: Path, words: tuple[str, ...], ignore_merges: bool
) -> None:
    folder = make_tiny(tmp_path / "a", pre="llama-bpe", vocab_size=520)
    with_unmade_words(folder, *(word for word in words if word.isprintable()), ignore_merges=ignore_merges)
    check_exportable(folder)
    path = write_gguf(folder, tmp_path / "a.gguf")
    assert read_gguf(path).metadata["tokenizer.ggml.pre"] == ("llama-bpe" if ignore_merges else "smaug-bpe")
    text = "a citation of zebra quux 日本"
    assert LlamaCpp(path).tokenize(text) == ChatTokenizer(folder).encode(text)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2"])
def test_whole_words_before_merges_are_refused_where_llama_cpp_takes_none(tmp_path: Path, pre: str) -> None:
    folder = make_tiny(tmp_path / "a", pre=pre, vocab_size=520)
    check_exportable(with_unmade_words(folder, "Ġcitation", ignore_merges=False))
    with pytest.raises(InputError, match="ignore_merges: whole pieces before merges"):
        check_exportable(changed(folder, model={"ignore_merges": True}))


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("contents", [("<tool>", "</tool>"), ("TODO", "  "), ("\t\t", "日本", "naïve")])
def test_added_tokens_of_byte_level_vocabularies_are_found_alike(
    tmp_path: Path, contents: tuple[str, ...], normalized: bool
) -> None:
    rows = [added(512 + at, content, normalized=normalized) for at, content in enumerate(contents)]
    folder = with_added(make_tiny(tmp_path / "a", vocab_size=520), *rows)
    check_exportable(folder)
    text = "".join(f"x{content} {content}y " for content in contents)
    assert LlamaCpp(write_gguf(folder, tmp_path / "a.gguf")).tokenize(text) == ChatTokenizer(folder).encode(text)


@pytest.mark.parametrize("content", ["<tool>", "TODO", "[5A]"])
def test_added_tokens_that_are_looked_for_in_normalised_text_are_refused(tmp_path: Path, content: str) -> None:
    folder = make_tiny(tmp_path / "a", pre="spm", vocab_size=520)
    check_exportable(with_added(folder, added(512, content)))
    changed(folder, added_tokens=json.loads((folder / "tokenizer.json").read_text())["added_tokens"][:3])
    with pytest.raises(InputError, match="added tokens that are looked for in normalised text, first"):
        check_exportable(with_added(folder, added(512, content, normalized=True)))


def test_added_tokens_that_overlap_are_refused(tmp_path: Path) -> None:
    """The longest wins in llama.cpp wherever it stands; `tokenizers` takes what begins first."""
    folder = with_added(make_tiny(tmp_path / "a", vocab_size=520), added(512, "zqx"), added(513, "qxwv"))
    text = "zqxwv"
    assert LlamaCpp(write_gguf(folder, tmp_path / "a.gguf")).tokenize(text) != ChatTokenizer(folder).encode(text)
    with pytest.raises(InputError, match="'zqxwv'"):
        check_exportable(folder)


def test_tokens_that_are_written_alike_are_refused(tmp_path: Path) -> None:
    """The letter é stands for a byte there; llama.cpp would abort."""
    folder = with_added(make_tiny(tmp_path / "a", vocab_size=520), added(512, "é"))
    with pytest.raises(InputError, match="writes two tokens as 'é'"):
        check_exportable(folder)


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2", "deepseek-coder", "default", "spm"])
def test_what_llama_cpp_follows_passes(tmp_path: Path, pre: str) -> None:
    check_exportable(make_tiny(tmp_path / "a", pre=pre))


def test_a_space_before_the_first_word_only_passes(tmp_path: Path) -> None:
    folder = with_gemma_tokenizer(make_tiny(tmp_path / "a"))
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    check_exportable(changed(folder, normalizer=None, pre_tokenizer=metaspace), prompt_template="alpaca")


def test_smollm2_passes(smollm2: Base) -> None:
    check_exportable(smollm2.folder, "q4_k_m", ollama=True)


def test_the_probe_holds_what_normalisers_change_and_every_added_token() -> None:
    texts = probe_texts(tokenizer_json())
    together = "\n".join(texts)
    assert all(part in together for part in ("<|im_start|>", "e\u0301", "é", "ﬁ", "ＦＵＬＬ", "İ"))
    assert len(texts) == len(set(texts)) > 700
