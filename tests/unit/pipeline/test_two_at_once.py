"""Several who drive runs in one home: programs and threads, on one run and on several."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from ai_forge.cancel import CancelToken
from ai_forge.errors import CancelledError
from ai_forge.events import Event, Notice, StageFinished, StageStarted
from ai_forge.workspace import LOCK_POLL_S, Workspace
from cli_runs import TinyRun, copy_of, debris, process, runner_of, stdlib_copy

MODULES = ("bisect.py", "heapq.py", "shlex.py", "textwrap.py")


def adapter(home: Path, run_id: str) -> bytes:
    return (home / "runs" / run_id / "adapter" / "adapter_model.safetensors").read_bytes()


def test_two_programs_drive_two_runs_in_one_home(finished: TinyRun, tmp_path: Path) -> None:
    other = TinyRun(tmp_path / "home", stdlib_copy(tmp_path / "other", MODULES), finished.base, finished.outcome)
    ours = TinyRun(tmp_path / "home", finished.repo, finished.base, finished.outcome)
    running = [process(*run.words("run", runtime__deploy="if-better")) for run in (ours, other)]
    ended = [one.communicate(timeout=500) for one in running]
    assert [one.returncode for one in running] == [0, 0], ended
    results = [json.loads(out) for out, _ in ended]
    assert results[0]["run_id"] != results[1]["run_id"]
    assert adapter(tmp_path / "home", results[0]["run_id"]) == adapter(finished.home, results[0]["run_id"])
    assert debris(tmp_path / "home") == []
    names = json.loads((tmp_path / "home" / "repositories.json").read_text())
    assert sorted(row["model"] for row in names.values()) == ["other", "repo"]


def test_a_second_program_on_the_same_run_is_told_to_wait(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    with runner_of(run) as runner:
        command = [sys.executable, "-m", "ai_forge", *run.words("mine")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 4
    assert f"is already working on run-{runner.run.id}. Next: wait for it" in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_two_threads_that_need_the_same_stage_make_it_once(finished: TinyRun, tmp_path: Path) -> None:
    """Two runs differ in how they are judged and share all up to their model."""
    run = TinyRun(tmp_path, finished.repo, finished.base, finished.outcome)
    heard: list[list[Event]] = [[], []]
    runners = [runner_of(run, events.append, judge__seed=seed) for seed, events in zip((0, 1), heard, strict=True)]
    threads = [threading.Thread(target=runner.run_until, args=("train",)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    finishes = [[e for e in events if isinstance(e, StageFinished)] for events in heard]
    assert [[e.stage for e in ends] for ends in finishes] == [["mine", "notes", "dataset", "train"]] * 2
    for pair in zip(*finishes, strict=True):
        assert sum(not event.cached for event in pair) == 1, pair[0].stage
    keys = {runner.outputs().key("train") for runner in runners}
    assert len(keys) == 1
    assert debris(tmp_path) == []


def test_who_waits_for_anothers_stage_says_so_and_can_be_cancelled(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    token, heard, ended = CancelToken(), list[Event](), list[BaseException]()
    runner = runner_of(run, heard.append, token, training__seed=5)
    key = next(row.key for row in runner.plan() if row.name == "train")

    def work() -> None:
        try:
            runner.run_until("train")
        except CancelledError as error:
            ended.append(error)

    with Workspace.open(run.home).lock(f"train-{key}"):
        thread = threading.Thread(target=work)
        thread.start()
        deadline = time.monotonic() + 120
        while not any(isinstance(event, Notice) for event in heard):
            assert time.monotonic() < deadline
            time.sleep(LOCK_POLL_S)
        token.cancel("enough")
        thread.join(60)
    assert len(ended) == 1
    notices = [event.message for event in heard if isinstance(event, Notice)]
    assert notices == ["Another run is just making the same train: waiting for it."]
    assert [e.stage for e in heard if isinstance(e, StageStarted)][-1] == "train"
    assert not list(run.home.glob("cache/train/*.work"))
