"""A workspace in one file, and back. Both check what they wrote, byte by byte.

The file is a tar archive: the workspace's folders and files, databases as SQLite's own consistent copies, and last
`backup.json` with the SHA-256 of each file. So an archive that was cut off is noticed, and one is written while a service runs.
What is left out: locks, what a process was just writing beside its place, and what libraries keep in a home's `.cache`.

Restoring extracts beside the target, checks every hash, and only then renames: the target is whole or as it was. A target that
is a mounted disk, as a container's volume is, cannot be renamed: its entries are, one after the other.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from ai_forge.errors import InputError, PrerequisiteError, RefusedError
from ai_forge.workspace import Workspace, atomic_file, fsync_folder, require_disk

INDEX = "backup.json"
DATABASES = ("*.db", "cache/files/*.db")
LEFT_OUT = ("locks", ".cache", "lost+found")  # the last two where the workspace is a user's home, or a disk of its own
KEPT = "before-restore-"
NOT_A_BACKUP = "make one: ai-forge backup FILE."
CHUNK = 1 << 20

Tell = Callable[[int, int], None]
"""Hears how many bytes of how many are done."""


class Archived(BaseModel):
    """What `backup.json` says of a file."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Backup(BaseModel):
    """What a backup holds. `created` is seconds since 1970; links are in the archive and not listed."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    created: float
    files: dict[str, Archived]

    @property
    def n_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files.values())


class _Hashing(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def back_up(workspace: Workspace, target: Path, tell: Tell = lambda done, total: None) -> Backup:
    """Write the workspace to `target` and read it again to check.

    Raises:
        InputError: the target lies inside the workspace, or a file lies there that is no backup.
        PrerequisiteError: the disk will not hold it.
    """
    target = target.absolute()
    if target.is_relative_to(workspace.root):
        raise InputError(f"{target} lies inside the workspace that it is to hold.", "name a file elsewhere.")
    if target.is_file() and target.stat().st_size and not tarfile.is_tarfile(target):  # an older backup is replaced
        raise InputError(f"{target} is there, and is no backup.", "name another file.")
    entries = sorted(_entries(workspace.root))
    total = sum(path.lstat().st_size for path in entries if path.is_file())
    target.parent.mkdir(parents=True, exist_ok=True)
    require_disk(target.parent, total, "A backup")
    done = 0
    with tempfile.TemporaryDirectory(prefix="ai-forge-backup-") as folder, atomic_file(target) as file:
        files: dict[str, Archived] = {}
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            # first: what is in the databases refers to files, and files are only ever added behind it
            databases = {path: _copy_of(path, Path(folder)) for path in _databases(workspace.root)}
            for path in entries:
                name = path.relative_to(workspace.root).as_posix()
                added = _add(archive, databases.get(path, path), name, files)
                if added is not None:
                    files[name] = added
                    done += added.size
                    tell(done, total)
            made = Backup(created=round(time.time(), 3), files=files)
            content = made.model_dump_json(indent=1).encode()
            info = tarfile.TarInfo(INDEX)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        file.flush()
        with Path(file.name).open("rb") as written:
            _check(written, made)
    return made


def _entries(root: Path) -> Iterator[Path]:
    """Folders, files and links, without what is just being written."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _is_left_out(Path(folder) / name, root)]
        for name in (*folders, *names):
            path = Path(folder) / name
            # beside a database: its journal, which the consistent copy already contains
            if not _is_left_out(path, root) and not name.endswith((".db-journal", ".db-wal", ".db-shm")):
                yield path


def _is_left_out(path: Path, root: Path) -> bool:
    inside = path.relative_to(root).as_posix()
    return (
        ".tmp-" in path.name
        or path.name.startswith(".probe-")
        or inside in LEFT_OUT
        or (path.parent == root and KEPT in path.name)
    )


def _databases(root: Path) -> list[Path]:
    return [path for pattern in DATABASES for path in root.glob(pattern)]


