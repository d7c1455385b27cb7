"""A finished run to change, and what happens in one."""

from pathlib import Path

import pytest

from cli_runs import TinyRun, copy_of


@pytest.fixture
def run(finished: TinyRun, tmp_path: Path) -> TinyRun:
    """A copy of the finished run that a test may change."""
    return copy_of(finished, tmp_path)
