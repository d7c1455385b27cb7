"""Adapters go to PEFT and come from PEFT: the same logits on both sides."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.errors import InputError
from ai_forge.model_files.adapter import AdapterFolder, peft_config
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.training.adapters import convert
from ai_forge.training.adapters.convert import convert_to_lora
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.backends.torch_model import target_log_probs
from ai_forge.training.losses import sft_loss
from ai_forge.training.tokens.packing import collate
from tiny_models import make_tiny
from tiny_training import check_batch, random_examples, reference_log_probs, reference_model, tiny_config

pytestmark = [  # what PEFT does and says when it loads and converts
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:PiSSA changes the base weights:UserWarning"),
]

PATTERNS: dict[str, Any] = {"rank_pattern": {"q_proj": 3, "mlp.up_proj": 12}, "alpha_pattern": {"down_proj": 5.0}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"))


def trained(base: Path, folder: Path, config: FineTuneConfig, n_steps: int = 3) -> TorchTrainee:
    """A trainee after a few steps, float32, and its folder as a training leaves it."""
    trainee, _ = initialise(base, config, check_batch(), exact=True)
    folder.mkdir()
    first = {name: torch.from_numpy(values.copy()) for name, values in trainee.adapter().items()}
    save_file(first, folder / "initial_adapter.safetensors")
    batch = collate(random_examples(4))
    for _ in range(n_steps):
        trainee.forward_backward(batch, sft_loss, batch.n_supervised)
        trainee.step(1e-2)
    save_file(
        {n: torch.from_numpy(v.copy()) for n, v in trainee.adapter().items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps(peft_config(config, "tiny")))
    trainee.save_residual(folder / "residual.safetensors")
    return trainee


def log_probs(model: Any, examples: Any) -> torch.Tensor:
    return torch.cat([reference_log_probs(model, example) for example in examples])


@pytest.mark.parametrize("init_method", ["pissa", "lora"])
@pytest.mark.parametrize("changes", [{}, {"use_rslora": True, **PATTERNS}])
def test_peft_loads_the_converted_adapter(
    base: Path, tmp_path: Path, init_method: str, changes: dict[str, Any]
) -> None:
    config = tiny_config(init_method=init_method, quantization="none", **changes)
    trainee = trained(base, tmp_path / "trained", config)
    converted = convert_to_lora(tmp_path / "trained", tmp_path / "plain", base)
    assert converted.rank == 2 * config.rank
    assert converted.relative_difference is not None
    assert converted.relative_difference < 1e-6
    examples = random_examples(5, seed=3)
    theirs = log_probs(PeftModel.from_pretrained(reference_model(base), tmp_path / "plain").eval(), examples)
    with torch.no_grad():
        ours = target_log_probs(trainee.model, collate(examples))[0]
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    untrained = log_probs(reference_model(base), examples)
    assert float((untrained - ours).abs().max()) > 0.1


@pytest.mark.parametrize("iterations", [1, 4])
def test_of_a_quantized_training_only_the_quantization_is_left_out(base: Path, tmp_path: Path, iterations: int) -> None:
    config = tiny_config(quantization_iterations=iterations)
    _, report = initialise(base, config, check_batch(), exact=True)
    trained(base, tmp_path / "trained", config)
    converted = convert_to_lora(tmp_path / "trained", tmp_path / "plain", base)
    assert converted.relative_difference == pytest.approx(report.relative_error, rel=1e-3)


def test_the_converted_adapter_merges_to_the_same_model(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "trained", tiny_config(quantization="none", **PATTERNS))
    convert_to_lora(tmp_path / "trained", tmp_path / "plain")
    ours, theirs = (
        load_file(merge_adapters_to_base(base, tmp_path / name, tmp_path / f"{name}-merged") / "model.safetensors")
        for name in ("trained", "plain")
    )
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], atol=1e-3, rtol=0)


@pytest.fixture(scope="module", params=[True, "pissa"])
def from_peft(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter that PEFT trained and saved (its PiSSA as a plain LoRA on the base), and the model that saved it."""
    root = tmp_path_factory.mktemp("peft")
    torch.manual_seed(0)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=list(ALL_LINEAR_MODULES), init_lora_weights=request.param, **PATTERNS
    )
    model = get_peft_model(reference_model(base), settings)
    model.peft_config["default"].init_lora_weights = True  # as PEFT's own conversion asks
    model.save_pretrained(root / "first")
    model.peft_config["default"].init_lora_weights = request.param
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for example in random_examples(4):
        ids = torch.tensor([example.ids])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    if request.param == "pissa":
        model.save_pretrained(root / "saved", path_initial_model_for_weight_conversion=str(root / "first"))
    else:
        model.save_pretrained(root / "saved")
    return root / "saved", model


