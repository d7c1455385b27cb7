"""SentencePiece vocabularies: ids equal llama.cpp's, both ways; what cannot be equal is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ai_forge.errors import InputError
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.gguf.writer import write_gguf
from ai_forge.model_files.tokenizers.gguf_tokenizer import tokenizer_files
from ai_forge.model_files.tokenizers.spm_vocabulary import merges_from_scores, scores_from_merges, space_prefix
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.chat_templates import JINJA
from ai_forge.training.bases.resolve import resolve_base
from llama_cpp import LlamaCpp
from tiny_models import GEMMA_SPECIAL, make_tiny, python_files, spm_json

ODD = [
    "x = 1234567890 + 0xFF_ff  # ١٢٣ ½ ² 3.14e-10\n",
    "    def f(self):\n\n\n\n        return {'a': [1, 2]}  \n" + " " * 37 + "x\t\t\t\t\ty" + "-" * 45 + "\n" * 9,
    "naïve café ｆｕｌｌ 中文字符 русский עברית 🚀👩‍👩‍👧 e\u0301 \u00a0\u2003\u2028",
    "▁literal ▁▁ and <0x41> and <unk>",
    "<|im_start|>user\nhi<|im_end|>\n  <|endoftext|> x",
    " leading",
    " ",
    "\n",
]
PHI3 = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")


def _texts(n: int) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in python_files(n)] + ODD


def _different(gguf: Path, folder: Path, texts: list[str]) -> list[str]:
    runtime, tokenizer = LlamaCpp(gguf), Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [t[:60] for t in texts if runtime.tokenize(t) != tokenizer.encode(t, add_special_tokens=False).ids]


def _with(folder: Path, data: dict[str, Any], **settings: Any) -> Path:
    make_tiny(folder)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.mark.parametrize("add_space_prefix", [True, False])
def test_ids_are_llama_cpps_on_the_way_out_and_back(add_space_prefix: bool, tmp_path: Path) -> None:
    folder = _with(tmp_path / "a", spm_json(add_space_prefix=add_space_prefix))
    gguf = write_gguf(folder, tmp_path / "a.gguf")
    metadata = read_gguf(gguf).metadata
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"] is add_space_prefix
    assert metadata["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert _different(gguf, folder, _texts(20)) == []
    back = resolve_base(str(gguf), cache_dir=tmp_path / "cache").folder
    assert _different(gguf, back, _texts(20)) == []
    again = write_gguf(back, tmp_path / "b.gguf")
    before, after = read_gguf(gguf).raw_values, read_gguf(again).raw_values
    assert [key for key in before if key.startswith("tokenizer.") and after[key] != before[key]] == []


def test_scores_and_merges_say_the_same_both_ways() -> None:
    data = spm_json()
    tokens = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    scores = scores_from_merges(tokens, data["model"]["merges"], frozenset())
    assert len({score for score in scores if score > -1e6}) > 150
    assert merges_from_scores(tokens, scores, [True] * 512) == data["model"]["merges"]
    with pytest.raises(
        InputError, match=r"gives 1\d\d tokens one score"
    ):  # what the official converter writes for a bare tokenizer.json
        merges_from_scores(tokens, [-1000.0] * 512, [True] * 512)


@pytest.mark.parametrize(("family", "special"), [("phi3", PHI3), ("gemma", GEMMA_SPECIAL)])
def test_chats_of_the_families_are_read_alike(family: Any, special: tuple[str, ...], tmp_path: Path) -> None:
    data = json.loads(json.dumps(spm_json(special, add_space_prefix=family == "phi3")))
    for row in data["added_tokens"]:
        row["rstrip"] = family == "phi3" and row["content"] not in ("<unk>", "<s>", "<|endoftext|>")
    names = {"bos_token": special[1], "eos_token": "<|endoftext|>" if family == "phi3" else "<eos>"}
    folder = _with(tmp_path / "a", data, **names, unk_token="<unk>", chat_template=JINJA[family])
    gguf = write_gguf(folder, tmp_path / "a.gguf", name="mine")
    chat = ChatTokenizer(folder)
    assert chat.end_of_turn == {"phi3": "<|end|>", "gemma": "<end_of_turn>"}[family]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Say\n\n hi.\n"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Again."},
    ]
    prompt = chat.render(turns)  # type: ignore[arg-type]
    runtime = LlamaCpp(gguf)
    assert runtime.tokenize(prompt) == chat.encode(prompt)
    assert ("\n" in chat.decode(chat.encode("<|user|>\nhi"))) is (family != "phi3")
    back = resolve_base(str(gguf), cache_dir=tmp_path / "cache").folder
    assert ChatTokenizer(back).encode_prompt(turns) == chat.encode(prompt)  # type: ignore[arg-type]


def test_a_repository_called_phi3_does_not_make_another_tokenizer(tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf", name="my-Phi-3-tools")
    assert read_gguf(path).metadata["general.name"] == "my-phi 3-tools"
    assert LlamaCpp(path).tokenize("<|im_end|>\nhi") == ChatTokenizer(tmp_path / "a").encode("<|im_end|>\nhi")


def test_a_space_for_the_first_word_only_needs_chats_that_begin_with_a_special_token(tmp_path: Path) -> None:
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    data = spm_json() | {"normalizer": None, "pre_tokenizer": metaspace}
    folder = _with(tmp_path / "a", data)
    gguf = write_gguf(folder, tmp_path / "a.gguf")
    assert read_gguf(gguf).metadata["tokenizer.ggml.add_space_prefix"] is False
    assert _different(gguf, folder, ["<|im_start|>" + text for text in _texts(5)]) == []
    plain = _with(tmp_path / "b", data, chat_template="{{ messages[0]['content'] }}")
    with pytest.raises(InputError, match="before the first word of a text only"):
        write_gguf(plain, tmp_path / "b.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "treating spaces"),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always", "split": True}}, "treating spaces"),
    ],
)
def test_other_ways_with_spaces_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        space_prefix(spm_json() | change)


def test_gemmas_cut_at_spaces_is_none() -> None:
    cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    assert space_prefix(spm_json(add_space_prefix=False) | {"pre_tokenizer": cut}) == "never"


def test_merges_that_no_scores_follow_are_refused() -> None:
    tokens = ["a", "b", "c", "ab", "bc", "abc"]
    whole = [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]
    assert scores_from_merges(tokens, whole, frozenset()) == [-1e6, -1e6, -1e6, 0.0, -1.0, -2.0]
    for merges, message in (
        (whole[:3], "'a' and 'bc' are not merged though 'abc' is a token"),
        ([whole[2], *whole[:2], whole[3]], "'abc' do not rank next to each other"),
        ([*whole, ["x", "y"]], "leads outside"),
    ):
        with pytest.raises(InputError, match=message):
            scores_from_merges(tokens, merges, frozenset())
    assert scores_from_merges(tokens, whole[:2], frozenset({"abc"}))[5] == -1e6


def test_runs_of_spaces_may_share_a_score_as_mistrals_do() -> None:
    """Mistral has no run of 15; transformers lists the merges of equal scores by their lengths, the longest first."""
    runs = ["▁" * n for n in (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7, 11)]
    tokens = [*runs, "▁", "a", "▁a"]
    scores = [-1e9] * len(runs) + [-1e9, -2.0, -1.0]
    merges = merges_from_scores(tokens, scores, [True] * len(tokens))
    assert merges[0] == ["▁", "a"]
    assert merges[1:3] == [["▁" * 14, "▁▁"], ["▁" * 13, "▁" * 3]]
    back = scores_from_merges(tokens, merges, frozenset())
    assert back == [
        1.0 - len(merges),
        *[-1.0] * (len(runs) - 1),
        -1e6,
        -1e6,
        0.0,
    ]  # two spaces, made in one way, stand last
    shortest_first = [merges[0], *merges[:0:-1]]
    with pytest.raises(InputError, match="do not rank next to each other"):
        scores_from_merges(tokens, shortest_first, frozenset())


def test_missing_scores_are_damage() -> None:
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "a"],
        "tokenizer.ggml.token_type": [2, 1],
    }
    with pytest.raises(InputError, match="2 tokens, 0 scores"):
        tokenizer_files(metadata)
