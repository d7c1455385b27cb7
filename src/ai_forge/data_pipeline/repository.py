"""The files of a repository: tracked ones by git, or a plain walk where there is no git.

The repository is not trusted. Git runs with hooks, file-system monitors and all configuration but the repository's own
switched off and only lists names; links are never followed, neither a file nor a folder on the way to it; only regular
files of a known language are opened. What is left out is counted by reason.
"""

import hashlib
import os
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ai_forge.data_pipeline.languages import LANGUAGES, language_of
from ai_forge.errors import InputError

_LEFT_OUT_FOLDERS = frozenset(
    {
        "node_modules",
        "bower_components",
        "vendor",
        "third_party",
        "dist",
        "build",
        "target",
        "__pycache__",
        "venv",
        "env",
    }
)
_GIT_TIMEOUT_S = 120


@dataclass(frozen=True)
class SourceFile:
    """A file's bytes as read; `path` is relative with forward slashes, `blob_id` git's SHA-1 blob id of the bytes."""

    path: str
    content: bytes
    blob_id: str

    @property
    def language(self) -> str:
        """Language by extension."""
        language = language_of(self.path)
        assert language is not None, "only files of a known language are read"
        return language


@dataclass(frozen=True)
class Repository:
    """A folder's source files, sorted by path, and why others were skipped."""

    root: Path
    name: str
    commit: str | None
    is_git: bool
    files: tuple[SourceFile, ...]
    skipped: Counter[str] = field(default_factory=Counter)


def blob_id(content: bytes) -> str:
    """Git's id of a file with these bytes.

    >>> blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_repository(repo_path: str | Path, *, max_file_bytes: int = 1_000_000) -> Repository:
    """Read every source file of `repo_path` that is at most `max_file_bytes` long.

    Raises InputError: not a folder, an empty one, or none of its files is in a known language.
    """
    root = Path(repo_path).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}.", "Give the folder of a repository.")
    root = root.resolve()
    skipped: Counter[str] = Counter()
    tracked = _tracked(root, skipped)
    names = sorted(tracked if tracked is not None else _walk(root, skipped))
    if not names:
        raise InputError(f"{root} holds no files to read.", _empty_hint(tracked is not None))
    files: list[SourceFile] = []
    for name in names:
        content = _read(root, name, max_file_bytes, skipped)
        if content is not None:
            files.append(SourceFile(os.fsdecode(name), content, blob_id(content)))
    if not files:
        known = ", ".join(LANGUAGES)
        raise InputError(
            f"None of the {len(names)} files in {root} can be mined. Known languages: {known}.", _seen(skipped)
        )
    commit = _git(root, "rev-parse", "--verify", "HEAD") if tracked is not None else None
    commit_id = commit.decode("ascii", "replace").strip() if commit else None
    return Repository(root, root.name or "repository", commit_id, tracked is not None, tuple(files), skipped)


def _empty_hint(is_git: bool) -> str:
    return "Add the files with `git add` first: only tracked files are read." if is_git else "Give a folder with code."


def _seen(skipped: Counter[str]) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in skipped.most_common())
    return f"Give a folder with code in one of these. Skipped: {reasons or 'nothing'}."


def _git(root: Path, *arguments: str) -> bytes | None:
    """Output of a git command that can run nothing the repository names; None where it fails or git is missing."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
    harmless = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.untrackedCache=false", "safe.directory=*")
    command = ["git", *(part for setting in harmless for part in ("-c", setting)), "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _tracked(root: Path, skipped: Counter[str]) -> list[bytes] | None:
    """Names of tracked regular files below `root`; None where `root` is not in a git work tree.

    A folder that only lies inside someone else's work tree, with no tracked file of its own, is walked instead.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    listing = _git(root, "ls-files", "-z", "--stage") if top else None
    if not top or listing is None:
        return None
    names: set[bytes] = set()
    for entry in filter(None, listing.split(b"\0")):
        mode, _, name = entry.partition(b" ")[0], *entry.partition(b"\t")[1:]
        if mode == b"160000":
            skipped["submodule"] += 1
        elif mode == b"120000":
            skipped["symlink"] += 1
        else:
            names.add(name)
    is_top = Path(os.fsdecode(top.rstrip(b"\n"))).resolve() == root
    return None if not names and not is_top else list(names)


def _walk(root: Path, skipped: Counter[str]) -> Iterator[bytes]:
    top = os.fsencode(root)
    for folder, subfolders, names in os.walk(top, followlinks=False):
        kept = []
        for name in subfolders:
            text = os.fsdecode(name)
            if (Path(os.fsdecode(folder)) / text).is_symlink():
                skipped["symlink"] += 1
            elif text.startswith(".") or text.lower() in _LEFT_OUT_FOLDERS or text.endswith(".egg-info"):
                skipped["left_out_folder"] += 1
            else:
                kept.append(name)
        subfolders[:] = sorted(kept)
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), top)  # noqa: PTH118 - bytes have no Path


def _read(root: Path, name: bytes, max_file_bytes: int, skipped: Counter[str]) -> bytes | None:
    """The file's bytes, or None with the reason counted."""
    try:
        path = name.decode("utf-8")
    except UnicodeDecodeError:
        skipped["undecodable_name"] += 1
        return None
    if language_of(path) is None:
        skipped["unknown_language"] += 1
        return None
    full = root / path
    try:
        state = full.lstat()
        if stat.S_ISLNK(state.st_mode) or full.parent.resolve() != root.joinpath(*full.relative_to(root).parent.parts):
            skipped["symlink"] += 1
        elif not stat.S_ISREG(state.st_mode):
            skipped["not_a_file"] += 1
        elif state.st_size > max_file_bytes:
            skipped["too_large"] += 1
        else:
            handle = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as stream:
                return stream.read(max_file_bytes + 1)[:max_file_bytes]
    except FileNotFoundError:
        skipped["missing"] += 1
    except (OSError, ValueError, RuntimeError):
        skipped["unreadable"] += 1
    return None