def test_pefts_adapter_answers_here_as_there(base: Path, from_peft: tuple[Path, Any]) -> None:
    folder, model = from_peft
    trainee = TorchTrainee.from_adapter(base, folder, tiny_config(), exact=True)
    examples = random_examples(5, seed=3)
    with torch.no_grad():
        ours = target_log_probs(trainee.model, collate(examples))[0]
    torch.testing.assert_close(ours, log_probs(model, examples), atol=1e-4, rtol=0)


def test_pefts_adapter_is_merged_and_trained_on(base: Path, from_peft: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = from_peft
    merged = reference_model(merge_adapters_to_base(base, folder, tmp_path / "merged"))
    examples = random_examples(5, seed=3)
    torch.testing.assert_close(log_probs(merged, examples), log_probs(model, examples), atol=3e-2, rtol=0)  # float16
    trainee = TorchTrainee.from_adapter(base, folder, tiny_config(), exact=True)
    batch = collate(random_examples(4))
    before = trainee.evaluate(batch).mean_loss
    for _ in range(3):
        trainee.forward_backward(batch, sft_loss, batch.n_supervised)
        trainee.step(1e-2)
    assert trainee.evaluate(batch).mean_loss < before


@pytest.mark.parametrize("architecture", ["mistral", "qwen3"])
def test_the_merged_model_is_the_trained_one_everywhere(architecture: str, tmp_path: Path) -> None:
    """Packed log-probabilities of the QPiSSA model in training against transformers on the merged folder."""
    base = make_tiny(tmp_path / "base", architecture)
    trainee = trained(base, tmp_path / "adapter", tiny_config(quantization="nf4"))
    examples = random_examples(5, seed=3)
    with torch.no_grad():
        ours = target_log_probs(trainee.model, collate(examples))[0]
    merged = reference_model(merge_adapters_to_base(base, tmp_path / "adapter", tmp_path / "merged"))
    torch.testing.assert_close(log_probs(merged, examples), ours, atol=3e-2, rtol=0)  # float16
    assert (log_probs(reference_model(base), examples) - ours).abs().max() > 0.1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"init_lora_weights": "pissa"}, "is a PiSSA adapter without residual.safetensors"),
        ({"init_lora_weights": "olora"}, "is a olora adapter without residual.safetensors"),
        ({"use_dora": True, "bias": "all"}, "uses use_dora, bias, which cannot be merged"),
        ({"peft_type": "IA3"}, "is an adapter of PEFT's IA3, not LoRA"),
    ],
)
def test_what_is_no_sum_on_the_base_is_refused(base: Path, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    trained(base, tmp_path / "trained", tiny_config(), n_steps=0)
    (tmp_path / "trained" / "residual.safetensors").unlink()
    path = tmp_path / "trained" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=told):
        AdapterFolder(tmp_path / "trained")


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "trained", tiny_config(), n_steps=0)
    wider = make_tiny(tmp_path / "wider", hidden=128)
    with pytest.raises(InputError, match=r"adapts model.layers.0.* \[64, 128\], which .* does not have"):
        TorchTrainee.from_adapter(wider, tmp_path / "trained", tiny_config())


def test_the_command_converts_and_tells(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(base, tmp_path / "trained", tiny_config(quantization="none"))
    words = [str(tmp_path / "trained"), str(tmp_path / "plain"), "--base", str(base)]
    assert convert.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n_layers"], told["rank"]) == (14, 16)
    assert convert.main(words) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'plain'} exists. Next: name a folder that does not.\n"
    (tmp_path / "trained" / "initial_adapter.safetensors").unlink()
    assert convert.main([*words[:1], str(tmp_path / "other")]) == 2
    assert "has no initial_adapter.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_plain_lora_is_converted_to_itself(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "trained", tiny_config(init_method="lora", quantization="none"))
    (tmp_path / "trained" / "residual.safetensors").unlink()
    assert convert_to_lora(tmp_path / "trained", tmp_path / "plain").rank == 8
    first, second = AdapterFolder(tmp_path / "trained"), AdapterFolder(tmp_path / "plain")
    for layer in first.layers:
        for ours, theirs in zip(first.pair(layer), second.pair(layer), strict=True):
            np.testing.assert_array_equal(ours, theirs)
