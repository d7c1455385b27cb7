"""What a guardian sees of repositories as people treat them: rebased, forced, switched, shallow, broken, without history."""

import datetime
import shutil
from pathlib import Path

import pytest

from ai_forge.antigravity_agent import Decision, Observation, RepoGuardian
from ai_forge.workspace import Workspace
from guardian_repos import FIRST_DAY, commit, git, repository, train, write

NEXT_WEEK = FIRST_DAY + datetime.timedelta(days=7)


class Project:
    """A repository with a model that was trained on its first commit."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace.open(root / "home")
        self.repo = repository(root / "repo")

    def guardian(self, **settings: object) -> RepoGuardian:
        given = {f"guardian.{key}": value for key, value in settings.items()}
        project = {"repository": self.repo, "home": self.workspace.root, "settings": given}
        return RepoGuardian(project, clock=lambda: NEXT_WEEK)

    def seen(self, **settings: object) -> Observation:
        return self.guardian(**settings).observe()

    def decision(self, **settings: object) -> Decision:
        return self.guardian(**settings).monitor_repository()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    train(made.repo, made.workspace)
    return made


def test_what_was_never_trained_is_trained(tmp_path: Path) -> None:
    decision = Project(tmp_path).decision()
    assert (decision.should_retrain, decision.reason) == (True, "no model was trained yet")


def test_nothing_changed(project: Project) -> None:
    seen, decision = project.seen(), project.decision()
    assert (seen.compared_with, seen.files, seen.commits, seen.block_share) == ("commit", (), 0, 0.0)
    assert (decision.should_retrain, decision.reason) == (False, "nothing changed")
    assert seen.age_days == 7.0


@pytest.mark.parametrize("n", [19, 20])
def test_twenty_changed_files_are_enough_and_nineteen_are_not(project: Project, n: int) -> None:
    write(project.repo, *(f"src/m{index}.py" for index in range(n)), number=7)
    commit(project.repo)
    decision = project.decision()
    assert decision.should_retrain is (n >= 20)
    assert decision.metrics["files_changed"] == n
    assert decision.metrics["commits"] == 1
    assert decision.metrics["block_share_changed"] == pytest.approx(n / 30, abs=0.01)


def test_work_that_is_not_committed_counts_too_and_a_removed_file(project: Project) -> None:
    write(project.repo, "src/m0.py", number=3)
    (project.repo / "src/m1.py").unlink()
    seen = project.seen()
    assert seen.files == ("src/m0.py", "src/m1.py")
    assert (seen.n_uncommitted, seen.commits) == (2, 0)


def test_uncommitted_work_that_was_trained_on_is_no_change_also_when_it_is_committed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    write(project.repo, "src/m0.py", "src/m1.py", number=5)
    train(project.repo, project.workspace)
    assert project.seen().files == ()
    commit(project.repo)
    assert (project.seen().files, project.seen().commits) == ((), 1)


def test_a_move_is_one_file_and_a_line_that_moves_is_no_block(project: Project) -> None:
    git(project.repo, "mv", "src/m0.py", "src/moved.py")
    path = project.repo / "src/m1.py"
    path.write_text("\n\n" + path.read_text())
    commit(project.repo)
    seen = project.seen()
    assert seen.files == ("src/m1.py", "src/moved.py")
    assert seen.block_share == pytest.approx(1 / 30, abs=0.001)


def test_a_release_tag_asks_once_for_a_training(project: Project) -> None:
    git(project.repo, "tag", "release/0.9")  # on what was trained
    assert not project.decision().should_retrain
    write(project.repo, "src/m0.py", number=1)
    commit(project.repo)
    git(project.repo, "tag", "v1.0")
    assert not project.decision().should_retrain
    git(project.repo, "tag", "-a", "release/1.0", "-m", "one")
    assert project.seen().tags == ("release/1.0",)
    assert project.decision().reason == "1 new release tag"
    train(project.repo, project.workspace, "v2", at=FIRST_DAY + datetime.timedelta(days=1))
    assert not project.decision().should_retrain


def test_a_tag_on_another_branch_waits_until_it_is_merged(project: Project) -> None:
    git(project.repo, "switch", "-qc", "other")
    commit(project.repo)
    git(project.repo, "tag", "release/2.0")
    git(project.repo, "switch", "-q", "main")
    assert not project.decision().should_retrain
    git(project.repo, "merge", "-q", "--no-ff", "-m", "merged", "other")
    assert project.decision().should_retrain


def test_critical_files_are_counted_and_decide_where_that_is_asked(project: Project) -> None:
    write(project.repo, "src/core/a.py", "src/core/deep/b.py", "src/score/c.py")
    commit(project.repo)
    assert project.seen().critical_files == ("src/core/a.py", "src/core/deep/b.py")
    assert not project.decision().should_retrain
    assert project.decision(min_critical_files=2).reason == "2 critical files changed (at least 2)"


def test_age_and_share_of_blocks_decide_where_that_is_asked(project: Project) -> None:
    assert not project.decision(max_age_days=6).should_retrain  # as old as it is, nothing changed
    write(project.repo, *(f"src/m{index}.py" for index in range(3)), number=1)
    commit(project.repo)
    assert "days old" in project.decision(max_age_days=6).reason
    assert "10% of the blocks" in project.decision(min_block_share=0.1).reason
    assert not project.decision(max_age_days=8, min_block_share=0.11).should_retrain


# -- histories as people treat them -------------------------------------------------------------------------------------


def test_a_rebase_counts_what_is_new_and_not_what_was_written_anew(project: Project) -> None:
    git(project.repo, "switch", "-qc", "topic")
    for index in range(4):
        write(project.repo, f"src/t{index}.py")
        commit(project.repo, f"topic {index}")
    train(project.repo, project.workspace, "v2", at=FIRST_DAY + datetime.timedelta(hours=1))
    git(project.repo, "switch", "-q", "main")
    write(project.repo, "src/m0.py", number=1)
    commit(project.repo, "on main")
    git(project.repo, "switch", "-q", "topic")
    git(project.repo, "rebase", "-q", "main", at=NEXT_WEEK)
    seen = project.seen()
    assert (seen.compared_with, seen.rewritten) == ("commit", True)
    assert (seen.files, seen.commits) == (("src/m0.py",), 1)


def test_a_rewritten_history_of_the_same_content_asks_for_nothing(project: Project) -> None:
    write(project.repo, *(f"src/n{index}.py" for index in range(25)))
    commit(project.repo, "second")
    git(project.repo, "tag", "release/1")
    train(project.repo, project.workspace, "v2", at=FIRST_DAY + datetime.timedelta(hours=1))
    git(project.repo, "commit", "--amend", "-qm", "other words", at=NEXT_WEEK)
    git(project.repo, "tag", "-f", "release/1")
    seen = project.seen()
    assert (seen.rewritten, seen.files, seen.tags) == (True, (), ())
    assert not project.decision().should_retrain


def test_a_commit_that_is_gone_is_replaced_by_what_the_model_knows(project: Project) -> None:
    trained = git(project.repo, "rev-parse", "HEAD")
    git(project.repo, "checkout", "-q", "--orphan", "anew")
    write(project.repo, "src/m0.py", "src/new.py", number=2)
    (project.repo / "src/m1.py").unlink()
    commit(project.repo, "forced")
    git(project.repo, "branch", "-D", "main")
    git(project.repo, "reflog", "expire", "--expire=now", "--all")
    git(project.repo, "gc", "-q", "--prune=now")
    git(project.repo, "tag", "release/old", at=FIRST_DAY)
    project.repo.rename(project.repo.parent / "moved")
    project.repo = project.repo.parent / "moved"
    seen = project.seen()
    assert seen.last_training is None, "another first commit is another repository"
    named = RepoGuardian({"repository": project.repo, "home": project.workspace.root, "name": "repo"})
    seen = named.observe()
    assert seen.last_training is not None
    assert seen.last_training.commit == trained
    assert seen.compared_with == "index"
    assert seen.files == ("src/m0.py", "src/m1.py", "src/new.py")


def test_a_shallow_clone_without_the_commit_is_compared_by_content(project: Project, tmp_path: Path) -> None:
    for index in range(3):
        write(project.repo, f"src/m{index}.py", number=9)
        commit(project.repo)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", project.repo.as_uri(), str(clone))
    guardian = RepoGuardian({"repository": clone, "home": project.workspace.root, "name": "repo"})
    seen = guardian.observe()
    assert (seen.compared_with, seen.commits) == ("index", None)
    assert seen.files == ("src/m0.py", "src/m1.py", "src/m2.py")


def test_where_neither_commit_nor_index_is_left_all_files_count(tmp_path: Path) -> None:
    project = Project(tmp_path)
    train(project.repo, project.workspace)
    shutil.rmtree(project.workspace.served_dir)
    git(project.repo, "checkout", "-q", "--orphan", "anew")
    commit(project.repo, "forced")
    git(project.repo, "branch", "-D", "main")
    git(project.repo, "reflog", "expire", "--expire=now", "--all")
    git(project.repo, "gc", "-q", "--prune=now")
    seen = RepoGuardian({"repository": project.repo, "home": project.workspace.root, "name": "repo"}).observe()
    assert (seen.compared_with, len(seen.files)) == ("nothing", 30)


def test_a_switch_of_branches_counts_the_files_that_differ(project: Project) -> None:
    git(project.repo, "switch", "-qc", "other")
    write(project.repo, *(f"src/o{index}.py" for index in range(22)))
    commit(project.repo)
    assert project.decision().should_retrain
    git(project.repo, "switch", "-q", "main")
    assert project.decision().reason == "nothing changed"


def test_a_submodule_that_moves_is_no_file(project: Project, tmp_path: Path) -> None:
    other = repository(tmp_path / "other", 2)
    git(project.repo, "submodule", "add", "-q", str(other), "lib")
    commit(project.repo)
    assert project.seen().files == (".gitmodules",)


def test_a_folder_without_history_is_compared_by_content(tmp_path: Path) -> None:
    project = Project(tmp_path)
    shutil.rmtree(project.repo / ".git")
    (project.repo / "README.md").write_text("# Title\n\nWhat this is for, in a few words that can be found again.\n")
    train(project.repo, project.workspace)
    assert project.decision().reason == "nothing changed"
    write(project.repo, "src/m3.py", "src/new.py", number=4)
    (project.repo / "README.md").write_text("# Title\n\nOther words, which say more than the ones before have said.\n")
    (project.repo / "src/m4.py").unlink()
    seen = project.seen()
    assert (seen.compared_with, seen.head, seen.commits) == ("index", None, None)
    assert seen.files == ("README.md", "src/m3.py", "src/m4.py", "src/new.py")


def test_a_repository_before_its_first_commit(tmp_path: Path) -> None:
    project = Project(tmp_path)
    shutil.rmtree(project.repo / ".git")
    git(project.repo, "init", "-q")
    git(project.repo, "add", "-A")
    train(project.repo, project.workspace)
    assert project.decision().reason == "nothing changed"
    write(project.repo, "src/m0.py", number=4)
    assert project.seen().files == ("src/m0.py",)


@pytest.mark.parametrize("harm", ["no git", "gone", "empty"])
def test_a_repository_that_cannot_be_read_asks_for_nothing(project: Project, harm: str) -> None:
    if harm == "no git":
        (project.repo / ".git/HEAD").write_text("nonsense")
    elif harm == "gone":
        shutil.rmtree(project.repo)
    else:
        shutil.rmtree(project.repo)
        project.repo.mkdir()
    decision = project.decision()
    assert (decision.should_retrain, decision.reason) == (False, "the repository cannot be read")
    assert project.seen().problem


def test_a_history_whose_objects_are_damaged_is_compared_by_content(project: Project) -> None:
    write(project.repo, "src/m0.py", number=4)
    commit(project.repo)
    trained = git(project.repo, "rev-parse", "HEAD~1")
    damaged = project.repo / ".git/objects" / trained[:2] / trained[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"nonsense")
    seen = RepoGuardian({"repository": project.repo, "home": project.workspace.root, "name": "repo"}).observe()
    assert (seen.compared_with, seen.files) == ("index", ("src/m0.py",))


def test_a_subfolder_of_a_repository_counts_its_own_files(tmp_path: Path) -> None:
    whole = Project(tmp_path)
    write(whole.repo, "part/a.py", "part/b.py")
    commit(whole.repo)
    part = whole.repo / "part"
    train(part, whole.workspace)
    write(whole.repo, "part/a.py", "src/m0.py", number=3)
    commit(whole.repo)
    seen = RepoGuardian({"repository": part, "home": whole.workspace.root}).observe()
    assert (seen.compared_with, seen.files) == ("commit", ("a.py",))


def test_nothing_of_the_repository_is_run(project: Project, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    trap.chmod(0o755)
    write(project.repo, "src/m0.py", number=6)
    (project.repo / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    commit(project.repo)
    git(project.repo, "commit", "--amend", "-qm", "anew", at=NEXT_WEEK)
    for key in ("filter.evil.clean", "filter.evil.smudge", "diff.evil.command", "diff.evil.textconv", "core.fsmonitor"):
        git(project.repo, "config", key, str(trap))
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        shutil.copyfile(trap, project.repo / ".git/hooks" / name)
        (project.repo / ".git/hooks" / name).chmod(0o755)
    ran.unlink(missing_ok=True)
    write(project.repo, "src/m1.py", number=6)
    assert set(project.seen().files) == {".gitattributes", "src/m0.py", "src/m1.py"}
    assert not ran.exists()


def test_observing_changes_nothing_in_the_repository(project: Project) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(project.repo.rglob("*")) if path.is_file()}

    write(project.repo, "src/m1.py", number=6)
    before = state()
    project.decision()
    assert state() == before
