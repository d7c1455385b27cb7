"""Right after initialisation on MLX the model says what the base says, and a wrong initialisation is noticed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model

mx = pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'ai-forge[mlx]'")

from ai_forge.config import ALL_LINEAR_MODULES  # noqa: E402
from ai_forge.errors import InputError, InternalError  # noqa: E402
from ai_forge.training.backends import mlx_init  # noqa: E402
from ai_forge.training.backends.mlx_init import initialise, mean_kl  # noqa: E402
from ai_forge.training.backends.mlx_layers import AdapterLinear  # noqa: E402
from ai_forge.training.backends.mlx_model import load_model, vocabulary_log_probs  # noqa: E402
from tiny_models import make_tiny  # noqa: E402
from tiny_training import check_batch, reference_model, tiny_config  # noqa: E402

PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's call


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("init") / request.param, request.param, hidden=128, inner=256)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("alone"), hidden=128, inner=256)


@pytest.mark.parametrize("init_method", ["pissa", "lora"])
def test_without_quantization_the_logits_do_not_move(folder: Path, init_method: str) -> None:
    trainee, report = initialise(folder, tiny_config(init_method=init_method, quantization="none"), check_batch())
    base = vocabulary_log_probs(load_model(folder, dtype=mx.float32), check_batch())
    ours = vocabulary_log_probs(trainee.model, check_batch())
    np.testing.assert_allclose(np.array(ours), np.array(base), atol=1e-4)
    assert report.n_matrices == 14
    assert report.relative_error < 1e-6
    assert report.quantization == "none"
    assert report.kl_quantized_base == 0
    assert 0 <= report.kl_initialised < 1e-6


@pytest.mark.parametrize("init_method", ["pissa", "lora", "loftq"])
def test_with_four_bits_they_stay_within_plain_quantization(folder: Path, init_method: str) -> None:
    trainee, report = initialise(folder, tiny_config(init_method=init_method), check_batch())
    assert 0 < report.kl_initialised <= 1.1 * report.kl_quantized_base + 1e-6
    assert report.quantization == "MLX 4-bit groups of 64"
    base = vocabulary_log_probs(load_model(folder, dtype=mx.float32), check_batch())
    built = mean_kl(base, vocabulary_log_probs(trainee.model, check_batch()))
    assert report.kl_initialised == pytest.approx(built, rel=1e-3)


def test_qpissa_loses_less_of_the_weights_than_qlora(llama: Path) -> None:
    errors = {}
    for name, changes in {
        "qlora": {"init_method": "lora"},
        "qpissa": {},
        "five rounds": {"quantization_iterations": 5},
    }.items():
        _, report = initialise(llama, tiny_config(rank=32, **changes), check_batch(50))
        errors[name] = report.relative_error
        assert report.relative_error_quantized == pytest.approx(errors["qlora"], rel=1e-6)
        assert report.worst_relative_error >= report.relative_error
    assert errors["five rounds"] < 0.95 * errors["qpissa"] < 0.95 * 0.95 * errors["qlora"]


def test_the_error_is_that_of_the_built_weights(llama: Path) -> None:
    from ai_forge.model_files.tensors import Weights

    trainee, report = initialise(llama, tiny_config(rank_pattern={"q_proj": 4}, use_rslora=True), check_batch(50))
    weights, squared, norm = Weights(llama), 0.0, 0.0
    for name, layer in trainee.layers.items():
        weight = weights.load(f"{name}.weight")
        built = np.array(layer.frozen.dense()) + layer.scaling * np.array(layer.lora_B) @ np.array(layer.lora_A)
        squared, norm = squared + np.square(built - weight).sum(), norm + np.square(weight).sum()
        assert layer.lora_A.shape[0] == (4 if name.endswith("q_proj") else 8)
        assert layer.scaling == pytest.approx(16 / layer.lora_A.shape[0] ** 0.5)
    assert report.relative_error == pytest.approx((squared / norm) ** 0.5, rel=1e-4)
    assert report.n_other_ranks == 2


@PEFT_WARNS
def test_pissa_factors_are_pefts(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=64)
    config = tiny_config(rank=4, quantization="none", svd_oversampling=60)  # as wide as the matrix: exact
    trainee, _ = initialise(folder, config, check_batch(50))
    theirs = get_peft_model(
        reference_model(folder),
        LoraConfig(r=4, lora_alpha=16, target_modules=list(ALL_LINEAR_MODULES), init_lora_weights="pissa"),
    ).state_dict()
    for name, layer in trainee.layers.items():
        a, b, residual = (
            theirs[f"base_model.model.{name}.{part}.weight"].numpy()
            for part in ("lora_A.default", "lora_B.default", "base_layer")
        )
        ours = config.scaling * np.array(layer.lora_B) @ np.array(layer.lora_A)
        np.testing.assert_allclose(ours, config.scaling * b @ a, atol=1e-5)
        np.testing.assert_allclose(np.array(layer.frozen.dense()), residual, atol=1e-5)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_wrong_residual_is_noticed(llama: Path, monkeypatch: pytest.MonkeyPatch, quantization: str) -> None:
    # the residual was made for a, b; the layer gets -b
    monkeypatch.setattr(mlx_init, "AdapterLinear", lambda w, bias, a, b, s: AdapterLinear(w, bias, a, -b, s))
    with pytest.raises(InternalError, match=r"initialisation the logits are .* nats from the base's; at most"):
        initialise(llama, tiny_config(quantization=quantization), check_batch())


def test_a_weight_that_is_not_the_base_s_is_noticed(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = mlx_init.FrozenWeight.of
    monkeypatch.setattr(mlx_init.FrozenWeight, "of", lambda weight, *rest: of(weight * 1.0001, *rest))
    with pytest.raises(InternalError, match=r"initialisation model\.layers\.\d\.\S+ is .* from the base's weight"):
        initialise(llama, tiny_config(init_method="lora", quantization="none"), check_batch(50))


@pytest.mark.parametrize(
    ("block", "hidden", "inner", "said"),
    [
        (256, 256, 512, "is 256; MLX quantizes this base in groups of 32, 64, 128. Next: set training.nf4_block_size=128."),
        (64, 96, 128, "is 64; MLX quantizes this base in groups of 32. Next: set training.nf4_block_size=32."),
        (64, 40, 64, "is 64; MLX quantizes this base in groups of no size that it has. Next: set training.quantization=none."),
    ],
)  # fmt: skip
def test_group_sizes_that_do_not_fit_are_refused(
    tmp_path: Path, block: int, hidden: int, inner: int, said: str
) -> None:
    folder = make_tiny(tmp_path, hidden=hidden, inner=inner)
    with pytest.raises(InputError) as caught:
        initialise(folder, tiny_config(nf4_block_size=block), check_batch(50))
    assert str(caught.value) == f"training.nf4_block_size {said}"


def test_a_rank_above_the_smaller_side_names_the_matrix(llama: Path) -> None:
    with pytest.raises(InputError, match=r"rank 65 is larger than 64, the smaller side of model\.layers\.0\.self_attn"):
        initialise(llama, tiny_config(rank=65), check_batch(50))


@pytest.mark.parametrize("modules", [("q_proj", "c_attn"), ("lm_head",)])
def test_an_unknown_target_module_is_named_with_the_known_ones(llama: Path, modules: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        initialise(llama, tiny_config(target_modules=modules), check_batch(50))
    assert str(caught.value).startswith(f"target_modules names {modules[-1]}, which this base does not have.")
    assert "q_proj" in str(caught.value.next_step)


def test_progress_counts_every_matrix(llama: Path) -> None:
    heard: list[tuple[int, int]] = []
    config: Any = tiny_config(target_modules=("all-linear",))
    initialise(llama, config, check_batch(50), progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 14) for done in range(15)]


def test_the_base_is_never_whole_in_memory(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=128, inner=512, layers=12)
    whole = (folder / "model.safetensors").stat().st_size
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    trainee, _ = initialise(folder, tiny_config(init_method="lora", rank=2), check_batch(20))
    assert trainee.n_trainable
    assert mx.get_peak_memory() - before < 0.6 * whole
    assert mx.get_active_memory() - before < 0.35 * whole
