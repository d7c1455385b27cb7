"""Archives that strangers send, unpacked so that nothing lands outside and nothing in them can act.

Zip and tar (plain, gzip, bzip2, xz). A name that leads out refuses the whole archive: nobody packs one by accident. Links, devices
and what git would act on (hooks, configuration, alternates) are left out and counted; a repository's history stays. What an
archive unpacks to is counted while it is written, whatever its headers say.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from ai_forge.errors import InputError

__all__ = ["ARCHIVES", "Unpacked", "unpack"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_MEMBERS = 200_000
MAX_DEPTH = 64
CHUNK_BYTES = 1 << 20
# what git acts on: settings name programs, hooks are programs, the others point to places outside
GIT_ACTS_ON = re.compile(
    r"(^|/)\.git(/(hooks|worktrees|modules)(/|$)|/(config|config\.worktree|commondir|gitdir)$"
    r"|/objects/info/(http-)?alternates$|$)",
    re.IGNORECASE,
)
GIT_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"


@dataclass(frozen=True)
class Unpacked:
    """Where it lies (the one folder that it holds, or all of it), how much was written and how much was left out."""

    root: Path
    n_files: int
    n_bytes: int
    n_left_out: int


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Member:
    name: str
    is_file: bool
    is_folder: bool
    open: IO[bytes] | None


def unpack(archive: Path, target: Path, *, max_bytes: int) -> Unpacked:
    """Unpack into the empty folder `target`.

    Raises:
        InputError: it is no archive, damaged, encrypted, too large, or a name in it leads outside.
    """
    n_files = n_bytes = n_left_out = 0
    seen: set[str] = set()
    try:
        for count, member in enumerate(_members(archive, target, max_bytes)):
            if count >= MAX_MEMBERS:
                raise InputError(f"{archive.name} holds more than {MAX_MEMBERS} entries.", "send fewer files.")
            parts = _parts(member.name, archive)
            if (
                not parts
                or (GIT_ACTS_ON.search("/".join(parts)) and not member.is_folder)
                or not (member.is_file or member.is_folder)
            ):
                n_left_out += bool(parts)
                continue
            place = target.joinpath(*parts)
            if member.is_folder:
                _folder(place, archive)
                continue
            # two names that one file system takes for one would write over each other
            folded = unicodedata.normalize("NFC", "/".join(parts)).casefold()
            if folded in seen or member.open is None:
                n_left_out += 1
                continue
            seen.add(folded)
            _folder(place.parent, archive)
            with member.open as source:
                n_bytes += _copy(source, place, max_bytes - n_bytes, archive)
            n_files += 1
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise InputError(
            f"{archive.name} is damaged or no archive: {error}.", "pack it again, as zip or tar."
        ) from error
    except (RuntimeError, ValueError, OverflowError) as error:  # encrypted; numbers that cannot be
        raise InputError(
            f"{archive.name} cannot be unpacked: {error}.", "pack it again, without a password."
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # that is a place in the archive that cannot be; all others are the disk's
            raise
        raise InputError(f"{archive.name} is damaged: it names a place that is not in it.", "pack it again.") from error
    if n_files == 0:
        raise InputError(f"{archive.name} holds no files.", "pack the folder of the repository.")
    inside = list(target.iterdir())
    root = inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != ".git" else target
    for git in {root / ".git", target / ".git"}:
        if git.is_dir():
            (git / "config").write_text(GIT_CONFIG, encoding="utf-8")
    return Unpacked(root, n_files, n_bytes, n_left_out)


def _parts(name: str, archive: Path) -> tuple[str, ...]:
    """The parts of a member's name. Raises `InputError` where it is no name inside the archive."""
    as_posix = name.replace("\\", "/")
    parts = tuple(part for part in as_posix.split("/") if part not in ("", "."))
    bad = (
        as_posix.startswith("/")
        or ".." in parts
        or re.match(r"[A-Za-z]:", as_posix)
        or any(len(part.encode("utf-8", "surrogateescape")) > 255 or not part.strip() for part in parts)
        or any(ord(letter) < 32 or 0xD800 <= ord(letter) <= 0xDFFF for letter in name)
        or len(parts) > MAX_DEPTH
    )
    if bad:
        raise InputError(
            f"{archive.name} holds the name {name[:100]!r}, which no repository has.",
            "pack the folder of the repository itself.",
        )
    return parts


def _folder(place: Path, archive: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"In {archive.name} one name is a file and a folder.", "pack it again.") from error


def _copy(source: _Readable, place: Path, left: int, archive: Path) -> int:
    """Write a new file of at most `left` bytes; returns how many."""
    # EXCL and NOFOLLOW: whatever lies there already is not written through
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"In {archive.name} one name stands twice.", "pack it again.") from error
    n_bytes = 0
    with os.fdopen(descriptor, "wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            n_bytes += len(chunk)
            if n_bytes > left:
                raise too_much(archive)
            file.write(chunk)
    return n_bytes


def too_much(archive: Path) -> InputError:
    """What is said of an archive that unpacks to more than is allowed."""
    return InputError(
        f"{archive.name} unpacks to more than is allowed.", "send fewer files, or raise service.max_upload_bytes."
    )


def _members(archive: Path, target: Path, max_bytes: int) -> Iterator[_Member]:
    with archive.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if start[:2] == b"PK":
            yield from _zip_members(file)
            return
        readers = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
        opener = next((opener for magic, opener in readers if start.startswith(magic)), None)
        if opener is None:
            yield from _tar_members(file)
            return
        # unpacked to a file first: a header may claim any length, but no more is read than is there
        whole = target.with_name(f"{target.name}.tar")
        try:
            with opener(file, "rb") as packed:
                _copy(packed, whole, max_bytes, archive)
            with whole.open("rb") as plain:
                yield from _tar_members(plain)
        except OSError as error:
            if error.errno is not None:  # the disk's; what gzip and bz2 say of damage has no number
                raise
            raise tarfile.ReadError(str(error)) from error
        finally:
            whole.unlink(missing_ok=True)


def _zip_members(file: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            mode = info.external_attr >> 16
            is_odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            is_folder = info.is_dir() and not is_odd
            is_file = not info.is_dir() and not is_odd
            # the name as it stands in the archive: `filename` was cut at a NUL
            yield _Member(info.orig_filename, is_file, is_folder, packed.open(info) if is_file else None)


def _tar_members(file: BinaryIO) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:") as packed:
        for info in packed:
            yield _Member(info.name, info.isreg(), info.isdir(), packed.extractfile(info) if info.isreg() else None)
