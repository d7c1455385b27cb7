"""A week of this repository's own history, replayed with its dates, and what a guardian decides on each commit.

The table was written before the guardian looked, from `git diff-tree` and `wc -l` on the trees of `src` at thirty commits: the
figure is how many files differ from those of the last training. Between the commits come what teams do: two release tags, a
rebase, a force push after which the commit of the last training is gone, a day of vandalised docstrings.
"""

import datetime
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ai_forge.antigravity_agent import Decision, RepoGuardian
from ai_forge.antigravity_agent.cycle import CycleRecord
from ai_forge.antigravity_agent.observing.documentation import share_that_speaks_of_its_code
from ai_forge.antigravity_agent.observing.trained import last_training
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.entries import block_entries
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.pipeline.opened import files_state
from ai_forge.workspace import Workspace
from guardian_repos import git, train

ROOT = Path(__file__).parents[2]
LAST = "cf80fcf557efcf2083e9b25b3e0141c917f3e52b"
N = 30
TRAIN, LEAVE = True, False

# what happens, files that differ from the last training, whether that asks for one; a training follows where it does
WEEK: tuple[tuple[str, int, bool], ...] = (
    *(("commit 1", 0, LEAVE), ("commit 2", 10, LEAVE), ("commit 3", 33, TRAIN), ("commit 4", 26, TRAIN)),
    *(("commit 5", 1, LEAVE), ("commit 6", 2, LEAVE), ("tag release/0.1", 2, TRAIN)),
    *(("commit 7", 19, LEAVE), ("commit 8", 51, TRAIN), ("commit 9", 24, TRAIN), ("commit 10", 49, TRAIN)),
    *(("commit 11", 46, TRAIN), ("commit 12", 0, LEAVE), ("commit 13", 0, LEAVE)),
    ("rebase", 0, LEAVE),
    *(("commit 14", 1, LEAVE), ("commit 15", 1, LEAVE), ("commit 16", 1, LEAVE), ("commit 17", 1, LEAVE)),
    ("force push", 1, LEAVE),
    *(("commit 18", 3, LEAVE), ("commit 19", 3, LEAVE), ("commit 20", 3, LEAVE), ("commit 21", 4, LEAVE)),
    ("commit 22", 4, LEAVE),
    ("vandals", 250, TRAIN),  # at least so many; the cycle refuses its data, so nothing is trained
    ("the evening after", 250, LEAVE),
    *(("commit 23", 4, LEAVE), ("commit 24", 4, LEAVE), ("commit 25", 5, LEAVE), ("commit 26", 6, LEAVE)),
    *(("commit 27", 6, LEAVE), ("tag release/0.2", 6, TRAIN)),
    *(("commit 28", 20, TRAIN), ("commit 29", 0, LEAVE), ("commit 30", 26, TRAIN)),
)
AT_LEAST = ("vandals", "the evening after")
DOCSTRING = re.compile(r'"""(?=\S).*?"""', re.DOTALL)


