"""The watch and its git hook: real repositories, real hooks, real file events."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ai_forge.antigravity_agent import RepoGuardian
from ai_forge.antigravity_agent.hooks import HOOKS, install_hooks, remove_hooks
from ai_forge.antigravity_agent.watch import NOTE, Following, Watch
from ai_forge.cancel import CancelToken
from ai_forge.errors import CancelledError, InputError
from ai_forge.events import Event, Notice
from ai_forge.workspace import Workspace
from guardian_repos import commit, git, repository, train, write

SETTINGS = {"guardian.min_files": 1000, "guardian.debounce_s": 0.3}


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@contextmanager
def watching(repo: Path, home: Path) -> Iterator[list[str]]:
    """A watch in a thread, and what it decided so far."""
    heard = list[str]()
    token = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, Notice):
            heard.append(event.message)

    def make() -> RepoGuardian:
        return RepoGuardian({"repository": repo, "home": home, "settings": SETTINGS}, cancel=Following(token))

    thread = threading.Thread(target=Watch([make], emit, token).run)
    thread.start()
    assert eventually(lambda: bool(heard))
    try:
        yield heard
    finally:
        token.cancel("the test ends")
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    made = repository(tmp_path / "repo", 3)
    train(made, Workspace.open(tmp_path / "home"))
    return made


def test_commits_tags_and_switches_are_seen_and_a_burst_is_looked_at_once(repo: Path, tmp_path: Path) -> None:
    with watching(repo, tmp_path / "home") as heard:
        assert heard == ["repository: no retraining: nothing changed"]
        for index in range(3):
            write(repo, f"src/n{index}.py")
            commit(repo)
        assert eventually(lambda: len(heard) == 2), heard
        assert heard[1] == "repository: no retraining: 3 of 1000 files changed since the last training"
        git(repo, "switch", "-qc", "other", "HEAD~3")
        assert eventually(lambda: len(heard) == 3), heard
        assert heard[2].endswith("nothing changed")


def test_a_folder_without_git_is_watched_whole(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    write(folder, "a.py", "b.py")
    train(folder, Workspace.open(tmp_path / "home"))
    with watching(folder, tmp_path / "home") as heard:
        write(folder, "deep/c.py")
        assert eventually(lambda: len(heard) == 2), heard
        assert heard[1].endswith("1 of 1000 files changed since the last training")


def test_the_note_of_a_hook_wakes_it(repo: Path, tmp_path: Path) -> None:
    guardian = RepoGuardian({"repository": repo, "home": tmp_path / "home"})
    note = guardian.cycles.folder / NOTE
    with watching(repo, tmp_path / "home") as heard:
        note.touch()
        assert eventually(lambda: len(heard) == 2), heard
        assert not note.exists()


def test_a_repository_that_breaks_does_not_end_the_watch(repo: Path, tmp_path: Path) -> None:
    head = repo / ".git/HEAD"
    whole = head.read_text()
    with watching(repo, tmp_path / "home") as heard:
        head.write_text("nonsense")
        (repo / ".git/refs/heads/x").write_text("nonsense")
        assert eventually(lambda: len(heard) == 2), heard
        assert heard[1].endswith("the repository cannot be read")
        head.write_text(whole)
        (repo / ".git/refs/heads/x").unlink()
        assert eventually(lambda: len(heard) == 3), heard


def test_a_token_that_follows_ends_with_the_other_and_not_the_other_way_round() -> None:
    first = CancelToken()
    second = Following(first)
    second.cancel("enough")
    assert (second.cancelled, first.cancelled) == (True, False)
    third = Following(first)
    first.cancel("all")
    with pytest.raises(CancelledError, match="all"):
        third.check()


# -- hooks --------------------------------------------------------------------------------------------------------------


def hooks_of(repo: Path) -> dict[str, tuple[bytes, int]]:
    folder = repo / ".git/hooks"
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in sorted(folder.iterdir())}


def test_a_commit_sends_a_note_and_the_hook_that_was_there_runs_as_before(repo: Path, tmp_path: Path) -> None:
    note, ran = tmp_path / "a folder" / "note", tmp_path / "ran"
    own = repo / ".git/hooks/post-commit"
    own.write_text(f"#!/usr/bin/env python3\nimport sys\nopen({str(ran)!r}, 'w').write(' '.join(sys.argv[1:]))\n")
    own.chmod(0o755)
    before = hooks_of(repo)
    assert {path.name for path in install_hooks(repo, note)} == set(HOOKS)
    assert install_hooks(repo, note) == [], "a second installation changes nothing"
    commit(repo, "noted")
    assert ran.read_text() == ""
    assert eventually(note.exists)
    note.unlink()
    git(repo, "switch", "-qc", "other")
    assert eventually(note.exists)
    assert len(remove_hooks(repo)) == len(HOOKS)
    assert hooks_of(repo) == before
    assert remove_hooks(repo) == []


def test_a_failing_hook_of_the_owners_fails_as_before_and_one_that_may_not_run_does_not(
    repo: Path, tmp_path: Path
) -> None:
    own = repo / ".git/hooks/post-checkout"
    own.write_text("#!/bin/sh\nexit 7\n")
    own.chmod(0o755)
    idle = repo / ".git/hooks/post-commit"
    idle.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    idle.chmod(0o644)
    install_hooks(repo, tmp_path / "note")
    with pytest.raises(AssertionError):
        git(repo, "switch", "-qc", "other")
    commit(repo)
    assert not (tmp_path / "ran").exists()


def test_a_note_that_cannot_be_written_troubles_nobody(repo: Path) -> None:
    install_hooks(repo, Path("/proc/no/such/place/note"))
    commit(repo, "all the same")


def test_hooks_that_are_kept_elsewhere_are_left_alone(repo: Path, tmp_path: Path) -> None:
    git(repo, "config", "core.hooksPath", ".husky")
    with pytest.raises(InputError, match=r"core\.hooksPath is '\.husky'"):
        install_hooks(repo, tmp_path / "note")
    with pytest.raises(InputError, match="is no git repository"):
        install_hooks(tmp_path, tmp_path / "note")


def test_a_linked_work_tree_has_the_hooks_of_its_repository(repo: Path, tmp_path: Path) -> None:
    git(repo, "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "linked")
    install_hooks(tmp_path / "linked", tmp_path / "note")
    assert (repo / ".git/hooks/post-commit").exists()


def test_watch_looks_at_each_of_its_projects(repo: Path, tmp_path: Path) -> None:
    make = partial(RepoGuardian, {"repository": repo, "home": tmp_path / "home", "settings": SETTINGS})
    handbook = {"repository": repo, "home": tmp_path / "home", "recipe": "handbook"}
    results = Watch([make, partial(RepoGuardian, handbook)]).look()
    assert [decision.reason for decision, _ in results] == ["nothing changed", "the repository cannot be read"]
