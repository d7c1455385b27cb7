"""The table of jobs, in the same database as DBOS's own tables: SQLite in the workspace, or PostgreSQL.

A row says what is to be done and how far it is; it is the truth. DBOS's tables say which worker is at which step of it, and are
brought in line with the rows by the worker, so that writing a row is all that submitting takes.

What survives a crash: each change is one transaction that names the state it expects, so two processes that change the same
job at once cannot both succeed. SQLite keeps its rollback journal and `synchronous=FULL`, which are its defaults: before 3.51.3
its write-ahead log can lose a commit when several connections reset it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from ai_forge.errors import PrerequisiteError
from ai_forge.workspace import Workspace

METADATA = sa.MetaData()
JOBS = sa.Table(
    "ai_forge_jobs",
    METADATA,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("wanted", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("restarts", sa.Integer, nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("step_weight", sa.Float, nullable=False),
    sa.Column("current_step", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("project_name", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("events", sa.Text),
    sa.Column("events_from", sa.Integer, nullable=False),
    sa.Column("prepared", sa.Text),
)
BUSY_TIMEOUT_MS = 30_000


@dataclass(frozen=True)
class Row:
    """A job as it is stored.

    `events` is the file in the workspace that its events are in, from byte `events_from` on. Times are seconds since 1970.
    `step_weight` is the share of the whole that the current step has. `prepared` is what the job found out that it has to do.
    """

    job_id: str
    kind: str
    queue: str
    request: str
    status: str
    created_at: float
    wanted: Literal["cancel", "pause"] | None = None
    attempt: int = 1
    restarts: int = 0
    progress: float = 0.0
    step_weight: float = 0.0
    current_step: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    error_code: str | None = None
    project_name: str | None = None
    model: str | None = None
    run_id: str | None = None
    events: str | None = None
    events_from: int = 0
    prepared: str | None = None


def database_url(workspace: Workspace, chosen: str | None) -> str:
    """The database as SQLAlchemy names it: the one that was set, or the workspace's own file.

    >>> from pathlib import Path
    >>> database_url(Workspace(Path("/home")), None)
    'sqlite:////home/jobs.db'
    >>> database_url(Workspace(Path("/home")), "postgres://me@db/forge")
    'postgresql+psycopg://me@db/forge'
    """
    if chosen is None:
        return f"sqlite:///{workspace.root / 'jobs.db'}"
    scheme, _, rest = chosen.partition("://")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    return chosen


class JobStore:
    """The table; a context manager. Raises `PrerequisiteError` from every method where the database cannot be used."""

    def __init__(self, url: str) -> None:
        self.is_sqlite = url.startswith("sqlite")
        self._engine = sa.create_engine(url, pool_pre_ping=not self.is_sqlite)
        if self.is_sqlite:
            event.listen(self._engine, "connect", _configure)
        self._make_table()

    def _make_table(self) -> None:
        """The table, if it is not there, and the columns that a later version brought; none of those is ever taken away."""
        try:
            with self._transaction() as connection:
                METADATA.create_all(connection)
                there = {column["name"] for column in sa.inspect(connection).get_columns(JOBS.name)}
                for column in JOBS.columns:
                    if column.name not in there:
                        kind = column.type.compile(self._engine.dialect)
                        connection.execute(sa.text(f"ALTER TABLE {JOBS.name} ADD COLUMN {column.name} {kind}"))
        except PrerequisiteError:
            # two processes may make it at once: whoever was second finds all that it needs
            with self._transaction() as connection:
                connection.execute(sa.select(JOBS).limit(1))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def insert(self, row: Row) -> None:
        """Add a job."""
        with self._transaction() as connection:
            connection.execute(JOBS.insert().values(**asdict(row) | {"metrics": json.dumps(row.metrics)}))

    def get(self, job_id: str) -> Row | None:
        """One job, or None."""
        return next(iter(self._select(JOBS.c.job_id == job_id)), None)

    def rows(self, statuses: Sequence[str] = (), limit: int | None = None, *, newest_first: bool = True) -> list[Row]:
        """The jobs in any of `statuses` (none named: all)."""
        condition: sa.ColumnElement[bool] = sa.true()
        if statuses:
            condition = JOBS.c.status.in_(statuses)
        return self._select(condition, limit=limit, newest_first=newest_first)

    def update(
        self, job_id: str, *, statuses: Sequence[str] = (), at_attempt: int | None = None, **values: Any
    ) -> bool:
        """Change a job that is in one of `statuses` and at that attempt; false where it is not, and nothing changed."""
        if "metrics" in values:
            values["metrics"] = json.dumps(values["metrics"])
        change = JOBS.update().where(JOBS.c.job_id == job_id).values(**values)
        if statuses:
            change = change.where(JOBS.c.status.in_(statuses))
        if at_attempt is not None:
            change = change.where(JOBS.c.attempt == at_attempt)
        with self._transaction() as connection:
            return connection.execute(change).rowcount > 0

    def delete(self, job_id: str, statuses: Sequence[str]) -> bool:
        """Remove a job that is in one of `statuses`; false where it is not."""
        gone = JOBS.delete().where(JOBS.c.job_id == job_id, JOBS.c.status.in_(statuses))
        with self._transaction() as connection:
            return connection.execute(gone).rowcount > 0

    def _select(
        self, condition: sa.ColumnElement[bool], *, limit: int | None = None, newest_first: bool = True
    ) -> list[Row]:
        order = JOBS.c.created_at
        query = sa.select(JOBS).where(condition).order_by(order.desc() if newest_first else order).limit(limit)
        names = [field.name for field in fields(Row)]
        with self._transaction() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        return [Row(**{name: row[name] for name in names} | {"metrics": _metrics(row["metrics"])}) for row in found]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise PrerequisiteError(
                f"The database of jobs {where} cannot be used: {error.orig}.",
                "free some disk, or see to it that conductor.database_url can be reached; then try again.",
            ) from error


def _configure(connection: Any, record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def _metrics(text: str) -> dict[str, Any]:
    """What a job measured; nothing where the row is damaged: a figure that is gone hides no job."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
