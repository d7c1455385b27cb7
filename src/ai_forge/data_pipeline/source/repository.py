"""The files of a repository: tracked ones by git, or a plain walk where there is no git.

The repository is not trusted. Git runs without hooks, file-system monitors, transports, and any configuration but the
repository's own, and only lists names (`git_output`); links are never followed, neither a file nor a folder on the way to
it; only regular files of a known language and licence files are opened; a name with control characters is left out, because
it could not be shown as it is. What is left out is counted by reason.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ai_forge.data_pipeline.languages import LANGUAGES, language_of
from ai_forge.data_pipeline.source.licences import is_licence_file, licence_of_text, nearest_licence
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.places import expanded

# Without git nothing says which files are the project's: these folders hold what was installed or built.
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
# What a log needs to be read by a program, whatever the repository's configuration or the user's says.
PLAIN_LOG = ("--raw", "-r", "-z", "-O/dev/null", "--no-abbrev", "--no-show-signature", "--no-notes", "--no-color")
OWN_FOLDER = ".ai-forge"
"""What a repository holds for us: read where it is meant, and never as its documentation, or an index would find the team's
questions when they are asked."""
_GIT_TIMEOUT_S = 120
_MAX_LICENCE_BYTES = 200_000
_MAX_DOCUMENT_BYTES = 500_000
# Control characters, line separators and direction overrides: the path would not be shown as it is.
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Each names a program or a file in a repository's own configuration; `-c` overrides what that says.
_HARMLESS = (
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.attributesFile=/dev/null",
    "core.alternateRefsCommand=false",
    "core.sshCommand=false",
    "core.gitProxy=false",
    "core.askPass=false",
    "credential.helper=",
    "diff.external=false",
    "gpg.program=false",
    "log.showSignature=false",
    "protocol.allow=never",
    "submodule.recurse=false",
)


@dataclass(frozen=True)
class SourceFile:
    """A file's bytes as read; `path` is relative with forward slashes, `blob_id` git's id of what it has of them.

    That is the id of the tracked blob where the file is as it was checked out, CRLF line ends included.

    `folder_licence` is the licence of the nearest licence file above it; the file's own head may name another.
    """

    path: str
    content: bytes
    blob_id: str
    folder_licence: str | None = None

    @property
    def language(self) -> str:
        """Language by extension; a C++ header called `.h` is known by its content."""
        language = language_of(self.path, self.content)
        assert language is not None, "only files of a known language are read"
        return language


@dataclass(frozen=True)
class Repository:
    """A folder's source files, sorted by path, and why others were skipped.

    `licence` is the repository's own, by the licence file of its root.
    """

    root: Path
    name: str
    commit: str | None
    is_git: bool
    files: tuple[SourceFile, ...]
    skipped: Counter[str] = field(default_factory=Counter)
    licence: str | None = None


def blob_id(content: bytes, tracked: str | None = None) -> str:
    """Git's id of a file with these bytes; with `tracked`, git's own for that path, in the hash that it uses.

    A check-out may have CRLF where the blob has not (`core.autocrlf`, `eol=crlf`): that is the same file. Git is not asked
    itself, because it would run the filters that a repository configures.

    >>> blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    >>> blob_id(b"a\\r\\n", blob_id(b"a\\n")) == blob_id(b"a\\n")
    True
    """
    name = "sha1"
    if tracked is not None and len(tracked) == 64:  # git's newer object format
        name = "sha256"
    own = _hashed(content, name)
    if tracked is not None and b"\r\n" in content and own != tracked:
        as_committed = _hashed(content.replace(b"\r\n", b"\n"), name)
        if as_committed == tracked:
            return tracked
    return own


def _hashed(content: bytes, name: str) -> str:
    return hashlib.new(name, b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_repository(repo_path: str | Path, *, max_file_bytes: int = 1_000_000) -> Repository:
    """Read every source file of `repo_path` that is at most `max_file_bytes` long.

    Raises InputError: not a folder, an empty one, none of its files is in a known language, or its `.git` is broken.
    """
    root = expanded(Path(repo_path))
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}.", "Give the folder of a repository.")
    root = root.resolve()
    skipped: Counter[str] = Counter()
    names, ids = _names(root, skipped)
    if not names:
        hint = "Give a folder with code."
        if ids is not None:
            hint = "Add the files with `git add` first: only tracked files are read."
        raise InputError(f"{root} holds no files to read.", hint)
    licences = _licences(root, names)
    files: list[SourceFile] = []
    # Asked once a folder: all of its files have the same answer.
    real_folders: dict[str, bool] = {}
    licence_of_folder: dict[str, str | None] = {}
    for name in names:
        path = _showable(name, skipped)
        if path is None or is_licence_file(path):
            continue
        if language_of(path) is None:
            skipped["unknown_language"] += 1
            continue
        content = _read(root, path, max_file_bytes, skipped, real_folders)
        if content is not None:
            folder = path.rpartition("/")[0]
            if folder not in licence_of_folder:
                licence_of_folder[folder] = nearest_licence(path, licences)
            own_id = blob_id(content, (ids or {}).get(name))
            files.append(SourceFile(path, content, own_id, licence_of_folder[folder]))
    if not files:
        known = ", ".join(LANGUAGES)
        reasons = ", ".join(f"{reason} {n}" for reason, n in skipped.most_common())
        raise InputError(
            f"None of the {len(names)} files in {root} can be mined. Known languages: {known}.",
            f"Give a folder with code in one of these. Skipped: {reasons or 'nothing'}.",
        )
    commit = None
    if ids is not None and (head := git_output(root, "rev-parse", "--verify", "HEAD")):  # none before the first commit
        commit = head.decode("ascii", "replace").strip()
    name_of_root = root.name or "repository"  # `/` has no name
    return Repository(root, name_of_root, commit, ids is not None, tuple(files), skipped, licences.get(""))


def read_documents(root: Path, suffixes: tuple[str, ...], max_files: int) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the first `max_files` files with one of `suffixes`, by path; as careful as `read_repository`.

    Those of `.ai-forge` are left out.
    """
    ignored: Counter[str] = Counter()
    names, _ = _names(root, ignored)
    endings = tuple(suffix.encode() for suffix in suffixes)
    own = f"{OWN_FOLDER}/".encode()
    wanted = [name for name in names if name.lower().endswith(endings) and not name.startswith(own)]
    for name in wanted[:max_files]:
        path = _showable(name, ignored)
        if path is None:
            continue
        content = _read(root, path, _MAX_DOCUMENT_BYTES, ignored, {})
        if content is not None:
            yield path, content


