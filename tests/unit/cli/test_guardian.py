"""`ai-forge guardian` as its user meets it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ai_forge.workspace import Workspace
from cli_runs import ai_forge
from guardian_repos import commit, git, repository, train, write


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    made = repository(tmp_path / "repo", 25)
    train(made, Workspace.open(tmp_path / "home"))
    return made


def test_status_says_what_changed_and_what_that_asks_for(repo: Path, tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    quiet = ai_forge("guardian", "status", repo, *home, on_terminal=True)
    assert quiet.code == 0, quiet.err
    assert quiet.out.splitlines()[-1] == "no retraining: nothing changed"
    write(repo, *(f"src/core/m{index}.py" for index in range(21)))
    commit(repo)
    git(repo, "tag", "release/1.0")
    shown = ai_forge("guardian", "status", repo, *home, on_terminal=True)
    assert "files          21: src/core/m0.py, " in shown.out
    assert "and 13 more" in shown.out
    assert "new tags       1: release/1.0" in shown.out
    last = "retrain: 21 files changed since the last training (at least 20); 1 new release tag"
    assert shown.out.splitlines()[-1] == last
    told = ai_forge("guardian", "status", repo, *home, "--set", "guardian.min_files=50", "--json").json
    assert (told["should_retrain"], told["reason"]) == (True, "1 new release tag")
    assert told["metrics"]["files_changed"] == 21


def test_a_name_with_control_characters_cannot_write_on_the_terminal(repo: Path, tmp_path: Path) -> None:
    write(repo, "src/a\x1b[2Jb.py", "src/[red]c.py")
    commit(repo)
    shown = ai_forge("guardian", "status", repo, "--home", tmp_path / "home", on_terminal=True)
    assert "\x1b" not in shown.out
    assert "src/a\\x1b[2Jb.py" in shown.out
    assert "src/[red]c.py" in shown.out


def test_a_repository_that_cannot_be_read_ends_with_two(repo: Path, tmp_path: Path) -> None:
    shutil.rmtree(repo / ".git/objects")
    (repo / ".git/HEAD").write_text("nonsense")
    told = ai_forge("guardian", "status", repo, "--home", tmp_path / "home", "--json")
    assert (told.code, told.json["reason"]) == (2, "the repository cannot be read")
    assert "Git cannot read" in told.json["observation"]["problem"]


def test_stop_says_that_nothing_is_at_work(repo: Path, tmp_path: Path) -> None:
    told = ai_forge("guardian", "stop", repo, "--home", tmp_path / "home", "--json")
    assert (told.code, told.json) == (0, {"stopping": False})


def test_a_cycle_that_fails_ends_with_the_code_of_its_error(repo: Path, tmp_path: Path) -> None:
    words = ("--home", tmp_path / "home", "--base", tmp_path / "nowhere", "--set", "guardian.desktop=false")
    failed = ai_forge("guardian", "run", repo, *words, "--json")
    assert (failed.code, failed.json["state"], failed.json["error"]) == (2, "failed", "bad_input")


def test_the_hook_is_printed_installed_and_taken_away(repo: Path, tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    printed = ai_forge("guardian", "install-hook", repo, *home, "--print")
    assert subprocess.run(["sh", "-n"], input=printed.out, text=True, check=False).returncode == 0
    assert len(ai_forge("guardian", "install-hook", repo, *home, "--json").json["changed"]) == 4
    assert ai_forge("guardian", "install-hook", repo, *home, "--json").json["changed"] == []
    assert len(ai_forge("guardian", "install-hook", repo, *home, "--remove", "--json").json["changed"]) == 4


def test_watch_once_looks_and_ends(repo: Path, tmp_path: Path) -> None:
    looked = ai_forge("guardian", "watch", repo, "--home", tmp_path / "home", "--once")
    assert looked.code == 0, looked.err
    assert "repository: no retraining: nothing changed" in looked.err
