"""Backup and restore: what comes back is what was there, and nothing else is taken for a backup."""

import io
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from ai_forge.errors import InputError, RefusedError
from ai_forge.pipeline.backup import INDEX, back_up, restore
from ai_forge.workspace import Workspace, link_or_copy
from cli_runs import TinyRun, ai_forge


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Files, an empty folder, a link, one file under two names, a database, and what is left out."""
    made = Workspace.open(tmp_path / "home")
    folder = made.stage_folder("train", "abc")
    folder.mkdir(parents=True)
    (folder / "adapter.bin").write_bytes(bytes(range(256)) * 50)
    link_or_copy(folder / "adapter.bin", made.root / "second.bin")
    (made.runs_dir / "r1").mkdir()
    (made.runs_dir / "r1" / "adapter").symlink_to("../../cache/train/abc")
    with closing(sqlite3.connect(made.registry_path)) as database, database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (42)")
    with made.lock("somebody"):
        pass
    (made.root / ".half.tmp-1").write_text("half")
    (made.root / ".cache").mkdir()  # a base that can be fetched again
    (made.root / ".cache" / "weights").write_text("gigabytes")
    return made


def content(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def test_what_is_restored_is_what_was_there(workspace: Workspace, tmp_path: Path) -> None:
    made = back_up(workspace, tmp_path / "out" / "b.tar")
    found = restore(tmp_path / "out" / "b.tar", tmp_path / "elsewhere")
    assert found == made
    expected, restored = content(workspace.root), content(tmp_path / "elsewhere")
    for left_out in ("locks", "locks/somebody.lock", ".half.tmp-1", ".cache", ".cache/weights"):
        del expected[left_out]
    expected.pop("registry.db")
    restored.pop("registry.db")  # SQLite's copy has other bytes
    assert restored == expected
    with closing(sqlite3.connect(tmp_path / "elsewhere" / "registry.db")) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(42,)]
    assert (tmp_path / "elsewhere" / "second.bin").stat().st_nlink == 2  # twice under one inode, once in the archive
    assert (tmp_path / "out" / "b.tar").stat().st_size < 60_000


def test_a_database_that_is_being_written_is_copied_as_it_was_committed(workspace: Workspace, tmp_path: Path) -> None:
    with closing(sqlite3.connect(workspace.registry_path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE t SET x = 43")
        back_up(workspace, tmp_path / "b.tar")
        writer.rollback()
    restore(tmp_path / "b.tar", tmp_path / "elsewhere")
    with closing(sqlite3.connect(tmp_path / "elsewhere" / "registry.db")) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(42,)]


def test_a_workspace_with_data_is_not_restored_over_without_force(workspace: Workspace, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "b.tar")
    (workspace.root / "second.bin").write_bytes(b"newer")
    with pytest.raises(RefusedError, match="is not empty"):
        restore(tmp_path / "b.tar", workspace.root)
    assert (workspace.root / "second.bin").read_bytes() == b"newer"
    restore(tmp_path / "b.tar", workspace.root, force=True)
    assert len((workspace.root / "second.bin").read_bytes()) == 12800
    (kept,) = tmp_path.glob("home.before-restore-*")
    assert (kept / "second.bin").read_bytes() == b"newer"


def test_a_mounted_disk_is_filled_and_keeps_what_was_there(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container's volume: its folder can be neither renamed nor removed."""
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / "locks").mkdir()  # left by who looked whether a service is at work
    monkeypatch.setattr(Path, "is_mount", lambda path: path == disk)
    inode = disk.stat().st_ino
    back_up(workspace, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", disk)
    before = content(disk)
    (disk / "second.bin").write_text("changed since")
    with pytest.raises(RefusedError, match="not empty"):
        restore(tmp_path / "b.tar", disk)
    restore(tmp_path / "b.tar", disk, force=True)
    kept = next(disk.glob("disk.before-restore-*"))
    assert (kept / "second.bin").read_text() == "changed since"
    assert {name: value for name, value in content(disk).items() if not name.startswith(kept.name)} == before
    assert disk.stat().st_ino == inode
    assert (disk / "lost+found").is_dir()
    assert (disk / "second.bin").is_file()
    back_up(Workspace(disk), tmp_path / "again.tar")  # what was kept is not backed up again and again
    restore(tmp_path / "again.tar", tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").glob("*before-restore*"))


def test_a_folder_that_holds_only_what_a_backup_leaves_out_is_filled(workspace: Workspace, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "b.tar")
    home = tmp_path / "of a user"
    (home / ".cache").mkdir(parents=True)
    (home / ".cache" / "fonts").write_text("a library's")
    restore(tmp_path / "b.tar", home)
    assert (home / ".cache" / "fonts").read_text() == "a library's"
    assert (home / "second.bin").is_file()


def test_a_backup_inside_what_it_holds_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="inside the workspace"):
        back_up(workspace, workspace.root / "b.tar")


def changed(archive: Path, target: Path, **members: bytes | None) -> Path:
    """The archive with members replaced, added, or (None) left out."""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            if member.name not in members:
                new.addfile(member, old.extractfile(member) if member.isfile() else None)
        for name, data in members.items():
            if data is not None:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return target


def test_a_file_that_is_no_backup_is_not_replaced_by_one(workspace: Workspace, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("kept")
    with pytest.raises(InputError, match=r"letter\.txt is there, and is no backup"):
        back_up(workspace, letter)
    assert letter.read_text() == "kept"
    for _ in range(2):  # an older backup is
        back_up(workspace, tmp_path / "backup.tar")


def test_a_damaged_or_foreign_archive_restores_nothing(workspace: Workspace, tmp_path: Path) -> None:
    good = tmp_path / "good.tar"
    back_up(workspace, good)
    whole, name = good.read_bytes(), "cache/train/abc/adapter.bin"
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar").write_text("no archive")
    (tmp_path / "empty.tar").write_text("")
    with tarfile.open(good) as archive:
        index = json.loads(archive.extractfile(INDEX).read())  # type: ignore[union-attr]
    outside = index | {"files": index["files"] | {"../out": index["files"]["second.bin"]}}
    bad = {
        "missing.tar": {name: None},
        "damaged.tar": {name: b"x" * 12800},
        "more.tar": {"stranger.py": b"x"},
        "index.tar": {INDEX: b"{}"},
        "out.tar": {"../out": b"x", INDEX: json.dumps(outside).encode()},
        "absolute.tar": {"/tmp/ai-forge-out": b"x", INDEX: json.dumps(outside).encode()},
    }
    for file, members in bad.items():
        changed(good, tmp_path / file, **members)
    for file in (*bad, "cut.tar", "text.tar", "empty.tar", "nowhere.tar"):
        with pytest.raises(InputError):
            restore(tmp_path / file, tmp_path / "deep" / "target")
        assert list((tmp_path / "deep").iterdir()) == [], file
    assert not (tmp_path / "out").exists()


def test_links_that_lead_out_of_a_backup_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "good.tar")
    for number, (kind, goal) in enumerate(
        ((tarfile.SYMTYPE, "/etc"), (tarfile.SYMTYPE, "../../x"), (tarfile.FIFOTYPE, ""))
    ):
        target = changed(tmp_path / "good.tar", tmp_path / f"{number}.tar")
        with tarfile.open(target, "a") as archive:
            info = tarfile.TarInfo("way-out")
            info.type, info.linkname = kind, goal
            archive.addfile(info)
        with pytest.raises(InputError):
            restore(target, tmp_path / "target")
        assert not (tmp_path / "target").exists()


@pytest.mark.slow
def test_a_deployed_model_answers_from_a_restored_workspace(finished: TinyRun, tmp_path: Path) -> None:
    file, home = tmp_path / "b.tar", tmp_path / "restored"
    assert ai_forge("backup", file, "--home", finished.home).json["files"] > 50
    assert ai_forge("restore", file, "--home", home).code == 0
    refused = ai_forge("restore", file, "--home", home)
    assert (refused.code, refused.complaint) == (5, refused.complaint)
    question = ["ask", "What does bisect do?", "--repo", finished.repo]
    assert (
        ai_forge(*question, "--home", home).json["answer"]
        == ai_forge(*question, "--home", finished.home).json["answer"]
    )
    stages = {stage["state"] for stage in ai_forge(*finished.words("plan"), "--home", home).json["stages"]}
    assert stages == {"done"}
