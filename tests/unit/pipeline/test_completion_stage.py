"""The stage `completions`: off it changes nothing, on it gives gaps of training files to the trainer."""

import json
from pathlib import Path

import pytest

from ai_forge.errors import InputError
from ai_forge.pipeline.stages.completions import CompletionsSummary, completions
from ai_forge.pipeline.stages.train import TrainSummary
from cli_runs import Outcome, TinyRun, runner_of, stdlib_copy
from tiny_models import make_tiny_fim


@pytest.fixture
def fim_run(tmp_path: Path) -> TinyRun:
    """A repository with a base that completes; nothing is done yet."""
    base = make_tiny_fim(tmp_path / "base")
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 4096}))
    return TinyRun(tmp_path / "home", stdlib_copy(tmp_path / "repo"), base, Outcome(0, "", ""))


def test_gaps_of_training_files_reach_the_trainer(fim_run: TinyRun) -> None:
    on = runner_of(fim_run, synthesis__completion_share=0.25)
    on.run_until("train")
    outputs = on.outputs()
    rows, split = completions(outputs), on.opened.split(outputs)
    summary = outputs.summary("completions", CompletionsSummary)
    n_examples = len(on.opened.examples(outputs, "train"))
    assert 0 < summary.gaps == len(rows) <= round(n_examples / 3)
    assert {row.path for row in rows} <= set(split["train"])
    assert all(
        document.path in split["train"] and document.path != row.path for row in rows for document in row.documents
    )
    assert 0 < summary.with_neighbours < len(rows)
    sources = {path: (fim_run.repo / path).read_text() for path in split["train"]}
    assert all(row.prefix[-200:] + row.text + row.suffix[:200] in sources[row.path] for row in rows)
    assert outputs.summary("train", TrainSummary).n_steps == 3

    off = runner_of(fim_run)
    assert "completions" not in [row.name for row in off.plan()]
    off.run_until("dataset")
    assert off.outputs().key("dataset") == outputs.key("dataset")
    assert off.outputs().key("train") != outputs.key("train")


def test_a_base_without_the_tokens_is_refused_before_it_trains(finished: TinyRun, tmp_path: Path) -> None:
    plain = TinyRun(tmp_path, finished.repo, finished.base, finished.outcome)
    with pytest.raises(InputError, match="no fill-in-the-middle tokens"):
        runner_of(plain, synthesis__completion_share=0.25).run_until("train")
