"""`kill -9` at random moments of `ai-forge run`: does every rerun finish, and with the very bytes of an undisturbed run?

    python bench/kill_run.py --kills 10 --repo . -- --steps 6 --set training.rank=8
    python bench/kill_run.py --kills 100 --fork --verb train --repo . -- --base FOLDER --steps 40

One run is left alone. Then, for each kill, a run in a fresh home is killed at a random moment and the same command is
given again, until it ends. The moments are spread over the whole run: the n-th lies in the n-th part of it. Tells each kill
on stderr and prints a JSON report; exits with 1 where an adapter differs, a rerun fails or something half-written is left.

`--fork` imports everything once and forks each run: what takes seconds in each process otherwise. The tests use it.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_forge.json_lines import lines_of

TRIES = 3


def forked(words: Sequence[str], log: Path) -> int:
    """The pid of a child of this process that runs the command."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            from ai_forge.cli import app as cli

            sys.argv = ["ai-forge", *words]
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
    finally:
        os._exit(code)


def spawned(words: Sequence[str], log: Path) -> int:
    """The pid of a real `python -m ai_forge`."""
    with log.open("a") as file:
        return subprocess.Popen([sys.executable, "-m", "ai_forge", *words], stdout=file, stderr=file).pid


def import_everything() -> None:
    """What a run imports, in the parent of the forks; nothing that starts threads."""
    import bm25s  # noqa: F401
    import matplotlib.figure  # noqa: F401

    import ai_forge.cli.app
    import ai_forge.judge.report
    import ai_forge.training.backends.torch_backend
    import ai_forge.training.backends.torch_init  # noqa: F401


def wait(pid: int) -> int:
    """Exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_after(pid: int, seconds: float) -> int:
    """Exit code of a process that is killed after `seconds`, if it does not end by itself before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return wait(pid)


def digest(home: Path) -> str:
    """Of the one finished adapter."""
    (path,) = home.glob("cache/train/*/adapter_model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stage_at_work(home: Path) -> str:
    """Which stage the killed run was in, by its events."""
    lines = [line for path in home.glob("runs/*/events.jsonl") for _, line in lines_of(path.read_text())]
    stage = "start"
    for line in lines:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            stage = event["stage"] if event["event"] == "StageStarted" else stage
    return stage


def main() -> int:
    """Run, kill, run again, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repo", type=Path, default=Path())
    parser.add_argument("--verb", choices=("run", "train"), default="run", help="the command that is killed")
    parser.add_argument("--fork", action="store_true", help="import once, fork the runs")
    parser.add_argument("words", nargs="*", help="further words of the command, after --")
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    start = forked if chosen.fork else spawned
    if chosen.fork:
        import_everything()

    with tempfile.TemporaryDirectory(prefix="kill-run-") as folder:
        log = Path(folder) / "log"

        def begin(home: Path) -> int:
            return start([chosen.verb, str(chosen.repo), "--home", str(home), *chosen.words], log)

        began = time.monotonic()
        straight = Path(folder) / "straight"
        code = wait(begin(straight))
        if code:
            print(log.read_text(), file=sys.stderr)
            return code
        seconds, expected = time.monotonic() - began, digest(straight)
        kills: list[dict[str, Any]] = []
        for index in range(chosen.kills):
            home, part = Path(folder) / f"killed-{index}", (index + chance.random()) / chosen.kills
            for _ in range(TRIES):
                moment = seconds * part
                pid, began = begin(home), time.monotonic()
                killed = killed_after(pid, moment)
                if killed == -signal.SIGKILL:
                    break
                if killed:
                    print(log.read_text()[-2000:], file=sys.stderr)
                    return killed  # it failed by itself
                seconds = time.monotonic() - began  # it was through before: the machine is faster now
                shutil.rmtree(home)
            stage = stage_at_work(home)
            rerun = wait(begin(home))
            left = [str(p.relative_to(home)) for p in home.rglob("*") if ".tmp-" in p.name]
            kills.append(
                {
                    "after_s": round(moment, 2),
                    "stage": stage,
                    "killed": killed == -signal.SIGKILL,
                    "rerun": rerun,
                    "same_bytes": rerun == 0 and digest(home) == expected,
                    "left": left,
                }
            )
            print(f"{index + 1} of {chosen.kills}: {json.dumps(kills[-1])}", file=sys.stderr, flush=True)
            if rerun:
                print(log.read_text()[-2000:], file=sys.stderr)
            shutil.rmtree(home)
        print(json.dumps({"run_s": round(seconds, 2), "adapter": expected, "kills": kills}, indent=1))
    return int(any(kill["rerun"] or not kill["same_bytes"] or kill["left"] for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
