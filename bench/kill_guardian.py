"""`kill -9` of a guardian's cycle at moments spread over all of it: does it always end, with one trainer, and no half deployment?

    python bench/kill_guardian.py --kills 20            (a tiny base; `make soak`)
    python bench/kill_guardian.py --kills 2 --steps 12  (what CI runs)
    python bench/kill_guardian.py --kills 3 --steps 8 --base SmolLM2-135M-Instruct --in-training

A home with a deployed version is made once. For each kill a copy of it gets a changed repository and a cycle whose verdict is yes;
the cycle's process is killed (with --in-training within the second after one of the training's steps), and two processes then ask for
a cycle at once, as a watch and a person may. Told for each kill on stderr, a JSON report on stdout; ends with 1 where a cycle does
not end, two train, what is active is neither the version before nor the whole new one, the adapter differs from that of an
undisturbed cycle, or something half-written is left.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ai_forge.antigravity_agent.cycle import CycleStore
from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
from ai_forge.config import load_settings
from ai_forge.events import read_events
from ai_forge.pipeline.identity import identity_of
from ai_forge.pipeline.recipes import REPOSITORY, Recipe
from ai_forge.pipeline.stage import StageContext, Summary
from ai_forge.pipeline.stages.report import REPORT, ReportSummary
from ai_forge.serving.registry import Registry
from ai_forge.serving.served_model import ServedModel
from ai_forge.workspace import Workspace
from kill_run import import_everything, killed_after, wait

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import SETTINGS, stdlib_copy, tiny_base

TRIES = 3
ADDED = '\n\ndef added(value: int) -> int:\n    """Add one to the value."""\n    return value + 1\n'


def promoting() -> Recipe:
    """The repository's recipe with a verdict that is always yes: a random base learns nothing that a judge would see."""

    def build(context: StageContext) -> Summary:
        made = REPORT.build(context)
        assert isinstance(made, ReportSummary)
        return made.model_copy(update={"better": True, "headline": "Better than the base: for this test."})

    report = dataclasses.replace(REPORT, build=build, version=1_000)
    stages = tuple(report if stage.name == "report" else stage for stage in REPOSITORY.stages)
    return dataclasses.replace(REPOSITORY, stages=stages)


@dataclasses.dataclass(frozen=True)
class Place:
    """A home and a repository with a base."""

    folder: Path
    settings: dict[str, Any]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    def guardian(self) -> RepoGuardian:
        project = {"repository": self.repo, "home": self.home, "name": "killed", "settings": self.settings}
        return RepoGuardian(project, recipe=promoting())

    def store(self) -> CycleStore:
        return CycleStore(Workspace.open(self.home), self.repo, "repository")

    def copied(self, folder: Path) -> "Place":
        for name in ("home", "repo"):
            shutil.copytree(self.folder / name, folder / name, symlinks=True)
        # the copy is another repository by its path: the name that the first one has is given to it
        names = {identity_of(folder / "repo"): {"model": "killed", "path": str(folder / "repo")}}
        (folder / "home" / "repositories.json").write_text(json.dumps(names))
        return Place(folder, self.settings)

    def active(self) -> str | None:
        with Registry(self.home / "registry.db") as registry:
            found = registry.active("killed")
        return found.version if found else None


def change(repo: Path) -> None:
    """Something new in each file: of one alone the examples to train on may be the same, and nothing would be trained."""
    for path in sorted(repo.rglob("*.py")):
        path.write_text(path.read_text() + ADDED.replace("added", f"added_to_{path.stem}"))


def forked_cycle(place: Place, log: Path) -> int:
    """The pid of a child that runs a cycle; its exit code is 0 where the cycle ended well or joined another."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            os.dup2(file.fileno(), 2)
            record = place.guardian().run_cycle("a kill")
            print(record)
            code = 0 if record is None or record.state == "deployed" else 1
    except BaseException:  # noqa: BLE001 - the child's exit code is all that is told
        import traceback

        with log.open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def runs_of(home: Path) -> set[str]:
    """The ids of its runs."""
    return {path.name for path in (home / "runs").glob("*/")}


def killed_in_training(pid: int, home: Path, step: int, seconds: float) -> int:
    """Exit code of a cycle's process that is killed `seconds` after that step of its training was logged."""
    before = runs_of(home)
    while not any(n_steps(home, run) >= step for run in runs_of(home) - before):
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return killed_after(pid, seconds)


