"""A base and examples in, an adapter out that PEFT loads and that merges to the same model."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ai_forge.cancel import CancelToken
from ai_forge.errors import CancelledError, InputError
from ai_forge.events import AdapterInitialised, Event, Notice, PlanMade, StageProgress, StepLogged
from ai_forge.model_files.base import Base
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_model import vocabulary_log_probs
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.record import TrainingResult
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import check_batch, raft_examples, reference_model, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's call
CONFIG = tiny_config(learning_rate=3e-3)


class Trained:
    """A finished tiny training."""

    def __init__(self, root: Path, architecture: str) -> None:
        self.workspace = Workspace.open(root / "home")
        folder = make_tiny(root / "base", architecture, hidden=128, inner=256)
        self.base: Base = resolve_base(str(folder), cache_dir=self.workspace.cache_dir)
        self.events: list[Event] = []
        self.trainer = FineTuneTrainer(
            CONFIG, base=self.base, folder=root / "work", workspace=self.workspace, emit=self.events.append
        )
        self.trainer.folder.mkdir()
        self.result: TrainingResult = self.trainer.train(raft_examples(8), raft_examples(3))


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp(request.param), request.param)


def test_training_lowers_the_held_out_loss_and_says_what_it_did(trained: Trained) -> None:
    assert trained.result.n_steps == 6
    assert trained.result.last_loss < 0.9 * trained.result.first_loss
    kinds = [type(event) for event in trained.events]
    assert kinds.index(AdapterInitialised) < kinds.index(PlanMade) < kinds.index(StepLogged)
    record = json.loads((trained.result.folder / "training.json").read_text())
    assert record["best_step"] == trained.result.best_step
    assert record["initialisation"]["init_method"] == "QPiSSA"
    assert record["config"]["rank"] == 8
    assert {p.name for p in trained.result.folder.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "initial_adapter.safetensors",
        "residual.safetensors",
        "training.json",
        "schedule.json",
        "loss.png",
    }


def ours(trained: Trained) -> torch.Tensor:
    trainee = TorchTrainee.from_adapter(trained.base.folder, trained.result.folder, CONFIG, exact=True)
    return vocabulary_log_probs(trainee.model, check_batch())


def plain_log_probs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.from_numpy(check_batch().input_ids)[None]).logits[0]
    return logits.log_softmax(-1)[:-1]


def test_peft_loads_the_adapter_and_says_the_same(trained: Trained) -> None:
    model = reference_model(trained.base.folder)
    model.load_state_dict(load_file(trained.result.folder / "residual.safetensors"), strict=False)
    residual = plain_log_probs(model)
    adapted = plain_log_probs(PeftModel.from_pretrained(model, trained.result.folder))
    torch.testing.assert_close(adapted, ours(trained), atol=1e-4, rtol=0)
    assert float((adapted - residual).abs().max()) > 1  # the adapter matters


def test_the_merged_model_is_the_adapter_model(trained: Trained, tmp_path: Path) -> None:
    merged = merge_adapters_to_base(trained.base, trained.result.folder, tmp_path / "merged")
    torch.testing.assert_close(plain_log_probs(reference_model(merged)), ours(trained), atol=1e-2, rtol=1e-3)
    difference = (plain_log_probs(reference_model(merged)) - ours(trained)).abs()
    assert float(difference.mean()) < 1e-3  # float16 rounding of the weights
    wrong = plain_log_probs(reference_model(trained.base.folder)) - ours(trained)
    assert float(wrong.abs().mean()) > 0.1


def test_the_initialisation_is_cached(trained: Trained) -> None:
    folder = trained.workspace.stage_folder("initialise", trained.trainer.initialisation_key)
    before = (folder / "residual.safetensors").stat().st_mtime_ns
    again = FineTuneTrainer(CONFIG, base=trained.base, folder=trained.trainer.folder, workspace=trained.workspace)
    assert again.compute_pissa_init() == next(e for e in trained.events if isinstance(e, AdapterInitialised))
    assert (folder / "residual.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"learning_rate": 1e-5}, True),
        ({"max_steps": 3}, True),
        ({"rank": 4}, False),
        ({"alpha": 8.0}, False),
        ({"quantization": "none"}, False),
        ({"seed": 1}, False),
    ],
)
def test_only_what_shapes_the_start_changes_its_key(trained: Trained, change: dict[str, object], same: bool) -> None:
    other = FineTuneTrainer(
        CONFIG.model_copy(update=change), base=trained.base, folder=trained.trainer.folder, workspace=trained.workspace
    )
    assert (other.initialisation_key == trained.trainer.initialisation_key) is same


def test_a_plan_trains_nothing(trained: Trained, tmp_path: Path) -> None:
    trainer = FineTuneTrainer(CONFIG, base=trained.base, folder=tmp_path / "none", workspace=trained.workspace)
    plan = trainer.plan(raft_examples(8), raft_examples(3))
    assert plan.n_steps == 6
    assert plan.train_examples == 8
    assert plan.train_tokens > plan.supervised_tokens > 0
    assert plan.tokens_per_s > 0
    assert not (tmp_path / "none").exists()


def test_examples_that_do_not_fit_are_told_or_refused(trained: Trained, tmp_path: Path) -> None:
    lengths = sorted(len(trained.trainer.tokenizer.encode(e.target)) for e in raft_examples(8))
    assert lengths
    config = CONFIG.model_copy(update={"max_seq_len": 64})
    heard: list[Event] = []
    trainer = FineTuneTrainer(
        config, base=trained.base, folder=tmp_path, workspace=trained.workspace, emit=heard.append
    )
    with pytest.raises(InputError) as caught:
        trainer.train(raft_examples(8), raft_examples(3))
    assert caught.value.message == (
        "0 training and 0 held-out examples fit into 64 tokens (8 are longer); at least one of each is needed."
    )


def test_cancelling_while_weights_are_decomposed_leaves_nothing_half_made(trained: Trained, tmp_path: Path) -> None:
    cancel, workspace = CancelToken(), Workspace.open(tmp_path / "home")

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and event.note == "decomposing" and event.done == 3:
            cancel.cancel()

    def trainer(**more: Any) -> FineTuneTrainer:
        return FineTuneTrainer(CONFIG, base=trained.base, folder=tmp_path, workspace=workspace, **more)

    with pytest.raises(CancelledError, match=r"^Cancelled; what was done is kept\. Next: run the same command again"):
        trainer(emit=listen, cancel=cancel).train(raft_examples(8), raft_examples(3))
    assert workspace.finished("initialise", trainer().initialisation_key) is None
    assert not list(workspace.cache_dir.rglob(".*"))
    assert trainer().compute_pissa_init().n_matrices > 3


def test_two_runs_on_one_base_make_the_start_of_the_adapter_one_after_the_other(
    trained: Trained, tmp_path: Path
) -> None:
    cancel = CancelToken()
    config = trained.trainer.config.model_copy(update={"seed": 77})
    trainer = FineTuneTrainer(
        config, base=trained.trainer.base, folder=tmp_path, workspace=trained.trainer.workspace, cancel=cancel
    )
    cancel.cancel()
    with trainer.workspace.lock(f"initialise-{trainer.initialisation_key}"), pytest.raises(CancelledError):
        trainer.compute_pissa_init()  # it waits for the other one, and hears that it is to stop
    assert trainer.workspace.finished("initialise", trainer.initialisation_key) is None


def test_an_adapter_is_continued_whatever_layers_the_settings_name(tmp_path: Path) -> None:
    """Phi-3 has no q_proj."""
    workspace = Workspace.open(tmp_path / "home")
    base = resolve_base(str(make_tiny(tmp_path / "base", "phi3")), cache_dir=workspace.cache_dir)
    settings = {"learning_rate": 3e-3, "max_steps": 1, "eval_steps": 1}
    fused = tiny_config(target_modules=("qkv_proj",), **settings)
    first = FineTuneTrainer(fused, base=base, folder=tmp_path / "first", workspace=workspace)
    result = first.train(raft_examples(4), raft_examples(2))
    named = tiny_config(target_modules=("q_proj",), **settings)
    again = FineTuneTrainer(named, base=base, folder=tmp_path / "again", workspace=workspace, adapter=result.folder)
    assert again.train(raft_examples(4), raft_examples(2)).n_steps == 1
    with pytest.raises(InputError, match="target_modules names q_proj, which this base does not have"):
        FineTuneTrainer(named, base=base, folder=tmp_path / "fresh", workspace=workspace)


@pytest.mark.parametrize(("context", "asked", "kept"), [(2047, 2048, 2047), (2047, 512, 512), (0, 2048, 2048)])
def test_examples_are_no_longer_than_the_base_s_context(
    trained: Trained, tmp_path: Path, context: int, asked: int, kept: int
) -> None:
    """Phi-3's window ends after 2,047 tokens; 0 is a base that does not say."""
    base = dataclasses.replace(trained.base, context_length=context)
    config = CONFIG.model_copy(update={"max_seq_len": asked})
    for setting in ("auto", "off"):
        asked_for = config.model_copy(update={"gradient_checkpointing": setting})
        trainer = FineTuneTrainer(asked_for, base=base, folder=tmp_path, workspace=trained.workspace)
        assert trainer.config.max_seq_len == kept


