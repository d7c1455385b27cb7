"""The MLX trainee against the torch one on the same adapter and residual; its state survives storing bit by bit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

mx = pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'ai-forge[mlx]'")

from ai_forge.errors import InputError  # noqa: E402
from ai_forge.model_files.adapter import peft_config  # noqa: E402
from ai_forge.training.backends import mlx_backend  # noqa: E402
from ai_forge.training.backends.mlx_backend import MLXTrainee, out_of_memory_told  # noqa: E402
from ai_forge.training.backends.mlx_init import initialise  # noqa: E402
from ai_forge.training.backends.mlx_model import vocabulary_log_probs  # noqa: E402
from ai_forge.training.backends.torch_backend import TorchTrainee  # noqa: E402
from ai_forge.training.losses import sft_loss  # noqa: E402
from ai_forge.training.memory import kept_bytes, mlx_memory_of, recomputed_bytes, score_bytes  # noqa: E402
from ai_forge.training.tokens.packing import Batch, TokenizedExample, collate  # noqa: E402
from tiny_models import make_tiny  # noqa: E402
from tiny_training import check_batch, random_examples, tiny_config  # noqa: E402

CONFIG = tiny_config()
SHARED = [TokenizedExample((*range(3, 90), 100 + n, 7, 8, 9), 88) for n in range(3)]
BATCH = collate([*random_examples(3), *SHARED])

Start = tuple[Path, Path]


def started(root: Path, architecture: str = "llama", **changes: Any) -> Start:
    """(base folder, folder with a fresh adapter and its residual), made by MLX."""
    config = tiny_config(**changes)
    # of Gemma 3 every sixth layer sees the whole context; mlx-lm rounds √hidden to bfloat16, which √256 bears
    sizes = {"hidden": 256, "layers": 6, "window": 32} if architecture == "gemma3_text" else {"hidden": 128}
    folder = make_tiny(root / "base", architecture, inner=256, **sizes)
    trainee, _ = initialise(folder, config, check_batch())
    (start := root / "start").mkdir()
    trainee.save_residual(start / "residual.safetensors")
    trainee.save_state(start)
    (start / "adapter_config.json").write_text(json.dumps(peft_config(config, "tiny")))
    return folder, start


@pytest.fixture(scope="module", params=["llama", "qwen2", "phi3", "gemma3_text"])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Start:
    return started(tmp_path_factory.mktemp(request.param), request.param, target_modules=("all-linear",))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return started(tmp_path_factory.mktemp("alone"))


def gradients(trainee: MLXTrainee) -> dict[str, np.ndarray]:
    found = {name: np.array(gradient) for name, gradient in trainee.gradients.items()}
    trainee.discard_gradients()
    return found


def largest(values: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(value).max()) for value in values)


def test_the_packed_residual_lies_beside_the_one_that_is_merged(start: Start) -> None:
    names = {path.name for path in start[1].iterdir()}
    assert {"residual.safetensors", "residual_mlx.safetensors"} < names


def test_loss_hits_and_gradients_equal_torch(start: Start) -> None:
    ours, theirs = MLXTrainee.from_adapter(*start, CONFIG), TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    assert ours.n_trainable == theirs.n_trainable
    mine, other = (t.forward_backward(BATCH, sft_loss, BATCH.n_supervised) for t in (ours, theirs))
    assert mine.loss == pytest.approx(other.loss, rel=1e-5)
    assert (mine.n_tokens, mine.n_correct) == (other.n_tokens, other.n_correct)
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    found = gradients(ours)
    assert set(found) == set(expected)
    kind = json.loads((start[0] / "config.json").read_text())["model_type"]
    n_of_kind = {"phi3": 16, "gemma3_text": 84}  # Phi-3 has fused matrices, this Gemma six layers
    assert len(found) == n_of_kind.get(kind, 28)
    scale = largest(list(expected.values()))
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, atol=1e-5 * scale, rtol=0)


def test_exact_computes_on_the_same_values(start: Start) -> None:
    plain, exact = (MLXTrainee.from_adapter(*start, CONFIG, exact=exact) for exact in (False, True))
    assert exact.evaluate(BATCH) == plain.evaluate(BATCH)  # on a CPU both compute in float32


def test_a_folder_from_torch_is_read_too(start: Start, tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json", "residual.safetensors"):
        (tmp_path / name).symlink_to(start[1] / name)
    dense, packed = (MLXTrainee.from_adapter(start[0], folder, CONFIG) for folder in (tmp_path, start[1]))
    assert dense.evaluate(BATCH).loss == pytest.approx(packed.evaluate(BATCH).loss, rel=1e-6)


def test_an_adapter_without_a_residual_belongs_on_the_base(llama: Start, tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).symlink_to(llama[1] / name)
    ours = MLXTrainee.from_adapter(llama[0], tmp_path, CONFIG)
    theirs = TorchTrainee.from_adapter(llama[0], tmp_path, CONFIG, exact=True)
    assert ours.evaluate(BATCH).loss == pytest.approx(theirs.evaluate(BATCH).loss, rel=1e-5)


def test_an_adapter_of_another_base_is_refused(llama: Start, tmp_path: Path) -> None:
    other = make_tiny(tmp_path, hidden=64)
    with pytest.raises(InputError, match=r"adapts model\.layers\.0\.\S+ \[\d+, \d+\], which .* does not have"):
        MLXTrainee.from_adapter(other, llama[1], CONFIG)


def test_hits_count_the_most_likely_tokens(llama: Start) -> None:
    trainee = MLXTrainee.from_adapter(*llama, CONFIG)
    prompt = random_examples(1)[0].ids[:5]
    any_token = collate([TokenizedExample((*prompt, 7), 5)])
    best = int(vocabulary_log_probs(trainee.model, any_token).argmax())
    for token, n_correct in ((best, 1), (best - 1, 0)):
        assert trainee.evaluate(collate([TokenizedExample((*prompt, token), 5)])).n_correct == n_correct


def test_evaluate_says_what_training_says_and_leaves_no_gradients(llama: Start) -> None:
    trainee = MLXTrainee.from_adapter(*llama, CONFIG)
    judged = trainee.evaluate(BATCH)
    assert gradients(trainee) == {}
    assert trainee.forward_backward(BATCH, sft_loss, 1.0).loss == pytest.approx(judged.loss, rel=1e-6)


def test_the_gradient_does_not_depend_on_how_a_step_is_cut(llama: Start) -> None:
    examples = random_examples(4, seed=3)
    trainee = MLXTrainee.from_adapter(*llama, CONFIG)
    n_supervised = sum(e.n_supervised for e in examples)
    made = []
    for size in (4, 2, 1):
        losses = [
            trainee.forward_backward(collate(examples[i : i + size]), sft_loss, n_supervised).loss
            for i in range(0, 4, size)
        ]
        made.append((sum(losses), gradients(trainee)))
    scale = largest(list(made[0][1].values()))
    for loss, found in made[1:]:
        assert loss == pytest.approx(made[0][0], rel=1e-5)
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, made[0][1][name], atol=1e-5 * scale)


def made_and_counted(trainee: MLXTrainee, batch: Batch, keeps: bool) -> tuple[dict[str, np.ndarray], int]:
    """The gradients of `batch`, and the bytes that making them took at the peak."""
    trainee.keeps_activations = lambda _: keeps  # type: ignore[method-assign]
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    trainee.forward_backward(batch, sft_loss, batch.n_supervised)
    return gradients(trainee), mx.get_peak_memory() - before


def test_computing_blocks_again_changes_no_bit(six_blocks: Path) -> None:
    config = tiny_config(init_method="lora")
    trainee, batch = initialise(six_blocks, config, check_batch(16))[0], check_batch(150)
    (kept, most), (again, less) = (made_and_counted(trainee, batch, keeps) for keeps in (True, False))
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    assert less < 0.6 * most


def test_blocks_are_computed_again_where_memory_is_short(llama: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    trainee = MLXTrainee.from_adapter(*llama, CONFIG)
    n, sides = BATCH.n_tokens, {"n_layers": 2, "hidden": 128, "inner": 256, "value_bytes": 4}
    scores = score_bytes(heads=4, n_tokens=n)
    all_kept = kept_bytes(heads=4, n_tokens=n, **sides) + scores
    least = recomputed_bytes(n_tokens=n, **sides) + scores
    for free, keeps in ((2 * all_kept, False), (2 * all_kept + 2, True), (least, False)):
        monkeypatch.setattr(mlx_backend, "free_bytes", lambda free=free: free)
        assert trainee.keeps_activations(BATCH) is keeps
    for setting, free, keeps in (("on", 10 * all_kept, False), ("off", least, True)):
        asked = MLXTrainee.from_adapter(*llama, CONFIG.model_copy(update={"gradient_checkpointing": setting}))
        monkeypatch.setattr(mlx_backend, "free_bytes", lambda free=free: free)
        assert asked.keeps_activations(BATCH) is keeps
    monkeypatch.setattr(mlx_backend, "free_bytes", lambda: least - 1)
    with pytest.raises(MemoryError, match=rf"^{n} tokens need 0\.0 GB, 0\.0 GB are free$"):
        trainee.forward_backward(BATCH, sft_loss, 1.0)
    monkeypatch.undo()
    assert trainee.forward_backward(BATCH, sft_loss, 1.0) == trainee.forward_backward(BATCH, sft_loss, 1.0)


def test_metals_words_for_memory_are_a_memory_error() -> None:
    for words in (
        "[metal::malloc] Attempting to allocate 99 bytes",
        "Command buffer execution failed: Insufficient Memory",
    ):
        with pytest.raises(MemoryError, match=r"allocate|Insufficient"), out_of_memory_told():
            raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_told():
        raise RuntimeError("[matmul] shapes do not fit")


@pytest.fixture(scope="module")
def six_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("six"), hidden=128, inner=512, layers=6)


@pytest.mark.parametrize("keeps", [True, False])
def test_the_memory_formula_is_near_mlx_own_counter(six_blocks: Path, keeps: bool) -> None:
    """What is counted here: activations, scores, logits and gradients of a pass in float32, on a CPU."""
    n, config = 256, tiny_config(micro_batch_size=1, max_seq_len=256, init_method="lora")
    made, batch = initialise(six_blocks, config, check_batch(16))[0], check_batch(n)
    measured = made_and_counted(made, batch, keeps)[1]
    shape = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    parts = mlx_memory_of(shape, config, value_bytes=4)
    if keeps:
        parts["activations"] = kept_bytes(n_layers=6, hidden=128, inner=512, heads=4, n_tokens=n, value_bytes=4)
    expected = parts["activations"] + parts["attention scores"] + parts["logits"] + 4 * made.n_trainable
    assert 0.7 * expected < measured < 1.05 * expected


def test_gradients_are_scaled_down_to_the_norm_and_only_down(llama: Start) -> None:
    trainee = MLXTrainee.from_adapter(*llama, CONFIG)
    for divisor, limit, after in ((0.1, 1.0, 1.0), (1e6, 1.0, None)):
        trainee.forward_backward(BATCH, sft_loss, divisor)
        before = np.sqrt(sum(float(np.square(np.array(g)).sum()) for g in trainee.gradients.values()))
        assert trainee.clip_gradients(limit) == pytest.approx(before, rel=1e-5)
        clipped = np.sqrt(sum(float(np.square(g).sum()) for g in gradients(trainee).values()))
        assert clipped == pytest.approx(after or before, rel=1e-4)


def test_one_step_is_that_of_torch_adamw_on_torch_gradients(start: Start) -> None:
    """The torch backend's own optimizer holds moments in 8 bits; exact AdamW is what MLX is compared with."""
    ours, theirs = MLXTrainee.from_adapter(*start, CONFIG), TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    begin = ours.adapter()
    exact = dict(theirs.named_parameters())
    adamw = torch.optim.AdamW(exact.values(), lr=1e-3, weight_decay=0.0)
    for trainee in (ours, theirs):
        trainee.forward_backward(BATCH, sft_loss, BATCH.n_supervised)
        trainee.clip_gradients(1.0)
    ours.step(1e-3)
    adamw.step()
    moved = sum(float(np.square(p.detach().numpy() - begin[n]).sum()) for n, p in exact.items())
    off = sum(float(np.square(p.detach().numpy() - ours.adapter()[n]).sum()) for n, p in exact.items())
    assert moved > 0
    assert (off / moved) ** 0.5 < 1e-3