def file_names(repo_path: Path) -> list[str]:
    """Paths of all files of a repository, tracked ones where it is under git, whatever they hold."""
    ignored: Counter[str] = Counter()
    names, _ = _names(expanded(repo_path).resolve(), ignored)
    return [path for name in names if (path := _showable(name, ignored)) is not None]


def read_one(root: Path, path: str, max_bytes: int) -> bytes | None:
    """The bytes of one file below `root`, tracked or not, as careful as `read_repository`; None where there is none.

    Raises:
        InputError: it is there and cannot be read: a link, no file, longer than `max_bytes`.
    """
    skipped: Counter[str] = Counter()
    content = _read(root.resolve(), path, max_bytes, skipped, {})
    if content is not None or "missing" in skipped:
        return content
    why = {
        "symlink": "a link is on the way to it, which is not followed",
        "not_a_file": "it is no file",
        "too_large": f"it is longer than {max_bytes:,} bytes",
    }
    reason = why.get(next(iter(skipped)), "the system does not let it be read")
    raise InputError(f"{root / path} cannot be read: {reason}.", "put a file in its place, or remove it.")


def _names(root: Path, skipped: Counter[str]) -> tuple[list[bytes], dict[bytes, str] | None]:
    """Sorted names of the files to read, and where git tracks them their blobs' ids."""
    ids = _tracked(root, skipped)
    if ids is None:
        return sorted(_walk(root, skipped)), None
    return sorted(ids), ids


def git_output(root: Path, *arguments: str, stdin: bytes = b"", max_bytes: int | None = None) -> bytes | None:
    """Output of a git command that can run nothing the repository names; None where it fails or git is missing.

    With `max_bytes` no more than that is read, without `stdin`, and git is stopped there.
    For `diff`, `log -p`, `show` and `blame` add `--no-ext-diff --no-textconv`: attributes name those programs one by one.
    """
    # GIT_DIR and the like of the caller (a hook runs us with them) would show another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_PAGER": "cat",
        "LC_ALL": "C",
    }
    command = ["git", *(part for setting in _HARMLESS for part in ("-c", setting)), "-C", str(root), *arguments]
    try:
        if max_bytes is not None:
            return _first_bytes(command, environment, max_bytes)
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return done.stdout


def _first_bytes(command: list[str], environment: dict[str, str], max_bytes: int) -> bytes | None:
    """What a command prints, cut off at `max_bytes`; None where it fails or takes too long."""
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing) as process:
        watch = threading.Timer(_GIT_TIMEOUT_S, process.kill)
        watch.start()
        try:
            assert process.stdout is not None, "it was asked for"
            output = process.stdout.read(max_bytes)
            if len(output) == max_bytes:
                process.kill()
                return output
        finally:
            watch.cancel()
    return output if process.returncode == 0 else None


