"""Reading repositories that are odd or hostile."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.data_pipeline.source.file_dates import read_dates
from ai_forge.data_pipeline.source.repository import Repository, _read, blob_id, blobs_at_head, read_repository
from ai_forge.errors import InputError, PrerequisiteError
from conftest import git

Make = Callable[[dict[str, str]], Path]


def test_tracked_files_are_read_with_gits_own_blob_ids(make_repository: Make) -> None:
    root = make_repository({"b.py": "x = 1\n", "a/c.js": "let y;\n", ".gitignore": "ignored.py\n"})
    (root / "ignored.py").write_text("secret = 1\n")
    (root / "untracked.py").write_text("z = 1\n")
    repository = read_repository(root)
    assert [file.path for file in repository.files] == ["a/c.js", "b.py"]
    assert [file.blob_id for file in repository.files] == [git(root, "hash-object", f.path) for f in repository.files]
    assert repository.is_git
    assert repository.commit == git(root, "rev-parse", "HEAD")
    assert repository.skipped == {"unknown_language": 1}


def test_blob_id_is_of_the_bytes_read_not_of_the_commit(make_repository: Make) -> None:
    root = make_repository({"a.py": "x = 1\n"})
    (root / "a.py").write_text("x = 2\n")
    assert read_repository(root).files[0].blob_id == blob_id(b"x = 2\n")


def test_a_plain_folder_is_walked_without_hidden_and_vendored_folders(tmp_path: Path) -> None:
    for name in ("src/a.py", ".hidden/b.py", "node_modules/m/c.js", "venv/d.py", "dist/e.js", "pkg.egg-info/f.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    repository = read_repository(tmp_path)
    assert [file.path for file in repository.files] == ["src/a.py"]
    assert not repository.is_git
    assert repository.commit is None
    assert repository.skipped["left_out_folder"] == 5


def test_links_are_never_followed(make_repository: Make, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.py").write_text("password = 1\n")
    root = make_repository({"a.py": "x = 1\n", "folder/b.py": "y = 1\n"})
    (root / "link.py").symlink_to(tmp_path / "outside" / "secret.py")
    (root / "loop").symlink_to(root)
    git(root, "add", "-A")
    (root / "folder" / "b.py").unlink()
    (root / "folder").rmdir()
    (root / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "b.py").write_text("password = 2\n")
    repository = read_repository(root)
    assert [file.path for file in repository.files] == ["a.py"]
    assert repository.skipped["symlink"] == 3
    shutil.rmtree(root / ".git")
    walked = read_repository(root)
    assert [file.path for file in walked.files] == ["a.py"]
    assert walked.skipped["symlink"] == 3


def test_nothing_that_the_repository_configures_is_run(make_repository: Make, tmp_path: Path) -> None:
    root = make_repository({"a.py": "x = 1\n"})
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    trap.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(trap))
    git(root, "config", "core.hooksPath", str(tmp_path))
    git(root, "config", "core.pager", str(trap))
    git(root, "config", "filter.x.clean", str(trap))
    (root / ".gitattributes").write_text("*.py filter=x\n")
    assert len(read_repository(root).files) == 1
    assert not (tmp_path / "ran").exists()


def test_submodules_are_skipped(make_repository: Make, tmp_path: Path) -> None:
    root = make_repository({"a.py": "x = 1\n"})
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.py").write_text("y = 1\n")
    git(other, "init", "-q")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "x")
    git(root, "submodule", "add", "-q", str(other), "sub")
    repository = read_repository(root)
    assert [file.path for file in repository.files] == ["a.py"]
    assert repository.skipped["submodule"] == 1


def test_names_that_cannot_be_shown_as_they_are_are_left_out(tmp_path: Path) -> None:
    for name in ("new\nline.py", "bell\a.py", "\u202eyp.exe.py", 'quote"`[id] $(x).py', "plain.py"):
        (tmp_path / name).write_text("x = 1\n")
    with open(os.fsencode(tmp_path) + b"/\xff.py", "wb") as stream:  # noqa: PTH123
        stream.write(b"y = 1\n")
    repository = read_repository(tmp_path)
    assert [file.path for file in repository.files] == ["plain.py", 'quote"`[id] $(x).py']
    assert repository.skipped == {"undecodable_name": 1, "unshowable_name": 3}


def test_each_file_has_the_licence_of_the_nearest_folder(make_repository: Make) -> None:
    mit = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
    root = make_repository(
        {
            "LICENSE": "Apache License\n    Version 2.0, January 2004",
            "a.py": "x = 1\n",
            "lib/COPYING.txt": mit,
            "lib/deep/b.py": "y = 1\n",
            "odd/LICENSE": "all rights reserved",
            "odd/c.py": "z = 1\n",
        }
    )
    repository = read_repository(root)
    assert repository.licence == "Apache-2.0"
    licences = {file.path: file.folder_licence for file in repository.files}
    assert licences == {"a.py": "Apache-2.0", "lib/deep/b.py": "MIT", "odd/c.py": "Apache-2.0"}
    assert not repository.skipped


def test_pipes_large_files_and_deleted_files_are_counted(make_repository: Make) -> None:
    root = make_repository({"a.py": "x = 1\n", "gone.py": "y = 1\n", "large.py": "z = 1\n" * 1000})
    (root / "gone.py").unlink()
    repository = read_repository(root, max_file_bytes=2000)
    assert [file.path for file in repository.files] == ["a.py"]
    assert repository.skipped == {"missing": 1, "too_large": 1}
    os.mkfifo(root / "gone.py")
    assert read_repository(root, max_file_bytes=2000).skipped["not_a_file"] == 1


def test_a_folder_that_another_repository_ignores_is_walked(make_repository: Make) -> None:
    root = make_repository({"a.py": "x = 1\n", ".gitignore": "unpacked/\n"})
    (root / "unpacked").mkdir()
    (root / "unpacked" / "b.py").write_text("y = 1\n")
    repository = read_repository(root / "unpacked")
    assert [file.path for file in repository.files] == ["b.py"]
    assert not repository.is_git


def test_a_subfolder_of_a_repository_gives_its_own_paths(make_repository: Make) -> None:
    root = make_repository({"a.py": "x = 1\n", "pkg/b.py": "y = 1\n"})
    assert [file.path for file in read_repository(root / "pkg").files] == ["b.py"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: p / "nowhere", "does not exist"),
        (lambda p: (p / "f.py").write_text("x") and p / "f.py", "is not a folder"),
        (lambda p: p, "holds no files"),
        (lambda p: (p / "a.txt").write_text("x") and p, "can be mined. Known languages: python, javascript"),
        (lambda p: subprocess.run(["git", "init", "-q", str(p)], check=True) and p, "holds no files"),
    ],
)
def test_unusable_folders_are_refused_with_a_next_step(
    tmp_path: Path, prepare: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_repository(prepare(tmp_path))
    assert caught.value.next_step


def test_a_broken_git_folder_is_refused_and_never_walked(make_repository: Make) -> None:
    root = make_repository({"a.py": "x = 1\n"})
    (root / "untracked.py").write_text("y = 1\n")
    head = root / ".git" / "HEAD"
    for spoil in (head.unlink, lambda: head.write_bytes(b"\0\xff"), lambda: shutil.rmtree(root / ".git" / "objects")):
        spoil()
        with pytest.raises(InputError, match=r"Git cannot read .*git, so it is not known which files") as caught:
            read_repository(root)
        assert "git -C" in str(caught.value)
    shutil.rmtree(root / ".git")
    (root / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(InputError, match="Git cannot read"):
        read_repository(root)


def test_a_git_repository_without_git_is_refused(make_repository: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_repository({"a.py": "x = 1\n"})
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(PrerequisiteError, match="git is not installed"):
        read_repository(root)


def committed(root: Path, text: str, *options: str, attributes: str = "") -> Repository:
    git(root, "init", "-q", *options)
    (root / "a.py").write_bytes(text.encode())
    (root / ".gitattributes").write_text(attributes)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    (root / "a.py").unlink()
    git(root, "checkout", "-q", "--", ".")
    return read_repository(root)


@pytest.mark.parametrize("attributes", ["*.py text eol=crlf", "* text=auto eol=crlf", "a.py eol=crlf"])
def test_a_file_with_crlf_has_the_id_that_git_has_for_it(tmp_path: Path, attributes: str) -> None:
    repository = committed(tmp_path, "x = 1\ny = 2\n", attributes=attributes)
    assert b"\r\n" in repository.files[0].content
    assert repository.files[0].blob_id == blobs_at_head(tmp_path)["a.py"]
    assert read_dates(repository).keys() == {"a.py"}
    (tmp_path / "a.py").write_bytes(b"x = 1\r\ny = 3\r\n")
    changed = read_repository(tmp_path)
    assert changed.files[0].blob_id != repository.files[0].blob_id
    assert read_dates(changed) == {}


def test_a_sha256_repository_has_dates(tmp_path: Path) -> None:
    repository = committed(tmp_path, "x = 1\n", "--object-format=sha256")
    assert len(repository.files[0].blob_id) == 64
    assert repository.files[0].blob_id == blobs_at_head(tmp_path)["a.py"]
    assert read_dates(repository).keys() == {"a.py"}


def test_the_root_of_all_can_be_read_from() -> None:
    skipped: Counter[str] = Counter()
    assert _read(Path("/"), "etc/hostname", 10_000, skipped, {}) is not None
    assert not skipped


def test_pipes_in_a_folder_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / "LICENSE")
    repository = read_repository(tmp_path)
    assert [file.path for file in repository.files] == ["a.py"]
    assert repository.skipped["not_a_file"] == 1
