"""Is this value a secret? Chance against words: how a value changes between kinds of characters, and what it spells.

Measured on CPython's library and on random values, see `EXPERIMENTS.md`.
"""

import math
import re
from collections import Counter

_HEX = re.compile(r"[0-9a-f]{32,}|[0-9A-F]{32,}")
_NO_CHANCE = re.compile(r"0[xX]\w*|[A-Za-z]*\d*(?:[_/+-](?:[A-Za-z]*\d*))*")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HASH_WORD = re.compile(
    r"sha\d|sha-\d|sha_|\bsha\b|md5|blake|digest|checksum|crc|integrity|commit|\brev\b|revision|uuid|guid|fingerprint|etag|"
    r"hash|blob|hmac|pbkdf|scrypt|cipher|vector|nonce|fromhex|unhexlify|hexlify|random\.|getrandbits|float|mersenne|ssh-rsa|"
    r"image/|font/|base64,|codec|\balphabet|charset|unicode|boundary|oid\b",
    re.IGNORECASE,
)
# What documentation and templates write where a secret goes.
STAND_IN = re.compile(
    r"example|sample|dummy|fake|placeholder|change.?me|replace|your|insert|redacted|masked|hidden|censored|x{4,}|\*{3}|"
    r"\.{3}|<|\$\{|\{\{|%\(|%s(?!\w)|\$\(|\{\w*\}|0123456|12345678|abcdef|deadbeef|lorem|todo",
    re.IGNORECASE,
)
_WORDS = re.compile(
    r"pass(?:word|wd|phrase)?|secret|token|admin|user(?:name)?|login|test(?:ing)?|key|api|auth|access|client|root|guest|demo|"
    r"foo|bar|baz|qux|spam|egg|ham|hello|world|value|string|my|new|old|wrong|good|bad|invalid|valid|default|some|the|an?|"
    r"oauth|sha|md|utf|base|latin|hs|rs|es|ps|aes|cbc|gcm|http|iso|bearer|basic|digest|hmac|scram|plain|x|v|id|url",
    re.IGNORECASE,
)
_CODE_LIKE = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|::|->)[A-Za-z_$][\w$]*)+|/[\w./-]+|[a-z]+://.*|[\w-]+(?:/[\w.-]+)+")
_SYMBOLS = frozenset("!@#$%^&*+=?~|")


def is_code_like(value: str) -> bool:
    """Whether a value is a dotted name, a path or an address."""
    return _CODE_LIKE.fullmatch(value) is not None


def without_common_words(value: str) -> str:
    """The letters that are left of a value without the words that stand in for passwords."""
    return re.sub(r"[\W\d_]", "", _WORDS.sub("", value))


def entropy(text: str) -> float:
    """Shannon's, in bits a character.

    >>> entropy("aabb")
    1.0
    """
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _kind(character: str) -> int:
    tests = (character.isdigit(), character.islower(), character.isupper(), True)
    return tests.index(True)


def changes(text: str) -> float:
    """Share of neighbours that differ in kind (digit, small, capital), 0-1; the capital that begins a word does not count.

    >>> changes("someLongIdentifier"), changes("a1B2c3D4")
    (0.0, 1.0)
    """
    kinds = [_kind(c) for c in text if c not in "+/_-"]
    if len(kinds) < 2:
        return 0.0
    changed = 0
    for index in range(1, len(kinds)):
        before, here = kinds[index - 1 : index + 1]
        after = kinds[min(index + 1, len(kinds) - 1)]
        # `someLongIdentifier` changes twice at each capital, and is not random for it.
        begins_word = here == 2 and before == 1 and after == 1
        in_word = here == 1 and before == 2 and after == 1
        changed += before != here and not begins_word and not in_word
    return changed / (len(kinds) - 1)


def is_hex(run: str) -> bool:
    """Whether `run` is 32 or more hexadecimal digits of one case."""
    return _HEX.fullmatch(run) is not None


def may_be_chance(run: str) -> bool:
    """Whether a run holds digits otherwise than as the ends of words.

    >>> may_be_chance("test_gh_94215_of_nothing_2"), may_be_chance("0xffffffffffffffff"), may_be_chance("q8Zr2LmX0vTy5KdJ3bWe")
    (False, False, True)
    """
    return not run.isalpha() and _NO_CHANCE.fullmatch(run) is None


def looks_random(run: str) -> bool:
    """Whether a run of at least 16 letters and digits shows no sign of a word, a number or an order.

    >>> looks_random("test_gh_94215_of_nothing"), looks_random("q8Zr2LmX0vTy5KdJ3bWe")
    (False, True)
    """
    if _UUID.fullmatch(run) or STAND_IN.search(run):
        return False
    if _HEX.fullmatch(run):
        return entropy(run) >= 3.0 and any(map(str.isdigit, run)) and not run.isdigit()
    return may_be_chance(run) and len(run) >= 16 and changes(run) >= 0.25 and entropy(run) >= 3.5


def may_be_secret(value: str, *, bare: bool = False) -> bool:
    """Whether a value that is given to a secret's name is one: not a stand-in, a plain word, a type or a piece of code.

    With `bare` the value stood without quotes, where it may also be an expression.

    >>> may_be_secret("hunter2-blue"), may_be_secret("your-api-key"), may_be_secret("token1"), may_be_secret("get_token")
    (True, False, False, False)
    """
    if STAND_IN.search(value) or len(set(value)) < 5:
        return False
    if len(without_common_words(value)) < 2 and not (set(value) & _SYMBOLS):
        return False
    has_letter, has_digit = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    symbols = set(value) & _SYMBOLS
    if is_code_like(value) and not looks_random(value):
        return False
    if bare:
        least = 0.15 if symbols else 0.2  # without quotes it may be a name, which has few of both
        return has_letter and has_digit and changes(value) >= least
    return has_letter and (has_digit or bool(symbols) or changes(value) >= 0.3)


def names_a_hash(text: str, start: int, end: int) -> bool:
    """Whether the line of a run, or the one above, says that it is a checksum, an id or another public value."""
    first = text.rfind("\n", 0, start) + 1
    first = text.rfind("\n", 0, max(first - 1, 0)) + 1
    behind = text[end : end + 80].partition("\n")[0]
    around = f"{text[max(first, start - 200) : start]} {behind}"  # without the run, which may spell anything
    return _HASH_WORD.search(around) is not None
