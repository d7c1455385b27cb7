"""Secrets to plant: random values in the forms of real ones, made when a test runs, so that none stands in this repository."""

import base64
import random
import string
from collections.abc import Callable, Iterator
from typing import NamedTuple

ALNUM = string.ascii_letters + string.digits
URL_SAFE = ALNUM + "-_"
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits


class Planted(NamedTuple):
    """A secret: its kind, the text that carries it (one or more lines), and the parts that must not survive."""

    kind: str
    text: str
    values: tuple[str, ...]


def _of(rng: random.Random, alphabet: str, n: int) -> str:
    return "".join(rng.choices(alphabet, k=n))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _jwt(rng: random.Random) -> str:
    head = _b64(b'{"alg":"HS256","typ":"JWT"}')
    body = _b64(b'{"sub":"%d","name":"someone","iat":%d}' % (rng.randrange(10**9), rng.randrange(10**9)))
    return f"{head}.{body}.{_of(rng, URL_SAFE, 43)}"


def _pem(rng: random.Random, label: str) -> str:
    lines = [_of(rng, ALNUM + "+/", 64) for _ in range(6)]
    rule = "-" * 5
    return "\n".join([f"{rule}BEGIN {label}{rule}", *lines, f"{rule}END {label}{rule}"])


def _password(rng: random.Random) -> str:
    """As a password manager makes them: 10 to 20 letters, digits and signs, at least one digit."""
    signs = "!#$%&*+-_?@^"
    body = _of(rng, string.ascii_letters + string.digits + signs, rng.randrange(9, 19))
    at = rng.randrange(len(body))
    return rng.choice(string.ascii_letters) + body[:at] + rng.choice(string.digits) + body[at:]


def _uuid(rng: random.Random) -> str:
    return "-".join(_of(rng, HEX, n) for n in (8, 4, 4, 4, 12))


KNOWN: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    # kind: (name that it is given to, value)
    "aws_access_key": lambda r: ("identity", "AK" + "IA" + _of(r, UPPER, 16)),
    "aws_secret_key": lambda r: ("aws_secret_access_key", _of(r, ALNUM + "+/", 40)),
    "gcp_api_key": lambda r: ("maps", "AI" + "za" + _of(r, URL_SAFE, 35)),
    "azure_storage": lambda r: (
        "connection",
        "DefaultEndpointsProtocol=https;AccountName=a;Account" + "Key=" + _of(r, ALNUM + "+/", 86) + "==",
    ),
    "github": lambda r: ("remote", "gh" + r.choice("pousr") + "_" + _of(r, ALNUM, 36)),
    "gitlab": lambda r: ("remote", "gl" + "pat-" + _of(r, URL_SAFE, 20)),
    "slack": lambda r: ("bot", "xo" + "xb-" + _of(r, string.digits, 12) + "-" + _of(r, ALNUM, 24)),
    "stripe": lambda r: ("billing", "sk_" + "live_" + _of(r, ALNUM, 24)),
    "twilio": lambda r: ("phone", "S" + "K" + _of(r, HEX, 32)),
    "sendgrid": lambda r: ("mail", "S" + "G." + _of(r, URL_SAFE, 22) + "." + _of(r, URL_SAFE, 43)),
    "npm": lambda r: ("registry", "npm" + "_" + _of(r, ALNUM, 36)),
    "pypi": lambda r: ("registry", "pypi" + "-AgEIcHlwaS5vcmc" + _of(r, URL_SAFE, 80)),
    "jwt": lambda r: ("session", _jwt(r)),
    "pem_rsa": lambda r: ("pem", _pem(r, "RSA PRIVATE " + "KEY")),
    "openssh": lambda r: ("identity_file", _pem(r, "OPENSSH PRIVATE " + "KEY")),
    "basic_auth_url": lambda r: ("endpoint", f"https://robot:{_of(r, ALNUM, 14)}7@internal.local/path"),
    "database_url": lambda r: ("dsn", f"postgresql://app:{_of(r, ALNUM, 12)}4@db.local:5432/app"),
    "heroku": lambda r: ("heroku_api", _uuid(r)),
    "mailgun": lambda r: ("mail", "key" + "-" + _of(r, HEX, 32)),
    "square": lambda r: ("till", "sq0" + "csp-" + _of(r, URL_SAFE, 43)),
    "discord": lambda r: ("bot", "M" + _of(r, ALNUM, 23) + "." + _of(r, ALNUM, 6) + "." + _of(r, URL_SAFE, 27)),
    "telegram": lambda r: ("bot", _of(r, "123456789", 9) + ":AA" + _of(r, URL_SAFE, 32) + "x"),
    "openai": lambda r: ("model", "sk" + "-proj-" + _of(r, ALNUM, 20) + "T3" + "BlbkFJ" + _of(r, ALNUM, 20)),
    "anthropic": lambda r: ("model", "sk" + "-ant-api03-" + _of(r, URL_SAFE, 80)),
    "huggingface": lambda r: ("hub", "h" + "f_" + _of(r, ALNUM, 34)),
}
GENERIC: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "password": lambda r: (r.choice(["password", "db_passwd", "ADMIN_PASSWORD", "userPwd"]), _password(r)),
    "token": lambda r: (r.choice(["auth_token", "apiKey", "client_secret", "ACCESS_TOKEN"]), _of(r, ALNUM, 24)),
    "hex": lambda r: (r.choice(["signing", "value", "seed_of_session"]), _of(r, HEX, r.choice([32, 40, 64]))),
    "base64": lambda r: (
        r.choice(["material", "value"]),
        base64.b64encode(r.randbytes(r.choice([24, 32, 48]))).decode(),
    ),
    "bearer": lambda r: ("Authorization", "Bearer " + _of(r, ALNUM, 40)),
}


def planted(
    kinds: dict[str, Callable[[random.Random], tuple[str, str]]], each: int, seed: int
) -> Iterator[tuple[Planted, str]]:
    """`each` secrets of every kind, with the name that each is given to."""
    rng = random.Random(seed)
    for kind, make in kinds.items():
        for _ in range(each):
            name, value = make(rng)
            yield Planted(kind, value, _vital(kind, value)), name


def _vital(kind: str, value: str) -> tuple[str, ...]:
    """What must not survive of a value: its random part."""
    if kind in ("pem_rsa", "openssh"):
        return tuple(value.split("\n")[1:-1])
    if kind in ("basic_auth_url", "database_url"):
        return (value.split("//")[1].split(":")[1].split("@")[0],)
    if kind == "azure_storage":
        return (value.partition("Key=")[2],)
    return (value.removeprefix("Bearer "),)
