"""Loss and gradients against transformers with PEFT; the optimizer's state survives storing bit by bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ai_forge.errors import InputError
from ai_forge.model_files.adapter import AdapterFolder
from ai_forge.training.backends.torch_backend import TorchTrainee, flatten, packed_weight, unflatten
from ai_forge.training.backends.torch_layers import FrozenWeight
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.losses import sft_loss
from ai_forge.training.tokens.packing import IGNORE, TokenizedExample, collate
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import random_examples, reference_model, tiny_config

CONFIG = tiny_config(rank=32, target_modules=("all-linear",))  # 4096 elements and more: moments in 8 bits
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's call


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text"])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(base folder, folder with a fresh QPiSSA adapter and its residual)."""
    root = tmp_path_factory.mktemp(request.param)
    folder = make_tiny(root / "base", request.param, hidden=128, inner=256, window=12)
    workspace = Workspace.open(root / "home")
    base = resolve_base(str(folder), cache_dir=workspace.cache_dir)
    trainer = FineTuneTrainer(CONFIG, base=base, folder=root / "work", workspace=workspace)
    trainer.compute_pissa_init()
    return folder, workspace.stage_folder("initialise", trainer.initialisation_key)


def peft_model(start: tuple[Path, Path]) -> Any:
    """Plain transformers on the residual, with our adapter loaded by PEFT."""
    folder, adapter = start
    model = reference_model(folder)
    missing = model.load_state_dict(load_file(adapter / "residual.safetensors"), strict=False)
    assert not missing.unexpected_keys
    return PeftModel.from_pretrained(model, adapter, is_trainable=True)


def test_a_packed_residual_that_is_not_the_residual_is_refused(start: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(start[1], tmp_path / "adapter")
    residual = load_file(tmp_path / "adapter" / "residual.safetensors")
    name = "model.layers.0.self_attn.o_proj"
    right, other = (
        FrozenWeight(residual[f"{name}.weight"].float() * scale, torch.float32, 64, packed=True) for scale in (1, 1.1)
    )
    save_file({f"{name}.weight": right.dense().bfloat16()}, tmp_path / "adapter" / "residual.safetensors")
    adapter, told = AdapterFolder(tmp_path / "adapter"), (torch.float32, torch.device("cpu"))
    assert torch.equal(packed_weight(adapter, name, right.packed(), *told).dense(), right.dense())
    for layer, parts in ((name, other.packed()), (name.replace(".0.", ".1."), right.packed()), (name, {})):
        with pytest.raises(InputError, match=r"residual_nf4\.safetensors does not fit residual\.safetensors"):
            packed_weight(adapter, layer, parts, *told)


def padded(examples: list[TokenizedExample]) -> dict[str, torch.Tensor]:
    width = max(len(e.ids) for e in examples)
    rows = [list(e.ids) + [0] * (width - len(e.ids)) for e in examples]
    labels = [[IGNORE] * e.n_prompt + list(e.ids[e.n_prompt :]) + [IGNORE] * (width - len(e.ids)) for e in examples]
    mask = [[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in examples]
    return {
        "input_ids": torch.tensor(rows),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }


def gradients(trainee: TorchTrainee) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in trainee.named_parameters() if p.grad is not None}
    trainee.discard_gradients()
    return found


def test_loss_and_gradients_equal_transformers_with_peft(start: tuple[Path, Path]) -> None:
    examples = random_examples(5)
    trainee = TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    batch = collate(examples)
    sums = trainee.forward_backward(batch, sft_loss, batch.n_supervised)
    ours = gradients(trainee)

    reference = peft_model(start)
    loss = reference(**padded(examples)).loss
    loss.backward()
    theirs = {n.replace(".default", ""): p.grad for n, p in reference.named_parameters() if p.requires_grad}

    assert sums.n_tokens == sum(e.n_supervised for e in examples)
    assert sums.mean_loss == pytest.approx(float(loss.detach()), abs=1e-4)
    assert set(ours) == set(theirs)
    assert len(ours) == (16 if "phi3" in str(start[0]) else 28)
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5 * largest + 1e-6, rtol=1e-3)


def test_accuracy_counts_the_most_likely_tokens(start: tuple[Path, Path]) -> None:
    examples = random_examples(5)
    trainee = TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    with torch.no_grad():
        logits = peft_model(start)(**padded(examples)).logits
    best = logits.argmax(-1)[:, :-1]
    labels = padded(examples)["labels"][:, 1:]
    assert trainee.evaluate(collate(examples)).n_correct == int((best == labels).sum())
    # and one that is certainly right: the model's own most likely continuation
    row = next(i for i, e in enumerate(examples) if len(e.ids) > 4)
    prompt = examples[row].ids[:4]
    right = TokenizedExample((*prompt, int(best[row, 3])), 4)
    assert trainee.evaluate(collate([right])).accuracy == 1.0