def blobs_at_head(root: Path) -> dict[str, str]:
    """Blob id of each path at HEAD, relative to `root`; a file on disk with another has lines that no commit wrote."""
    listing = git_output(root, "ls-tree", "-r", "-z", "HEAD") or b""
    entries = (entry.partition(b"\t") for entry in listing.split(b"\0") if entry)
    return {path.decode("utf-8", "replace"): head.split()[2].decode("ascii") for head, _, path in entries}


def _tracked(root: Path, skipped: Counter[str]) -> dict[bytes, str] | None:
    """Names of tracked regular files below `root` with their blobs' ids; None where `root` is not in a git work tree.

    A folder that only lies inside someone else's work tree, with no tracked file of its own, is walked instead.

    Raises:
        InputError: `root` has a `.git` that git cannot read. Walking it would take what was kept out of git on purpose.
        PrerequisiteError: it has one, and there is no git.
    """
    top = git_output(root, "rev-parse", "--show-toplevel")
    listing = None
    if top:
        listing = git_output(root, "ls-files", "-z", "--stage")
    if not top or listing is None:
        if os.path.lexists(root / ".git"):
            _refuse(root)
        return None
    names: dict[bytes, str] = {}
    for entry in filter(None, listing.split(b"\0")):
        head, _, name = entry.partition(b"\t")
        mode, blob, _ = head.split(b" ")
        if mode == b"160000":
            skipped["submodule"] += 1
        elif mode == b"120000":
            skipped["symlink"] += 1
        else:
            names[name] = blob.decode("ascii")
    is_top = Path(os.fsdecode(top.rstrip(b"\n"))).resolve() == root
    if not names and not is_top:
        return None
    return names


def _refuse(root: Path) -> NoReturn:
    if shutil.which("git") is None:
        raise PrerequisiteError(f"{root} is a git repository, and git is not installed.", "Install git.")
    raise InputError(
        f"Git cannot read {root / '.git'}, so it is not known which files are the project's.",
        f"See what `git -C {root} status` says and repair it, or remove .git to have every file read.",
    )


def _walk(root: Path, skipped: Counter[str]) -> Iterator[bytes]:
    top = os.fsencode(root)
    n_above = len(os.path.join(top, b""))  # noqa: PTH118 - with the slash, which the root of all has already
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
        subfolders[:] = sorted(kept)  # in place: `os.walk` goes on into these
        for name in names:
            yield os.path.join(folder, name)[n_above:]  # noqa: PTH118 - bytes have no Path


def _licences(root: Path, names: list[bytes]) -> dict[str, str]:
    """Folder ("" is the root) to the licence that its licence file names; where it has several, the first by name."""
    found: dict[str, str] = {}
    for name in names:
        path = _showable(name, Counter())
        if path is None or not is_licence_file(path):
            continue
        content = _read(root, path, _MAX_LICENCE_BYTES, Counter(), {}) or b""
        licence = licence_of_text(content.decode("utf-8", "replace"))
        if licence:
            found.setdefault(path.rpartition("/")[0], licence)
    return found


def _showable(name: bytes, skipped: Counter[str]) -> str | None:
    """A name as text, or None with the reason counted."""
    try:
        path = name.decode("utf-8")
    except UnicodeDecodeError:
        skipped["undecodable_name"] += 1
        return None
    if _UNSHOWABLE.search(path):
        skipped["unshowable_name"] += 1
        return None
    return path


def _read(
    root: Path, path: str, max_file_bytes: int, skipped: Counter[str], real_folders: dict[str, bool]
) -> bytes | None:
    """The file's bytes, or None with the reason counted. `real_folders` remembers which are reached without a link."""
    top = str(root).rstrip("/")  # the root of all has its slash already
    full = f"{top}/{path}"  # a path that is absolute stays below the root; making a Path costs more than reading a file
    try:
        state = os.lstat(full)
        if stat.S_ISLNK(state.st_mode) or not _is_real(full.rpartition("/")[0], real_folders):
            skipped["symlink"] += 1
        elif not stat.S_ISREG(state.st_mode):
            skipped["not_a_file"] += 1
        elif state.st_size > max_file_bytes:
            skipped["too_large"] += 1
        else:
            # Neither a link nor a pipe that took its place since: neither is followed, neither waits.
            handle = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as stream:
                return stream.read(max_file_bytes + 1)[:max_file_bytes]
    except FileNotFoundError:
        skipped["missing"] += 1
    except (OSError, ValueError, RuntimeError):
        skipped["unreadable"] += 1
    return None


def _is_real(folder: str, known: dict[str, bool]) -> bool:
    """Whether no link is on the way to `folder`."""
    if folder not in known:
        known[folder] = os.path.realpath(folder or "/") == (folder or "/")
    return known[folder]
