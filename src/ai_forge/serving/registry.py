"""Which versions of a model exist, and which one is active: `registry.db`, SQLite.

    versions      immutable: name, version (run id), base, file and hash, template, system text, stop words, sampling, …
    activations   the history, only ever appended to; the last row of a model is its active version

What survives a crash: everything that returned. Activating is one INSERT in one transaction, so the pointer cannot be
half moved; there is no second place that could disagree with the history. Each row carries a seal over its other columns, and rows are
numbered without gaps: a row that a failing disk changed or lost is noticed. Where it may be the one that says which version is
active, nobody is answered by the version before: the model is deployed again.

Each activation remembers the one it replaced. A rollback is undo: it goes back along that line, so two rollbacks go two
versions back. The registry knows no runtime: `deployer` keeps the two in step.
"""

import contextlib
import dataclasses
import datetime
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ai_forge.errors import InputError, PrerequisiteError, RefusedError, TransientError
from ai_forge.places import SEAL, make_room, sealed
from ai_forge.serving.deployment import Deployment
from ai_forge.serving.registry_rows import (
    Activation,
    ActiveVersion,
    DamagedRowError,
    Version,
    activation_of,
    columns_of,
    version_of,
)
from ai_forge.serving.runtime import RuntimeKind

__all__ = ["Activation", "ActiveVersion", "DamagedRowError", "Registry", "Version"]

SCHEMA_VERSION = 3
BUSY_TIMEOUT_S = 10.0
SCHEMA = """
CREATE TABLE versions (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    base TEXT NOT NULL,
    gguf_path TEXT NOT NULL,
    gguf_sha256 TEXT NOT NULL,
    chat_template TEXT NOT NULL,
    system_prompt TEXT NOT NULL,
    stop TEXT NOT NULL,
    sampling TEXT NOT NULL,
    created_at TEXT NOT NULL,
    metrics TEXT NOT NULL,
    asking TEXT,
    seal TEXT,
    PRIMARY KEY (name, version)
);
CREATE TABLE activations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    runtime TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('deploy', 'rollback')),
    previous INTEGER REFERENCES activations (id),
    activated_at TEXT NOT NULL,
    seal TEXT
);
CREATE INDEX activations_by_name ON activations (name, id);
"""
CHANGES = {  # what makes each schema of the one before it
    2: ("ALTER TABLE versions ADD COLUMN asking TEXT",),
    3: ("ALTER TABLE versions ADD COLUMN seal TEXT", "ALTER TABLE activations ADD COLUMN seal TEXT"),
}


