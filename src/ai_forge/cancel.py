"""One way to stop work from outside: a token that long work checks and that any thread may cancel.

Who starts the work makes the token and cancels it: the command line on Ctrl-C, a service when a job's flag is set. Who does the
work calls `check` where stopping loses nothing (the end of a step, a file, an example) and installs no signal handlers: those are
delivered to the main thread only, and a service runs its work in others.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from ai_forge.errors import CancelledError, InternalError


class CancelToken:
    """Not cancelled until `cancel` is called, then for good.

    >>> token = CancelToken()
    >>> token.check()
    >>> token.cancel("the job was deleted")
    >>> token.check()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ai_forge.errors.CancelledError: Cancelled (the job was deleted); what was done is kept. Next: ...
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def cancel(self, reason: str = "") -> None:
        """Ask the work to stop at its next check. The first reason is the one that is told."""
        # Not locked: this may run in a signal handler, which interrupts the very thread that would hold the lock.
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether someone has asked."""
        return self._event.is_set()

    def check(self) -> None:
        """Raises `CancelledError` once someone has asked."""
        if self.cancelled:
            raise CancelledError.because(self.reason)


class _Never(CancelToken):
    def cancel(self, reason: str = "") -> None:
        """Raises `InternalError`: all work that was given no token of its own shares this one."""
        raise InternalError(f"CancelToken NEVER was to be cancelled ({reason}); hand in a token of your own.")


NEVER = _Never()
"""For work that no one will cancel: the default of functions that take a token."""


@contextlib.contextmanager
def cancelled_by_interrupt(say: Callable[[], None] = lambda: None) -> Iterator[CancelToken]:
    """A token that Ctrl-C cancels, which `say` then tells; a second Ctrl-C interrupts at once. For entry points: outside the
    main thread no signal is heard."""
    token = CancelToken()
    if threading.current_thread() is not threading.main_thread():  # where `signal.signal` raises
        yield token
        return

    def cancel(signum: int, frame: object) -> None:
        if token.cancelled:
            raise KeyboardInterrupt
        token.cancel("Ctrl-C")
        say()

    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield token
    finally:
        signal.signal(signal.SIGINT, before)
