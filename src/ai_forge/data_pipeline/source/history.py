"""A repository's commits, newest first: message, changed source files, and the bytes before and after.

Two git processes whatever the number of commits is: `log --raw` for messages and blob ids, `cat-file --batch` for the
contents (sizes are asked first, so a huge blob is never read). Merges are passed over, renames followed. The repository
is not trusted: see `repository.git_output`; no diff is made, so no diff driver or text conversion can run either.
"""

import os
import secrets as nonces
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.source.repository import PLAIN_LOG, git_output
from ai_forge.errors import InputError

__all__ = ["Change", "Commit", "read_blobs", "read_commits"]

_FILE_MODES = ("100644", "100755")


@dataclass(frozen=True)
class Change:
    """A source file that a commit changed: paths and blob ids on both sides."""

    path: str
    path_before: str
    blob: str
    blob_before: str

    @property
    def language(self) -> str:
        """Language by extension."""
        language = language_of(self.path)
        assert language is not None, "only files of a known language are given"
        return language


@dataclass(frozen=True)
class Commit:
    """A commit with one parent."""

    id: str
    parent: str
    message: str
    changes: tuple[Change, ...]


def read_commits(root: Path, max_commits: int, skipped: Counter[str]) -> list[Commit]:
    """At most `max_commits` commits up to HEAD that touch `root` and are no merges, newest first; paths are relative to it.

    What is left out is counted.

    Raises InputError: `root` is not in a git repository with a commit.
    """
    nonce = nonces.token_hex(16)  # between the fields: a message may hold any sign, but cannot know this
    form = f"--format=tformat:{nonce}%H %P%x0a%B{nonce}"
    plain = (*PLAIN_LOG, "--no-ext-diff", "--no-textconv", "--relative", "--encoding=UTF-8", form)
    asked = ("log", f"--max-count={max_commits}", "--no-merges", *plain)
    log = git_output(root, *asked, "-M", "HEAD", "--", ".")
    if log is None:  # a partial clone may lack the contents that renames are told by
        log = git_output(root, *asked, "--no-renames", "HEAD", "--", ".")
    if log is None:
        raise InputError(f"{root} has no git history to read.", "Give a git repository that has commits.")
    fields = log.split(nonce.encode())
    commits: list[Commit] = []
    for head, raw in zip(fields[1::2], fields[2::2], strict=True):
        ids, _, message = head.partition(b"\n")
        commit, *parents = ids.decode("ascii").split()
        if len(parents) != 1:  # `--no-merges` left no commit with two
            skipped["root_commit"] += 1
            continue
        changes = tuple(_changes(raw, skipped))
        commits.append(Commit(commit, parents[0], message.decode("utf-8", "replace"), changes))
    return commits


def _changes(raw: bytes, skipped: Counter[str]) -> Iterable[Change]:
    """The changed source files in `--raw -z` output: `:mode mode blob blob status NUL path NUL [path NUL]`."""
    fields = iter(raw.strip(b"\0\n").split(b"\0"))
    for field in fields:
        head = field.lstrip(b"\n").decode("ascii", "replace")
        if not head.startswith(":"):
            continue
        mode_before, mode, blob_before, blob, status = head[1:].split(" ")
        before = after = next(fields, b"")
        if status[0] in "RC":
            after = next(fields, b"")
        path = _text(after)
        if status[0] not in "MR" or mode not in _FILE_MODES or mode_before not in _FILE_MODES:
            skipped["file_not_changed_in_place"] += 1
        elif path is None or (old := _text(before)) is None or language_of(path) is None:
            skipped["unknown_language"] += 1
        elif language_of(old) != language_of(path):
            skipped["language_changed"] += 1
        else:
            yield Change(path, old, blob, blob_before)


def _text(name: bytes) -> str | None:
    text = os.fsdecode(name)
    if not text.isprintable():
        return None
    return text


def read_blobs(root: Path, ids: Sequence[str], max_bytes: int) -> dict[str, bytes]:
    """The contents of blobs by id; those that are missing or longer than `max_bytes` are left out."""
    sizes = git_output(root, "cat-file", "--batch-check", stdin=_lines(ids)) or b""
    fitting: list[str] = []
    for line in sizes.decode("ascii", "replace").split("\n"):
        fields = line.split(" ")
        if len(fields) == 3 and fields[1] == "blob" and int(fields[2]) <= max_bytes:  # a missing one has two fields
            fitting.append(fields[0])
    found: dict[str, bytes] = {}
    stream = b""
    if fitting:
        stream = git_output(root, "cat-file", "--batch", stdin=_lines(fitting)) or b""
    position = 0
    while position < len(stream):
        end = stream.index(b"\n", position)
        blob, _, size = stream[position:end].decode("ascii").split(" ")
        found[blob] = stream[end + 1 : end + 1 + int(size)]
        position = end + 2 + int(size)
    return found


def _lines(ids: Iterable[str]) -> bytes:
    return "".join(f"{one}\n" for one in dict.fromkeys(ids)).encode("ascii")
