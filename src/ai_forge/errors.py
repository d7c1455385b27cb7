"""Every error that AI Forge raises on purpose, and the exit code of each.

    AIForgeError
    ├── InputError          2  fix your input: a path, a setting, a file that is not what it should be
    ├── PrerequisiteError   3  something this machine lacks: a package, a model, memory, disk, a running service
    ├── TransientError      4  try again: a service that went away, a lock that is held
    ├── RefusedError        5  measured and found wanting: the verdict or a parity check says no
    ├── InternalError      70  our bug: an invariant that did not hold
    └── CancelledError    130  you stopped it: a `cancel.CancelToken`, which Ctrl-C and a job's flag set

A message says what failed, the value seen and what is allowed; `next_step` is the command or change to try next.
A keyboard interrupt ends with 130 too, as shells expect.
"""

from typing import Self


class AIForgeError(Exception):
    """Root of the tree. `code` is stable and is what `--json` and the API print."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} Next: {self.next_step}" if self.next_step else self.message


class InputError(AIForgeError):
    """The user's input cannot be used as it is."""

    exit_code = 2
    code = "bad_input"


class PrerequisiteError(AIForgeError):
    """This machine lacks something that the command needs."""

    exit_code = 3
    code = "missing_prerequisite"


class TransientError(AIForgeError):
    """The same command may succeed when it is run again."""

    exit_code = 4
    code = "try_again"


class RefusedError(AIForgeError):
    """A measurement says that the result must not be used."""

    exit_code = 5
    code = "refused"


class InternalError(AIForgeError):
    """An invariant did not hold: a bug of AI Forge."""

    exit_code = 70
    code = "internal"


class CancelledError(AIForgeError):
    """Someone asked the work to stop, and it stopped where it can continue."""

    exit_code = 130
    code = "cancelled"

    @classmethod
    def because(cls, reason: str) -> Self:
        """The error that tells `reason`; an empty one is not told."""
        told = f" ({reason})" if reason else ""
        return cls(f"Cancelled{told}; what was done is kept.", "run the same command again: it continues.")
