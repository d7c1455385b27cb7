"""The newest commits of a real repository: what they wrote, what stood before; merges, reverts, renames, vendored files."""

import subprocess
from pathlib import Path

import pytest

from ai_forge.data_pipeline.gaps.history import files_at, gaps_of_files, newest_commits
from ai_forge.errors import InputError

FIRST = "def load(path):\n    return path.read_text(encoding=default)\n"
ADDED = "\n\ndef save(path, text):\n    path.write_text(text, encoding=default)\n    return written(path, text)\n"
CALL = "first = load(somewhere_else)\n"


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", str(root), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path, message: str, **files: str) -> str:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "start", a=FIRST, b=FIRST, vendor__c=FIRST)
    return tmp_path


def test_gaps_are_what_the_newest_commits_wrote(repo: Path) -> None:
    start = git(repo, "rev-parse", "HEAD")
    made = commit(repo, "save it", a=FIRST + ADDED)
    found = newest_commits(repo, lambda path: True, n_gaps=100)
    assert found.before == start
    assert found.n_commits == 1
    assert {gap.commit for gap in found.gaps} == {made}
    assert {"path.write_text(text, encoding=default)", "path, text"} <= {gap.text for gap in found.gaps}
    assert not any("read_text" in gap.text for gap in found.gaps)
    before = {file.path: file.content.decode() for file in files_at(repo, start)}
    assert before == {"a.py": FIRST, "b.py": FIRST, "vendor/c.py": FIRST}


def test_files_that_were_trained_on_are_left_out(repo: Path) -> None:
    commit(repo, "save it", a=FIRST + ADDED, b=FIRST + ADDED)
    found = newest_commits(repo, {"b.py"}.__contains__, n_gaps=100)
    assert {gap.path for gap in found.gaps} == {"b.py"}


def test_an_older_state_of_a_file_is_not_asked_about(repo: Path) -> None:
    commit(repo, "save it", a=FIRST + ADDED)
    newest = commit(repo, "call it", a=FIRST + ADDED + CALL)
    found = newest_commits(repo, lambda path: True, n_gaps=100)
    assert {gap.commit for gap in found.gaps} == {newest}
    assert "first = load(somewhere_else)" in {gap.text for gap in found.gaps}


def test_reverts_vendored_files_and_merges_are_passed_over(repo: Path) -> None:
    commit(repo, "vendored", vendor__c=FIRST + ADDED)
    commit(repo, 'Revert "start"', b=FIRST + ADDED)
    git(repo, "checkout", "-q", "-b", "side", "HEAD~1")
    side = commit(repo, "beside", a=FIRST + ADDED)
    git(repo, "checkout", "-q", "main")
    git(repo, "merge", "-q", "--no-ff", "-m", "merge", "side")
    found = newest_commits(repo, lambda path: True, n_gaps=100)
    assert {gap.path for gap in found.gaps} == {"a.py"}
    assert {gap.commit for gap in found.gaps} == {side}
    assert found.skipped["vendored"] == 1
    assert found.skipped["revert_or_sweep"] == 1


def test_a_renamed_file_counts_by_the_lines_that_were_written(repo: Path) -> None:
    long = "".join(f"def f{n}(value):\n    return changed(value, by={n})\n\n\n" for n in range(20))
    commit(repo, "long", a=long)
    git(repo, "mv", "a.py", "moved.py")
    commit(repo, "move it", moved=long + CALL)
    found = newest_commits(repo, "moved.py".__eq__, n_gaps=100)
    assert {gap.path for gap in found.gaps} == {"moved.py"}
    assert {gap.text for gap in found.gaps} == {"first = load(somewhere_else)", "somewhere_else"}


def test_a_folder_without_history_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no git history"):
        newest_commits(tmp_path, lambda path: True, n_gaps=5)
    assert {gap.path for gap in gaps_of_files([("a.py", FIRST + ADDED), ("b.unknown", FIRST)])} == {"a.py"}
