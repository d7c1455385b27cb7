"""Two people on one machine, ten repositories, names that collide, moved and deleted ones: does the right model always answer?

    python bench/two_people.py --write                  (`make soak`)
    python bench/two_people.py --repositories 4         (a part of it: CI)

Ann and Bob (two users where root runs this and others can run its Python; else one with two umasks) train and deploy small
repositories, first four, each in a home of his own, then ten in one home that both may write. Folders are called alike, or by nothing
that can stay in a model's name; half have a history. Each has files and functions that no other has. After each change all are asked
again, and what answers must be the version that is active of that repository: its name, its documents, and the answer that this
version gave before. Changes: a second version, a rollback, folders moved and exchanged, deleted, another repository laid where one
was, two questions at once, a home that the other cannot read.

Prints a JSON report of checks; ends with 1 where one fails.
"""

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ai_forge
from damage_home import complaint_of
from damage_place import Ended, User, given_in_fork
from kill_run import import_everything
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import SETTINGS, tiny_base

GROUP = 65_533
PYTHON = Path(sys.executable).resolve()
ARE_TWO = os.geteuid() == 0 and all(folder.stat().st_mode & 0o005 == 0o005 for folder in PYTHON.parents)
"""Whether they are two users: only root can be others, and they must be able to run the Python that is used."""
ANN = User(65_531, GROUP, 0o002) if ARE_TWO else User(os.geteuid(), os.getegid(), 0o022)
BOB = User(65_532, GROUP, 0o002) if ARE_TWO else User(os.geteuid(), os.getegid(), 0o077)
# (whose, where it lies, whether it has a history)
PLACES = (
    ("ann", "work/tools", True),
    ("bob", "work/tools", True),
    ("ann", "plain/tools", False),
    ("bob", "日本", False),
    ("ann", "other/Tools", True),
    ("bob", "plain/tools", False),
    ("ann", "中国", True),
    ("bob", "my repo (v2)", True),
    ("ann", "my-repo-v2", False),
    ("bob", "x/tools-2", True),
)
MODULE = '''"""What belongs to the {word} part of number {n}."""


def {word}_first_{n}(values, limit):
    """Choose the values of {word} number {n} that lie below the limit."""
    chosen = [value for value in values if value < limit]
    return sorted(chosen)


def {word}_second_{n}(values, text):
    """Say how many values of {word} number {n} there are, behind the text."""
    if not values:
        raise ValueError("no values of {word} number {n}")
    return text + str(len(values))


class {title}{n}:
    """Holds the names of {word} number {n} in the order in which they came."""

    def __init__(self, names):
        self.names = list(names)

    def joined_{n}(self, between):
        """All names of {word} number {n}, with a text between them."""
        return between.join(self.names)
'''
WORDS = ("apple", "birch", "cedar", "daisy")


def write_repository(folder: Path, n: int, *, has_history: bool) -> Path:
    """A repository whose files and functions no other has."""
    folder.mkdir(parents=True)
    for word in WORDS:
        (folder / f"{word}_{n}.py").write_text(MODULE.format(word=word, title=word.title(), n=n))
    if has_history:
        subprocess.run([*git(folder), "init", "-q"], check=True)
        commit(folder, f"Begin {n}")
    return folder


def git(folder: Path) -> list[str]:
    """Git there, as someone whom it lets commit."""
    return ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "safe.directory=*"]


def commit(folder: Path, message: str) -> None:
    """All that lies there."""
    subprocess.run([*git(folder), "add", "."], check=True)
    subprocess.run([*git(folder), "commit", "-qm", message], check=True)


