"""What is removed and what stays: deployed versions, kept runs and what they could still continue."""

import json
import os
import time
from pathlib import Path

import pytest

from ai_forge.cli.home import age_of
from ai_forge.config import Settings
from ai_forge.errors import InputError
from ai_forge.pipeline.cleaning import removable, remove
from ai_forge.pipeline.run import Run
from ai_forge.pipeline.runner import Runner
from ai_forge.serving.ask_log import AskLog
from ai_forge.workspace import Workspace, write_manifest

DAY_S = 86400.0


def recorded(workspace: Workspace, run_id: str, seed: int) -> Run:
    """A run of a dataset file that was begun: its record, and the output of its first stage."""
    settings = Settings().model_copy(update={"training": Settings().training.model_copy(update={"seed": seed})})
    run = Run(
        id=run_id,
        recipe="dataset",
        repository=Path("/data/pairs.json"),
        repository_name="pairs",
        model="pairs",
        commit=None,
        base="b" * 64,
        sources={"files": str(seed)},
        settings=settings,
    )
    folder = workspace.runs_dir / run_id
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"run": run.model_dump(mode="json"), "created": "2026-01-01"}))
    key = Runner(run, workspace).plan()[0].key
    assert key is not None
    made = workspace.stage_folder("dataset", key)
    made.mkdir(parents=True)
    write_manifest(made, {})
    for path in (folder / "run.json", made / "manifest.json"):
        os.utime(path, (time.time() - 30 * DAY_S + seed,) * 2)
    return run


def test_old_runs_go_with_what_only_they_need(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    for seed in range(4):
        recorded(workspace, f"run{seed}", seed)
    found = removable(workspace, keep_runs=3, older_than_s=DAY_S)
    assert sorted((one.kind, one.path.parent.name) for one in found) == [("output", "dataset"), ("run", "runs")]
    assert next(one.path.name for one in found if one.kind == "run") == "run0"
    remove(found)
    assert removable(workspace, keep_runs=3, older_than_s=DAY_S) == []
    assert len(list((workspace.cache_dir / "dataset").iterdir())) == 3


def test_what_is_young_stays_and_what_nothing_needs_goes(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    recorded(workspace, "run0", 0)
    stray = workspace.cache_dir / "merge" / "0123456789abcdef"
    stray.mkdir(parents=True)
    (stray / "weights").write_bytes(b"x" * 1000)
    assert removable(workspace, keep_runs=1, older_than_s=DAY_S) == []
    (found,) = removable(workspace, keep_runs=1, older_than_s=-1)
    assert (found.path, found.n_bytes) == (stray, 1000)


def test_an_age_has_a_unit() -> None:
    with pytest.raises(InputError, match="'soon' is not an age"):
        age_of("soon")


def test_what_was_asked_goes_where_that_is_asked_for_and_corrections_stay(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    log = AskLog(workspace, "demo")
    log.record("Who?", [], [])
    log.correct("Who?", [{"role": "user", "content": "Who?"}], [], "You.", "The caller.")
    assert removable(workspace, keep_runs=1, older_than_s=0) == []
    assert removable(workspace, keep_runs=1, older_than_s=DAY_S, with_asked=True) == []
    (found,) = removable(workspace, keep_runs=1, older_than_s=-1, with_asked=True)
    assert (found.kind, found.path.name) == ("asked", "asked.jsonl")
    assert remove([found]) == found.n_bytes > 0
    assert (log.asked(), len(log.corrections())) == ([], 1)


def test_where_the_registry_is_gone_nothing_is_removed(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    for seed in range(4):
        recorded(workspace, f"run{seed}", seed)
    (workspace.served_dir / "pairs" / "run0" / "index").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"What is deployed cannot be told: .*registry\.db is gone .* Next: restore it"
    ):
        removable(workspace, keep_runs=1, older_than_s=DAY_S)