def test_the_gradient_does_not_depend_on_how_a_step_is_cut(start: tuple[Path, Path]) -> None:
    examples = random_examples(4, seed=3)
    trainee = TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    n_supervised = sum(e.n_supervised for e in examples)
    made = []
    for size in (4, 2, 1):
        losses = [
            trainee.forward_backward(collate(examples[i : i + size]), sft_loss, n_supervised).loss
            for i in range(0, 4, size)
        ]
        made.append((sum(losses), gradients(trainee)))
    for loss, grads in made[1:]:
        assert loss == pytest.approx(made[0][0], rel=1e-5)
        for name, gradient in grads.items():
            torch.testing.assert_close(gradient, made[0][1][name], atol=1e-5, rtol=1e-3)


def test_evaluate_says_what_training_says_and_leaves_no_gradients(start: tuple[Path, Path]) -> None:
    trainee = TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    batch = collate(random_examples(3))
    judged = trainee.evaluate(batch)
    assert gradients(trainee) == {}
    assert trainee.forward_backward(batch, sft_loss, 1.0).loss == pytest.approx(judged.loss, rel=1e-6)


def test_gradients_are_scaled_down_to_the_norm(start: tuple[Path, Path]) -> None:
    trainee = TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    trainee.forward_backward(collate(random_examples(3)), sft_loss, 0.1)
    grads = [p.grad for _, p in trainee.named_parameters() if p.grad is not None]
    before = float(torch.stack([g.norm() for g in grads]).norm())
    assert before > 1
    assert trainee.clip_gradients(1.0) == pytest.approx(before, rel=1e-5)
    assert float(torch.stack([g.norm() for g in grads]).norm()) == pytest.approx(1.0, rel=1e-4)


def test_steps_follow_torch_adamw(start: tuple[Path, Path]) -> None:
    """bitsandbytes keeps the moments in 8 bits (block 256): the path stays within a few per cent of exact AdamW's."""
    trainee = TorchTrainee.from_adapter(*start, CONFIG, exact=True)
    begin = {n: p.detach().clone() for n, p in trainee.named_parameters()}
    exact = {n: torch.nn.Parameter(p.detach().clone()) for n, p in trainee.named_parameters()}
    adamw = torch.optim.AdamW(exact.values(), lr=1e-3, weight_decay=0.0)
    batch = collate(random_examples(4))
    for _ in range(5):
        trainee.forward_backward(batch, sft_loss, batch.n_supervised)
        for name, parameter in trainee.named_parameters():
            exact[name].grad = None if parameter.grad is None else parameter.grad.clone()
        trainee.step(1e-3)
        adamw.step()
    with torch.no_grad():
        moved = sum(float((p - begin[n]).square().sum()) for n, p in exact.items())
        off = sum(float((p - exact[n]).square().sum()) for n, p in trainee.named_parameters())
    assert moved > 0
    assert (off / moved) ** 0.5 < 0.05


def test_stored_state_continues_bit_by_bit(start: tuple[Path, Path], tmp_path: Path) -> None:
    batches = [collate(random_examples(3, seed=s)) for s in range(6)]

    def advance(trainee: TorchTrainee, chosen: list[Any]) -> None:
        for batch in chosen:
            trainee.forward_backward(batch, sft_loss, batch.n_supervised)
            trainee.clip_gradients(1.0)
            trainee.step(1e-2)

    straight = TorchTrainee.from_adapter(*start, CONFIG)
    advance(straight, batches[:3])
    straight.save_state(tmp_path)
    resumed = TorchTrainee.from_adapter(*start, CONFIG)
    resumed.load_state(tmp_path)
    (again := tmp_path / "again").mkdir()
    resumed.save_state(again)
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()
    with safe_open(tmp_path / "optimizer.safetensors", framework="pt") as file:
        assert any(file.get_tensor(key).dtype == torch.uint8 for key in file.keys())  # noqa: SIM118  8-bit moments

    advance(straight, batches[3:])
    advance(resumed, batches[3:])
    for name, values in straight.adapter().items():
        assert np.array_equal(values, resumed.adapter()[name])


def test_a_state_without_steps_can_be_stored_too(start: tuple[Path, Path], tmp_path: Path) -> None:
    trainee = TorchTrainee.from_adapter(*start, CONFIG)
    trainee.save_state(tmp_path)
    TorchTrainee.from_adapter(*start, CONFIG).load_state(tmp_path)


def test_the_adapter_is_read_from_sharded_weights_too(start: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from ai_forge.training.backends.torch_backend import full_precision_weights

    whole = load_file(start[0] / "model.safetensors")
    shutil.copy(start[0] / "config.json", tmp_path)
    names = sorted(whole)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, chosen in parts.items():
        save_file({n: whole[n] for n in chosen}, tmp_path / part)
    index = {"weight_map": {n: part for part, chosen in parts.items() for n in chosen}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = full_precision_weights(tmp_path)
    for name in names:
        assert torch.equal(read(name), whole[name].float())


def test_nested_state_survives_flattening() -> None:
    tree = {"0": {"step": 3, "moments": {"qmap": 1, "state": 2}}, "1": {"step": 4}}
    assert unflatten(dict(flatten(tree))) == tree
