"""The newest commits and what they wrote, and the repository as it stood before the first of them.

Merges, reverts and commits that change very many files are passed over, and so are vendored, generated and minified files.
A rename is followed: only lines that the commit wrote count as written. Git runs nothing that the repository names.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.data_pipeline.gaps.cutting import MIN_BYTES, Gap, changed_lines, gaps_in
from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.mining.filters import file_rejection
from ai_forge.data_pipeline.mining.parsing import normalise
from ai_forge.data_pipeline.source.history import read_blobs, read_commits
from ai_forge.data_pipeline.source.repository import PLAIN_LOG, SourceFile, git_output

__all__ = ["NewestCommits", "as_before", "files_at", "gaps_of_files", "newest_commits"]

MAX_COMMITS = 200
MAX_FILES_OF_COMMIT = 20
MAX_FILE_BYTES = 200_000
_REVERT = re.compile(r"\brevert", re.I)


@dataclass(frozen=True)
class NewestCommits:
    """Gaps in what the newest commits wrote, the commit before all of them, and what was passed over, by reason."""

    gaps: tuple[Gap, ...]
    n_commits: int
    before: str | None
    skipped: Counter[str]


def newest_commits(
    root: Path,
    is_wanted: Callable[[str], bool],
    *,
    n_gaps: int,
    without: Collection[str] = (),
    min_bytes: int = MIN_BYTES,
    read: Callable[[bytes], bytes] = normalise,
) -> NewestCommits:
    """Gaps of the newest commits, at least `n_gaps` where the history has them, in files that `is_wanted`.

    Of the commits `without` nothing is taken; `read` makes of a file's bytes what is cut.

    Raises InputError: no history.
    """
    skipped: Counter[str] = Counter()
    gaps: list[Gap] = []
    before: str | None = None
    n_commits = 0
    newest_of: set[str] = set()
    for commit in read_commits(root, MAX_COMMITS, skipped):
        if len(gaps) >= n_gaps:
            break
        if commit.id in without:
            continue
        if _REVERT.search(commit.message) or len(commit.changes) > MAX_FILES_OF_COMMIT:
            skipped["revert_or_sweep"] += 1
            continue
        changes = [c for c in commit.changes if is_wanted(c.path) and c.path not in newest_of]
        blobs = read_blobs(root, [blob for c in changes for blob in (c.blob, c.blob_before)], MAX_FILE_BYTES)
        found: list[Gap] = []
        for change in changes:
            if change.blob not in blobs or change.blob_before not in blobs:
                skipped["too_large"] += 1
                continue
            reason = file_rejection(change.path, blobs[change.blob])
            if reason:
                skipped[reason] += 1
                continue
            old, new = (read(blobs[b]).decode("utf-8", "replace") for b in (change.blob_before, change.blob))
            lines = changed_lines(old, new)
            found += gaps_in(change.path, change.language, new, lines, commit.id, min_bytes=min_bytes)
            newest_of.add(change.path)  # an older state of the same file would show in what stands around
        if found:
            gaps += found
            n_commits += 1
        before = commit.parent
    return NewestCommits(tuple(gaps), n_commits, before, skipped)


def as_before(root: Path, commits: Collection[str]) -> dict[str, bytes]:
    """The files that any of `commits` changed, by today's paths, as they stood before the oldest of these that did.

    A file that one of them brought is empty.
    """
    if not commits:
        return {}
    blobs: dict[str, str] = {}
    today: dict[str, str] = {}
    for commit in read_commits(root, MAX_COMMITS, Counter()):  # newest first, so the oldest has the last word
        for change in commit.changes:
            path = today[change.path_before] = today.get(change.path, change.path)
            if commit.id in commits:
                blobs[path] = change.blob_before
    contents = read_blobs(root, list(blobs.values()), MAX_FILE_BYTES)
    brought = git_output(
        root,
        *("log", "--no-walk", *PLAIN_LOG, "--no-ext-diff", "--no-textconv", "--relative", "--diff-filter=A"),
        *("--name-only", "-z", "--format=", *sorted(commits), "--", "."),
    )
    new = dict.fromkeys((brought or b"").decode("utf-8", "replace").strip("\0\n").split("\0"), b"")
    return new | {path: contents.get(blob, b"") for path, blob in blobs.items()}


def files_at(root: Path, commit: str) -> list[SourceFile]:
    """The source files of a commit, as they would be read from a checkout of it."""
    listing = git_output(root, "ls-tree", "-r", "-z", commit, "--", ".") or b""
    blobs: dict[str, str] = {}
    for entry in listing.split(b"\0"):
        head, _, name = entry.partition(b"\t")
        fields = head.decode("ascii", "replace").split()
        path = name.decode("utf-8", "replace")
        if len(fields) == 3 and fields[0] in ("100644", "100755") and path.isprintable() and language_of(path):
            blobs[path] = fields[2]
    contents = read_blobs(root, list(blobs.values()), MAX_FILE_BYTES)
    return [SourceFile(path, contents[blob], blob) for path, blob in sorted(blobs.items()) if blob in contents]


def gaps_of_files(files: Sequence[tuple[str, str]]) -> list[Gap]:
    """Gaps anywhere in held-out files, where there is no history that tells what was written."""
    found = []
    for path, text in files:
        language = language_of(path, text.encode())
        if language is not None:
            found += gaps_in(path, language, text)
    return found
