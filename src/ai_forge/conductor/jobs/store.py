"""The table of jobs, in the same database as DBOS's own tables: SQLite in the workspace, or PostgreSQL.

A row says what is to be done and how far it is; it is the truth. DBOS's tables say which worker is at which step of it, and are
brought in line with the rows by the worker, so that writing a row is all that submitting takes.

What survives a crash: each change is one transaction that names the state it expects, so two processes that change the same
job at once cannot both succeed. SQLite keeps its rollback journal and `synchronous=FULL`, which are its defaults: before 3.51.3
its write-ahead log can lose a commit when several connections reset it.

What damages a file on disk is looked for when SQLite is opened (`PRAGMA quick_check`: its pages), and each row carries a seal, so
that a byte that flipped inside a text starts no training of another repository. A damaged row reads as a job that failed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypedDict, Unpack, get_args

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from ai_forge.conductor.schemas import FINE_TUNE, JobStatus
from ai_forge.errors import PrerequisiteError
from ai_forge.json_lines import JsonObject
from ai_forge.places import SEAL, holds_what_was_written, sealed
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
    sa.Column(SEAL, sa.Text),  # none in rows of a version that had none
)
BUSY_TIMEOUT_MS = 30_000
DAMAGED = ("malformed", "not a database", "unsupported file format", "no such column", "duplicate column")


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
    metrics: JsonObject = field(default_factory=dict)
    error: str | None = None
    error_code: str | None = None
    project_name: str | None = None
    model: str | None = None
    run_id: str | None = None
    events: str | None = None
    events_from: int = 0
    prepared: str | None = None


class RowChanges(TypedDict, total=False):
    """What of a job can change."""

    status: str
    wanted: Literal["cancel", "pause"] | None
    attempt: int
    restarts: int
    progress: float
    step_weight: float
    current_step: str | None
    started_at: float | None
    finished_at: float | None
    metrics: JsonObject
    error: str | None
    error_code: str | None
    model: str | None
    run_id: str | None
    events: str | None
    events_from: int
    prepared: str | None


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
            self._check_file()
        self._make_table()

    def _check_file(self) -> None:
        """Look through the file once. Raises `PrerequisiteError` where it is damaged."""
        with self._transaction() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if found != "ok":
                raise self._damaged(str(found))

    def _damaged(self, why: str) -> PrerequisiteError:
        path = self._engine.url.database
        return PrerequisiteError(
            f"The database of jobs {path} is damaged: {why}.",
            f"restore it from a backup (ai-forge restore), or begin a new queue: mv {path} {path}.damaged",
        )

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
            connection.execute(JOBS.insert().values(**_sealed(asdict(row) | {"metrics": json.dumps(row.metrics)})))

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
        self, job_id: str, *, statuses: Sequence[str] = (), at_attempt: int | None = None, **changes: Unpack[RowChanges]
    ) -> bool:
        """Change a job that is in one of `statuses` and at that attempt; false where it is not, and nothing changed."""
        values: JsonObject = dict(changes)
        if "metrics" in values:
            values["metrics"] = json.dumps(values["metrics"])
        this = JOBS.c.job_id == job_id
        with self._transaction() as connection:
            # changes nothing: whoever reads first and then writes may find that another did so, too
            connection.execute(JOBS.update().where(this).values({SEAL: JOBS.c[SEAL]}))
            found = connection.execute(sa.select(JOBS).where(this)).mappings().first()
            if found is None or (statuses and found["status"] not in statuses):
                return False
            if at_attempt is not None and found["attempt"] != at_attempt:
                return False
            if _is_sound(found):  # a damaged one stays known as such
                values = _sealed(dict(found) | values)
            connection.execute(JOBS.update().where(this).values(**values))
            return True

    def delete(self, job_id: str, statuses: Sequence[str]) -> bool:
        """Remove a job that is in one of `statuses`; false where it is not."""
        this = JOBS.c.job_id == job_id
        with self._transaction() as connection:
            found = connection.execute(sa.select(JOBS).where(this)).mappings().first()
            if found is None or _row_of(found).status not in statuses:
                return False
            # the status once more: it may have changed since
            return connection.execute(JOBS.delete().where(this, JOBS.c.status == found["status"])).rowcount > 0

    def _select(
        self, condition: sa.ColumnElement[bool], *, limit: int | None = None, newest_first: bool = True
    ) -> list[Row]:
        order = JOBS.c.created_at
        query = sa.select(JOBS).where(condition).order_by(order.desc() if newest_first else order).limit(limit)
        with self._transaction() as connection:
            return [_row_of(row) for row in connection.execute(query).mappings()]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            if self.is_sqlite and any(sign in str(error.orig) for sign in DAMAGED):
                raise self._damaged(str(error.orig)) from error
            where = self._engine.url.render_as_string(hide_password=True)
            raise PrerequisiteError(
                f"The database of jobs {where} cannot be used: {error.orig}.",
                "free some disk, or see to it that conductor.database_url can be reached; then try again.",
            ) from error


def _configure(connection: Any, record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def _sealed(values: Mapping[str, Any]) -> JsonObject:
    """A row's values with their seal; numbers as the database gives them back."""
    plain = {name: value for name, value in values.items() if name != SEAL}
    for column in JOBS.columns:
        if isinstance(column.type, sa.Float) and isinstance(plain.get(column.name), int):
            plain[column.name] = float(plain[column.name])
    return sealed(plain)


def _is_sound(row: Mapping[str, Any] | sa.RowMapping) -> bool:
    """Whether a row holds what was written, of the types that were written: SQLite keeps any type in any column."""
    values = dict(row)
    if any(isinstance(value, bytes) for value in values.values()):
        return False
    for column in JOBS.columns:
        kinds = {sa.Text: str, sa.Integer: int, sa.Float: float}[type(column.type)]
        value = values[column.name]
        if not (isinstance(value, kinds) or (value is None and column.nullable)):
            return False
    return values["status"] in get_args(JobStatus) and holds_what_was_written(values)


def _row_of(row: Mapping[str, Any] | sa.RowMapping) -> Row:
    """A row as it is stored; of a damaged one what tells which it is, and that it is damaged."""
    if _is_sound(row):
        names = [field.name for field in fields(Row)]
        return Row(**{name: row[name] for name in names} | {"metrics": _metrics(row["metrics"])})
    created = row["created_at"]
    job_id = row["job_id"] if isinstance(row["job_id"], str) else repr(row["job_id"])
    return Row(
        job_id=job_id,
        kind=FINE_TUNE,
        queue="",
        request="{}",
        status="failed",
        created_at=float(created) if isinstance(created, float | int) and 0 <= created < 1e11 else 0.0,
        error=f"The row of this job in jobs.db is damaged. Next: send it again; ai-forge jobs delete {job_id} forgets it.",
        error_code="damaged",
    )


def _metrics(text: str) -> JsonObject:
    """What a job measured; nothing where the row is damaged: a figure that is gone hides no job."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
