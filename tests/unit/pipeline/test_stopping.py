"""Stages that are cancelled or fail in the middle: each says so, leaves nothing half-made, and the same call continues."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ai_forge.cancel import CancelToken
from ai_forge.errors import CancelledError, PrerequisiteError
from ai_forge.events import Event, StageCancelled, StageFailed, StageFinished, StageProgress, StageStarted, StepLogged
from ai_forge.pipeline.recipes import REPOSITORY
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import StageContext, Summary
from ai_forge.workspace import file_sha256
from cli_runs import TinyRun, debris, runner_of

STAGES = [stage.name for stage in REPOSITORY.stages if stage.name not in ("natural", "completions", "prefer")]
# How fast a training and its model were stands in these; what was made must not depend on that.
TIMED = {"train": {"training.json", "schedule.json", "metrics.jsonl", "loss.png"}, "evaluate": {"speed.json"}}
WITH_PROGRESS = ["mine", "dataset", "merge", "export", "evaluate", "parity"]
Act = Callable[[StageContext], None]


def made(runner: Runner, name: str) -> dict[str, str]:
    """The hash of each file of a stage's output; its manifest has the seconds, and pictures of a report have none."""
    folder = runner.outputs().folder(name)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def forget(run: TinyRun, name: str) -> dict[str, str]:
    """Remove the output of a stage; returns what it was."""
    runner = runner_of(run)
    expected = made(runner, name)
    folder = runner.outputs().folder(name)
    folder.rename(run.home / f"forgotten-{name}")
    return expected


def with_end(runner: Runner, name: str, act: Act) -> Runner:
    """The runner, where `act` follows on the building of a stage, with all of its files written and not yet in place."""

    def changed(build: Callable[[StageContext], Summary]) -> Callable[[StageContext], Summary]:
        def built(context: StageContext) -> Summary:
            summary = build(context)
            assert any(context.folder.iterdir()) or name == "mine"
            act(context)
            return summary

        return built

    runner.stages = tuple(
        replace(stage, build=changed(stage.build)) if stage.name == name else stage for stage in runner.stages
    )
    return runner


def about(events: list[Event], name: str) -> list[Event]:
    """The events that say how a stage began and ended."""
    kinds = (StageStarted, StageFinished, StageFailed, StageCancelled)
    return [event for event in events if isinstance(event, kinds) and event.stage == name]


def unchanged_but_for_the_record(name: str, before: dict[str, str], after: dict[str, str]) -> None:
    assert set(after) == set(before)
    timed = TIMED.get(name, set())
    assert {k: v for k, v in after.items() if k not in timed} == {k: v for k, v in before.items() if k not in timed}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_is_cancelled_continues_with_the_same_bytes(run: TinyRun, name: str) -> None:
    expected = forget(run, name)
    events: list[Event] = []
    token = CancelToken()
    runner = with_end(runner_of(run, events.append, token), name, lambda _: token.cancel("enough"))
    with pytest.raises(CancelledError, match=r"Cancelled \(enough\)"):
        runner.run_until(name)
    _, ended = about(events, name)
    assert isinstance(ended, StageCancelled)
    assert "enough" in ended.reason
    assert debris(run.home) == []
    assert runner_of(run).plan(name)[-1].state == ("resumable" if name == "train" else "todo")
    again = runner_of(run)
    assert not again.run_until(name).cached
    unchanged_but_for_the_record(name, expected, made(again, name))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_fails_says_so_and_continues_with_the_same_bytes(run: TinyRun, name: str) -> None:
    expected = forget(run, name)

    def missing(_: StageContext) -> None:
        raise PrerequisiteError("The disk is full.", "free some space.")

    def broken(_: StageContext) -> None:
        raise ZeroDivisionError("by nothing")

    for act, error, code in (
        (missing, PrerequisiteError, "missing_prerequisite"),
        (broken, ZeroDivisionError, "internal"),
    ):
        events: list[Event] = []
        with pytest.raises(error):
            with_end(runner_of(run, events.append), name, act).run_until(name)
        _, ended = about(events, name)
        assert isinstance(ended, StageFailed)
        assert ended.code == code
        told = "The disk is full." if error is PrerequisiteError else "ZeroDivisionError: by nothing"
        assert ended.message == told
        assert ended.next_step == ("free some space." if error is PrerequisiteError else None)
        assert debris(run.home) == []
    again = runner_of(run)
    assert not again.run_until(name).cached
    unchanged_but_for_the_record(name, expected, made(again, name))


@pytest.mark.parametrize("name", WITH_PROGRESS)
def test_a_cancelled_token_is_noticed_at_the_next_progress(run: TinyRun, name: str) -> None:
    expected = forget(run, name)
    heard: list[Event] = []
    token = CancelToken()

    def emit(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StageProgress) and event.stage == name:
            token.cancel("enough")

    if name == "mine":
        for cached in (run.home / "cache" / "files").glob("*.db*"):
            cached.unlink()
    with pytest.raises(CancelledError):
        runner_of(run, emit, token).run_until(name)
    progress = [event for event in heard if isinstance(event, StageProgress) and event.stage == name]
    assert len(progress) == 1, "the first progress is the last"
    assert isinstance(heard[-1], StageCancelled)
    assert debris(run.home) == []
    again = runner_of(run)
    again.run_until(name)
    unchanged_but_for_the_record(name, expected, made(again, name))


def test_a_training_is_cancelled_at_its_next_step_and_continues_with_the_same_bytes(run: TinyRun) -> None:
    weights = "adapter_model.safetensors"
    expected = forget(run, "train")[weights]
    token, heard = CancelToken(), list[Event]()

    def emit(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StepLogged):
            token.cancel("enough")

    with pytest.raises(CancelledError):
        runner_of(run, emit, token).run_until("train")
    assert [event.step for event in heard if isinstance(event, StepLogged)] == [1]
    assert isinstance(heard[-1], StageCancelled)
    assert debris(run.home) == []
    assert runner_of(run).plan("train")[-1].state == "resumable"
    heard.clear()
    again = runner_of(run, heard.append)
    again.run_until("train")
    assert [event.step for event in heard if isinstance(event, StepLogged)] == [2, 3]
    assert made(again, "train")[weights] == expected


def test_a_run_in_a_thread_is_cancelled_from_another_and_continues(run: TinyRun) -> None:
    expected = forget(run, "evaluate")
    token, at_work, ended = CancelToken(), threading.Event(), list[BaseException]()
    heard: list[Event] = []

    def emit(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StageStarted) and event.stage == "evaluate":
            at_work.set()

    def work() -> None:
        try:
            runner_of(run, emit, token).run_until("report")
        except CancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert at_work.wait(120)
    token.cancel("the job was deleted")
    thread.join(120)
    assert not thread.is_alive()
    assert [str(error) for error in ended] == [str(CancelledError.because("the job was deleted"))]
    assert isinstance(heard[-1], StageCancelled)
    assert (heard[-1].stage, debris(run.home)) == ("evaluate", [])
    again = runner_of(run)
    again.run_until("report")
    unchanged_but_for_the_record("evaluate", expected, made(again, "evaluate"))


def test_a_cancelled_token_begins_nothing(run: TinyRun) -> None:
    token = CancelToken()
    token.cancel()
    heard: list[Event] = []
    with pytest.raises(CancelledError):
        runner_of(run, heard.append, token, training__seed=4).run_until("train")
    assert [type(event) for event in heard] == [StageStarted, StageCancelled]
    assert not list(Path(run.home).glob("cache/*/*.work"))
