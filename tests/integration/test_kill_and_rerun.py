"""`kill -9` at random moments of `ai-forge run`: every rerun finishes with the adapter of an undisturbed run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli_runs import flags, stdlib_copy, tiny_base

SCRIPT = Path(__file__).parents[2] / "bench" / "kill_run.py"
N_KILLS = 5


@pytest.mark.slow
def test_killed_runs_finish_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    repo, base = stdlib_copy(tmp_path / "repo"), tiny_base(tmp_path / "base")
    steps = flags(training__max_steps=24, training__save_steps=4, training__eval_steps=8)
    command = [sys.executable, str(SCRIPT), "--fork", "--kills", str(N_KILLS), "--repo", str(repo), "--seed", "3"]
    done = subprocess.run(
        [*command, "--", "--base", str(base), *steps],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    kills = json.loads(done.stdout)["kills"]
    assert len(kills) == N_KILLS
    assert sum(kill["killed"] for kill in kills) >= N_KILLS - 1  # the last may come when all is done
    assert len({kill["stage"] for kill in kills}) >= 2  # not all in the same stage
    assert all(kill["rerun"] == 0 and kill["same_bytes"] and kill["left"] == [] for kill in kills)