def test_many_steps_follow_torch_adamw_with_weight_decay(llama: Start) -> None:
    trainee = MLXTrainee.from_adapter(*llama, tiny_config(weight_decay=0.1))
    exact = {n: torch.nn.Parameter(torch.from_numpy(p)) for n, p in trainee.adapter().items()}
    adamw = torch.optim.AdamW(exact.values(), lr=1e-2, weight_decay=0.1)
    for learning_rate in (1e-2, 3e-3, 1e-3):
        trainee.forward_backward(BATCH, sft_loss, BATCH.n_supervised)
        for name, parameter in exact.items():
            parameter.grad = torch.from_numpy(np.array(trainee.gradients[name]))
        adamw.param_groups[0]["lr"] = learning_rate
        trainee.step(learning_rate)
        adamw.step()
    assert trainee.gradients == {}
    for name, values in trainee.adapter().items():
        np.testing.assert_allclose(values, exact[name].detach().numpy(), atol=1e-6, rtol=1e-4)


def test_stored_state_continues_bit_by_bit(start: Start, tmp_path: Path) -> None:
    batches = [collate(random_examples(3, seed=s)) for s in range(6)]

    def advance(trainee: MLXTrainee, chosen: list[Any]) -> None:
        for batch in chosen:
            trainee.forward_backward(batch, sft_loss, batch.n_supervised)
            trainee.clip_gradients(1.0)
            trainee.step(1e-2)

    straight = MLXTrainee.from_adapter(*start, CONFIG)
    advance(straight, batches[:3])
    straight.save_state(tmp_path)
    resumed = MLXTrainee.from_adapter(*start, CONFIG)
    resumed.load_state(tmp_path)
    (again := tmp_path / "again").mkdir()
    resumed.save_state(again)
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()
    advance(straight, batches[3:])
    advance(resumed, batches[3:])
    for name, values in straight.adapter().items():
        assert np.array_equal(values, resumed.adapter()[name])


def test_memory_is_counted(llama: Start) -> None:
    trainee = MLXTrainee.from_adapter(*llama, CONFIG)
    assert 50_000_000 < trainee.memory_bytes() < trainee.memory_total_bytes()


@pytest.mark.skipif(not mx.metal.is_available(), reason="no Apple GPU here: MLX has only the CPU")
def test_on_an_apple_gpu_a_step_in_bfloat16_is_close_to_float32(llama: Start) -> None:
    losses = []
    for device in (mx.cpu, mx.gpu):
        mx.set_default_device(device)
        try:
            trainee = MLXTrainee.from_adapter(*llama, CONFIG)
            trainee.forward_backward(BATCH, sft_loss, BATCH.n_supervised)
            trainee.step(1e-3)
            losses.append(trainee.evaluate(BATCH).mean_loss)
        finally:
            mx.set_default_device(mx.cpu)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
