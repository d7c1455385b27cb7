"""Pickles wherever something is loaded: uploads, archives, bases, adapters, checkpoints, indexes, embedders. None is executed.

Each would leave a folder if it were; `test_the_pickles_are_real` shows that they do where they are loaded as pickles.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ai_forge.conductor.archives import unpack
from ai_forge.conductor.problems import ServiceError
from ai_forge.conductor.uploads import receive
from ai_forge.data_pipeline.miner import parse_repository
from ai_forge.data_pipeline.search.embedders.embedding import Texts
from ai_forge.data_pipeline.search.embedders.torch_encoder import EncoderEmbedder
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.errors import AIForgeError
from ai_forge.judge.exporter import convert_to_gguf, merge_adapters_to_base
from ai_forge.model_files.adapter import AdapterFolder
from ai_forge.training.backends.torch_model import load_model
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.checkpoint import MANIFEST, newest_checkpoint
from cli_runs import tiny_base

pytestmark = pytest.mark.slow
ENDINGS = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
DATA_ENDINGS = (".jsonl", ".json", ".parquet", ".txt", ".zip", ".tar", ".tar.gz")
FORMS = ("plain", "ascii", "torch", "torch before 1.6", "array")


class Evil:
    """What leaves a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.mark,)


def pickled(form: str, mark: Path) -> bytes:
    """The bytes of a pickle, in one of the ways that files of models hold them."""
    stream = io.BytesIO()
    if form == "array":
        np.save(stream, np.array([Evil(mark)], dtype=object), allow_pickle=True)
    elif form.startswith("torch"):
        torch.save({"weight": Evil(mark)}, stream, _use_new_zipfile_serialization=form == "torch")
    else:
        pickle.dump({"weight": Evil(mark)}, stream, protocol=0 if form == "ascii" else 4)
    return stream.getvalue()


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What no test may leave behind."""
    left = tmp_path / "executed"
    yield left
    assert not left.exists(), "a pickle was executed"


@pytest.fixture(params=FORMS)
def evil(request: pytest.FixtureRequest, mark: Path) -> bytes:
    return pickled(request.param, mark)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def refused(action: Callable[[], object], *errors: type[Exception]) -> None:
    """`action` ends well or is refused in words."""
    with contextlib.suppress(AIForgeError, *errors):
        action()


@pytest.mark.parametrize("form", FORMS)
def test_the_pickles_are_real(form: str, tmp_path: Path) -> None:
    left = tmp_path / "left"
    content = io.BytesIO(pickled(form, left))
    if form == "array":
        np.load(content, allow_pickle=True)
    elif form.startswith("torch"):
        torch.load(content, weights_only=False)
    else:
        pickle.load(content)
    assert left.is_dir()


def test_an_upload(evil: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    for ending in ENDINGS:
        with pytest.raises(AIForgeError, match="no file that can be trained on"):
            receive(io.BytesIO(evil), f"weights{ending}", len(evil), folder, None, 10**8)
    for ending in DATA_ENDINGS:
        folder.mkdir()
        refused(lambda e=ending: receive(io.BytesIO(evil), f"x{e}", len(evil), folder, None, 10**8), ServiceError)  # type: ignore[misc]
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_a_repository_in_an_archive(kind: str, evil: bytes, tmp_path: Path) -> None:
    names = [f"repo/model{ending}" for ending in ENDINGS] + ["repo/__pycache__/a.cpython-311.pyc", "repo/.cache/x.pkl"]
    archive = tmp_path / f"repo{kind}"
    code = b'def load(path):\n    """Read the file at path and return its text."""\n    return open(path).read()\n'
    if kind == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name, content in [("repo/a.py", code), *((name, evil) for name in names)]:
                packed.writestr(name, content)
    else:
        with tarfile.open(archive, "w") as made:
            for name, content in [("repo/a.py", code), *((name, evil) for name in names)]:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    target = tmp_path / "target"
    target.mkdir()
    unpacked = unpack(archive, target, max_bytes=10**8)
    assert unpacked.n_files == len(names) + 1
    assert {block.path for block in parse_repository(str(unpacked.root))} == {"a.py"}


def test_parquet_that_names_a_python_type(evil: bytes, tmp_path: Path) -> None:
    """pyarrow before 14 made the type of a column out of a pickle in the file (CVE-2023-47248)."""
    column = pa.field("output", pa.string()).with_metadata(
        {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": evil}
    )
    table = pa.table([["a", "b"], ["c", "d"]], schema=pa.schema([pa.field("instruction", pa.string()), column]))
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    folder = tmp_path / "job"
    folder.mkdir()
    refused(lambda: receive(io.BytesIO(path.read_bytes()), "x.parquet", None, folder, None, 10**8))


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.pkl", "x.ckpt", "x.pth", "x.gguf", "x.npy"])
def test_a_base_that_is_a_file(name: str, evil: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(evil)
    with pytest.raises(AIForgeError):
        resolve_base(str(tmp_path / name), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    "replaced", ["model.safetensors", "tokenizer.json", "config.json", "pytorch_model.bin", "index"]
)
def test_a_base_folder(replaced: str, evil: bytes, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    if replaced in ("pytorch_model.bin", "index"):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(evil)
    if replaced == "index":
        index = json.dumps({"weight_map": {"model.embed_tokens.weight": "pytorch_model.bin"}})
        (folder / "model.safetensors.index.json").write_text(index)
    if (base / replaced).exists():
        (folder / replaced).write_bytes(evil)
    with pytest.raises(AIForgeError):
        convert_to_gguf(resolve_base(str(folder), cache_dir=tmp_path / "cache"), tmp_path / "x.gguf")


def test_what_lies_beside_a_good_bases_weights(evil: bytes, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "x.pkl"):
        (folder / name).write_bytes(evil)
    config = json.loads((folder / "config.json").read_text())
    code = f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n"  # code of the model's own, as trust_remote_code loads it
    (folder / "modeling_evil.py").write_text(code)
    names = {"AutoConfig": "modeling_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    resolved = resolve_base(str(folder), cache_dir=tmp_path / "cache")
    assert load_model(resolved.folder, device=torch.device("cpu"), dtype=torch.float32) is not None
    assert convert_to_gguf(resolved, tmp_path / "x.gguf").is_file()


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.safetensors"])
def test_an_adapter(name: str, evil: bytes, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "base_model_name_or_path": ""}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / name).write_bytes(evil)
    with pytest.raises(AIForgeError):
        AdapterFolder(folder)
    with pytest.raises(AIForgeError):
        merge_adapters_to_base(resolve_base(str(base), cache_dir=tmp_path / "cache"), folder)


def test_a_checkpoint(evil: bytes, tmp_path: Path) -> None:
    """Whole by its own hashes, and every file of it a pickle."""
    folder = tmp_path / "checkpoints" / "step-000004"
    folder.mkdir(parents=True)
    names = ("trainer_state.json", "adapter_model.safetensors", "optimizer.safetensors", "optimizer.pt", "rng.pkl")
    for name in names:
        (folder / name).write_bytes(evil)
    (folder / MANIFEST).write_text(json.dumps({name: hashlib.sha256(evil).hexdigest() for name in names}))
    refused(lambda: newest_checkpoint(tmp_path / "checkpoints"), ValueError)


def test_an_index(evil: bytes, tmp_path: Path) -> None:
    entries = [
        Entry(f"{w}.py", 1, 2, w, "function", "python", f"def {w}(): return 1") for w in ("load", "save", "parse")
    ]
    QuestionIndex.build(entries).save(tmp_path / "index")
    for path in sorted(file for file in (tmp_path / "index").rglob("*") if file.is_file()):
        before = path.read_bytes()
        path.write_bytes(evil)
        refused(lambda: QuestionIndex.load(tmp_path / "index"))
        path.write_bytes(before)
    head = next(path for path in (tmp_path / "index").glob("*.json") if '"dense"' in path.read_text())
    head.write_text(head.read_text().replace('"dense": false', '"dense": true'))
    (tmp_path / "index" / "vectors.npy").write_bytes(evil)
    refused(lambda: QuestionIndex.load(tmp_path / "index"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_an_embedder(evil: bytes, base: Path, tmp_path: Path) -> None:
    """Encoders of before safetensors are pickles: only tensors are read out of them."""
    folder = tmp_path / "encoder"
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(evil)
    with pytest.raises(AIForgeError):
        EncoderEmbedder(str(folder)).embed(Texts(["def load(): ..."], [["load"]]))
