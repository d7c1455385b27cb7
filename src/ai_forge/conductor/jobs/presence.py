"""Which workers live. A worker that died is told from one that is slow by a lock that goes with its process or connection.

On the workspace's own SQLite file there is one worker, which holds a file lock: every other one that ever was is dead.
On PostgreSQL each holds an advisory lock in a session of its own. When that session is lost the worker ends itself with its jobs'
processes, because another one takes them over.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Protocol

import sqlalchemy as sa

from ai_forge.conductor.jobs.supervisor import WORKER_LOCK
from ai_forge.workspace import Workspace

SPACE = 0x41464A51  # "AFJQ": advisory locks of one database are shared by all who use it
LEADER = 0
WAIT_FOR_PREDECESSOR_S = 30.0


class Presence(Protocol):
    """What a worker knows of the others."""

    def is_dead(self, executor_id: str) -> bool:
        """Whether that worker is gone for good."""
        ...

    def leads(self) -> bool:
        """Whether this one looks after what dead ones left; one does at a time."""
        ...


class Alone:
    """The only worker of its workspace."""

    def __init__(self, executor_id: str) -> None:
        self._own = executor_id

    def is_dead(self, executor_id: str) -> bool:
        """Every other one is."""
        return executor_id != self._own

    def leads(self) -> bool:
        """It does."""
        return True


class OneOfMany:
    """A worker among others on a PostgreSQL queue. Every method raises `sqlalchemy.exc.DBAPIError` when the session is lost."""

    def __init__(self, connection: sa.Connection, executor_id: str) -> None:
        self._connection = connection
        self._own = executor_id
        self._leads = False
        if not self._try(_number(executor_id)):
            raise RuntimeError(f"two workers are called {executor_id}")

    def is_dead(self, executor_id: str) -> bool:
        """Whether nobody holds its lock."""
        if executor_id == self._own:
            return False
        number = _number(executor_id)
        if not self._try(number):
            return False
        self._call("pg_advisory_unlock", number)
        return True

    def leads(self) -> bool:
        """Whether this one has the leader's lock, or gets it now."""
        if self._leads:
            self._connection.execute(sa.text("SELECT 1"))  # raises when the session, and the lock with it, is gone
        else:
            self._leads = self._try(LEADER)
        return self._leads

    def _try(self, number: int) -> bool:
        return self._call("pg_try_advisory_lock", number)

    def _call(self, function: str, number: int) -> bool:
        query = sa.text(f"SELECT {function}(:space, :number)")
        return bool(self._connection.execute(query, {"space": SPACE, "number": number}).scalar())


def _number(executor_id: str) -> int:
    """31 bits of an id: PostgreSQL's locks are numbers; 0 is the leader's."""
    return zlib.crc32(executor_id.encode()) % (2**31 - 1) + 1


@contextlib.contextmanager
def present(workspace: Workspace, url: str, executor_id: str) -> Iterator[Presence]:
    """Be there until the block ends.

    Raises:
        TransientError: another worker is at work on the workspace's own queue and does not end.
    """
    if url.startswith("sqlite"):
        with workspace.lock(WORKER_LOCK, wait_s=WAIT_FOR_PREDECESSOR_S):
            yield Alone(executor_id)
        return
    # TCP's own way of finding out takes hours: a machine that lost the network must notice before its jobs are another's
    alive = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "connect_timeout": 10}
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args=alive)
    with engine.connect() as connection:
        yield OneOfMany(connection, executor_id)
