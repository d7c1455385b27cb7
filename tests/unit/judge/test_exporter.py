import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ai_forge.errors import InputError
from ai_forge.judge import exporter
from ai_forge.judge.exporter import convert_to_gguf, create_ollama_modelfile, merge_adapters_to_base, metadata_of
from ai_forge.model_files.gguf.modelfile import TEMPLATE_FILE
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.tensors import TensorSpec, Weights, f32_to_bf16, write_safetensors
from ai_forge.prompting.chat_templates import alpaca_jinja
from ai_forge.serving.llama_server import LlamaServer
from ai_forge.training.bases.resolve import resolve_base
from tiny_models import make_tiny

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"


def make_adapter(folder: Path, base: Path, names: tuple[str, ...] = (Q, DOWN), rank: int = 4, **config: Any) -> Path:
    """A random adapter in PEFT's format."""
    folder.mkdir()
    random = np.random.default_rng(5)
    weights, tensors = Weights(base), {}
    for name in names:
        n_out, n_in = weights.specs[f"{name}.weight"].shape
        tensors[f"base_model.model.{name}.lora_A.weight"] = random.normal(0, 0.1, (rank, n_in)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = random.normal(0, 0.1, (n_out, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 8, "bias": "none"}
    settings |= {
        "target_modules": sorted({name.rpartition(".")[2] for name in names}),
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


@pytest.mark.parametrize("rslora", [False, True])
def test_a_lora_merges_as_peft_merges_it(rslora: bool, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import PeftModel
    base = make_tiny(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, use_rslora=rslora)
    layers = [f"model.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn.q_proj", "mlp.down_proj")]
    adapter_all = make_adapter(tmp_path / "all", base, tuple(layers), use_rslora=rslora)
    merged = Weights(merge_adapters_to_base(base, adapter_all))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        theirs = PeftModel.from_pretrained(model, str(adapter_all)).merge_and_unload().state_dict()
    for name in merged.specs:
        expected = theirs[name].numpy()
        tolerance = 0 if len(expected.shape) == 1 else 1e-3 * np.abs(expected).max()
        assert np.abs(merged.load(name) - expected).max() <= tolerance, name
    assert adapter.is_dir()


def test_pissa_is_merged_onto_the_residual_it_was_trained_on(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "base", dtype="F16")
    adapter = make_adapter(tmp_path / "adapter", base, init_lora_weights="pissa")
    residual = np.random.default_rng(9).normal(0, 0.1, (64, 64)).astype(np.float32)
    spec = TensorSpec(f"{Q}.weight", "BF16", (64, 64))
    write_safetensors(adapter / "residual.safetensors", [(spec, f32_to_bf16(residual))], [spec])
    merged = Weights(merge_adapters_to_base(base, adapter, tmp_path / "out"))
    pairs = load_file(adapter / "adapter_model.safetensors")

    def delta(name: str) -> np.ndarray:
        a, b = (pairs[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        return np.float32(2.0) * (b @ a)

    from ai_forge.model_files.tensors import bf16_to_f32

    expected = (bf16_to_f32(f32_to_bf16(residual)) + delta(Q)).astype(np.float16)
    assert np.array_equal(merged.stored(f"{Q}.weight"), expected)
    plain = (Weights(base).load(f"{DOWN}.weight") + delta(DOWN)).astype(np.float16)
    assert np.array_equal(merged.stored(f"{DOWN}.weight"), plain)
    untouched = "model.layers.0.mlp.up_proj.weight"
    assert np.array_equal(merged.load(untouched), Weights(base).load(untouched))


def test_a_merged_folder_is_a_base_again_and_exports(tmp_path: Path) -> None:
    source = convert_to_gguf(make_tiny(tmp_path / "base"), tmp_path / "base.gguf", "F16")
    base = resolve_base(str(source), cache_dir=tmp_path / "cache")
    merged = merge_adapters_to_base(base, make_adapter(tmp_path / "adapter", base.folder))
    again = resolve_base(str(merged), cache_dir=tmp_path / "cache")
    assert again.chat_template == base.chat_template
    assert again.gguf_metadata is not None
    assert again.fingerprint != base.fingerprint
    assert exporter.check_gguf(convert_to_gguf(again, tmp_path / "out.gguf", "q6_k")).quantization == "Q8_0"


def test_a_file_says_where_it_comes_from_and_is_f16_unless_asked(tmp_path: Path) -> None:
    about = metadata_of(licence="Apache-2.0", base="tiny (12ab)", data="34cd", run="56ef")
    path = convert_to_gguf(make_tiny(tmp_path / "base"), tmp_path / "out.gguf", name="mine", about=about)
    told = read_gguf(path).metadata
    assert {key: told[key] for key in (*about, "general.name")} == {
        "general.license": "Apache-2.0",
        "ai_forge.base": "tiny (12ab)",
        "ai_forge.data": "34cd",
        "ai_forge.run": "56ef",
        "general.name": "mine",
    }
    assert exporter.check_gguf(path).quantization == "F16"
    with LlamaServer(path, num_ctx=128) as server:  # which passes over keys that it does not know
        assert server.tokenize("def")


def _spoil(adapter: Path, **tensors: np.ndarray) -> None:
    save_file(load_file(adapter / "adapter_model.safetensors") | tensors, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"use_dora": True}, {}, "uses use_dora"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "PiSSA adapter without residual.safetensors"),
        ({"lora_alpha": "many"}, {}, "not a LoRA configuration"),
        ({}, {"base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)}, "no low-rank pair"),
        ({}, {f"base_model.model.{Q}.lora_A.weight": np.zeros((4, 63), np.float32)}, "does not fit the base"),
        ({}, {f"base_model.model.{Q}.lora_B.weight": np.zeros((64, 5), np.float32)}, "does not fit together"),
        (
            {},
            {f"base_model.model.nowhere.lora_{s}.weight": np.zeros((4, 4), np.float32) for s in "AB"},
            "no linear layer",
        ),
        ({}, {"base_model.model.nowhere.lora_A.weight": np.zeros((4, 4), np.float32)}, "do not make"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_and_leave_nothing(
    config: dict[str, Any], tensors: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    base = make_tiny(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    _spoil(adapter, **tensors)
    with pytest.raises(InputError, match=message):
        merge_adapters_to_base(base, adapter, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_folder_without_adapter_says_so(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    with pytest.raises(InputError, match=r"holds no adapter"):
        merge_adapters_to_base(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"only adapter_model.bin, a pickle"):
        merge_adapters_to_base(base, tmp_path / "adapter")


# -- Modelfile ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modelfile")
    return convert_to_gguf(make_tiny(folder / "m"), folder / "m.gguf", "f16")


def test_a_modelfile_sets_everything_outright(gguf: Path) -> None:
    text = create_ollama_modelfile("team/app", gguf, "Be brief.", temperature=0.1, num_ctx=512, num_predict=64)
    lines = text.splitlines()
    assert f"FROM {gguf.resolve()}" in lines
    assert 'SYSTEM """Be brief."""' in lines
    parameters = [line.removeprefix("PARAMETER ") for line in lines if line.startswith("PARAMETER ")]
    assert parameters == [
        "temperature 0.1",
        "top_k 40",
        "top_p 0.9",
        "num_ctx 512",
        "num_predict 64",
        'stop "<|im_end|>"',
        'stop "<|im_start|>"',
    ]
    assert 'TEMPLATE """{{ $before := "" }}' in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 3.0, "top_p": -1.0, "num_ctx": 512}, r"temperature 3.0 \(allowed 0 to 2\), top_p -1.0"),
        ({"num_ctx": 100_000}, r"num_ctx 100000 \(allowed 128 to 512\)"),
        ({"system_prompt": 'say """', "num_ctx": 512}, "cannot hold the system prompt"),
        ({"model_name": "a\nFROM /etc/passwd", "num_ctx": 512}, "line break"),
        ({"stop": ['"'], "num_ctx": 512}, "quote"),
    ],
)
def test_settings_that_a_modelfile_cannot_take_are_refused(options: dict[str, Any], message: str, gguf: Path) -> None:
    with pytest.raises(InputError, match=message):
        create_ollama_modelfile(**{"model_name": "m", "gguf_path": gguf} | options)


def test_the_template_is_a_text_file_with_the_placeholders() -> None:
    text = TEMPLATE_FILE.read_text(encoding="utf-8")
    for name in ("gguf_path", "system_prompt", "temperature", "top_k", "top_p"):
        assert f"{{{name}}}" in text


@pytest.mark.parametrize("system", ["{x} and {{ y }}", "ends with }", "two\nlines {gguf_path}", ""])
def test_braces_in_a_system_prompt_stay_as_they_are(system: str, gguf: Path) -> None:
    text = create_ollama_modelfile("m", gguf, system, num_ctx=512)
    assert (f'SYSTEM """{system}"""' in text) == bool(system)
    assert "PARAMETER num_predict 512" in text.splitlines()


def test_an_alpaca_model_stops_before_it_asks_itself(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(alpaca_jinja(with_bos=False))
    text = create_ollama_modelfile("senior-dev", convert_to_gguf(folder, tmp_path / "m.gguf", "f16"), num_ctx=512)
    assert [line for line in text.splitlines() if line.startswith("PARAMETER stop")] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "### Instruction:"',
    ]


def test_as_a_command_it_writes_gguf_and_modelfile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = make_tiny(tmp_path / "m"), tmp_path / "out/tiny.gguf"
    assert exporter.main([str(folder), str(output), "--quantization", "f16", "--system", "Be brief."]) == 0
    assert capsys.readouterr().out.split() == [str(output), str(output.with_name("Modelfile"))]
    assert 'SYSTEM """Be brief."""' in output.with_name("Modelfile").read_text()
    assert exporter.main([str(tmp_path / "nowhere"), str(output)]) == 2
    assert "has no config.json" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["judge.exporter", "conductor.ollama_manager"])
def test_the_modules_run_as_commands(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"ai_forge.{module}", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert f"python -m ai_forge.{module}" in done.stdout
    assert "Warning" not in done.stderr