def digest(home: Path, run_id: str) -> str:
    """Of the adapter that a run's folder links to."""
    return hashlib.sha256((home / "runs" / run_id / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def trainers(home: Path, run_id: str) -> int:
    """How often the steps of a run's training went back: 0 or 1 after one kill, more with two trainers."""
    events = read_events(home / "runs" / run_id / "events.jsonl")
    steps = [event["step"] for event in events if event["event"] == "StepLogged"]
    return sum(1 for before, after in itertools.pairwise(steps) if after <= before)


def n_steps(home: Path, run_id: str) -> int:
    """How many steps the run itself made: 0 where it found its training done, or has not begun."""
    return sum(event["event"] == "StepLogged" for event in read_events(home / "runs" / run_id / "events.jsonl"))


def left_behind(home: Path) -> list[str]:
    """What is half-written."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if ".tmp-" in path.name]


def main() -> int:
    """Make a home, kill, ask again twice at once, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="of the training: more of them, more kills within it")
    parser.add_argument(
        "--folder", type=Path, help="keep the undisturbed cycles here, and use them where they are there already"
    )
    parser.add_argument("--in-training", action="store_true", help="kill after a step of the training, drawn by chance")
    parser.add_argument("--base", help="a base of `ai-forge models`; a tiny random one where it is left out")
    parser.add_argument("--set", action="append", default=[], help="another setting, KEY=VALUE; several times")
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    import_everything()

    with contextlib.ExitStack() as held:
        root = chosen.folder or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kill-guardian-")))
        base = chosen.base or str(tiny_base(root / "base"))
        steps = {"max_steps": chosen.steps, "save_steps": chosen.steps // 4, "eval_steps": chosen.steps // 2}
        settings = SETTINGS | {f"training.{key}": value for key, value in steps.items()}
        settings |= {"training.base_model": base, "guardian.desktop": False}
        settings |= dict(text.split("=", 1) for text in chosen.set)
        load_settings(("flag", settings))
        log = root / "log"
        first, straight = Place(root / "first", settings), Place(root / "straight", settings)
        if not straight.folder.exists():
            stdlib_copy(first.repo)
            if wait(forked_cycle(first, log)):
                print(log.read_text(), file=sys.stderr)
                return 1
            change(first.copied(straight.folder).repo)
            if wait(forked_cycle(straight, log)):
                print(log.read_text(), file=sys.stderr)
                return 1
        old, new, undisturbed = first.active(), straight.active(), straight.store().last()
        assert undisturbed is not None
        assert undisturbed.ended is not None
        seconds = (undisturbed.ended - undisturbed.started).total_seconds()
        expected = digest(straight.home, str(new))
        kills: list[dict[str, Any]] = []
        for index in range(chosen.kills):
            place = root / f"killed-{index}"
            part = (index + chance.random()) / chosen.kills
            for _ in range(TRIES):
                shutil.rmtree(place, ignore_errors=True)
                killed = first.copied(place)
                change(killed.repo)
                pid, started = forked_cycle(killed, log), time.monotonic()
                if chosen.in_training:
                    step = chance.randint(1, chosen.steps - 1)
                    code = killed_in_training(pid, killed.home, step, chance.uniform(0.0, 1.0))
                else:
                    code = killed_after(pid, seconds * part)
                after_s = time.monotonic() - started
                if code == -signal.SIGKILL:
                    break
                seconds *= 0.9  # it was through before: the machine is faster now
            between = killed.active()
            record = killed.store().last()
            at_work = [task.name for task in record.tasks if task.state == "running"] if record else []
            codes = sorted(wait(pid) for pid in [forked_cycle(killed, log), forked_cycle(killed, log)])
            active = killed.active()
            answer = ""
            with ServedModel.open(
                "killed", Workspace.open(killed.home), killed.guardian().project.settings.runtime
            ) as model:
                reply = model.ask("What does this do?")
                for _ in reply:
                    pass
                answer = reply.model
            kills.append(
                {
                    "after_s": round(after_s, 2),
                    "killed": code == -signal.SIGKILL,
                    "task": (at_work or ["between"])[0],
                    "active_after_kill": "old" if between == old else "new" if between == new else "neither",
                    "reruns": codes,
                    "ended": active == new and not killed.store().is_working and killed.store().asked() is None,
                    "served": answer == f"killed:{new}",
                    "same_bytes": active == new and digest(killed.home, str(new)) == expected,
                    "repeated": trainers(killed.home, str(new)),
                    "trained_steps": n_steps(killed.home, str(new)),
                    "left": left_behind(killed.home),
                }
            )
            print(f"{index + 1} of {chosen.kills}: {json.dumps(kills[-1])}", file=sys.stderr, flush=True)
            if codes != [0, 0]:
                print(log.read_text()[-3000:], file=sys.stderr)
            shutil.rmtree(place)
        print(json.dumps({"cycle_s": round(seconds, 2), "kills": kills}, indent=1))
    return int(any(not is_sound(kill) for kill in kills))


def is_sound(kill: dict[str, Any]) -> bool:
    """Whether a kill did no harm."""
    whole = kill["ended"] and kill["served"] and kill["same_bytes"] and kill["left"] == []
    return whole and kill["reruns"] == [0, 0] and kill["active_after_kill"] != "neither" and kill["repeated"] <= 1


if __name__ == "__main__":
    sys.exit(main())
