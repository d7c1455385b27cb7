"""The torch backend on a GPU: packed NF4, 8-bit AdamW, resuming, answers. `pytest -m gpu` where there is one."""

from pathlib import Path

import pytest
import torch

from ai_forge.config import ALL_LINEAR_MODULES
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.training.backends.torch_backend import PACKED_RESIDUAL, TorchTrainee
from ai_forge.training.backends.torch_layers import FrozenWeight
from ai_forge.training.backends.torch_model import TorchGenerator, load_model
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.losses import sft_loss
from ai_forge.training.tokens.packing import collate
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import raft_examples, random_examples, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
END = 2


def test_packed_weights_are_the_values_that_a_cpu_holds_dense() -> None:
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    packed = FrozenWeight(weight.cuda(), torch.bfloat16, 64, packed=True)
    dense = FrozenWeight(weight, torch.bfloat16, 64, packed=False)
    assert packed.packed()
    distance = (packed.dense().cpu().float() - dense.dense().float()).abs().max()
    assert float(distance) <= 2**-7 * float(weight.abs().max())
    held = sum(tensor.numel() * tensor.element_size() for tensor in packed.packed().values())
    assert held < 0.3 * weight.numel() * 2  # a quarter of bf16's bytes and the scales


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[FineTuneTrainer, float, float]:
    root = tmp_path_factory.mktemp("cuda")
    workspace = Workspace.open(root / "home")
    base = resolve_base(str(make_tiny(root / "base", hidden=256, inner=512)), cache_dir=workspace.cache_dir)
    config = tiny_config(learning_rate=3e-3, max_steps=12)
    trainer = FineTuneTrainer(config, base=base, folder=root / "work", workspace=workspace)
    trainer.folder.mkdir()
    result = trainer.train(raft_examples(8), raft_examples(3))
    return trainer, result.first_loss, result.last_loss


def test_qpissa_learns_and_leaves_its_packed_residual(trained: tuple[FineTuneTrainer, float, float]) -> None:
    trainer, first, last = trained
    assert last < 0.9 * first
    assert (trainer.folder / PACKED_RESIDUAL).is_file()


def test_what_was_trained_is_what_is_merged(trained: tuple[FineTuneTrainer, float, float], tmp_path: Path) -> None:
    trainer, *_ = trained
    merged = merge_adapters_to_base(trainer.base, trainer.folder, tmp_path / "merged")
    batch = collate(random_examples(3, seed=5))
    tuned = TorchTrainee.from_adapter(trainer.base.folder, trainer.folder, trainer.config)
    ours = tuned.evaluate(batch).mean_loss
    assert TorchGenerator.load(merged, END).log_probs(batch).mean() == pytest.approx(-ours, rel=2e-2)


def test_a_state_that_is_loaded_continues_bit_by_bit(
    trained: tuple[FineTuneTrainer, float, float], tmp_path: Path
) -> None:
    trainer, *_ = trained
    batch = collate(random_examples(2, seed=3))

    def step(trainee: TorchTrainee) -> None:
        trainee.forward_backward(batch, sft_loss, batch.n_supervised)
        trainee.step(1e-3)

    trainee = TorchTrainee.from_adapter(trainer.base.folder, trainer.folder, trainer.config)
    step(trainee)
    tmp_path.joinpath("state").mkdir()
    trainee.save_state(tmp_path / "state")
    step(trainee)
    other = TorchTrainee.from_adapter(trainer.base.folder, trainer.folder, trainer.config)
    step(other)
    other.load_state(tmp_path / "state")
    step(other)
    for (name, value), (_, again) in zip(trainee.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(value, again, rtol=1e-5, atol=1e-7, msg=name)


def test_attention_within_segments_equals_separate_examples(tmp_path: Path) -> None:
    model = load_model(make_tiny(tmp_path / "m"), device=torch.device("cuda"), dtype=torch.float32)
    generator = TorchGenerator(model, END)
    examples = random_examples(4, seed=8)
    together = generator.log_probs(collate(examples))
    apart = [generator.log_probs(collate([example])) for example in examples]
    torch.testing.assert_close(
        torch.from_numpy(together), torch.cat([torch.from_numpy(p) for p in apart]), rtol=1e-4, atol=1e-4
    )


def test_answers_on_a_gpu_are_those_of_a_cpu(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", "qwen2", pre="qwen2")
    prompts = [example.ids for example in random_examples(4, seed=2)]
    on_gpu = TorchGenerator.load(folder, END, exact=True).generate(prompts, 10)
    on_cpu = TorchGenerator(load_model(folder, device=torch.device("cpu"), dtype=torch.float32), END)
    assert on_gpu == on_cpu.generate(prompts, 10)


def test_every_linear_layer_is_adapted(trained: tuple[FineTuneTrainer, float, float]) -> None:
    trainer, *_ = trained
    tuned = TorchTrainee.from_adapter(trainer.base.folder, trainer.folder, trainer.config)
    assert len(tuned.layers) == 2 * len(ALL_LINEAR_MODULES)
    assert all(p.device.type == "cuda" for p in tuned.parameters)


def test_too_many_prompts_at_a_time_are_a_memory_error(tmp_path: Path) -> None:
    generator = TorchGenerator.load(make_tiny(tmp_path / "base", hidden=256, inner=512), END)
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with pytest.raises(MemoryError):
            generator.sample([[5] * 2000] * 4000, 8, temperature=1.0, top_p=0.9, seed=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert len(generator.sample([[5] * 20] * 4, 8, temperature=1.0, top_p=0.9, seed=0)) == 4
