"""Jobs over HTTP while nobody works on them: sent, looked at, followed, stopped; and who may be named."""

import asyncio
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ai_forge.conductor.auth import KeyStore
from ai_forge.conductor.job_queue import JobQueue
from ai_forge.conductor.schemas import JobRequest, RunSource
from ai_forge.workspace import Workspace
from cli_runs import ai_forge
from service_app import deploy_version, service_at, tiny_gguf

EXAMPLES = "".join(json.dumps({"instruction": f"Say {i}.", "output": str(i)}) + "\n" for i in range(8))


def ask(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=20) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def queue_of(app: FastAPI) -> JobQueue:
    queue: JobQueue = app.state.service.jobs
    return queue


def send(app: FastAPI, content: bytes | str, name: str = "data.jsonl", **fields: Any) -> httpx.Response:
    """An upload."""
    data = {"project_name": "My Project", **{key: str(value) for key, value in fields.items()}}
    return ask(app, "POST", "/v1/fine-tune", data=data, files={"data_file": (name, content)})


def test_an_upload_becomes_a_job(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    answer = send(app, EXAMPLES, epochs=2, learning_rate=1e-3, rank=8, batch_size=1, base_model="SmolLM2-135M-Instruct")
    assert answer.status_code == 202, answer.text
    sent = answer.json()
    assert sent["status"] == "queued"
    assert (sent["model"], sent["found"]) == ("my-project", "8 records, alpaca")
    job = queue_of(app).get(sent["job_id"])
    assert isinstance(job.request.run, RunSource)
    assert job.request.run.path.read_text() == EXAMPLES
    assert job.request.run.settings == {
        "training.base_model": "SmolLM2-135M-Instruct",
        "training.num_epochs": 2,
        "training.learning_rate": 1e-3,
        "training.rank": 8,
        "training.micro_batch_size": 1,
    }
    status = ask(app, "GET", f"/status/{sent['job_id']}").json()
    assert {
        key: status[key] for key in ("job_id", "status", "progress", "started_at", "current_step", "metrics", "error")
    } == {
        "job_id": sent["job_id"],
        "status": "queued",
        "progress": 0.0,
        "started_at": None,
        "current_step": None,
        "metrics": {},
        "error": None,
    }
    assert str(tmp_path) not in json.dumps(status)
    assert [one["job_id"] for one in ask(app, "GET", "/v1/jobs?status=queued").json()["jobs"]] == [sent["job_id"]]
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["action"], line["target"]) for line in lines] == [("local", "train", sent["job_id"])]


