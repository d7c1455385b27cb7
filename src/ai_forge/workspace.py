"""`AI_FORGE_HOME`: where everything that AI Forge makes lies, and how it is written.

    cache/<stage>/<key>/     what a stage made, by the hash of all that went into it; `manifest.json` is written last
    cache/files/<hash>.db    what was mined of each file of a repository; see `file_cache`
    cache/<stage>/<key>.work a stage that can be continued (training) works here until it is complete
    runs/<run id>/           the run, its environment, events.jsonl, links to the report and the stages' folders
    served/<model>/<version> what a deployed version is asked with: its index
    registry.db              models, versions, which one is active
    repositories.json        which repository has which model name

What survives a crash: every folder with a manifest is whole; every other folder is either continued (`.work`) or
removed at the next start (`.tmp-*`). Files are written beside their place, fsynced and renamed.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import platformdirs
import psutil

from ai_forge.errors import InputError, PrerequisiteError, TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.places import expanded, holds_what_was_written, make_room, regular_bytes, sealed

MANIFEST = "manifest.json"
LOCK_POLL_S = 0.2
DEVICES = (Path("/dev"), Path("/dev/fd"))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` when the block ends well, and leaves nothing when it does not.

    Raises:
        InputError: a device lies there, which would become a file, for everyone on the machine.
    """
    beside = path.absolute().parent
    if path.is_char_device() or path.is_block_device() or beside in DEVICES or beside.is_relative_to("/proc"):
        raise InputError(f"{path} is a device, not a place for a file.", "give a file's path.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside its place: a rename is atomic within one file system only. The process in the name says whether it still works
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the rename: else a power cut could leave the new name with no content
        if path.is_dir():  # which nothing can be renamed to
            make_room(path)
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a crash leaves either the old file or the new one, never a part."""
    with atomic_file(path) as file:
        if isinstance(data, str):
            data = data.encode("utf-8")
        file.write(data)


def fsync_folder(folder: Path) -> None:
    """Make the renames inside `folder` durable (or the content of a file)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in (temporary, *temporary.rglob("*")):
            if not path.is_symlink() and (path.is_file() or path.is_dir()):
                fsync_folder(path)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second place without a second copy, where the file system can."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def replace_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`. What was there is moved aside first, so a crash leaves no half-removed folder."""
    old = target.with_name(f".{target.name}.old.tmp-{os.getpid()}")
    if target.exists():
        target.replace(old)
    new.replace(target)
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_debris(folder: Path, pattern: str = ".*.tmp-*") -> None:
    """Remove from `folder` the temporary files and folders of processes that no longer live."""
    for leftover in folder.glob(pattern):
        pid = leftover.name.rpartition("-")[2]
        if pid.isdigit() and psutil.pid_exists(
            int(pid)
        ):  # a number that was given anew only keeps debris a while longer
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)  # another process may be removing it as well
        else:
            leftover.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> JsonObject | None:
    """The mapping in a JSON file, or None where it is missing, torn or no file."""
    try:
        content = json.loads(regular_bytes(path))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    return content


