"""API keys: made, listed, revoked, and checked for each request.

A key is `aif_<id>_<secret>`. The file `keys.json` in the workspace holds the SHA-256 of each secret, never the key: 256 random
bits need no slow hash. It is read again when it changes, so a key that is revoked by the command line is refused at once. It
carries a seal: a damaged one opens nothing, and neither does one that is gone.

Scopes: read (models, jobs, reports), chat (answers, search), train (uploads, jobs), deploy (deployments, rollback), admin (all
of these, metrics, and every route that names no scope).
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ai_forge.conductor.problems import ServiceError
from ai_forge.config import ServiceSettings
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.places import SEAL, holds_what_was_written, regular_bytes, sealed
from ai_forge.workspace import Workspace, atomic_write

__all__ = ["SCOPES", "ApiKey", "Caller", "KeyStore", "RateLimiter", "Scope", "demands_keys", "is_loopback"]

Scope = Literal["read", "chat", "train", "deploy", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
KEYS_FILE = "keys.json"
PREFIX = "aif"
MAX_CALLERS = 10_000


class ApiKey(BaseModel):
    """What is known of a key. Times are UTC; `sha256` is of its secret."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created_at: datetime.datetime
    expires_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None

    def state(self, now: datetime.datetime) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens anything."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "valid"


class _KeysFile(BaseModel):
    """`keys.json`. Written before there was a seal, it is the bare list."""

    keys: list[ApiKey]


_KEYS = TypeAdapter(list[ApiKey])


