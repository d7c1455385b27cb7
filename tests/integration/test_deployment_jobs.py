"""Deployment as a job: the gate, and runtimes that are down, slow or die meanwhile. Whatever happens, the version before serves."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.cancel import CancelToken
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.jobs.kinds import JobContext, Prepared, Step, kind_named, load_kinds
from ai_forge.conductor.schemas import DEPLOY, Job, JobRequest
from ai_forge.events import Event, Notice
from ai_forge.pipeline.run import Run
from ai_forge.serving.registry import Registry
from ai_forge.serving.served_model import ServedModel
from ai_forge.workspace import Workspace, read_json
from cli_runs import TinyRun, copy_of
from local_ollama import LocalOllama
from queue_owner import finished, queue_of, start_owner, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(finished: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return copy_of(finished, tmp_path_factory.mktemp("deployments"))


@pytest.fixture(scope="module")
def queue(deployed: TinyRun) -> Iterator[JobQueue]:
    with queue_of(deployed.home) as made:
        # without a real Ollama, which would be started where a runtime is said to be away
        folders = os.environ["PATH"].split(os.pathsep)
        owner = start_owner(
            deployed.home, PATH=os.pathsep.join(f for f in folders if not (Path(f) / "ollama").exists())
        )
        yield made
        owner.kill()
        owner.wait()


@pytest.fixture
def ollama() -> Iterator[LocalOllama]:
    server = LocalOllama()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run_of(deployed: TinyRun, **runtime: str) -> Run:
    """The finished run, to be served elsewhere or under another policy."""
    with Registry(Workspace.open(deployed.home).registry_path) as registry:
        version = registry.versions()[0]  # other tests may have begun other runs in this home
    record = read_json(deployed.home / "runs" / version.deployment.version / "run.json")
    assert record is not None
    run = Run.model_validate(record["run"])
    settings = run.settings.model_copy(update={"runtime": run.settings.runtime.model_copy(update=runtime)})
    return run.model_copy(update={"settings": settings})


def still_serves(deployed: TinyRun, run: Run) -> None:
    """The version that was deployed before is active and answers."""
    workspace = Workspace.open(deployed.home)
    with Registry(workspace.registry_path) as registry:
        active = registry.active(run.model)
    assert active is not None
    assert (active.version, active.runtime) == (run.id, "embedded")
    with ServedModel.open(run.model, workspace, run.settings.runtime) as model:
        assert "".join(model.ask("What does bisect do?")) != ""


def deploy(queue: JobQueue, run: Run) -> Job:
    return queue.submit(JobRequest(kind=DEPLOY, run=run))


def test_a_model_that_is_not_better_is_refused_unless_it_is_asked_for(queue: JobQueue, deployed: TinyRun) -> None:
    refused = finished(queue, deploy(queue, run_of(deployed, deploy="if-better")).job_id)
    assert (refused.status, refused.error_code) == ("failed", "refused")
    assert "was not shown to be better" in str(refused.error)
    still_serves(deployed, run_of(deployed))
    wanted = finished(queue, deploy(queue, run_of(deployed, deploy="always")).job_id)
    assert (wanted.status, wanted.metrics["deployed"]) == ("ready", True)
    assert queue.run_of(wanted.job_id).id == run_of(deployed).id
    with Registry(Workspace.open(deployed.home).registry_path) as registry:
        assert len(list(registry.versions())) == 1  # it was there already: no second one


def test_a_runtime_that_is_not_there_is_told_and_nothing_changes(queue: JobQueue, deployed: TinyRun) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    run = run_of(deployed, kind="ollama", ollama_host=host, deploy="always")
    failed = finished(queue, deploy(queue, run).job_id)
    assert (failed.status, failed.error_code) == ("failed", "missing_prerequisite")
    assert host in str(failed.error)
    still_serves(deployed, run_of(deployed))


@pytest.mark.parametrize("how", ["dies", "slow"])
def test_a_runtime_that_fails_in_creation_leaves_the_old_version(
    how: str, queue: JobQueue, deployed: TinyRun, ollama: LocalOllama
) -> None:
    plain = ollama.RequestHandlerClass
    began = threading.Event()

    class Failing(plain):  # type: ignore[misc, valid-type]
        def do_POST(self) -> None:  # noqa: N802
            began.set()
            if how == "slow":
                time.sleep(4.0)
            self.close_connection = True  # without an answer, as a process that was killed

    ollama.RequestHandlerClass = Failing
    run = run_of(deployed, kind="ollama", ollama_host=ollama.host, deploy="always")
    job = deploy(queue, run).job_id
    wait_until(began.is_set)
    still_serves(deployed, run_of(deployed))  # while the other is being made
    if how == "dies":
        wait_until(lambda: "Tried again" in queue.log(job))
        still_serves(deployed, run_of(deployed))
    queue.cancel(job)
    assert finished(queue, job).status == "cancelled"
    still_serves(deployed, run_of(deployed))
    assert ollama.models == {}


def test_what_is_not_finished_is_not_deployed(queue: JobQueue, deployed: TinyRun, tmp_path: Path) -> None:
    other = run_of(deployed).model_copy(
        update={"id": "0123456789ab", "sources": {**run_of(deployed).sources, "files": "other"}}
    )
    failed = finished(queue, deploy(queue, other).job_id)
    assert (failed.status, failed.error_code) == ("failed", "bad_input")
    assert "is not finished" in str(failed.error)


def test_a_stage_that_this_version_does_not_have_is_passed_over(deployed: TinyRun) -> None:
    """A job that another version of AI Forge planned and began."""
    run = run_of(deployed)
    told: list[Event] = []
    workspace = Workspace.open(deployed.home)
    context = JobContext(
        job_id="x",
        request=JobRequest(run=run),
        workspace=workspace,
        settings=run.settings,
        config=None,
        folder=deployed.home / "jobs" / "x",
        emit=told.append,
        cancel=CancelToken(),
    )
    steps = (Step(name="polish"), Step(name="report"))
    load_kinds()
    with kind_named("fine-tune").open(context, Prepared(steps=steps, run=run)) as perform:
        assert perform("polish") == {}
        assert set(perform("report")) == {"verdict", "better"}
    assert Notice("info", "This version of AI Forge has no stage polish.") in told
