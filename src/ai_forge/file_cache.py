"""What was made of single files, kept from one run to the next: bytes by key, in one SQLite database.

One database, not a file for each value: two thousand are read at once. It is a cache and never in the way: each value
carries a checksum of key and value, a damaged one counts as absent, a damaged database is begun anew, and what cannot be
stored (another process holds the lock, the disk is full) is made again next time.
"""

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["FileCache"]

_SCHEMA = "CREATE TABLE IF NOT EXISTS file (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
_KEYS_AT_ONCE = 500  # older SQLite takes 999 variables in a statement
# Times as many values as are in use: of more (other branches, other settings) the others go.
_KEPT = 5


class FileCache:
    """Bytes by key; a key is a hash of all that its value depends on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are there and whole."""
        found: dict[bytes, bytes] = {}

        def read(database: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]
                query = f"SELECT key, value FROM file WHERE key IN ({','.join('?' * len(some))})"
                # SQLite keeps any type in any column, whatever the schema says.
                for key, value in database.execute(query, some):
                    if isinstance(key, bytes) and isinstance(value, bytes) and value == _sealed(key, value[4:]):
                        found[key] = value[4:]

        self._with_database(read)
        return found

    def put_many(self, values: Mapping[bytes, bytes], in_use: Sequence[bytes]) -> None:
        """Store `values`. Where the cache has become too large, all go but those whose keys are `in_use`."""

        def write(database: sqlite3.Connection) -> None:
            rows = ((key, _sealed(key, value)) for key, value in values.items())
            database.executemany("INSERT OR REPLACE INTO file VALUES (?, ?)", rows)
            (n_rows,) = database.execute("SELECT count(*) FROM file").fetchone()
            if n_rows > _KEPT * len(in_use):
                # A table: there may be more keys than a statement takes variables.
                database.execute("CREATE TEMP TABLE used (key BLOB PRIMARY KEY)")
                database.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((key,) for key in in_use))
                database.execute("DELETE FROM file WHERE key NOT IN (SELECT key FROM used)")

        if values:
            self._with_database(write)

    def _with_database(self, act: Callable[[sqlite3.Connection], None]) -> None:
        """`act` in one transaction."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=5)) as database, database:
                database.execute(_SCHEMA)
                act(database)
        except (sqlite3.OperationalError, OSError):
            return  # locked, full or not writable
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # an error about damaged text may not be text itself
            for suffix in ("", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def _sealed(key: bytes, value: bytes) -> bytes:
    """The value behind its checksum."""
    # Over the key too: a whole value under the wrong key would be another file's blocks.
    return zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "big") + value