@dataclass
class Project:
    """A repository, where it lies now, whose it is, and what its versions answer."""

    n: int
    owner: str
    place: Path
    has_history: bool
    model: str = ""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Town:
    """The machine: people, their projects, and one home for all or one each."""

    root: Path
    users: dict[str, User]
    one_home: bool
    projects: list[Project] = field(default_factory=list)
    checks: list[dict[str, str]] = field(default_factory=list)

    def home(self, who: str) -> Path:
        return self.root / "home" / ("all" if self.one_home else who)

    def give(self, who: str, words: Sequence[str]) -> Ended:
        """A command of one of them; what he prints lies in a folder of his own, so that two can work at once."""
        folder = self.root / "desk" / who
        return given_in_fork([*words, "--home", str(self.home(who))], folder, 300.0, self.users[who])

    def check(self, what: str, holds: bool, detail: str = "") -> None:
        self.checks.append({"what": what, "holds": "yes" if holds else "NO", "detail": "" if holds else detail[:500]})
        if not holds:
            print(json.dumps(self.checks[-1], ensure_ascii=False), file=sys.stderr, flush=True)

    # -- what they do ---------------------------------------------------------------------------------------------------

    def settle(self, n_projects: int) -> None:
        """Folders and repositories."""
        tiny_base(self.root / "base")
        chosen = SETTINGS | {
            "training.base_model": str(self.root / "base"),
            "training.max_steps": 1,
            "judge.n_questions": 4,
        }
        (self.root / "settings.yaml").write_text(
            "".join(f"{key}: {json.dumps(value)}\n" for key, value in chosen.items())
        )
        for who in self.users:
            (self.root / "desk" / who).mkdir(parents=True)
            self.home(who).mkdir(parents=True, exist_ok=True)
        for n, (who, place, has_history) in enumerate(PLACES[:n_projects]):
            made = write_repository(self.root / "people" / who / place, n, has_history=has_history)
            self.projects.append(Project(n, who, made, has_history))
        self._hand_over()

    def _hand_over(self) -> None:
        """Each his own; what is shared to the group."""
        if not ARE_TWO:
            return
        self.root.chmod(0o755)
        for who, user in self.users.items():
            for top in (self.root / "people" / who, self.home(who), self.root / "desk" / who):
                for path in (top, *top.rglob("*")):
                    os.chown(path, user.uid, user.gid, follow_symlinks=False)
        if self.one_home:
            self.home("ann").chmod(0o2775)

    def train(self, project: Project) -> None:
        """A version of it is deployed; what answers is noted."""
        ended = self.give(project.owner, ["run", str(project.place), "--config", str(self.root / "settings.yaml")])
        if ended.code != 0:
            raise SystemExit(f"{project} is not trained: {ended.code}\n{ended.err[-3000:]}")
        deployed = json.loads(ended.out)["deployed"]
        project.model = deployed.partition(":")[0]
        project.answers[deployed] = self.ask(project, "--repo", str(project.place)) or {}

    def ask(self, project: Project, *named: str, who: str = "") -> dict[str, Any] | None:
        """What is answered, if anything is."""
        question = f"What does `apple_first_{project.n}` do?"
        ended = self.give(who or project.owner, ["ask", question, *named, "--set", "runtime.kind=embedded"])
        return json.loads(ended.out) if ended.code == 0 else None

    def is_right(self, project: Project, told: dict[str, Any] | None, version: str) -> str:
        """What is wrong in an answer; nothing if it is that of this version of this project."""
        if told is None:
            return "it was not answered"
        if told["model"] != version:
            return f"{told['model']} answered, not {version}"
        others = [place for place in told["found"] if f"_{project.n}.py" not in place]
        if others or not told["found"]:
            return f"it was shown {told['found']}"
        before = project.answers[version]
        same = ("answer", "found", "cited")
        return "" if [told[key] for key in same] == [before[key] for key in same] else f"{before} became {told}"

    def all_are_right(self, when: str, *, by_name: bool = False) -> None:
        """Every project asked by its place, and where that is wanted by its model's name."""
        print(when, file=sys.stderr, flush=True)
        for project in self.projects:
            newest = list(project.answers)[-1]
            ways = [("--repo", str(project.place)), ("--model", project.model)]
            for named in ways[: 1 + by_name]:
                wrong = self.is_right(project, self.ask(project, *named), newest)
                self.check(f"{when}: {project.owner}'s {project.place.name} by {named[0]}", not wrong, wrong)


def lived(town: Town, n_projects: int) -> None:
    """What happens, and what must hold after each of it."""
    town.settle(n_projects)
    for project in town.projects:
        town.train(project)
    town.all_are_right("at first", by_name=True)
    for who in town.users:
        names = [project.model for project in town.projects if town.one_home or project.owner == who]
        town.check(f"{who}: no two models of one name", len(set(names)) == len(names), str(names))
    _second_versions(town)
    _two_at_once(town)
    _moved(town)
    _gone_and_replaced(town)


def _second_versions(town: Town) -> None:
    for project in town.projects[:2]:
        module = project.place / f"birch_{project.n}.py"
        module.write_text(module.read_text().replace("behind the text", "behind the text, as words"))
        if project.has_history:
            commit(project.place, "Reword")
            _given_back(town, project)
        town.train(project)
        town.check(f"{project.place.name} has two versions", len(project.answers) == 2, str(list(project.answers)))
    town.all_are_right("after second versions")
    back = town.projects[0]
    ended = town.give(back.owner, ["rollback", str(back.place)])
    town.check("rollback", ended.code == 0, ended.err)
    first = next(iter(back.answers))
    back.answers[first] = back.answers.pop(first)  # the active one comes last
    town.all_are_right("after a rollback of one")


