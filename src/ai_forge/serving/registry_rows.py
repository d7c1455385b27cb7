"""What the rows of `registry.db` say, and whether they still say what was written."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ai_forge.errors import InputError
from ai_forge.places import SEAL, holds_what_was_written
from ai_forge.serving.deployment import Deployment, read_deployment
from ai_forge.serving.runtime import RuntimeKind

__all__ = ["Activation", "ActiveVersion", "DamagedRowError", "Version", "activation_of", "columns_of", "version_of"]


@dataclass(frozen=True)
class Version:
    """A registered version and what the judge measured on it."""

    deployment: Deployment
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Activation:
    """A moment at which `version` became the active one, in which runtime; `previous` is the activation it replaced."""

    id: int
    name: str
    version: str
    runtime: RuntimeKind
    reason: str
    previous: int | None
    activated_at: str
    holds: bool = True
    """Whether the row's seal is that of its columns."""

    @property
    def is_sound(self) -> bool:
        """Whether the row holds what was written: SQLite keeps any type in any column."""
        if not self.holds:
            return False
        named = all(isinstance(value, str) and value for value in (self.name, self.version, self.activated_at))
        return named and self.runtime in get_args(RuntimeKind) and isinstance(self.previous, int | None)


@dataclass(frozen=True)
class ActiveVersion:
    """The version of a model that answers, and since when."""

    activation: Activation
    version: Version

    @property
    def has_index(self) -> bool:
        """Whether it is asked with what is found of its repository."""
        asking = self.version.deployment.asking
        return asking is not None and asking.index_folder is not None


class DamagedRowError(InputError):
    """A row cannot be read, or is not what was written. Deploying the version again replaces it."""


def columns_of(row: sqlite3.Row) -> dict[str, object]:
    """A row's values as JSON can hold them; bytes are nothing that was ever written."""
    return {name: row[name] if not isinstance(row[name], bytes) else repr(row[name]) for name in row.keys()}  # noqa: SIM118


def activation_of(row: sqlite3.Row) -> Activation:
    """The activation in a row, sound or not. Raises `sqlite3.DatabaseError` where the table is another."""
    values = dict(row)
    values.pop(SEAL, None)
    try:
        return Activation(**values, holds=holds_what_was_written(columns_of(row)))
    except TypeError as error:
        raise sqlite3.DatabaseError(f"its activations have the columns {', '.join(values)}") from error


def version_of(row: sqlite3.Row) -> Version:
    """The version in a row. Raises `DamagedRowError` where it holds none."""
    values = dict(row)
    try:
        if not holds_what_was_written(columns_of(row)):
            raise ValueError("it is not what was written")
        values.pop(SEAL, None)
        metrics = json.loads(values.pop("metrics"))
        for column in ("stop", "sampling", "asking"):
            if values[column] is not None:
                values[column] = json.loads(values[column])
        if not isinstance(metrics, dict):
            raise ValueError("metrics are no mapping")
        return Version(read_deployment(values), metrics)
    except (ValueError, TypeError) as error:  # ValidationError is a ValueError
        first = str(error).splitlines()[0]
        raise DamagedRowError(
            f"The registry's row of {row['name']}:{row['version']} is damaged: {first}.",
            "make it anew: ai-forge deploy.",
        ) from error