def _copy_of(database: Path, folder: Path) -> Path:
    """A consistent copy, whatever is being written: SQLite's own backup."""
    copy = folder / f"{len(list(folder.iterdir()))}.db"
    try:
        with closing(sqlite3.connect(database, timeout=30)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.DatabaseError:  # damaged, or no database for all its name: as it is, its owner will notice
        shutil.copyfile(database, copy)
    return copy


def _add(archive: tarfile.TarFile, path: Path, name: str, files: dict[str, Archived]) -> Archived | None:
    """Add what lies at `path`; what is said of it where it is a file. None where it is a link or a folder, or gone meanwhile."""
    try:
        info = archive.gettarinfo(path, arcname=name)
        if info is None or not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
            return None
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if info.islnk():  # a second name of a file that is in the archive already
            archive.addfile(info)
            return files[info.linkname]
        if not info.isfile():
            archive.addfile(info)
            return None
        with path.open("rb") as file:
            if (
                file.seek(0, os.SEEK_END) != info.size
            ):  # it grows or shrinks: a training's, which is found whole or torn
                info.size = file.tell()
            file.seek(0)
            hashing = _Hashing(file)
            archive.addfile(info, hashing)
    except FileNotFoundError:
        return None
    return Archived(size=info.size, sha256=hashing.sha256.hexdigest())


def _check(file: BinaryIO, expected: Backup) -> None:
    """Read an archive back. Raises `PrerequisiteError` where a byte differs: the disk does not keep what it is given."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isfile() and member.name != INDEX:
                content = archive.extractfile(member)
                assert isinstance(content, tarfile.ExFileObject)
                if hashlib.file_digest(content, "sha256").hexdigest() != expected.files[member.name].sha256:
                    raise PrerequisiteError(f"{member.name} was not written as it is.", "try another disk.")


def restore(archive: Path, root: Path, *, force: bool = False) -> Backup:
    """Make the workspace at `root` what it was when `archive` was written.

    With `force` what lies there is kept beside it, as `<name>.before-restore-<time>`; on a mounted disk within it.

    Raises:
        InputError: the archive is none, is damaged, or holds something that does not belong into a workspace.
        RefusedError: `root` holds something already.
    """
    root = root.absolute()
    lies_there = list(root.iterdir()) if root.exists() else []
    occupied = any(not _is_left_out(path, root) for path in lies_there)
    if occupied and not force:
        raise RefusedError(
            f"{root} is not empty.", "restore to another --home, or add --force, which keeps a copy of it."
        )
    # a mounted disk cannot be renamed, and what a backup leaves out is not ours to remove
    fills = root.is_mount() or bool(lies_there and not occupied)
    kept = f"{root.name}.{KEPT}{time.strftime('%Y%m%d-%H%M%S')}"
    around = root if fills else root.parent
    around.mkdir(parents=True, exist_ok=True)
    temporary = around / f".{root.name}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        found = _extract(archive, temporary)
        if fills:
            _fill(root, temporary, root / kept)
        else:
            if occupied:
                root.replace(root.with_name(kept))
            elif root.exists():
                root.rmdir()
            temporary.replace(root)
        fsync_folder(around)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def _fill(root: Path, restored: Path, kept: Path) -> None:
    """Move what lies in `root` to `kept`, then what was restored to its place: no step loses anything."""
    before = [path for path in root.iterdir() if not _is_left_out(path, root) and path != restored]
    if before:
        kept.mkdir()
    for path in before:
        path.replace(kept / path.name)
    for path in list(restored.iterdir()):
        path.replace(root / path.name)


def _extract(path: Path, folder: Path) -> Backup:
    try:
        with tarfile.open(path, mode="r:") as archive:
            found = _index(archive, path)
            require_disk(folder, found.n_bytes, "Restoring")
            # `data` refuses absolute names, ways out, links that lead out, and everything that is no file, folder or link
            members = [member for member in archive.getmembers() if member.name != INDEX]
            files = [member.name for member in members if member.isfile() or member.islnk()]
            strangers = [name for name in files if name not in found.files]
            if strangers:
                raise InputError(f"{path} holds files that its index does not name: {strangers[0]}.", NOT_A_BACKUP)
            archive.extractall(folder, members, filter="data")
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:  # KeyError: a second name of what is not there
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and error.errno is not None:
            raise
        raise InputError(f"{path} is no backup that can be restored: {error}.", NOT_A_BACKUP) from error
    for name, file in found.files.items():
        extracted = folder / name
        if not extracted.is_file() or extracted.is_symlink():
            raise InputError(f"{name} is missing in {path}.", NOT_A_BACKUP)
        with extracted.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                raise InputError(f"{name} in {path} is damaged.", "use another backup.")
    return found


def _index(archive: tarfile.TarFile, path: Path) -> Backup:
    try:
        content = archive.extractfile(INDEX)
        assert content is not None
        return Backup.model_validate_json(content.read())
    except (KeyError, AssertionError, ValidationError) as error:
        raise InputError(f"{path} has no index: it is no backup, or was cut off.", NOT_A_BACKUP) from error