def _given_back(town: Town, project: Project) -> None:
    """What git wrote as root belongs to the owner of the rest."""
    user = town.users[project.owner]
    if ARE_TWO:
        for path in project.place.rglob("*"):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _two_at_once(town: Town) -> None:
    pair = [next(project for project in town.projects if project.owner == who) for who in town.users]
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda project: town.ask(project, "--repo", str(project.place)), pair))
    for project, answer in zip(pair, told, strict=True):
        wrong = town.is_right(project, answer, list(project.answers)[-1])
        town.check(f"asked at once: {project.owner}", not wrong, wrong)


def _moved(town: Town) -> None:
    with_history = [project for project in town.projects if project.has_history and project.owner == "ann"]
    first, *others = with_history
    first.place = first.place.rename(first.place.with_name("renamed"))
    town.all_are_right("after a move")
    if others:  # each where the other was
        other, spare = others[0], first.place.with_name("spare")
        there, here = other.place, first.place
        other.place.rename(spare)
        first.place = here.rename(there)
        other.place = spare.rename(here)
        town.all_are_right("after two changed places")
    plain = next((project for project in town.projects if not project.has_history), None)
    if plain is not None:  # nothing tells which it is: it is refused, and its model answers by its name
        moved = plain.place.rename(plain.place.with_name("moved-plain"))
        ended = town.give(plain.owner, ["ask", "What?", "--repo", str(moved)])
        told = complaint_of(ended.err) or ""
        town.check(
            "a moved folder without history is refused", ended.code == 2 and str(moved) in told, told or ended.err
        )
        moved.rename(plain.place)
        town.all_are_right("after it came back")


def _gone_and_replaced(town: Town) -> None:
    for project in town.projects[-2:]:
        shutil.rmtree(project.place)
    town.all_are_right("after two were deleted")
    for project in town.projects[
        -2:
    ]:  # what lies there now is another: the old model's answer says so, or there is none
        write_repository(project.place, 100 + project.n, has_history=project.has_history)
        _given_back(town, project)
        answer = town.ask(project, "--repo", str(project.place))
        told = answer is None or answer["changed_since"] is not None
        town.check(f"another repository where one was: {project.has_history}", told, str(answer))


def closed_home(town: Town) -> None:
    """A home of someone who lets nobody in: the other is told so."""
    if not ARE_TWO or town.one_home:
        return
    town.home("bob").chmod(0o700)
    ended = given_in_fork(["models", "--home", str(town.home("bob"))], town.root / "desk" / "ann", 60.0, ANN)
    told = complaint_of(ended.err) or ""
    holds = ended.code == 3 and str(town.home("bob")) in told and "Traceback" not in ended.err
    town.check("a home of someone else's", holds, f"{ended.code}: {ended.err[-400:]}")


def measured(root: Path, *, n_projects: int, kinds: Sequence[bool] = (False, True)) -> dict[str, Any]:
    """The report: a home each, then one for both."""
    began, found = time.monotonic(), dict[str, list[dict[str, str]]]()
    for one_home in kinds:
        with _folder(root / ("one" if one_home else "each")) as place:
            town = Town(place, {"ann": ANN, "bob": BOB}, one_home)
            # what tells people apart in homes of their own is little: a part of the repositories shows it
            lived(town, n_projects if one_home else min(4, n_projects))
            closed_home(town)
        found["one home" if one_home else "a home each"] = town.checks
    rows = [check for checks in found.values() for check in checks]
    return {
        "people": 2,
        "are_two_users": ARE_TWO,
        "repositories": {"a home each": min(4, n_projects), "one home": n_projects},
        "checks": {kind: len(checks) for kind, checks in found.items()},
        "wall_s": round(time.monotonic() - began, 1),
        "failed": [check for check in rows if check["holds"] != "yes"],
    }


def import_all_of_ours() -> None:
    """Before anyone is someone else: who may not read where Python lies can import nothing more."""
    import_everything()
    for module in pkgutil.walk_packages(ai_forge.__path__, "ai_forge."):
        name = module.name.rpartition(".")[2]
        if not name.startswith(("mlx_", "__main__")):
            with contextlib.suppress(ImportError):  # of another platform
                importlib.import_module(module.name)


@contextlib.contextmanager
def _folder(place: Path) -> Iterator[Path]:
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place)


def main() -> int:
    """Let them live, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=int, default=len(PLACES))
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/two_people.json")
    chosen = parser.parse_args()
    import_all_of_ours()
    with tempfile.TemporaryDirectory(prefix="two-people-") as name:
        Path(name).chmod(0o755)
        made = measured(Path(name).resolve(), n_projects=chosen.repositories)
    if chosen.write:
        record("two_people", made)
    else:
        print(json.dumps(made, indent=1, ensure_ascii=False))
    return 1 if made["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
