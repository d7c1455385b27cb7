"""`--recipe handbook` from pairs to a GGUF and a Modelfile that are asked as the model was trained."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ai_forge.model_files.gguf.reader import check_gguf
from ai_forge.prompting.chat_templates import ALPACA_SYSTEM
from cli_runs import Outcome, ai_forge, flags, tiny_base

JUDGED = ["export", "base-export", "evaluate", "parity"]  # what is served is judged, so it is made first
FIXTURE = Path(__file__).parents[2] / "fixtures" / "handbook"


@dataclass(frozen=True)
class HandbookRun:
    """A tiny base trained on the fixture's handbook."""

    root: Path

    def __call__(self, command: str, *more: str, on_terminal: bool = False) -> Outcome:
        words = [command, self.root / "repo", "--base", self.root / "base", "--home", self.root / "home"]
        return ai_forge(*words, *flags(), *more, on_terminal=on_terminal)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> HandbookRun:
    root = tmp_path_factory.mktemp("handbook")
    shutil.copytree(FIXTURE, root / "repo")
    tiny_base(root / "base")
    assert ai_forge("handbook", root / "repo").code == 0
    return HandbookRun(root)


def test_from_pairs_to_a_deployed_model(run: HandbookRun) -> None:
    trained = run("train", "--recipe", "handbook")
    assert trained.code == 0, trained.err
    assert trained.json["trained_last_loss"] < trained.json["trained_first_loss"]
    assert trained.json["n_steps"] == 3
    assert [line.split()[1] for line in trained.err.splitlines() if "✓" in line] == ["base", "dataset", "train"]
    assert "71 pairs to train on, 8 of other rules held out, 12 probes" in trained.err

    judged = run("evaluate", "--recipe", "handbook")
    assert judged.code == 0, judged.err
    report = Path(judged.json["report"]).read_text()
    probes = [json.loads(line) for line in (run.root / "repo/.agent/fine-tuning-probes.jsonl").read_text().splitlines()]
    assert all(f"## {probe['prompt']}" in report for probe in probes)
    assert (
        f"{trained.json['trained_first_loss']:.3f} → {trained.json['trained_last_loss']:.3f} nats per token" in report
    )

    exported = run("export", "--recipe", "handbook")
    assert exported.code == 0, exported.err
    modelfile = Path(exported.json["modelfile"]).read_text()
    assert f'SYSTEM """{ALPACA_SYSTEM}"""' in modelfile
    assert 'PARAMETER stop "<|im_end|>"' in modelfile
    assert "### Instruction:" in modelfile
    template = check_gguf(Path(exported.json["folder"]) / "model.f16.gguf").chat_template
    assert template is not None
    assert "### Response:" in template

    deployed = run("deploy", "--recipe", "handbook")
    assert deployed.code == 0, deployed.err
    assert deployed.json["model"].startswith("repo-handbook:")

    whole = run("run", "--recipe", "handbook", on_terminal=True)
    assert whole.code == 0, whole.err
    told = " ".join(whole.out.split())
    assert f"> {probes[0]['prompt']}" in told
    assert f"back to the one before: ai-forge rollback {run.root / 'repo'} --recipe handbook" in told
    assert f"report {run.root / 'home' / 'runs'}" in told
    stages = [line.split()[1] for line in whole.err.splitlines() if "✓" in line]
    assert stages == ["base", "dataset", "train", "merge", *JUDGED, "report", "deploy"]
    assert "cites nothing" not in whole.err
    served = ("--repo", run.root / "repo", "--home", run.root / "home", *flags())
    answer = ai_forge("ask", probes[0]["prompt"], *served, "--recipe", "handbook", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["model"] == deployed.json["model"]
    undone = ai_forge("rollback", run.root / "repo", "--home", run.root / "home", "--recipe", "handbook")
    assert undone.code != 0
    assert "repo-handbook" in undone.err


def test_without_pairs_it_says_how_to_get_them(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    ended = ai_forge("train", tmp_path / "repo", "--recipe", "handbook", "--home", tmp_path / "home")
    assert ended.code == 2
    assert f"Next: write it: ai-forge handbook {tmp_path / 'repo'}" in ended.complaint


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("plan", "--recipe", "cookbook"), "bad_input: There is no recipe 'cookbook'. Next: known are "),
        (("train", "--recipe", "cookbook"), "bad_input: There is no recipe 'cookbook'. Next: known are "),
    ],
)
def test_a_recipe_that_there_is_not_is_told(run: HandbookRun, words: tuple[str, str, str], complaint: str) -> None:
    ended = run(*words)
    assert ended.code == 2
    assert ended.complaint.startswith(complaint)


def test_a_plan_of_a_handbook_tells_its_stages_and_no_training(run: HandbookRun) -> None:
    planned = run("plan", "--recipe", "handbook", "--set", "training.seed=11")
    assert planned.code == 0, planned.err
    states = {row["name"]: row["state"] for row in planned.json["stages"]}
    assert list(states) == ["dataset", "train", "merge", *JUDGED, "report"]
    assert (states["dataset"], states["train"]) == ("done", "todo")
    assert planned.json["training"] is None