class Caller(BaseModel):
    """Who sent a request: a key, or anyone on this machine where no keys are demanded."""

    model_config = ConfigDict(frozen=True)

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the scope is granted; `admin` grants all."""
        return scope in self.scopes or "admin" in self.scopes


ANYONE_HERE = Caller(name="local", scopes=frozenset({"admin"}))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class KeyStore:
    """The keys of a workspace. Safe to use from several threads and processes."""

    def __init__(self, workspace: Workspace, now: Callable[[], datetime.datetime] = _now) -> None:
        self._workspace = workspace
        self._path = workspace.root / KEYS_FILE
        self._now = now
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    def add(self, name: str, scopes: Iterable[str], days: float | None = None) -> tuple[str, ApiKey]:
        """Make a key and return it, the only time that it can be read, with its record. It ends after `days` if given.

        Raises:
            InputError: an unknown scope, no scope, or a name or number of days that cannot be.
        """
        wanted = tuple(dict.fromkeys(scopes))
        unknown = [scope for scope in wanted if scope not in SCOPES]
        if unknown or not wanted:
            raise InputError(
                f"There is no scope {', '.join(unknown) or '(none given)'}.", f"known are {', '.join(SCOPES)}."
            )
        if not (name.strip() and name.isprintable() and len(name) <= 80):
            raise InputError(f"{name!r} cannot be a key's name.", "use 1 to 80 printable characters.")
        if days is not None and not 0 < days <= 36_500:
            raise InputError(f"A key cannot last {days:g} days.", "give a number above 0, at most 36500.")
        secret = secrets.token_urlsafe(32)
        now = self._now()
        key = ApiKey.model_validate(
            {
                "id": secrets.token_hex(4),
                "name": name,
                "scopes": wanted,
                "sha256": _digest(secret),
                "created_at": now,
                "expires_at": None if days is None else now + datetime.timedelta(days=days),
            }
        )
        with self._workspace.lock("keys", wait_s=10):
            self._write([*self.list(), key])
        return f"{PREFIX}_{key.id}_{secret}", key

    def list(self) -> list[ApiKey]:
        """All keys, the oldest first, expired and revoked ones too."""
        self._refresh()
        return list(self._keys.values())

    def revoke(self, id: str) -> ApiKey:
        """End a key for good.

        Raises:
            InputError: there is none of that id.
        """
        with self._workspace.lock("keys", wait_s=10):
            keys = {key.id: key for key in self.list()}
            if id not in keys:
                raise InputError(
                    f"There is no key {id!r}; there are: {', '.join(keys) or 'none'}.", "ai-forge keys list"
                )
            if keys[id].revoked_at is None:
                keys[id] = keys[id].model_copy(update={"revoked_at": self._now()})
                self._write(keys.values())
            return keys[id]

    def any_valid(self) -> bool:
        """Whether any key opens anything."""
        return any(key.state(self._now()) == "valid" for key in self.list())

    def caller(self, text: str) -> Caller:
        """Who holds the key `text`.

        Raises:
            ServiceError: 401; expired and revoked are told only to who holds the secret.
        """
        self._refresh()
        parts = text.split("_", 2)
        key = self._keys.get(parts[1]) if len(parts) == 3 and parts[0] == PREFIX else None
        if key is None or not hmac.compare_digest(key.sha256, _digest(parts[2])):
            raise unauthorised("The API key is wrong.")
        state = key.state(self._now())
        if state != "valid":
            raise unauthorised(f"The API key {key.id} is {state}.")
        return Caller(name=f"{key.name} ({key.id})", scopes=frozenset(key.scopes))

    @property
    def path(self) -> Path:
        """Where the keys lie."""
        return self._path

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            if self._keys:  # someone holds a key of a service that runs: it is not "wrong"
                raise PrerequisiteError(
                    f"{self._path} is gone: no API key is accepted.",
                    "restore it from a backup, or make new keys: ai-forge keys add NAME.",
                ) from None
            return
        except OSError as error:
            raise self._unreadable("cannot be read") from error
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp == self._stamp:
            return
        try:
            keys = _read(regular_bytes(self._path))
        except (OSError, ValueError) as error:  # closed rather than open: no key is accepted until it is mended
            raise self._unreadable("is damaged, or cannot be read") from error
        self._keys, self._stamp = {key.id: key for key in keys}, stamp

    def _unreadable(self, what: str) -> PrerequisiteError:
        return PrerequisiteError(
            f"{self._path} {what}: no API key is accepted.",
            f"restore it from a backup, or move it away (mv {self._path} {self._path}.broken) and make new keys: "
            "ai-forge keys add NAME.",
        )

    def _write(self, keys: Iterable[ApiKey]) -> None:
        values = sealed({"keys": _KEYS.dump_python(list(keys), mode="json")})
        atomic_write(self._path, json.dumps(values, indent=1))
        os.chmod(self._path, 0o600)  # noqa: PTH101 (hashes only, but who has which rights is nobody else's business)


def _read(content: bytes) -> list[ApiKey]:
    """The keys in a file. Raises `ValueError` where they are not what was written."""
    values = json.loads(content)
    if isinstance(values, list) and values:
        return _KEYS.validate_python(values)
    if not isinstance(values, dict) or SEAL not in values or not holds_what_was_written(values):
        raise ValueError("not what was written")
    return _KeysFile.model_validate(values).keys


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def unauthorised(message: str) -> ServiceError:
    """A 401 with the next step."""
    return ServiceError(
        401,
        "unauthorized",
        message,
        "send `Authorization: Bearer <key>`; keys are made by `ai-forge keys add` where the service runs.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def demands_keys(settings: ServiceSettings) -> bool:
    """Whether every request must bring a key."""
    return settings.require_keys == "always" or not is_loopback(settings.host)


def require_keys_to_listen(settings: ServiceSettings, keys: KeyStore) -> None:
    """Refuse to open a port that nobody could use, or everybody.

    Raises:
        PrerequisiteError: keys are demanded and there is none.
    """
    if demands_keys(settings) and not keys.any_valid():
        missing = "" if keys.path.exists() else f" ({keys.path} is not there; if it was, restore it from a backup)"
        raise PrerequisiteError(
            f"Listening on {settings.host} demands API keys, and there is none that is valid{missing}.",
            "make one: ai-forge keys add NAME --scope chat; or listen on 127.0.0.1.",
        )


class RateLimiter:
    """So many requests a minute for each caller, evenly filled up again; bursts up to a sixth of that, at least ten."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._burst = max(10.0, per_minute / 6)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def check(self, caller: str) -> None:
        """Count a request.

        Raises:
            ServiceError: 429 with the seconds to wait.
        """
        now = self._clock()
        # put back at the end: the first in the dictionary is the one that was silent longest
        left, at = self._left.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= 1
        self._left[caller] = (left - 1 if allowed else left, now)
        if len(self._left) > MAX_CALLERS:
            del self._left[next(iter(self._left))]
        if not allowed:
            wait = max(1, round((1 - left) / self._rate))
            raise ServiceError(
                429,
                "rate_limited",
                f"More than {self._rate * 60:g} requests a minute.",
                f"wait {wait} s, or raise service.requests_per_minute.",
                headers={"Retry-After": str(wait)},
            )
