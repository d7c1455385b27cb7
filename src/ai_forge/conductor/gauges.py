"""What a scrape of `/metrics` reads from the queue, the open models and the disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from ai_forge.conductor.metrics import Sample
from ai_forge.conductor.schemas import ACTIVE, JobStatus
from ai_forge.errors import AIForgeError

if TYPE_CHECKING:
    from ai_forge.conductor.service import Service

__all__ = ["gauges"]

MEASURED = {
    "loss": "Training loss (nats a supervised token) of the newest step.",
    "held_out_loss": "Held-out loss (nats a supervised token).",
    "tokens_per_s": "Training speed.",
    "memory_bytes": "Memory of the training.",
    "eta_s": "Seconds until the training ends, as it expects.",
}


def gauges(service: Service) -> Iterator[Sample]:
    """Name, meaning, labels and value of each."""
    workspace = service.context.workspace
    yield "ai_forge_disk_free_bytes", "Free disk where the workspace lies.", {}, shutil.disk_usage(workspace.root).free
    runtimes: Counter[str] = Counter()
    for model in service.models.opened():
        runtimes[model.activation.runtime] += 1
        labels = {"model": model.activation.name, "version": model.activation.version}
        yield "ai_forge_model_open", "Versions held open.", labels, 1
        yield "ai_forge_model_requests", "Requests that a version is answering.", labels, model.n_users
    for runtime in ("embedded", "ollama"):
        yield "ai_forge_models_open", "Models held open, by runtime.", {"runtime": runtime}, runtimes[runtime]
    if service.context.jobs is not None:
        yield from _of_jobs(service)


def _of_jobs(service: Service) -> Iterator[Sample]:
    try:
        jobs = service.jobs.list()
    except AIForgeError:
        yield "ai_forge_queue_up", "Whether the queue's database answers.", {}, 0
        return
    yield "ai_forge_queue_up", "Whether the queue's database answers.", {}, 1
    counted = Counter(job.status for job in jobs)
    for status in get_args(JobStatus):
        yield "ai_forge_jobs", "Jobs by state.", {"status": status}, counted[status]
    for job in jobs:
        if job.status not in ACTIVE:
            continue
        labels = {"job_id": job.job_id, "model": job.model or job.project_name or ""}
        yield "ai_forge_job_progress", "How far a job is, 0 to 1.", labels, job.progress
        step = labels | {"step": job.current_step or ""}
        yield "ai_forge_job_step", "The step that a job is at.", step, 1
        for name, what in MEASURED.items():
            value = job.metrics.get(name)
            if isinstance(value, int | float):
                yield f"ai_forge_job_{name}", what, labels, float(value)
