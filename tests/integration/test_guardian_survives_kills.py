"""`kill -9` of a guardian's cycle, a tenth of what `make soak` does: it ends all the same, with one trainer and a whole deployment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "kill_guardian.py"
N_KILLS = 2


@pytest.mark.slow
def test_a_killed_cycle_is_ended_by_the_next_and_deploys_the_same_bytes() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", str(N_KILLS), "--steps", "12"]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    kills = json.loads(done.stdout)["kills"]
    assert len(kills) == N_KILLS
    assert any(kill["killed"] for kill in kills)
    assert all(kill["ended"] and kill["served"] and kill["same_bytes"] and kill["left"] == [] for kill in kills)
