"""When each file of a repository was written, by its commits' author dates.

What counts is when the file's bytes were first committed, under whatever name, so no rename has to be guessed. One `git log`
whatever the number of files, of at most 20,000 commits and 200 MB.
"""

from ai_forge.data_pipeline.source.repository import PLAIN_LOG, Repository, blobs_at_head, git_output

__all__ = ["author_time", "read_dates"]

_MAX_COMMITS = 20_000
_MAX_LOG_BYTES = 200_000_000
# Of the year 9999: what a broken clock wrote beyond it cannot be printed.
_LAST_SECOND = 253_402_300_799


def author_time(digits: str) -> int:
    """What git prints for `%at`, in s since 1970; a broken commit's may have any number of digits.

    >>> author_time("1600000000"), author_time("9" * 5000)
    (1600000000, 253402300799)
    """
    return min(int(digits[:12]), _LAST_SECOND)  # Python refuses to read thousands of digits


def read_dates(repository: Repository) -> dict[str, int]:
    """By path: when the file was first committed as it is now, in s since 1970. A file with uncommitted changes has none.

    What none of the newest 20,000 commits wrote is as old as the oldest of them; a shallow clone dates what is new as the
    whole does. Empty where there is no history, or git fails or takes too long.
    """
    if not repository.is_git or repository.commit is None:
        return {}
    log = git_output(
        repository.root,
        *("log", f"--max-count={_MAX_COMMITS}", "--diff-merges=first-parent", "--root", "--no-renames", *PLAIN_LOG),
        *("--no-relative", "--format=tformat:%at", "HEAD", "--", "."),
        max_bytes=_MAX_LOG_BYTES,
    )
    fields = iter((log or b"").rpartition(b"\0")[0].split(b"\0"))  # what was cut off has no end
    written: dict[str, int] = {}
    time = 0
    for field in fields:
        head = field.lstrip(b"\n").decode("ascii", "replace")
        if head.startswith(":"):
            # The blob, whatever its name was then: a move, a revert or a merge makes no file newer.
            blob = head.split(" ")[3]
            written[blob] = min(written.get(blob, time), time)
            next(fields, None)
        elif head:
            time = author_time(head)
    if not written:
        return {}
    # What no commit that was read wrote, and HEAD has, is older than all of them; the rest is not committed.
    oldest, committed = min(written.values()), set(blobs_at_head(repository.root).values())
    return {
        file.path: written.get(file.blob_id, oldest)
        for file in repository.files
        if file.blob_id in written or file.blob_id in committed
    }
