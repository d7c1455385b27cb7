"""Right after initialisation the model says what the base says, and a wrong initialisation is noticed."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ai_forge.config import ALL_LINEAR_MODULES
from ai_forge.errors import InputError, InternalError
from ai_forge.model_files.adapter import peft_config
from ai_forge.model_files.base import Base
from ai_forge.training.adapters.initialisation import Start, initial_adapter
from ai_forge.training.backends import torch_init
from ai_forge.training.backends.torch_init import initialise, mean_kl
from ai_forge.training.backends.torch_layers import AdapterLinear
from ai_forge.training.backends.torch_model import load_model, vocabulary_log_probs
from tiny_models import make_tiny
from tiny_training import check_batch, reference_model, tiny_config

PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's call
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2", "qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("init") / request.param, request.param, hidden=128, inner=256)


def test_pissa_does_not_move_the_logits(folder: Path) -> None:
    trainee, report = initialise(folder, tiny_config(quantization="none"), check_batch(), exact=True)
    base = load_model(folder, device=CPU, dtype=torch.float32)
    ours, theirs = (vocabulary_log_probs(m, check_batch()) for m in (trainee.model, base))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert report.init_method == "PiSSA"
    assert report.n_matrices == 14
    assert report.relative_error < 1e-6
    assert report.kl_quantized_base == 0
    assert 0 <= report.kl_initialised < 1e-6


@pytest.mark.parametrize("init_method", ["pissa", "lora"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_what_must_start_at_the_base_does(folder: Path, init_method: str, use_rslora: bool) -> None:
    config = tiny_config(
        init_method=init_method, use_rslora=use_rslora, quantization="none", rank_pattern={"k_proj": 3}
    )
    trainee, report = initialise(folder, config, check_batch(), exact=True)
    base = load_model(folder, device=CPU, dtype=torch.float32)
    ours, theirs = (vocabulary_log_probs(m, check_batch()) for m in (trainee.model, base))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert report.worst_relative_error < 1e-6
    assert report.n_other_ranks == 2


@pytest.mark.parametrize("init_method", ["pissa", "lora", "loftq"])
def test_quantized_starts_stay_within_plain_nf4(folder: Path, init_method: str) -> None:
    _, report = initialise(folder, tiny_config(init_method=init_method, quantization="nf4"), check_batch(), exact=True)
    assert 0 < report.kl_initialised <= 1.1 * report.kl_quantized_base + 1e-6
    assert report.init_method == {"pissa": "QPiSSA", "lora": "QLoRA", "loftq": "LoftQ"}[init_method]
    assert report.error_removed == pytest.approx(0, abs=1e-6) if init_method == "lora" else report.error_removed > 0.02
    assert report.worst_layer.startswith("model.layers.")
    assert report.worst_relative_error >= report.relative_error


def test_more_rounds_remove_more_of_the_quantization_error(folder: Path) -> None:
    removed = [
        initialise(folder, tiny_config(quantization_iterations=n), check_batch(), exact=True)[1].error_removed
        for n in (1, 2, 5)
    ]
    assert removed == sorted(removed)
    assert removed[2] > 1.5 * removed[0]


def test_a_weight_that_is_not_the_bases_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(*arguments: object) -> Start:
        start = initial_adapter(*arguments)  # type: ignore[arg-type]
        return Start(start.a, start.b, start.frozen * 1.001)

    monkeypatch.setattr(torch_init, "initial_adapter", off)
    with pytest.raises(InternalError, match=r"initialisation model.layers.* is .* from the base's weight, relatively"):
        initialise(folder, tiny_config(quantization="none"), check_batch(), exact=True)


@PEFT_WARNS
@PEFT_WARNS
@pytest.mark.parametrize("use_rslora", [False, True])
def test_ranks_and_scales_by_layer_are_pefts(tmp_path: Path, use_rslora: bool) -> None:
    folder = make_tiny(tmp_path)
    ranks, alphas = {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 5}, {"mlp.down_proj": 7.0}
    config = tiny_config(
        init_method="lora",
        quantization="none",
        use_rslora=use_rslora,
        rank_pattern=ranks,
        alpha_pattern=alphas,
        target_modules=("all-linear",),
    )
    trainee, _ = initialise(folder, config, check_batch(), exact=True)
    asked = peft_config(config, str(folder))
    theirs = get_peft_model(reference_model(folder), LoraConfig(**{k: v for k, v in asked.items() if k != "peft_type"}))
    modules = {n.removeprefix("base_model.model."): m for n, m in theirs.named_modules() if hasattr(m, "lora_A")}
    assert set(modules) == set(trainee.layers)
    for name, layer in trainee.layers.items():
        assert layer.lora_A.shape[0] == modules[name].r["default"]
        assert layer.scaling == pytest.approx(modules[name].scaling["default"])


def test_qpissa_loses_less_of_the_weights_than_qlora(folder: Path) -> None:
    config = tiny_config(rank=32)
    _, qpissa = initialise(folder, config, check_batch(), exact=True)
    _, qlora = initialise(folder, config.model_copy(update={"init_method": "lora"}), check_batch(), exact=True)
    assert qpissa.relative_error < 0.95 * qlora.relative_error


def test_the_reported_divergence_is_that_of_the_built_model(folder: Path) -> None:
    trainee, report = initialise(folder, tiny_config(), check_batch(), exact=True)
    base = load_model(folder, device=CPU, dtype=torch.float32)
    p, q = (vocabulary_log_probs(m, check_batch()) for m in (base, trainee.model))
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    assert report.kl_initialised == pytest.approx(float(expected), rel=1e-3)
    assert mean_kl(p, p) == 0


def test_lora_begins_at_the_base(folder: Path) -> None:
    config = tiny_config(init_method="lora", quantization="none")
    trainee, report = initialise(folder, config, check_batch(), exact=True)
    assert report.kl_initialised < 1e-7
    for layer in trainee.model.modules():
        if isinstance(layer, AdapterLinear):
            assert not layer.lora_B.any()
            bound = layer.lora_A.shape[1] ** -0.5
            assert 0.9 * bound < float(layer.lora_A.detach().abs().max()) <= bound


@PEFT_WARNS
def test_pissa_factors_are_pefts(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=64)
    config = tiny_config(rank=4, quantization="none", svd_oversampling=60)  # as wide as the matrix: exact
    trainee, _ = initialise(folder, config, check_batch(), exact=True)
    theirs = get_peft_model(
        reference_model(folder),
        LoraConfig(r=4, lora_alpha=16, target_modules=list(ALL_LINEAR_MODULES), init_lora_weights="pissa"),
    ).state_dict()
    scaling = config.scaling
    for name, layer in trainee.layers.items():
        a = theirs[f"base_model.model.{name}.lora_A.default.weight"]
        b = theirs[f"base_model.model.{name}.lora_B.default.weight"]
        residual = theirs[f"base_model.model.{name}.base_layer.weight"]
        torch.testing.assert_close(scaling * layer.lora_B @ layer.lora_A, scaling * b @ a, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.lora_A.abs(), a.abs(), atol=1e-4, rtol=0)
        torch.testing.assert_close(layer.frozen.dense(), residual, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_wrong_residual_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str) -> None:
    folder = make_tiny(tmp_path)
    # the residual was made for a, b; the layer gets -b
    monkeypatch.setattr(torch_init, "AdapterLinear", lambda w, bias, a, b, s: AdapterLinear(w, bias, a, -b, s))
    with pytest.raises(InternalError, match=r"initialisation the logits are .* nats from the base's; at most"):
        initialise(folder, tiny_config(quantization=quantization), check_batch(), exact=True)


def test_a_rank_above_the_smaller_side_names_the_matrix(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=128, inner=256)
    with pytest.raises(InputError) as caught:
        initialise(folder, tiny_config(rank=65), check_batch())
    assert str(caught.value) == (
        "rank 65 is larger than 64, the smaller side of model.layers.0.self_attn.k_proj [64, 128]. "
        "Next: choose a rank of at most 64."
    )


def test_an_unknown_target_module_is_named_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        initialise(folder, tiny_config(target_modules=("q_proj", "c_attn")), check_batch())
    assert str(caught.value).startswith("target_modules names c_attn, which this base does not have.")
    assert "q_proj" in str(caught.value.next_step)


@pytest.mark.slow
def test_qpissa_of_real_weights_beats_plain_nf4(smollm2: Base) -> None:
    config = tiny_config(rank=32, alpha=32)
    trainee, report = initialise(smollm2.folder, config, check_batch(128), exact=True)
    assert report.n_matrices == 210
    assert report.kl_initialised < report.kl_quantized_base
    read = torch_init.full_precision_weights(smollm2.folder)
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.14.mlp.gate_proj", "model.layers.29.mlp.down_proj"):
        weight, layer = read(f"{name}.weight"), trainee.layers[name]
        left = weight.double() - layer.scaling * (layer.lora_B.detach().double() @ layer.lora_A.detach().double())
        optimal = float(torch.linalg.svdvals(weight.double())[32:].square().sum().sqrt())
        assert float(torch.linalg.norm(left)) <= 1.001 * optimal