def stage_key(**inputs: Any) -> str:
    """The key of a stage: sixteen hex digits over its inputs' hashes, its code version and its settings.

    >>> stage_key(version=1, data="abc") == stage_key(data="abc", version=1)
    True
    """
    # `default=str` for paths; `surrogatepass` for names of files that are no UTF-8
    canonical = json.dumps(inputs, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def require_disk(folder: Path, n_bytes: int, what: str) -> None:
    """Stop before work starts that the disk cannot hold.

    Raises:
        PrerequisiteError: fewer than `n_bytes` are free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise PrerequisiteError(
            f"{what} needs {n_bytes / 1e9:.1f} GB of disk in {folder}; {free / 1e9:.1f} GB are free.",
            "free some space, or set AI_FORGE_HOME to a larger disk.",
        )


class Workspace:
    """The folder tree under one `AI_FORGE_HOME`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache_dir = root / "cache"
        self.runs_dir = root / "runs"
        self.registry_path = root / "registry.db"
        self.served_dir = root / "served"

    @classmethod
    def open(cls, root: Path | None = None) -> "Workspace":
        """The workspace at `root`, else at `AI_FORGE_HOME`, else in the platform's data folder; made if absent.

        Raises:
            PrerequisiteError: the folder cannot be made or written.
        """
        workspace = cls(cls.root_at(root))
        # tried, not asked for: what the rights say and what a read-only or full disk allows are two things
        try:
            workspace.cache_dir.mkdir(parents=True, exist_ok=True)
            workspace.runs_dir.mkdir(parents=True, exist_ok=True)
            probe = workspace.root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise PrerequisiteError(
                f"The workspace {workspace.root} cannot be written: {error.strerror}.",
                "set AI_FORGE_HOME to a folder you can write.",
            ) from error
        for pattern in ("cache/*/.*.tmp-*", "cache/*/*.work/.*.tmp-*", "runs/.*.tmp-*", "runs/*/.*.tmp-*"):
            remove_debris(workspace.root, pattern)
        return workspace

    @staticmethod
    def root_at(root: Path | None) -> Path:
        """Where the workspace lies or will lie; nothing is made."""
        chosen = root or Path(
            os.environ.get("AI_FORGE_HOME") or platformdirs.user_data_dir("ai-forge", appauthor=False)
        )
        return expanded(chosen).absolute()

    def stage_folder(self, stage: str, key: str) -> Path:
        """Where the output of `stage` with `key` lies or will lie."""
        return self.cache_dir / stage / key

    def finished(self, stage: str, key: str) -> JsonObject | None:
        """The manifest (`counts`, `files`) of a complete stage, or None where it is missing, not whole or damaged.

        A file whose size, time and inode are those of the manifest is taken as it is. Where they differ its bytes are hashed,
        once a process for each state of the file.
        """
        return whole_manifest(self.stage_folder(stage, key))

    @contextlib.contextmanager
    def building(self, stage: str, key: str) -> Iterator[tuple[Path, JsonObject]]:
        """Yield (folder, counts) to fill; when the block ends well the folder takes its place with a manifest."""
        counts: JsonObject = {}
        with atomic_folder(self.stage_folder(stage, key)) as folder:
            yield folder, counts
            write_manifest(folder, counts)

    def work_folder(self, stage: str, key: str) -> Path:
        """The folder in which a stage that can be continued works."""
        folder = self.stage_folder(stage, f"{key}.work")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def lock(self, name: str, *, wait_s: float = 0.0, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold an exclusive lock for this process; the system frees it when the process dies, however it dies.

        While another holds it, `wait_s` seconds are waited, and `check` is called, which may raise to end the waiting.

        Raises:
            TransientError: another process, or another part of this one, holds it.
        """
        path = self.root / "locks" / f"{name}.lock"
        until = time.monotonic() + wait_s
        path.parent.mkdir(exist_ok=True)
        make_room(path)
        # not "w": the one who holds the lock has written its number into it
        with path.open("a+", errors="replace") as file:
            while not _locked(file):
                check()
                if time.monotonic() >= until:
                    file.seek(0)
                    raise TransientError(
                        f"Process {''.join(filter(str.isdigit, file.read(20))) or '?'} is already working on {name}.",
                        "wait for it, or stop it and run the same command again.",
                    )
                time.sleep(LOCK_POLL_S)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _locked(file: IO[str]) -> bool:
    # of the open file, not of the process as `lockf`'s is: two threads of a service exclude each other too
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_manifest(folder: Path, counts: Mapping[str, Any], **more: Any) -> None:
    """List the files of `folder` with what tells a damaged one, the stage's counts and `more`; written last, it makes the
    folder whole."""
    files = {
        str(path.relative_to(folder)): {**_stamp(path), "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    atomic_write(folder / MANIFEST, json.dumps(sealed({"counts": dict(counts), "files": files, **more}), indent=1))


def whole_manifest(folder: Path) -> JsonObject | None:
    """The manifest of a folder in which every file is as it lists them; None where one is not, or the manifest is damaged."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict) or "counts" not in manifest:
        return None
    if not holds_what_was_written(manifest):
        return None
    if not all(_is_as_recorded(folder / name, record) for name, record in manifest["files"].items()):
        return None
    return manifest


def _stamp(path: Path) -> dict[str, int]:
    """What changes when a file is written: cheap to look at, and it survives the renaming of its folder."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def _is_as_recorded(path: Path, record: Any) -> bool:
    if not isinstance(record, dict) or not path.is_file():
        return False
    stamp = _stamp(path)
    if stamp["size"] != record.get("size"):
        return False
    # bytes are read only where the stamp differs (a workspace that was copied): a model's files take seconds to hash
    if all(record.get(name) == value for name, value in stamp.items()):
        return True
    return _hash_of_state(str(path), *stamp.values()) == record.get("sha256")


@functools.lru_cache(maxsize=4096)
def _hash_of_state(path: str, size: int, mtime_ns: int, inode: int) -> str:
    return file_sha256(Path(path))
