"""What git says happened to a repository since a commit: which files differ, how many commits lie between, which tags are new.

Every call is `git_output`: no hook, filter, diff driver or transport of the repository runs, and each is bounded in time. Trees
are compared, not histories: after a rebase, a force push or a switch of branches the files that differ are those that differ.
Names are data; what cannot be shown as text is written with backslashes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ai_forge.data_pipeline.source.file_dates import author_time
from ai_forge.data_pipeline.source.repository import git_output

__all__ = ["Changes", "Tag", "changes_since", "glob_pattern", "has_commit", "matches", "new_tags"]

COMMIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_DIFF_BYTES = 64_000_000
MAX_TAG_BYTES = 8_000_000
# commits on both sides of a rewritten history whose patches are compared; of more all count as new
MAX_COMPARED = 1_000
# trees of the old history among which that of a moved tag is looked for
MAX_TREES = 20_000
SUBMODULE = b"160000"
# of two trees, for a program: paths end in NUL, and no configuration orders or shortens anything
RAW = ("--raw", "-r", "-z", "-O/dev/null", "--no-abbrev")


@dataclass(frozen=True)
class Changes:
    """`paths` differ between the commit and HEAD, relative to the folder that was asked about; a submodule is no file.

    `commits` lie between, those that only were written anew left out; None where git does not tell. `rewritten`: HEAD does not
    contain the commit.
    """

    paths: frozenset[str]
    commits: int | None
    rewritten: bool


@dataclass(frozen=True)
class Tag:
    """A tag and the commit that it names; `created` in s since 1970: when it was tagged, of a lightweight one the commit's."""

    name: str
    commit: str
    created: int = 0


def has_commit(root: Path, commit: str | None) -> bool:
    """Whether the commit is there: it is gone after a force push and a clean-up, and beyond the depth of a shallow clone."""
    if commit is None or not COMMIT_ID.fullmatch(commit):
        return False
    return git_output(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def changes_since(root: Path, commit: str) -> Changes | None:
    """What differs at HEAD from `commit`, which is there; None where git fails."""
    raw = git_output(root, "diff-tree", *RAW, "-M", "-l2000", "--relative", commit, "HEAD", max_bytes=MAX_DIFF_BYTES)
    if raw is None:
        return None
    rewritten = git_output(root, "merge-base", "--is-ancestor", commit, "HEAD") is None
    return Changes(_paths(raw), _commits_between(root, commit, rewritten), rewritten)


def _paths(raw: bytes) -> frozenset[str]:
    """The paths in `--raw -z` output: `:mode mode blob blob status NUL path NUL [path NUL]`; of a move the new one."""
    fields = iter(raw.rpartition(b"\0")[0].split(b"\0"))  # what was cut off has no end
    found = set()
    for head in fields:
        if not head.startswith(b":"):
            continue
        mode_before, mode, _, _, status = head[1:].split(b" ")
        path = next(fields, b"")
        if status[:1] in (b"R", b"C"):
            path = next(fields, path)
        if SUBMODULE not in (mode_before, mode):
            found.add(path.decode("utf-8", "backslashreplace"))
    return frozenset(found)


def _commits_between(root: Path, commit: str, rewritten: bool) -> int | None:
    if rewritten:
        both = _count(root, f"{commit}...HEAD")
        if both is not None and both <= MAX_COMPARED:
            # a commit that was rebased is no new one: its patch is the same
            new = _count(root, "--cherry-pick", "--right-only", f"{commit}...HEAD")
            if new is not None:
                return new
    return _count(root, f"{commit}..HEAD")


def _count(root: Path, *which: str) -> int | None:
    counted = git_output(root, "rev-list", "--count", *which)
    return None if counted is None else int(counted)


def new_tags(root: Path, patterns: tuple[str, ...], commit: str | None, since_s: float = 0.0) -> tuple[Tag, ...]:
    """The tags with a name of `patterns` that HEAD contains and `commit` does not, by name.

    A tag that only moved to the rewritten form of what `commit` contained is no new one. Where there is no commit to compare
    with, those count that were made after `since_s` (s since 1970).
    """
    # as `git tag --list` reads a pattern: `*` is any characters, slashes too
    tags = [row for row in _tags(root, "HEAD") if any(fnmatchcase(row[0].name, pattern) for pattern in patterns)]
    if not tags or commit is None:
        return tuple(tag for tag, _ in tags if tag.created > since_s)
    known = {tag for tag, _ in _tags(root, commit)}
    unknown = [(tag, tree) for tag, tree in tags if tag not in known]
    if not unknown or git_output(root, "merge-base", "--is-ancestor", commit, "HEAD") is not None:
        return tuple(tag for tag, _ in unknown)
    listed = git_output(root, "rev-list", "--format=%T", f"--max-count={MAX_TREES}", commit)
    trees = set((listed or b"").decode("ascii", "replace").split())
    return tuple(tag for tag, tree in unknown if tree not in trees)


def _tags(root: Path, merged_into: str) -> list[tuple[Tag, str]]:
    """(tag, tree of its commit), by name. A tag of something that is no commit is passed over."""
    form = (
        "%(refname:strip=2)%00%(objecttype)%00%(creatordate:unix)%00%(objectname)%00%(tree)%00%(*objectname)%00%(*tree)"
    )
    listed = git_output(
        root, "for-each-ref", f"--merged={merged_into}", f"--format={form}", "refs/tags", max_bytes=MAX_TAG_BYTES
    )
    found = []
    for line in (listed or b"").split(b"\n"):  # a name holds no line end and no NUL: git refuses such names
        name, _, kind_and_more = line.partition(b"\0")
        fields = kind_and_more.decode("ascii", "replace").split("\0")
        if len(fields) != 6:
            continue
        kind, created, commit, tree, peeled, peeled_tree = fields
        if kind == "tag":  # an annotated one is an object of its own
            commit, tree = peeled, peeled_tree
        if tree:
            found.append((Tag(name.decode("utf-8", "backslashreplace"), commit, author_time(created or "0")), tree))
    return found


def glob_pattern(glob: str) -> re.Pattern[str]:
    """A glob over paths: `*` and `?` stay within a folder, `**` does not.

    >>> bool(glob_pattern("src/core/**").fullmatch("src/core/a/b.py"))
    True
    >>> [bool(glob_pattern("**/*.sql").fullmatch(path)) for path in ("a.sql", "db/up/a.sql", "a.sqlx")]
    [True, True, False]
    """
    parts = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|.", glob, flags=re.DOTALL):
        meaning = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
        parts.append(meaning.get(token, re.escape(token)))
    return re.compile("".join(parts), re.DOTALL)


def matches(paths: frozenset[str], globs: tuple[str, ...]) -> frozenset[str]:
    """The paths that one of the globs names."""
    patterns = [glob_pattern(glob) for glob in globs]
    return frozenset(path for path in paths if any(pattern.fullmatch(path) for pattern in patterns))
