"""Planted candidates, a tenth of what `bench/plant_candidates.py` plants: none that is degraded is deployed, better ones are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "plant_candidates.py"


@pytest.mark.slow
def test_no_degraded_candidate_is_deployed_better_ones_are_and_a_rollback_gives_the_answers_back() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--share", "10", "--offset", "7"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    told = json.loads(done.stdout)
    assert {row["kind"]: row["deployed"] for row in told["candidates"]} == {
        "better": True,
        "taught to mumble": False,
        "poorer than what is active": False,
        "tuned on wrong facts": False,
        "over-trained on vandalised documentation": False,
        "equal to base": False,
    }
    # which gate holds it back is a matter of a few answers: the one against the base, or the one against what is active
    poorer = next(row for row in told["candidates"] if row["kind"] == "poorer than what is active")
    assert "citations" in poorer["told"]
    assert poorer["told"].startswith(("Not shown to be better than the base", "not deployed: surely worse than what"))
    assert all(told["rollback"].values())
