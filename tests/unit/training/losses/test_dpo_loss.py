"""Our preference losses and their gradients are TRL's; the reference is the model before the phase."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from test_convert import trained
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

from ai_forge.model_files.adapter import AdapterFolder
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.losses import PreferenceObjective, TokenizedPair, with_reference
from ai_forge.training.losses.dpo_loss import pair_loss
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.tokens.packing import TokenizedExample, collate
from tiny_models import make_tiny
from tiny_training import check_batch, random_examples, reference_log_probs, reference_model, tiny_config

BETA = 0.3
LOSSES = ["sigmoid", "sigmoid_norm", "ipo"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"))


def pairs(n: int, seed: int = 0) -> list[TokenizedPair]:
    """Two random answers of different length to each random prompt."""
    made = []
    for index, (one, other) in enumerate(zip(random_examples(n, seed), random_examples(n, seed + 100), strict=True)):
        prompt = one.ids[: one.n_prompt]
        rejected = TokenizedExample((*prompt, *other.ids[other.n_prompt :]), len(prompt), f"pair {index}")
        made.append(TokenizedPair(TokenizedExample(one.ids, one.n_prompt, f"pair {index}"), rejected))
    return made


def trl_inputs(items: list[TokenizedPair]) -> list[dict[str, list[int]]]:
    return [
        {
            "prompt_ids": list(pair.chosen.ids[: pair.chosen.n_prompt]),
            "chosen_ids": list(pair.chosen.ids[pair.chosen.n_prompt :]),
            "rejected_ids": list(pair.rejected.ids[pair.rejected.n_prompt :]),
        }
        for pair in items
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # TRL's
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_gradients_are_trls(base: Path, tmp_path: Path, kind: Any) -> None:
    items = pairs(4)
    config = tiny_config(init_method="lora", quantization="none")
    start, _ = initialise(base, config, check_batch(), exact=True)
    items = with_reference(start, items)  # B is zero: the base
    trained(base, tmp_path / "trained", config)
    trainee = TorchTrainee.from_adapter(base, tmp_path / "trained", config, exact=True)
    sums, _ = MicroBatches(2, print).forward_backward(trainee, PreferenceObjective(kind, BETA), items)

    model = PeftModel.from_pretrained(reference_model(base), tmp_path / "trained", is_trainable=True)
    arguments = DPOConfig(
        str(tmp_path / "trl"), loss_type=[kind], beta=BETA, use_cpu=True, bf16=False, report_to=[], max_length=None
    )
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    trainer = DPOTrainer(
        model,
        ref_model=reference_model(base),
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(base),
        train_dataset=Dataset.from_list([row]),
    )
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(trl_inputs(items)))
    loss.backward()
    assert sums.loss / len(items) == pytest.approx(float(loss.detach()), rel=1e-5)
    theirs = {n: p.grad for n, p in trainer.model.named_parameters() if p.requires_grad and p.grad is not None}
    ours = {name.replace(".weight", ".default.weight"): p.grad for name, p in trainee.named_parameters()}
    assert set(ours) == set(theirs)
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5 * largest, rtol=1e-3)


@pytest.mark.parametrize("kind", LOSSES)
def test_evaluation_is_the_loss_that_is_trained(base: Path, tmp_path: Path, kind: Any) -> None:
    config = tiny_config()
    objective = PreferenceObjective(kind, BETA)
    items = with_reference(initialise(base, config, check_batch(), exact=True)[0], pairs(5))
    trainee = trained(base, tmp_path / "trained", config)
    told = objective.evaluate(trainee, items)
    sums, _ = MicroBatches(2, print).forward_backward(trainee, objective, items)
    assert told.loss == pytest.approx(sums.loss, rel=1e-4)
    assert told.n_tokens == 5
    assert 0 <= told.n_correct <= 5


def test_the_reference_is_the_trained_model_not_the_residual(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "trained", tiny_config(quantization="none"))
    trainee = TorchTrainee.from_adapter(base, tmp_path / "trained", tiny_config(), exact=True)
    (pair,) = with_reference(trainee, pairs(1))
    merged, residual = reference_model(base), reference_model(base)
    adapter = AdapterFolder(tmp_path / "trained")
    for layer in adapter.layers:
        a, b = adapter.pair(layer)
        frozen = adapter.frozen(layer)
        assert frozen is not None
        residual.get_submodule(layer).weight.data = torch.from_numpy(frozen)
        merged.get_submodule(layer).weight.data = torch.from_numpy(frozen + adapter.scaling(layer) * (b @ a))
    for value, side in ((pair.reference_chosen, pair.chosen), (pair.reference_rejected, pair.rejected)):
        assert value == pytest.approx(float(reference_log_probs(merged, side).sum()), abs=1e-3)
        assert abs(value - float(reference_log_probs(residual, side).sum())) > 1


@pytest.mark.parametrize("kind", LOSSES)
def test_training_prefers_the_chosen_answers(base: Path, kind: Any) -> None:
    trainee, _ = initialise(base, tiny_config(), check_batch(), exact=True)
    objective, items = PreferenceObjective(kind, BETA), with_reference(trainee, pairs(4))
    before = objective.evaluate(trainee, items)
    assert before.mean_loss == pytest.approx(pair_loss(0.0, kind, BETA), rel=1e-3)
    for _ in range(6):
        MicroBatches(4, print).forward_backward(trainee, objective, items)
        trainee.step(3e-3)
    after = objective.evaluate(trainee, items)
    assert after.mean_loss < before.mean_loss
    assert after.accuracy == 1


def test_a_pair_lies_side_by_side_so_that_its_prompt_is_read_once() -> None:
    prompt = tuple(range(3, 103))
    pair = TokenizedPair(TokenizedExample((*prompt, 7), 100), TokenizedExample((*prompt, 8, 9), 100))
    batch = collate(PreferenceObjective("sigmoid", BETA).examples([pair]))
    assert batch.n_tokens < 2 * len(prompt)
    assert batch.n_supervised == 3


@pytest.mark.parametrize("difference", [-800.0, -3.0, 0.0, 3.0, 800.0])
def test_the_loss_of_a_float_is_that_of_a_tensor_and_finite(difference: float) -> None:
    value = torch.tensor(difference, dtype=torch.float64, requires_grad=True)
    loss = pair_loss(value, "sigmoid", 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(pair_loss(difference, "sigmoid", 1.0))
    expected = torch.nn.functional.softplus(torch.tensor(-difference, dtype=torch.float64))
    assert float(loss.detach()) == pytest.approx(float(expected))
    assert value.grad is not None
    assert float(value.grad) == pytest.approx(-1 / (1 + math.exp(min(difference, 700.0))))
