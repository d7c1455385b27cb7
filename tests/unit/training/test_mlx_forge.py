"""A whole training on MLX: the adapter is PEFT's, the merged model is the adapter model, a cut-off run ends the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

mx = pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'ai-forge[mlx]'")

from ai_forge.events import CheckpointSaved, Event  # noqa: E402
from ai_forge.model_files.base import Base  # noqa: E402
from ai_forge.model_files.merge import merge_adapters_to_base  # noqa: E402
from ai_forge.training.backends.mlx_backend import MLXTrainee  # noqa: E402
from ai_forge.training.backends.mlx_model import vocabulary_log_probs  # noqa: E402
from ai_forge.training.bases.resolve import resolve_base  # noqa: E402
from ai_forge.training.forge import FineTuneTrainer  # noqa: E402
from ai_forge.training.record import TrainingResult  # noqa: E402
from ai_forge.workspace import Workspace  # noqa: E402
from cli_runs import ai_forge, flags, stdlib_copy, tiny_base  # noqa: E402
from tiny_models import make_tiny  # noqa: E402
from tiny_training import check_batch, raft_examples, reference_model, tiny_config  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's call
CONFIG = tiny_config(learning_rate=3e-3, backend="mlx")


class ProcessEndedError(Exception):
    """Stands for the end of the process."""


class Trained:
    """A finished tiny training, and the means for another of the same."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace.open(root / "home")
        folder = make_tiny(root / "base")
        self.base: Base = resolve_base(str(folder), cache_dir=self.workspace.cache_dir)
        self.result = self.train(root / "work")

    def train(self, folder: Path, stop_after: int | None = None) -> TrainingResult:
        def sink(event: Event) -> None:
            if isinstance(event, CheckpointSaved) and event.step == stop_after:
                raise ProcessEndedError

        folder.mkdir(exist_ok=True)
        trainer = FineTuneTrainer(CONFIG, base=self.base, folder=folder, workspace=self.workspace, emit=sink)
        return trainer.train(raft_examples(8), raft_examples(3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("mlx"))


def ours(trained: Trained) -> torch.Tensor:
    trainee = MLXTrainee.from_adapter(trained.base.folder, trained.result.folder, CONFIG, exact=True)
    return torch.from_numpy(np.array(vocabulary_log_probs(trainee.model, check_batch())))


def plain_log_probs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.from_numpy(check_batch().input_ids)[None]).logits[0]
    return logits.log_softmax(-1)[:-1]


def test_training_lowers_the_held_out_loss_and_says_what_trained(trained: Trained) -> None:
    assert trained.result.n_steps == 6
    assert trained.result.last_loss < 0.9 * trained.result.first_loss
    record = json.loads((trained.result.folder / "training.json").read_text())
    assert record["backend"] == "mlx"
    assert record["initialisation"]["init_method"] == "QPiSSA"
    assert record["initialisation"]["quantization"] == "MLX 4-bit groups of 64"
    assert {p.name for p in trained.result.folder.glob("residual*")} == {
        "residual.safetensors",
        "residual_mlx.safetensors",
    }


def test_peft_loads_the_adapter_and_says_the_same(trained: Trained) -> None:
    model = reference_model(trained.base.folder)
    model.load_state_dict(load_file(trained.result.folder / "residual.safetensors"), strict=False)
    residual = plain_log_probs(model)
    adapted = plain_log_probs(PeftModel.from_pretrained(model, trained.result.folder))
    torch.testing.assert_close(adapted, ours(trained), atol=1e-4, rtol=0)
    assert float((adapted - residual).abs().max()) > 1  # the adapter matters


def test_the_merged_model_is_the_adapter_model(trained: Trained, tmp_path: Path) -> None:
    merged = merge_adapters_to_base(trained.base, trained.result.folder, tmp_path / "merged")
    difference = (plain_log_probs(reference_model(merged)) - ours(trained)).abs()
    assert float(difference.mean()) < 1e-3  # float16 rounding of the weights
    wrong = plain_log_probs(reference_model(trained.base.folder)) - ours(trained)
    assert float(wrong.abs().mean()) > 0.1


@pytest.mark.parametrize("step", [0, 4])
def test_a_run_that_was_cut_off_ends_byte_by_byte_the_same(trained: Trained, tmp_path: Path, step: int) -> None:
    with pytest.raises(ProcessEndedError):
        trained.train(tmp_path, stop_after=step)
    (tmp_path / "schedule.json").write_bytes((trained.result.folder / "schedule.json").read_bytes())
    resumed = trained.train(tmp_path)
    assert resumed.best_step == trained.result.best_step
    name = "adapter_model.safetensors"
    assert (resumed.folder / name).read_bytes() == (trained.result.folder / name).read_bytes()


def test_the_other_backend_starts_anew(trained: Trained, tmp_path: Path) -> None:
    keys = {
        FineTuneTrainer(
            CONFIG.model_copy(update={"backend": backend}), base=trained.base, folder=tmp_path, workspace=trained.workspace
        ).initialisation_key
        for backend in ("mlx", "torch")
    }  # fmt: skip
    assert len(keys) == 2


@pytest.mark.slow
def test_a_whole_run_trains_judges_exports_and_deploys_with_it(tmp_path: Path) -> None:
    repo, base = stdlib_copy(tmp_path / "repo"), tiny_base(tmp_path / "base")
    words = ["run", str(repo), "--base", str(base), "--home", str(tmp_path / "home")]
    done = ai_forge(*words, *flags(training__backend="mlx"), "--json")
    assert done.code == 0, done.err
    (run,) = (tmp_path / "home" / "runs").iterdir()
    assert json.loads((run / "adapter" / "training.json").read_text())["backend"] == "mlx"
    assert (run / "adapter" / "residual_mlx.safetensors").exists()
    assert (run / "report.html").exists()
