"""Planted candidates, three of those that `bench/plant_candidates.py` plants: none that is degraded is deployed, better ones are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "plant_candidates.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_degraded_candidate_is_deployed_better_ones_are_and_a_rollback_gives_the_answers_back() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--share", "25"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    told = json.loads(done.stdout)
    assert {row["kind"]: row["deployed"] for row in told["candidates"]} == {
        "better": True,
        "equal to base": False,
        "poorer than what is active": False,
    }
    assert all(told["rollback"].values())
