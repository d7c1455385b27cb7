"""Ray starts the processes; they train as one does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ai_forge.cli import on_ray
from cli_runs import ai_forge, flags, stdlib_copy, tiny_base


def losses(home: Path) -> list[float]:
    (path,) = (home / "runs").glob("*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return [e["loss"] for e in events if e["event"] in ("StepLogged", "EvalFinished")]


def test_without_ray_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert on_ray.main(["--workers", "2", "train", "."]) == 3
    assert (
        "missing_prerequisite: Ray is not installed here. Next: pip install 'ai-forge[ray]'" in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ai-forge[ray]'")
def test_two_workers_have_the_losses_of_one_process(tmp_path: Path) -> None:
    repo, base = stdlib_copy(tmp_path / "repo"), tiny_base(tmp_path / "base")

    def words(home: str) -> list[str]:
        return ["train", str(repo), "--base", str(base), "--home", str(tmp_path / home), *flags()]

    command = [sys.executable, "-m", "ai_forge.cli.on_ray", "--workers", "2", *words("ray")]
    done = subprocess.run(command, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert ai_forge(*words("alone")).code == 0
    assert len(losses(tmp_path / "ray")) == 7
    np.testing.assert_allclose(losses(tmp_path / "ray"), losses(tmp_path / "alone"), rtol=2e-3)
    failed = subprocess.run([*command[:6], "train", str(tmp_path / "nowhere")], check=False, capture_output=True)
    assert failed.returncode == 2
