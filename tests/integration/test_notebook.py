"""The Colab notebook: what is committed is what docs/notebook.py writes, and all of it runs, on a CPU with a tiny base."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cli_runs import flags, stdlib_copy, tiny_base

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_notebook", ROOT / "docs" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_current(source: ModuleType) -> None:
    assert json.loads(source.NOTEBOOK.read_text()) == source.notebook(), "run `make docs`"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(source: ModuleType, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(ROOT / "tests" / "fixtures" / "ledger" / ".agent", rules / ".agent")
    chosen = {
        "REPOSITORY": str(stdlib_copy(tmp_path / "code", ("bisect.py", "heapq.py", "shlex.py", "textwrap.py"))),
        "BASE": str(tiny_base(tmp_path / "base")),
        "SETTINGS": " ".join(flags()),
        "QUESTION": "What does bisect_left return?",
        "RULES": str(rules),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    work = tmp_path / "content"
    work.mkdir()
    printed = ""
    for kind, text in source.CELLS:
        if kind == "markdown":
            continue
        words = ["bash", "-e", "-c", source.shell(kind, text)]
        done = subprocess.run(words, cwd=work, env=os.environ | chosen, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        printed += done.stdout
    assert "## What this report does not know" in printed
    assert '"question": "What does bisect_left return?"' in printed
    taken = list((work / "export").glob("*/Modelfile"))
    assert len(taken) == 2
    for modelfile in taken:
        (named,) = [
            line.removeprefix("FROM ") for line in modelfile.read_text().splitlines() if line.startswith("FROM ")
        ]
        assert (modelfile.parent / named).is_file()
