"""Another DBOS and another version of the program in the middle of jobs: is any stranded, lost or done by two at once?

    pip install --no-deps --target OLD dbos==3.3.0
    python bench/upgrade_jobs.py --old OLD --upgrades 20

For each upgrade a home of its own: processes that find the DBOS in OLD and a copy of the program with other code put jobs into the
queue and work on them; the owner is killed (`kill -9`) at a moment drawn anew, and one with this program and its DBOS takes over. All
jobs have to end well, each step done by one process at a time. Told on stderr, a JSON report on stdout; 1 where one does not.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ai_forge

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from ai_forge.conductor.schemas import FINISHED, JobRequest
from queue_owner import environment, finished, queue_of, start_owner, wait_until

N_JOBS = 3


def other_program(folder: Path) -> Path:
    """A copy of the package with other code behind the jobs; the folder to put on the path."""
    package = folder / "ai_forge"
    shutil.copytree(Path(ai_forge.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    worker = package / "conductor" / "worker.py"
    worker.write_text(worker.read_text() + "\nOTHER = True\n")
    return folder


def submit(home: Path, marks: Path, n: int) -> None:
    """Put jobs into the queue of a home; runs under the old version and says which one that is."""
    with queue_of(home) as queue:
        options = {"marks": str(marks), "n": n, "pause": 0.05}
        jobs = [queue.submit(JobRequest(kind="count", options=options)).job_id for _ in range(N_JOBS)]
    print(json.dumps({"jobs": jobs, "dbos": version("dbos"), "program": ai_forge.__version__}))


def upgrade(folder: Path, old_path: str, chance: random.Random) -> dict[str, Any]:
    """One of them."""
    home, marks = folder / "home", folder / "marks"
    marks.mkdir(parents=True)
    words = [sys.executable, __file__, "--submit", str(home), str(marks)]
    done = subprocess.run(words, env=environment(PYTHONPATH=old_path), capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    owner = start_owner(home, PYTHONPATH=old_path)
    try:
        # not the queue: opening it here would bring the database to the new version before its time
        wait_until(lambda: any((home / "jobs" / job / "a").exists() for job in told["jobs"]))
        time.sleep(chance.uniform(0.0, 3.0))
    finally:
        owner.kill()
        owner.wait()
    counted = {
        f"{job} {step}": int((home / "jobs" / job / step).read_text())
        for job in told["jobs"]
        for step in "abc"
        if (home / "jobs" / job / step).exists()
    }
    with queue_of(home) as queue:
        before = {job: queue.get(job).status for job in told["jobs"]}
        owner = start_owner(home)
        try:
            began = time.monotonic()
            ended = [finished(queue, job, 120.0) for job in told["jobs"] if queue.get(job).status not in FINISHED]
            seconds = time.monotonic() - began
            states = [queue.get(job).status for job in told["jobs"]]
            errors = [job.error for job in ended if job.error]
        finally:
            owner.kill()
            owner.wait()
    steps = (marks / "done").read_text().split("\n")[:-1]
    expected = {f"{job} {step}" for job in told["jobs"] for step in "abc"}
    return {
        "from": [told["program"], told["dbos"]],
        "states_at_the_kill": sorted(before.values()),
        "counted_at_the_kill": sorted(counted.values()),
        "states": states,
        "errors": errors,
        "lost_steps": len(expected - set(steps)),
        "two_at_once": (marks / "two").exists(),
        "seconds_until_all_ended": round(seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submit", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--old", type=Path, help="the folder with another DBOS")
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.submit:
        submit(chosen.submit[0], chosen.submit[1], 10)
        return 0
    chance = random.Random(chosen.seed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="upgrades-") as name:
        program = other_program(Path(name) / "program")
        old = [str(program), *([str(chosen.old.resolve())] if chosen.old else []), environment()["PYTHONPATH"]]
        for index in range(chosen.upgrades):
            rows.append(upgrade(Path(name) / str(index), os.pathsep.join(old), chance))
            print(f"{index + 1} of {chosen.upgrades}: {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
    good = all(row["states"] == ["ready"] * N_JOBS and not row["lost_steps"] and not row["two_at_once"] for row in rows)
    print(json.dumps({"good": good, "to": [ai_forge.__version__, version("dbos")], "upgrades": rows}, indent=1))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
