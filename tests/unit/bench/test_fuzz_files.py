"""Mutated files, a small part of what `make soak` mines: none ends a run, and the sound file beside them is found."""

from fuzz_files import MUTATIONS, measured, originals


def test_no_broken_file_ends_a_run() -> None:
    assert {"a.rst", "a.adoc", "a.ipynb"} <= {name for name, _ in originals()}
    told = measured(n_files=300, seed=7)
    assert told["faults"] == []
    assert told["mutations"] == len(MUTATIONS)
    assert told["blocks"] > 200  # most are still code
    assert told["entries"] > told["blocks"]