class Registry:
    """The registry in a file, made if absent. One connection, safe to use from several threads.

    Raises:
        InputError: the file is not a registry.
        PrerequisiteError: it cannot be opened, or a newer AI Forge made it.
        TransientError: (any method) another process holds it for longer than ten seconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        make_room(path)
        with self._errors():
            # isolation_level: transactions are begun by hand; check_same_thread: the lock does it
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            # a damaged text is one that its seal does not fit, not an error wherever a row is read
            self._db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        try:
            with self._errors():
                # some 10 ms a write, and none of WAL's trouble with several connections in older SQLite
                self._db.execute("PRAGMA journal_mode = DELETE")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA foreign_keys = ON")  # off by default, for each connection anew
                (state,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
                if state != "ok":  # 1 ms for hundreds of rows
                    raise sqlite3.DatabaseError(" ".join(str(state).split()))
            self._migrate()
        except BaseException:
            self._db.close()
            raise

    def register(self, deployment: Deployment, metrics: Mapping[str, Any] | None = None) -> None:
        """Add a version; the same one again is harmless, and replaces how it is asked where that is given.

        Raises:
            InputError: the version exists with other contents; versions never change.
        """
        asking = deployment.asking.model_dump_json() if deployment.asking else None
        with self._transaction():
            if self.check_unchanged(deployment):
                if asking is not None:
                    key = (deployment.name, deployment.version)
                    self._db.execute("UPDATE versions SET asking = ? WHERE name = ? AND version = ?", (asking, *key))
                    self._seal("versions", "name = ? AND version = ?", *key)
                return
            values = dataclasses.asdict(deployment) | {
                "gguf_path": str(deployment.gguf_path),
                "stop": json.dumps(deployment.stop),
                "sampling": json.dumps(dataclasses.asdict(deployment.sampling)),
                "metrics": json.dumps(dict(metrics or {})),
                "asking": asking,
            }
            columns = ", ".join(values)  # the fields of `Deployment`, which the table's columns are named after
            marks = ", ".join(f":{column}" for column in values)
            # only a row that cannot be read is replaced: what can be read never changes
            self._db.execute(f"INSERT OR REPLACE INTO versions ({columns}) VALUES ({marks})", values)
            self._seal("versions", "name = ? AND version = ?", deployment.name, deployment.version)

    def check_unchanged(self, deployment: Deployment) -> bool:
        """Whether this version is registered already, readably. Raises `InputError` if it is, with other contents."""
        try:
            known = self.find(deployment.name, deployment.version)
        except DamagedRowError:
            return False
        if known is not None and known.deployment != deployment:
            fields = [f.name for f in dataclasses.fields(Deployment) if f.compare]
            other = [f for f in fields if getattr(known.deployment, f) != getattr(deployment, f)]
            raise InputError(
                f"{deployment.model} is registered with another {', '.join(other)}; a version never changes.",
                "deploy it under a new version.",
            )
        return known is not None

    def find(self, name: str, version: str) -> Version | None:
        """One version, or None. Raises `DamagedRowError` where its row cannot be read."""
        rows = self._rows("SELECT * FROM versions WHERE name = ? AND version = ?", name, version)
        return version_of(rows[0]) if rows else None

    def versions(self, name: str | None = None) -> list[Version]:
        """The versions of one model or of all, oldest first; those whose rows are damaged are left out."""
        rows = self._rows("SELECT * FROM versions WHERE ? IS NULL OR name = ? ORDER BY rowid", name, name)
        found = []
        for row in rows:
            with contextlib.suppress(DamagedRowError):
                found.append(version_of(row))
        return found

    def damaged(self) -> list[str]:
        """What is wrong with rows that are left out, a sentence each; nothing where all can be read."""
        found = []
        for row in self._rows("SELECT * FROM versions ORDER BY rowid"):
            try:
                version_of(row)
            except DamagedRowError as error:
                found.append(str(error))
        names = sorted({activation.name for activation in self._activations()})
        for name in names or [""]:
            try:
                self.active(name)
            except DamagedRowError as error:
                found.append(str(error))
        return found

    def active(self, name: str) -> Activation | None:
        """The activation that counts now, or None for a model that was never deployed.

        Raises:
            DamagedRowError: the row that says it is damaged or gone, or may be: one whose model cannot be read is.
        """
        known = self._activations()
        newest = next((row for row in reversed(known) if row.name == name and row.is_sound), None)
        after = 0 if newest is None else newest.id
        others = {row.name for row in known if row.is_sound} - {name}  # a row of theirs says nothing of this model
        known_later = {row.id for row in known if row.id > after and (row.is_sound or row.name in others)}
        if known_later != set(range(after + 1, self._newest_id(known) + 1)):
            raise DamagedRowError(
                f"Which version of {name or 'a model'} is active cannot be read: a row of {self._path} is damaged or gone.",
                "make one active again: ai-forge deploy.",
            )
        return newest

    def deployed(self) -> dict[str, ActiveVersion]:
        """The active version of each model by name; a model whose active row is gone or damaged is left out."""
        known = {(version.deployment.name, version.deployment.version): version for version in self.versions()}
        found = {}
        for name in sorted({name for name, _ in known}):
            with contextlib.suppress(DamagedRowError):
                active = self.active(name)
                if active is not None and (name, active.version) in known:
                    found[name] = ActiveVersion(active, known[name, active.version])
        return found

    def previous(self, name: str) -> Activation | None:
        """The activation that a rollback returns to, or None. Raises `DamagedRowError` where its row is damaged."""
        current = self.active(name)
        if current is None or current.previous is None:
            return None
        found = next((row for row in self._activations() if row.id == current.previous), None)
        if found is None or not found.is_sound:
            raise DamagedRowError(
                f"What {name}:{current.version} replaced cannot be read: a row of {self._path} is damaged or gone.",
                "deploy another version: ai-forge deploy.",
            )
        return found

    def history(self, name: str) -> list[Activation]:
        """All activations of a model that can be read, oldest first."""
        return [activation for activation in self._activations() if activation.name == name and activation.is_sound]

    def activate(self, name: str, version: str, runtime: RuntimeKind) -> Activation:
        """Make a registered version the active one, in one transaction; what is active already stays as it is.

        Raises:
            InputError: the version is not registered.
        """
        with self._transaction():
            if self.find(name, version) is None:
                known = ", ".join(v.deployment.version for v in self.versions(name)) or "none"
                raise InputError(f"{name} has no version {version!r}; it has: {known}.", "ai-forge models")
            try:
                current = self.active(name)
            except DamagedRowError:
                # this deployment is how it is mended; a rollback then goes to the last that is known
                before = next((row.id for row in reversed(self.history(name))), None)
                return self._append(name, version, runtime, "deploy", before)
            if current is None:
                return self._append(name, version, runtime, "deploy", None)
            if current.version != version:
                return self._append(name, version, runtime, "deploy", current.id)
            if current.runtime == runtime:
                return current
            # it only moved to the other runtime: a rollback goes to where it would have gone
            return self._append(name, version, runtime, "deploy", current.previous)

    def rollback(self, name: str, runtime: RuntimeKind | None = None) -> Activation:
        """Return to the version that the active one replaced, in one transaction.

        `runtime` is where it is served now; by default where it was served before.

        Raises:
            InputError: nothing of that name is active.
            RefusedError: there is no version to return to.
        """
        with self._transaction():
            target = self.rollback_target(name)
            return self._append(name, target.version, runtime or target.runtime, "rollback", target.previous)

    def rollback_target(self, name: str) -> Activation:
        """The activation that `rollback` would return to; raises as `rollback` does."""
        current = self.active(name)
        if current is None:
            names = ", ".join(sorted({row["name"] for row in self._rows("SELECT name FROM activations")})) or "none"
            raise InputError(f"No version of {name!r} is active; deployed models: {names}.", "ai-forge models")
        target = self.previous(name)
        if target is None or self.find(name, target.version) is None:
            raise RefusedError(
                f"{name}:{current.version} is the oldest version of {name} that is kept; nothing lies before it.",
                "deploy another version: ai-forge deploy.",
            )
        return target

    def prunable(self, name: str, keep: int) -> list[Version]:
        """The versions beyond the `keep` newest, oldest first; never the active one or a rollback's target.

        None where it cannot be read which those are.
        """
        try:
            kept = self._needed(name)
        except DamagedRowError:
            return []
        versions = self.versions(name)
        for version in reversed(versions):
            if len(kept) < keep:
                kept.add(version.deployment.version)
        return [version for version in versions if version.deployment.version not in kept]

    def forget(self, name: str, version: str) -> None:
        """Drop a version; its activations stay in the history.

        Raises:
            RefusedError: it is the active one or the one that a rollback returns to.
        """
        with self._transaction():
            if version in self._needed(name):
                raise RefusedError(
                    f"{name}:{version} is active or next in a rollback.", "deploy another version first."
                )
            self._db.execute("DELETE FROM versions WHERE name = ? AND version = ?", (name, version))

    def _needed(self, name: str) -> set[str]:
        """The active version and the one that a rollback returns to."""
        return {activation.version for activation in (self.active(name), self.previous(name)) if activation}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, name: str, version: str, runtime: RuntimeKind, reason: str, previous: int | None) -> Activation:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        cursor = self._db.execute(
            "INSERT INTO activations (name, version, runtime, reason, previous, activated_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (name, version, runtime, reason, previous, now),
        )
        number = int(cursor.lastrowid or 0)
        self._seal("activations", "id = ?", number)
        return Activation(number, name, version, runtime, reason, previous, now)

    def _activations(self) -> list[Activation]:
        """Every row, damaged ones too, oldest first. Of all models, because a damaged name hides whose a row was."""
        with self._errors():
            return [activation_of(row) for row in self._rows("SELECT * FROM activations ORDER BY id")]

    def _newest_id(self, known: Sequence[Activation]) -> int:
        """The number of the newest activation that there ever was; SQLite remembers it, whatever became of the row."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'activations'")
        remembered = [row["seq"] for row in rows if isinstance(row["seq"], int)]
        return max([*remembered, *(row.id for row in known)], default=0)

    def _seal(self, table: str, where: str, *values: object) -> None:
        (row,) = self._db.execute(f"SELECT * FROM {table} WHERE {where}", values).fetchall()
        columns = {name: value for name, value in columns_of(row).items() if name != SEAL}
        self._db.execute(f"UPDATE {table} SET seal = ? WHERE {where}", (sealed(columns)[SEAL], *values))

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, self._errors():
            return self._db.execute(sql, values).fetchall()

    def _migrate(self) -> None:
        with self._transaction():
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found > SCHEMA_VERSION:
                raise PrerequisiteError(
                    f"{self._path} has schema {found}; this AI Forge knows {SCHEMA_VERSION}.", "update AI Forge."
                )
            if found < 0:
                raise sqlite3.DatabaseError(f"its schema is {found}")
            if found == 0:
                if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise InputError(f"{self._path} is a database of something else.", "move it away.")
                # not `executescript`, which would commit the transaction
                for statement in filter(str.strip, SCHEMA.split(";")):
                    self._db.execute(statement)
            elif found < SCHEMA_VERSION:
                for version in range(found + 1, SCHEMA_VERSION + 1):
                    for statement in CHANGES[version]:
                        self._db.execute(statement)
            if found != SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._errors():
            # IMMEDIATE: two that read first and write then would both hold a read lock, and one of them fail
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it by itself where the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if any(sign in str(error) for sign in ("no such", "decode", "duplicate column", "has no column")):
                raise self._unusable(error) from error
            if "locked" in str(error):
                raise TransientError(
                    f"Another process has held {self._path} for {BUSY_TIMEOUT_S:g} s.", "run the same command again."
                ) from error
            raise PrerequisiteError(
                f"{self._path} cannot be used: {error}.", "check its folder and the disk."
            ) from error
        except (
            sqlite3.DatabaseError,
            UnicodeDecodeError,
        ) as error:  # an error about damaged text may be no text itself
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InputError:
        return InputError(
            f"{self._path} is not a usable registry: {error}.",
            f"move it away (mv {self._path} {self._path}.broken), then deploy again: ai-forge deploy.",
        )
