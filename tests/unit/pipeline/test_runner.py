"""The runner: what is to do, one stage alone, everything up to a stage."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ai_forge.errors import InputError, TransientError
from ai_forge.events import Event, StageFinished, StageStarted, read_events
from ai_forge.pipeline.runner import Runner
from ai_forge.workspace import Workspace
from cli_runs import TinyRun, runner_of

BEFORE = {
    "mine": [],
    "notes": ["mine"],
    "dataset": ["mine", "notes"],
    "index": ["mine"],
    "train": ["mine", "notes", "dataset"],
    "merge": ["mine", "notes", "dataset", "train"],
    "export": ["mine", "notes", "dataset", "train", "merge"],
    "base-export": [],
    "evaluate": ["mine", "notes", "dataset", "index", "train", "merge", "export", "base-export"],
    "parity": ["mine", "notes", "dataset", "index", "train", "merge", "export"],
    "report": ["mine", "notes", "dataset", "index", "train", "merge", "export", "base-export", "evaluate", "parity"],
}
"""By stage what has to be done before it, however far behind it."""


def states(runner: Runner, until: str | None = None) -> dict[str, str]:
    return {stage.name: stage.state for stage in runner.plan(until)}


def empty(run: TinyRun, home: Path) -> TinyRun:
    """The same repository and base in a home where nothing was done."""
    return TinyRun(home, run.repo, run.base, run.outcome)


# -- what is to do --------------------------------------------------------------------------------------------------


def test_a_plan_of_a_finished_run_has_times_and_sentences(run: TinyRun) -> None:
    rows = {row.name: row for row in runner_of(run).plan()}
    assert {row.state for row in rows.values()} == {"done"}
    assert all(row.seconds is not None and row.seconds >= 0 for row in rows.values())
    assert rows["train"].text.endswith("in 3 steps")
    assert rows["mine"].text.endswith("to ask about")


def test_a_plan_of_nothing_knows_what_it_cannot_know(finished: TinyRun, tmp_path: Path) -> None:
    runner = runner_of(empty(finished, tmp_path))
    told = states(runner)
    # The dataset depends on what commits and documentation say, all that is trained on what the examples are.
    assert told == {name: "todo" if name in ("mine", "notes", "index", "base-export") else "unknown" for name in told}
    assert all(row.seconds is None for row in runner.plan())
    assert not runner.folder.exists()
    assert not list((tmp_path / "cache").glob("*/*/manifest.json"))


def test_a_plan_tells_what_a_setting_makes_to_do_and_how_long_it_took_last(run: TinyRun) -> None:
    rows = {row.name: row for row in runner_of(run, training__seed=3).plan()}
    done = [name for name, row in rows.items() if row.state == "done"]
    assert done == ["mine", "notes", "dataset", "index", "base-export"]
    assert {row.state for row in rows.values()} == {"done", "todo"}
    last = {row.name: row.seconds for row in runner_of(run).plan()}
    assert rows["train"].seconds == last["train"]
    assert rows["train"].text == ""


def test_a_plan_tells_what_can_be_continued(run: TinyRun) -> None:
    runner = runner_of(run, training__seed=3)
    (row,) = [row for row in runner.plan("train") if row.name == "train"]
    assert row.key is not None
    (runner.workspace.work_folder("train", row.key) / "step-000001").mkdir()
    assert states(runner, "train")["train"] == "resumable"
    assert states(runner)["merge"] == "todo"


@pytest.mark.parametrize("name", list(BEFORE))
def test_a_plan_until_a_stage_holds_what_that_needs(run: TinyRun, name: str) -> None:
    assert list(states(runner_of(run), name)) == [*BEFORE[name], name]


def test_a_stage_that_there_is_not_is_told_with_those_that_there_are(run: TinyRun) -> None:
    runner = runner_of(run)
    for act in (runner.plan, runner.run_until, runner.run_stage):
        with pytest.raises(InputError, match=r"Recipe repository has no stage 'prefer'\. Next: its stages are mine, "):
            act("prefer")


# -- doing it -------------------------------------------------------------------------------------------------------


def test_a_stage_alone_is_refused_until_what_it_needs_is_done_and_then_makes_only_itself(
    finished: TinyRun, tmp_path: Path
) -> None:
    here = empty(finished, tmp_path)
    for name, before in BEFORE.items():
        events: list[Event] = []
        runner = runner_of(here, events.append)
        names = [stage.name for stage in runner.stages]
        for later in names[names.index(name) + 1 :]:
            missing = [other for other in BEFORE[later] if names.index(other) >= names.index(name)]
            if not missing:
                continue
            with pytest.raises(InputError, match=rf"^{later} needs {missing[0]}, which is not done\. Next: run the"):
                runner.run_stage(later)
        assert events == []
        result = runner.run_stage(name)
        assert not result.cached
        assert result.folder.is_dir()
        (manifest,) = (tmp_path / "cache" / name).glob("*/manifest.json")
        assert json.loads(manifest.read_text())["seconds"] == pytest.approx(result.seconds, abs=1e-3)
        assert [event.stage for event in events if isinstance(event, StageStarted | StageFinished)] == [name, name]
        assert {other for other, state in states(runner).items() if state == "done"} >= {*before, name}
        assert runner_of(here).run_stage(name).cached
    (theirs,) = (finished.home / "cache" / "export").glob("*/model.f16.gguf")
    assert (tmp_path / theirs.relative_to(finished.home)).read_bytes() == theirs.read_bytes()


def test_run_until_makes_no_more_than_is_needed(finished: TinyRun, tmp_path: Path) -> None:
    runner = runner_of(empty(finished, tmp_path))
    result = runner.run_until("index")
    assert {path.parent.parent.name for path in (tmp_path / "cache").glob("*/*/manifest.json")} == {"mine", "index"}
    assert (result.name, result.cached) == ("index", False)
    assert (result.folder / "manifest.json").is_file()


def test_a_stage_that_applies_to_no_part_of_the_run_is_not_there(run: TinyRun) -> None:
    runner = runner_of(run)
    runner.stages = tuple(replace(stage, needs=(*stage.needs, "prefer")) for stage in runner.stages)
    assert [row.state for row in runner.plan()] == ["done"] * len(runner.stages)


# -- the lock and the record ----------------------------------------------------------------------------------------


def test_events_go_to_the_run_and_to_the_listener_alike(run: TinyRun) -> None:
    heard: list[Event] = []
    early: tuple[Event, ...] = (StageStarted("base"), StageFinished("base", 0.5, False, {}, "base"))
    first = runner_of(run, training__seed=9)
    with Runner(first.run, first.workspace, heard.append, early=early) as runner:
        runner.run_until("mine")
        runner.run_until("mine")
    record = list(read_events(runner.folder / "events.jsonl"))
    kept = [(event["event"], event["stage"]) for event in record]
    told = [(type(event).__name__, event.stage) for event in heard if isinstance(event, StageStarted | StageFinished)]
    assert kept == [("StageStarted", "base"), ("StageFinished", "base"), *told]
    assert told == [("StageStarted", "mine"), ("StageFinished", "mine")]
    assert record[-1]["text"].endswith("to ask about")
    assert record[-1]["counts"]["files"] == 7


def test_a_run_is_held_by_one_at_a_time_and_freed(run: TinyRun) -> None:
    first, second = runner_of(run), runner_of(run)
    with first:
        assert states(second)["report"] == "done"  # looking needs no lock
        with pytest.raises(TransientError, match=rf"already working on run-{first.run.id}\. Next: wait for it"):
            second.run_until("mine")
        first.run_until("mine")
    assert second.run_until("mine").cached
    assert Workspace.open(run.home).finished("mine", second.run_until("mine").key) is not None