def test_long_examples_among_others_are_left_out_with_a_warning(trained: Trained, tmp_path: Path) -> None:
    examples = raft_examples(8)
    long = examples[0].model_copy(update={"final_answer": examples[0].final_answer * 60})
    heard: list[Event] = []
    trainer = FineTuneTrainer(
        CONFIG.model_copy(update={"max_steps": 1}),
        base=trained.base,
        folder=tmp_path,
        workspace=trained.workspace,
        emit=heard.append,
    )
    result = trainer.train([long, *examples[1:]], examples[:2])
    assert result.n_too_long == 1
    assert Notice("warning", "1 training examples are longer than 512 tokens and left out.") in heard


def test_epochs_may_be_given_to_train(trained: Trained, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_steps": None})
    trainer = FineTuneTrainer(config, base=trained.base, folder=tmp_path, workspace=trained.workspace)
    assert trainer.train(raft_examples(4), raft_examples(2), num_epochs=1).n_steps == 2


def test_replayed_code_is_the_asked_share_of_the_training_examples(trained: Trained, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"replay_share": 0.2})
    trainer = FineTuneTrainer(config, base=trained.base, folder=tmp_path / "none", workspace=trained.workspace)
    assert trainer.plan(raft_examples(8), raft_examples(3)).train_examples == 10
