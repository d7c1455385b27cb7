"""API keys: what is stored, who is let in, how often."""

import datetime
import json
import re
import stat
from pathlib import Path

import pytest

from ai_forge.conductor.auth import KeyStore, RateLimiter, demands_keys, require_keys_to_listen
from ai_forge.conductor.problems import ServiceError
from ai_forge.config import ServiceSettings
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.workspace import Workspace
from cli_runs import ai_forge

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> KeyStore:
    return KeyStore(Workspace.open(tmp_path), clock)


def test_a_key_opens_what_its_scopes_name_and_its_secret_is_nowhere(keys: KeyStore, tmp_path: Path) -> None:
    text, key = keys.add("editor", ["chat", "read"])
    caller = keys.caller(text)
    assert [caller.may("chat"), caller.may("read"), caller.may("train")] == [True, True, False]
    assert key.id in caller.name
    secret = text.split("_", 2)[2]
    assert not any(secret in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_admin_grants_everything(keys: KeyStore) -> None:
    text, _ = keys.add("boss", ["admin"])
    assert all(keys.caller(text).may(scope) for scope in ("read", "chat", "train", "deploy", "admin"))


def test_a_key_ends_on_its_day_and_when_it_is_revoked(keys: KeyStore, clock: Clock, tmp_path: Path) -> None:
    text, key = keys.add("guest", ["chat"], days=2)
    clock.now += datetime.timedelta(days=1.9)
    assert keys.caller(text).may("chat")
    clock.now += datetime.timedelta(days=0.2)
    with pytest.raises(ServiceError, match=f"{key.id} is expired"):
        keys.caller(text)
    other, record = keys.add("guest", ["chat"])
    KeyStore(Workspace.open(tmp_path)).revoke(record.id)  # another process: the command line
    with pytest.raises(ServiceError, match=f"{record.id} is revoked"):
        keys.caller(other)


@pytest.mark.parametrize("text", ["", "x", "aif_", "aif__", "aif_00000000_x", "sk-1234", "aif_\udce4_\udce4", "Bearer"])
def test_a_wrong_key_is_wrong_and_no_more_is_told(keys: KeyStore, text: str) -> None:
    keys.add("someone", ["admin"])
    with pytest.raises(ServiceError, match=r"The API key is wrong\.") as error:
        keys.caller(text)
    assert error.value.status == 401


def test_a_wrong_secret_learns_nothing_of_the_key(keys: KeyStore) -> None:
    text, key = keys.add("someone", ["admin"])
    keys.revoke(key.id)
    with pytest.raises(ServiceError, match=r"The API key is wrong\."):
        keys.caller(text + "x")


@pytest.mark.parametrize(
    ("name", "scopes", "days", "told"),
    [
        ("a", ["root"], None, "There is no scope root"),
        ("a", [], None, "There is no scope"),
        ("", ["chat"], None, "cannot be a key's name"),
        ("a\nb", ["chat"], None, "cannot be a key's name"),
        ("a", ["chat"], 0, "cannot last 0 days"),
        ("a", ["chat"], float("nan"), "cannot last nan days"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    keys: KeyStore, name: str, scopes: list[str], days: float | None, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        keys.add(name, scopes, days)
    assert keys.list() == []


def test_a_damaged_file_lets_nobody_in(keys: KeyStore, tmp_path: Path) -> None:
    text, _ = keys.add("someone", ["admin"])
    path = tmp_path / "keys.json"
    written = path.read_text()
    scope_changed = written.replace('"admin"', '"chat"')
    assert scope_changed != written
    for damaged in ("[{", "[]", "{}", "null", scope_changed, written.replace("someone", "sOmeone"), ""):
        path.write_text(damaged)
        with pytest.raises(PrerequisiteError, match=re.escape(f"{path} is damaged, or cannot be read")):
            keys.caller(text)
    path.write_text(json.dumps(json.loads(written)["keys"]))  # as an earlier version wrote it
    assert keys.caller(text).may("admin")


def test_keys_that_are_gone_let_nobody_in_and_are_no_silence(keys: KeyStore, tmp_path: Path) -> None:
    text, _ = keys.add("someone", ["admin"])
    assert keys.caller(text).may("admin")
    (tmp_path / "keys.json").unlink()
    with pytest.raises(PrerequisiteError, match=r"keys\.json is gone: no API key is accepted"):
        keys.caller(text)
    again = KeyStore(Workspace.open(tmp_path))  # the service was started anew
    with pytest.raises(PrerequisiteError, match=r"keys\.json is not there; if it was, restore it"):
        require_keys_to_listen(ServiceSettings(require_keys="always"), again)
    with pytest.raises(ServiceError, match="is wrong"):
        again.caller(text)
    listed = ai_forge("keys", "list", "--home", tmp_path)
    assert listed.json == []
    assert "keys.json is not there. If some were made, restore it from a backup" in listed.err


def test_a_port_beyond_this_machine_opens_only_with_a_key(keys: KeyStore, clock: Clock) -> None:
    assert not demands_keys(ServiceSettings())
    require_keys_to_listen(ServiceSettings(), keys)
    for settings in (ServiceSettings(host="0.0.0.0"), ServiceSettings(require_keys="always")):
        assert demands_keys(settings)
        with pytest.raises(PrerequisiteError, match="ai-forge keys add"):
            require_keys_to_listen(settings, keys)
    keys.add("short", ["chat"], days=1)
    require_keys_to_listen(ServiceSettings(host="0.0.0.0"), keys)
    clock.now += datetime.timedelta(days=2)
    with pytest.raises(PrerequisiteError):
        require_keys_to_listen(ServiceSettings(host="0.0.0.0"), keys)


def test_requests_are_counted_for_each_caller_and_come_back_with_time() -> None:
    now = 0.0
    limiter = RateLimiter(60, clock=lambda: now)
    for _ in range(10):
        limiter.check("ann")
    with pytest.raises(ServiceError, match="More than 60 requests a minute") as error:
        limiter.check("ann")
    assert (error.value.status, error.value.headers) == (429, {"Retry-After": "1"})
    limiter.check("ben")
    now = 1.0
    limiter.check("ann")
    with pytest.raises(ServiceError):
        limiter.check("ann")


def test_many_callers_do_not_fill_the_memory() -> None:
    limiter = RateLimiter(60, clock=lambda: 0.0)
    for number in range(20_000):
        limiter.check(str(number))
    assert len(limiter) <= 10_000


def test_the_command_line_makes_lists_and_revokes(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    made = ai_forge("keys", "add", "ci", "--scope", "train", "--days", "30", *home).json
    assert KeyStore(Workspace.open(tmp_path)).caller(made["key"]).may("train")
    listed = ai_forge("keys", "list", *home)
    assert [(row["name"], row["state"]) for row in listed.json] == [("ci", "valid")]
    assert made["key"] not in listed.out
    assert json.loads(ai_forge("keys", "revoke", made["id"], *home).out)["id"] == made["id"]
    assert ai_forge("keys", "list", *home).json[0]["state"] == "revoked"
    assert "There is no key 'nope'" in ai_forge("keys", "revoke", "nope", *home).complaint
