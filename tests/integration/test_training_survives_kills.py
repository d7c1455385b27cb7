"""`kill -9` at random moments of a real training process, and Ctrl-C: the final adapter is the same, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_models import make_tiny

SCRIPT = Path(__file__).parents[1] / "training_process.py"
N_KILLS = 4


@pytest.mark.slow
def test_killed_and_interrupted_trainings_end_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "base")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(base), str(N_KILLS)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    code, n_steps, best, expected = report["straight"]
    assert (code, n_steps) == (0, 10)
    assert best == 10  # so the bytes hold every step

    codes, digest = report["killed"]
    assert codes.count(-9) >= N_KILLS // 2  # a resumed run is shorter and may end before its kill
    assert codes[-1] == 0
    assert digest == expected
    assert report["debris"] == []

    code, n_steps, kept, resumed, n_more, digest = report["interrupted"]
    assert code == 130
    assert kept[-1] == f"step-{n_steps:06d}"  # the step in hand was finished and saved
    assert (resumed, n_more) == (0, 10 - n_steps)
    assert digest == expected
