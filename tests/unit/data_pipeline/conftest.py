"""Repositories that the tests mine: this one, and small ones made with the real git."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.data_pipeline import MiningResult, mine_repository, read_repository

SOURCE = Path(__file__).parents[3] / "src" / "ai_forge" / "data_pipeline"


def git(folder: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def make_repository(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write files into a new git repository, committed."""

    def make(files: dict[str, str]) -> Path:
        root = tmp_path / "repo"
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        git(root, "init", "-q")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "first")
        return root

    return make


@pytest.fixture(scope="session")
def mined(tmp_path_factory: pytest.TempPathFactory) -> MiningResult:
    """This project's own data pipeline, mined from a copy that is no git repository."""
    root = tmp_path_factory.mktemp("own") / "project"
    for path in sorted(SOURCE.rglob("*.py")):
        target = root / "src" / path.relative_to(SOURCE.parents[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return mine_repository(read_repository(root))
