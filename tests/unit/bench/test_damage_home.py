"""Files of a home damaged, a small part of what `make soak` tries: the commands that read them answer right, or say what to do."""

import json
import subprocess
import sys
from pathlib import Path

from cli_runs import TinyRun, copy_of
from damage_place import Place

TOOL = Path(__file__).parents[3] / "bench" / "damage_home.py"


def test_no_damaged_file_is_met_with_a_traceback_or_a_wrong_answer(finished: TinyRun, tmp_path: Path) -> None:
    copy_of(finished, tmp_path)
    (tmp_path / "base").symlink_to(finished.base)
    Place(tmp_path).keep()
    # in a process of its own: it forks, which one that has computed cannot
    words = [TOOL, "--made", tmp_path, "--cases", 25, "--commands", "ask,models,runs"]
    told = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert told.stdout, told.stderr[-2000:]
    report = json.loads(told.stdout)
    assert report["faults"] == []
    assert report["cases"] > 15
    assert set(report["commands"]) > {"same"}  # some of it mattered, and was told or mended