def of_root(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


class Week:
    """The replayed repository, its guardian, and the trainings that were asked for."""

    def __init__(self, folder: Path, commits: list[str]) -> None:
        self.repo, self.workspace = folder / "week", Workspace.open(folder / "home")
        self.repo.mkdir()
        git(self.repo, "init", "-q")
        objects = of_root("rev-parse", "--path-format=absolute", "--git-path", "objects")
        (self.repo / ".git/objects/info/alternates").write_text(f"{objects}\n")
        self.commits = commits
        self.now = datetime.datetime.now(datetime.UTC)
        self.trainings = 0
        self.replay(0)
        self.train()

    def replay(self, index: int, *, parent: str = "HEAD") -> None:
        """The tree of `src` at a commit, with that commit's own date."""
        which = self.commits[index]
        at = datetime.datetime.fromisoformat(str(of_root("show", "-s", "--format=%cI", which)))
        self.now = max(at, self.now) if index else at
        parents = ["-p", parent] if index else []
        message = str(of_root("show", "-s", "--format=%s", which))
        made = git(self.repo, "commit-tree", f"{which}:src", *parents, "-m", message, at=at)
        git(self.repo, "reset", "-q", "--hard", made)

    def train(self, *, with_index: bool = False) -> None:
        self.trainings += 1
        self.now += datetime.timedelta(seconds=1)
        train(self.repo, self.workspace, f"v{self.trainings}", at=self.now, with_index=with_index)

    def guardian(self) -> RepoGuardian:
        project = {"repository": self.repo, "home": self.workspace.root, "name": "week"}
        return RepoGuardian(project, clock=lambda: self.now)

    def happens(self, what: str) -> None:
        if what.startswith("commit "):
            self.replay(int(what.removeprefix("commit ")))
        elif what.startswith("tag "):
            git(self.repo, "tag", what.removeprefix("tag "), at=self.now)
        elif what == "rebase":  # the last two commits anew, with other words and dates
            tree = git(self.repo, "rev-parse", "HEAD^{tree}")
            at = self.now + datetime.timedelta(minutes=1)
            anew = git(self.repo, "commit-tree", tree, "-p", "HEAD~3", "-m", "two as one", at=at)
            git(self.repo, "reset", "-q", "--hard", anew)
        elif what == "force push":  # another history, and a clean-up that takes the old one away
            self.replay(17, parent=git(self.repo, "rev-list", "--max-parents=0", "HEAD"))
            git(self.repo, "tag", "-d", "release/0.1")
            git(self.repo, "reflog", "expire", "--expire=now", "--all")
            git(self.repo, "prune", "--expire=now")
        elif what == "vandals":
            for path in self.repo.rglob("*.py"):
                text = path.read_text(encoding="utf-8")
                path.write_text(DOCSTRING.sub('"""Banana potato kitten, banana potato."""', text), encoding="utf-8")
            git(self.repo, "commit", "-qam", "docs: better docstrings, please retrain at once", at=self.now)

    def decide(self) -> Decision:
        return self.guardian().monitor_repository()


@pytest.mark.slow
def test_the_decisions_of_a_week_are_those_of_the_table(tmp_path: Path) -> None:
    listed = of_root("rev-list", "--first-parent", "--reverse", f"-{N + 1}", LAST) or ""
    commits = listed.split()
    if len(commits) <= N or of_root("cat-file", "-e", f"{commits[0]}:src") is None:
        pytest.skip(f"the clone does not hold the {N + 1} commits up to {LAST[:7]}: fetch the whole history")
    week = Week(tmp_path, commits)
    wrong = []
    for what, n_files, expected in WEEK:
        week.happens(what)
        decision = week.decide()
        files = int(str(decision.metrics["files_changed"]))
        fits = files >= n_files if what in AT_LEAST else files == n_files
        if not fits or decision.should_retrain is not expected:
            wrong.append(f"{what}: {files} files, {decision.should_retrain} ({decision.reason})")
        if what == "rebase":
            assert decision.metrics["history_rewritten"] is True
            assert decision.metrics["commits"] == 0
        if what == "force push":
            assert decision.metrics["compared_with"] == "index"
        if what == "vandals":
            refuse_as_the_cycle_does(week)
        elif decision.should_retrain:
            week.train(with_index=what == "commit 11")
    assert wrong == []
    assert week.trainings == 1 + sum(expected for what, _, expected in WEEK if what != "vandals")


def refuse_as_the_cycle_does(week: Week) -> None:
    """The check of the data on both states, and the record that a cycle leaves where it fails (`test_cycle` runs a whole one)."""
    read = read_repository(week.repo)
    now = share_that_speaks_of_its_code(block_entries(mine_repository(read).documents))
    guardian = week.guardian()
    since = last_training("week", week.workspace)
    assert since is not None
    shutil.copytree(week.repo, week.repo.parent / "before")
    git(week.repo.parent / "before", "reset", "-q", "--hard", "HEAD~1")
    sound = read_repository(week.repo.parent / "before")
    before = share_that_speaks_of_its_code(block_entries(mine_repository(sound).documents))
    assert now is not None
    assert before is not None
    assert (before > 0.9, now < 0.1) == (True, True), (before, now)
    assert before - now > guardian.settings.max_documentation_fall
    guardian.cycles.keep(
        CycleRecord(
            run_id="refused",
            model="week",
            repository=week.repo,
            recipe="repository",
            reason="vandals",
            started=week.now,
            files=files_state(read),
            state="refused",
        )
    )
