"""A tenth of `make soak`: kills at random and at step boundaries, and cancellations; the script itself says whether all was well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from queue_owner import environment

SCRIPT = Path(__file__).parents[2] / "bench" / "soak_jobs.py"


@pytest.mark.slow
def test_no_job_is_lost_stuck_or_done_twice_at_once() -> None:
    words = [sys.executable, str(SCRIPT), "--kills", "18", "--trainings", "0", "--cancels", "5", "--seed", "7"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    report = json.loads(done.stdout)
    assert report["kills"] == 18
    assert set(report["by_victim"]) == {"owner", "worker", "process"}
    assert report["at_a_boundary"] == 9
    assert report["seconds_to_progress"]["p95"] <= 30  # 10 on a machine of its own; see EXPERIMENTS.md
