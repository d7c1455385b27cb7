"""The cycle as a job of the queue: real worker and job processes, paused, gone on with, joined."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_forge.antigravity_agent.cycle import CycleStore
from ai_forge.antigravity_agent.job import KINDS, request_retraining
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import FINISHED, Job, JobRequest
from ai_forge.config import load_settings
from ai_forge.errors import InputError
from ai_forge.events import read_events
from ai_forge.serving.registry import Registry
from ai_forge.workspace import Workspace
from cli_runs import SETTINGS, TinyRun, copy_of

pytestmark = pytest.mark.slow


@pytest.fixture
def run(finished: TinyRun, tmp_path: Path) -> TinyRun:
    made = copy_of(finished, tmp_path)
    path = made.repo / "bisect.py"
    path.write_text(path.read_text() + '\n\ndef added(value):\n    """Add one to the value."""\n    return value + 1\n')
    return made


@pytest.fixture
def workspace(run: TinyRun) -> Workspace:
    return Workspace.open(run.home)


@pytest.fixture
def queue(workspace: Workspace) -> Iterator[JobQueue]:
    with JobQueue(workspace, load_settings().settings, kinds=KINDS) as made:
        yield made


def eventually(condition: Callable[[], object], seconds: float = 150.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


def ask(queue: JobQueue, workspace: Workspace, run: TinyRun, **settings: object) -> Job:
    chosen = SETTINGS | {"training.base_model": str(run.base), "runtime.deploy": "if-better", "guardian.desktop": False}
    chosen |= {key.replace("__", ".", 1): value for key, value in settings.items()}
    return request_retraining(queue, workspace, run.repo, settings=chosen, reason="a test")  # type: ignore[arg-type]


def test_requests_join_the_one_that_waits(queue: JobQueue, workspace: Workspace, run: TinyRun) -> None:
    first = ask(queue, workspace, run)
    assert (first.status, first.kind) == ("queued", "guardian")
    assert ask(queue, workspace, run).job_id == first.job_id
    other = ask(queue, workspace, run, training__max_steps=4)
    assert other.job_id != first.job_id, "what was asked for is another thing"
    queue.cancel(first.job_id)
    assert ask(queue, workspace, run).job_id not in (first.job_id, other.job_id)


def test_what_is_no_repository_is_refused(queue: JobQueue, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        request_retraining(queue, workspace, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"did you mean training\.rank\?"):
        request_retraining(queue, workspace, tmp_path, settings={"training.rankk": 1})
    with pytest.raises(InputError, match="made of a repository"):
        queue.submit(JobRequest(kind="guardian"))


def test_a_cycle_is_paused_and_gone_on_with_and_tells_how_it_ended(
    queue: JobQueue, workspace: Workspace, run: TinyRun
) -> None:
    with Registry(workspace.registry_path) as registry:
        before = registry.active("repo")
    queue.start()
    job_id = ask(queue, workspace, run, training__max_steps=12, training__save_steps=2).job_id
    eventually(lambda: any(event.event == "StepLogged" for event in queue.events(job_id)))
    queue.pause(job_id)
    eventually(lambda: queue.get(job_id).status == "paused")
    store = CycleStore(workspace, run.repo, "repository")
    last = store.last()
    assert last is not None
    assert (last.state, last.job_id, last.tasks[-1].name) == ("cancelled", job_id, "train")
    assert not store.is_working
    queue.resume(job_id)
    eventually(lambda: queue.get(job_id).status in FINISHED)
    done = queue.get(job_id)
    assert (done.status, done.error) == ("ready", None), queue.log(job_id)
    assert done.metrics["outcome"] == "held back"
    assert done.metrics["deployed"] is False
    assert Path(str(done.metrics["artifact_validate_model"])).name == "validation_report.md"
    steps = [
        e["step"]
        for e in read_events(run.home / "runs" / str(done.run_id) / "events.jsonl")
        if e["event"] == "StepLogged"
    ]
    assert sorted(set(steps)) == list(range(1, 13))
    assert len(steps) <= 15, "it went on from its checkpoint"
    with Registry(workspace.registry_path) as registry:
        assert registry.active("repo") == before
    ended = store.last()
    assert ended is not None
    assert (ended.state, ended.reason, len(ended.tasks)) == ("held back", "a test", 4)


def test_a_cycle_that_cannot_be_done_fails_with_its_reason(queue: JobQueue, workspace: Workspace, run: TinyRun) -> None:
    queue.start()
    job_id = ask(queue, workspace, run, training__base_model=str(run.home / "no-such-base")).job_id
    eventually(lambda: queue.get(job_id).status in FINISHED)
    failed = queue.get(job_id)
    assert (failed.status, failed.error_code) == ("failed", "bad_input")
    assert "no-such-base" in str(failed.error)
