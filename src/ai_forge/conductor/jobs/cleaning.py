"""Jobs that are over are forgotten by age, and by the disk that their uploads and logs take: the oldest first. So are uploads that
never became a job."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ai_forge.conductor.jobs.store import JobStore
from ai_forge.conductor.schemas import FINISHED
from ai_forge.config import ConductorSettings
from ai_forge.workspace import Workspace

DAY_S = 86400.0


def remove_old(store: JobStore, workspace: Workspace, limits: ConductorSettings) -> int:
    """Forget what is older than `keep_jobs_days`, then the oldest until the rest fits into `keep_jobs_bytes`; how many."""
    oldest_kept = time.time() - limits.keep_jobs_days * DAY_S
    total, n_removed = 0, 0
    for row in store.rows(FINISHED):  # newest first: what is over the limit is what is oldest
        folder = workspace.root / "jobs" / row.job_id
        total += _size(folder)
        ended = row.finished_at or row.created_at
        if (ended < oldest_kept or total > limits.keep_jobs_bytes) and store.delete(row.job_id, FINISHED):
            shutil.rmtree(folder, ignore_errors=True)
            n_removed += 1
    for folder in (workspace.root / "jobs").glob("*/"):
        is_old = folder.stat().st_mtime < time.time() - DAY_S
        if is_old and store.get(folder.name) is None:  # whoever was uploading is gone
            shutil.rmtree(folder, ignore_errors=True)
    return n_removed


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