def test_a_repository_is_sent_or_named(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("repo/a.py", "x = 1\n")
    app = service_at(tmp_path / "home", service__repository_roots=[str(tmp_path / "git")])
    sent = send(app, packed.getvalue(), "repo.zip").json()
    source = queue_of(app).get(sent["job_id"]).request.run
    assert isinstance(source, RunSource)
    assert (source.recipe, [path.name for path in source.path.iterdir()]) == ("repository", ["a.py"])
    repo = tmp_path / "git" / "team"
    repo.mkdir(parents=True)
    named = ask(app, "POST", "/v1/fine-tune", data={"project_name": "team", "repository": str(repo)})
    assert named.status_code == 202, named.text
    outside = ask(app, "POST", "/v1/fine-tune", data={"project_name": "team", "repository": str(tmp_path)})
    assert (outside.status_code, outside.json()["error"]["code"]) == (400, "outside")


@pytest.mark.parametrize(
    ("content", "name", "fields", "told"),
    [
        (EXAMPLES + "{", "x.jsonl", {}, "Line 9 of upload.jsonl"),
        (EXAMPLES, "x.bin", {}, "no file that can be trained on"),
        (EXAMPLES, "x.jsonl", {"rank": 0}, "rank: "),
        (EXAMPLES, "x.jsonl", {"epochs": "nan"}, "epochs: "),
        (EXAMPLES, "x.jsonl", {"base_model": "/etc/passwd"}, "There is no base"),
        (EXAMPLES, "x.jsonl", {"base_model": "nothing"}, "There is no base"),
        (EXAMPLES, "x.jsonl", {"recipe": "handbook"}, "is no handbook"),
        (EXAMPLES, "x.jsonl", {"repository": "/x"}, "one of the two"),
        (EXAMPLES, "x.jsonl", {"project_name": "!!"}, "leaves no name"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    tmp_path: Path, content: str, name: str, fields: dict[str, Any], told: str
) -> None:
    app = service_at(tmp_path)
    answer = send(app, content, name, **fields)
    assert answer.status_code in (400, 422)
    assert told in answer.json()["error"]["message"]
    assert str(tmp_path) not in answer.text
    assert queue_of(app).list() == []
    assert [path for path in (tmp_path / "jobs").rglob("*") if path.is_file() and path.suffix != ".db"] == []


def test_an_upload_has_a_limit(tmp_path: Path) -> None:
    app = service_at(tmp_path, service__max_upload_bytes=1000)
    answer = send(app, EXAMPLES * 10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert queue_of(app).list() == []


def test_a_job_is_stopped_gone_on_with_and_forgotten(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    job_id = send(app, EXAMPLES).json()["job_id"]
    for action, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        answer = ask(app, "POST", f"/v1/jobs/{job_id}/{action}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    refused = ask(app, "POST", f"/v1/jobs/{job_id}/resume")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_now")
    assert ask(app, "DELETE", f"/v1/jobs/{job_id}").status_code == 409
    ask(app, "POST", f"/v1/jobs/{job_id}/cancel")
    assert ask(app, "DELETE", f"/v1/jobs/{job_id}").status_code == 204
    assert ask(app, "GET", f"/status/{job_id}").status_code == 404
    for path in ("validate", "deploy"):
        assert ask(app, "POST", f"/{path}/{job_id}").status_code == 404


def test_what_is_not_yet_done_is_said(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    job_id = send(app, EXAMPLES).json()["job_id"]
    for path in ("validate", "deploy"):
        answer = ask(app, "POST", f"/{path}/{job_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_yet")
    assert ask(app, "GET", "/v1/runs/nothing/report").status_code == 404
    assert ask(app, "GET", "/v1/runs/../report").status_code == 404
    assert ask(app, "GET", "/v1/runs/..%2F..%2Fetc/report").status_code in (404, 422)
    assert ask(app, "GET", f"/v1/jobs/{job_id}/logs").text == ""


def test_a_model_is_trained_again_in_the_way_of_its_last_training(tmp_path: Path) -> None:
    app = service_at(tmp_path)
    first = send(app, EXAMPLES, rank=8).json()
    again = ask(app, "POST", "/v1/retrain", json={"model": first["model"]}).json()
    queue = queue_of(app)
    assert again["job_id"] != first["job_id"]
    assert queue.get(again["job_id"]).request.run == queue.get(first["job_id"]).request.run
    assert ask(app, "POST", "/v1/retrain", json={"model": "other"}).status_code == 404


def test_who_may_train_but_not_deploy_gets_no_deployment(tmp_path: Path) -> None:
    keys = KeyStore(Workspace.open(tmp_path))
    trains = {"Authorization": f"Bearer {keys.add('trains', ['train'])[0]}"}
    both = {"Authorization": f"Bearer {keys.add('both', ['train', 'deploy'])[0]}"}
    app = service_at(tmp_path, service__require_keys="always")

    def upload(headers: dict[str, str], deploy: bool) -> httpx.Response:
        data = {"project_name": "demo", "deploy": str(deploy).lower()}
        return ask(app, "POST", "/v1/fine-tune", data=data, files={"data_file": ("x.jsonl", EXAMPLES)}, headers=headers)

    assert upload(trains, deploy=False).status_code == 202
    refused = [upload(trains, deploy=True)]
    refused.append(ask(app, "POST", "/v1/retrain", json={"model": "demo", "deploy": True}, headers=trains))
    assert [(one.status_code, one.json()["error"]["code"]) for one in refused] == [(403, "missing_scope")] * 2
    assert "this needs deploy" in refused[0].json()["error"]["message"]
    assert len(queue_of(app).list()) == 1
    assert ask(app, "POST", "/v1/retrain", json={"model": "demo"}, headers=trains).status_code == 202
    job_id = upload(both, deploy=True).json()["job_id"]
    assert queue_of(app).get(job_id).request.deploy
    # who may train may stop it; to have it deployed after all takes the same right as asking for it did
    assert ask(app, "POST", f"/v1/jobs/{job_id}/cancel", headers=trains).status_code == 200
    assert ask(app, "POST", f"/v1/jobs/{job_id}/retry", headers=trains).status_code == 403
    assert ask(app, "POST", f"/v1/jobs/{job_id}/retry", headers=both).status_code == 200


def test_events_follow_a_job_and_go_on_where_a_reader_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(Path(__file__).parents[2])  # the worker's process finds the kind of job there
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])]))
    app = service_at(tmp_path)
    queue = queue_of(app)
    marks = tmp_path / "marks"
    marks.mkdir()
    job = queue.submit(JobRequest(kind="count", options={"marks": str(marks)}))
    with JobQueue(Workspace.open(tmp_path), app.state.service.context.settings, kinds=("job_kinds",)) as working:
        working.start()
        text = ask(app, "GET", f"/v1/jobs/{job.job_id}/events").text
    records = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n")[1:] if block]
    assert records[-1]["event"] == "end"
    assert json.loads(records[-1]["data"])["status"] == "ready"
    assert {"StageStarted", "StageProgress", "StageFinished"} <= {record["event"] for record in records}
    ids = [int(record["id"]) for record in records[:-1]]
    assert ids == sorted(set(ids))
    rest = ask(app, "GET", f"/v1/jobs/{job.job_id}/events", headers={"Last-Event-ID": str(ids[2])}).text
    assert rest.split("\n\n")[1:] == text.split("\n\n")[4:]
    assert ask(app, "GET", f"/v1/jobs/{job.job_id}/events", headers={"Last-Event-ID": "x"}).text == text


def test_a_model_is_rolled_back(tmp_path: Path) -> None:
    app = service_at(tmp_path / "home")
    assert ask(app, "POST", "/rollback", json={"model": "demo"}).status_code == 404
    gguf = tiny_gguf(tmp_path)
    deploy_version(tmp_path / "home", gguf, version="r1")
    only = ask(app, "POST", "/rollback", json={"model": "demo"})
    assert (only.status_code, only.json()["error"]["code"]) == (409, "refused")
    deploy_version(tmp_path / "home", gguf, version="r2")
    answer = ask(app, "POST", "/rollback", json={"model": "demo"})
    assert answer.json() == {"model": "demo", "version": "r1", "runtime": "embedded"}
    assert ask(app, "GET", "/models").json()["models"][0]["version"] == "r1"
    assert "rollback" in (tmp_path / "home" / "audit.jsonl").read_text()


def test_a_disk_that_is_full_is_a_507_or_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = service_at(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    answer = send(app, EXAMPLES)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert queue_of(app).list() == []


def test_the_command_line_sees_what_was_sent(tmp_path: Path) -> None:
    job_id = send(service_at(tmp_path), EXAMPLES).json()["job_id"]
    assert [job["job_id"] for job in ai_forge("jobs", "list", "--home", tmp_path).json] == [job_id]
