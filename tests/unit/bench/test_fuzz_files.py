"""Mutated files, a small part of what `make soak` tries: none ends a run, and the sound file beside them is found."""

import json
import subprocess
import sys
from pathlib import Path

from fuzz_files import MUTATIONS, measured, originals


def test_no_broken_file_ends_a_run() -> None:
    assert {"a.rst", "a.adoc", "a.ipynb"} <= {name for name, _ in originals()}
    told = measured(n_files=300, seed=7)
    assert told["faults"] == []
    assert told["mutations"] == len(MUTATIONS)
    assert told["blocks"] > 200  # most are still code
    assert told["entries"] > told["blocks"]


def test_no_broken_model_or_dataset_file_does_more_than_be_refused() -> None:
    tool = Path(__file__).parents[3] / "bench" / "fuzz_files.py"
    # in a process of its own: its workers are forks, and their memory is measured from where they began
    words = [sys.executable, tool, "--files", "0", "--models", "60", "--seed", "7"]
    told = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert told.stdout, told.stderr[-2000:]
    models = json.loads(told.stdout)["models"]
    assert models["faults"] == []
    assert sum(counts.get("rejected", 0) for counts in models["by_kind"].values()) > 20
