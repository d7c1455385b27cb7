"""What a shell does to a command: a reader that goes away, a full disk behind `>`, closed or odd streams, Ctrl-C at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_runs import process

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")


def test_a_reader_that_goes_away_ends_it_quietly_as_sigpipe_would() -> None:
    running = process("config", "show", "--json")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.wait() == 141


@LINUX
def test_a_full_disk_behind_the_output_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "ai_forge", "runs", "--home", str(tmp_path / "home")]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stderr.startswith("missing_prerequisite: No space left on device")
    assert len(ended.stderr.splitlines()) == 1
    assert " Next: " in ended.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command(closed: str, tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m ai_forge runs --home {tmp_path / 'home'} {closed}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_a_terminal_that_cannot_show_a_letter_shows_another(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "日本 → é", "input": "", "output": "✓ \\u2028"}\n', encoding="utf-8")
    running = process("data", "show", rows, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert "?" in out


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.2, 0.4])
def test_ctrl_c_at_once_is_no_traceback(after_s: float, tmp_path: Path) -> None:
    # before that it is Python itself that is interrupted
    begun = "from ai_forge.__main__ import main; print('begun', flush=True); main()"
    command = [sys.executable, "-c", begun, "doctor", "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        time.sleep(after_s)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    assert running.returncode == 130
