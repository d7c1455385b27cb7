"""Passwords as people choose and place them: words, words with blanks, and what a command or a sentence gives away.

A random value is known by itself (`values.py`); a chosen one only by its place. So this looks at lines on which a name says
"password" (not at tokens and keys, which nobody chooses), and at the commands whose options take one, and asks of a value
only that it is no placeholder, no label, no sentence and no piece of code.

False alarms: 13 values in the 1,790 files of CPython's library, nearly all in its tests; 2 in 6,887 files of installed
packages. It costs 0.4 s for 31 MB.
"""

import re
from collections.abc import Iterator

from ai_forge.data_pipeline.secrets.values import STAND_IN, is_code_like, without_common_words

__all__ = ["chosen_passwords"]

Span = tuple[int, int]

_STEMS = ("passw", "passphrase", "pwd", "kennwort", "identified by")
# Alone `pass` is a statement of Python: only what is assigned to it counts.
_SHORT_STEM = re.compile(r"pass(?![a-z])[\"'\]]{0,2}\s{0,2}[:=]")
_NAME = r"[\w.$:-]{0,60}?(?:passw(?:or[dt]|d)?|passphrase|pwd|kennwort|(?<![a-z])pass(?![a-z]|\s:))\w{0,30}"
# in three quotes as well, in two backticks, and in quotes that are themselves inside a string: `\\"…\\"` in JSON and notebooks
_QUOTED = (
    r"(?:@|[rbuf]{1,2})?(?:(?:\"\"\"|\")(?P<qa>(?:\\.|[^\"\\\n]){4,200})\"|'(?P<qb>(?:\\.|[^'\\\n]){4,200})'"
    r"|(?:``|`)(?P<qc>[^`\n]{4,200})`|\\\"(?P<qd>[^\"\\\n]{4,200})\\\")"
)
_BARE = r"[^\s\"'`$<>(){},;|&-][^\s\"'`$<>(){},;|&]{3,200}"
_OPTION = r"(?:\"(?P<oa>[^\"\n]{4,200})\"|'(?P<ob>[^'\n]{4,200})'|(?P<od>" + _BARE + "))"


def _form(pattern: str) -> re.Pattern[str]:
    """`NAME` is a name that says password, `VALUE` a value in quotes, `OPTION` one that may stand without."""
    text = pattern.replace("NAME", _NAME).replace("VALUE", _QUOTED).replace("OPTION", _OPTION)
    return re.compile(text, re.IGNORECASE)


_ON_A_LINE = (
    # password = "…", "password": "…", password: &str = "…", const password string = "…", :password => "…", {:password, "…"}
    _form(
        r"NAME(?:\\?[\"'\])]){0,3}\s{0,4}(?::[^\n=\"']{1,60}|\s[\w\[\]*.]{1,30}\s{0,4})?(?::=|=>|->|\?\?=|=|:)\s{0,8}VALUE"
    ),
    _form(r"\{:NAME,\s{0,4}VALUE"),
    _form(r"(?:set|with|change|reset)_?NAME\(\s{0,4}VALUE"),
    _form(r"NAME\s{0,4}:\s{0,4}\w{1,30}\[[^\n]{1,120}\]\s{0,4}=\s{0,4}VALUE"),  # Annotated[…]
    _form(r"NAME[^\n=]{0,60}=\s{0,4}\w{1,30}\([^\n]{0,80}?\bdefault\s{0,2}=\s{0,2}VALUE"),  # Field(default="…")
    _form(
        r"(?:get|getenv|env|fetch|config|lookup)\(\s{0,4}\\?[\"']NAME\\?[\"']\s{0,4},\s{0,4}(?:\w{1,20}\s{0,2}=\s{0,2})?VALUE"
    ),
    _form(r"NAME[\"')\]]{0,3}\s{0,4}(?:\|\||\?\?|\bor\b|\?:)\s{0,4}VALUE"),  # process.env.PASSWORD || "…"
    _form(r"(?:argument|option)\([^\n]{0,80}?NAME[^\n]{0,200}?\bdefault\s{0,2}=\s{0,2}VALUE"),
    _form(r"#\s{0,8}define\s{1,8}NAME\s{1,20}VALUE"),
    _form(r"(?:name|key|id|property)\s{0,2}=\s{0,2}[\"']NAME[\"'][^<>\n]{0,80}?\bvalue\s{0,2}=\s{0,2}VALUE"),
    _form(r"\b(?:password|identified\s+by)\s{1,4}'(?P<qb>[^'\n]{4,200})'"),  # SQL
    _form(r"<NAME(?:\s[^<>\n]{0,80})?>(?P<qa>[^<>\n]{4,200})</"),
    _form(
        r"(?<![a-z0-9])\w{0,30}(?:password|passphrase|passwor[dt]|passwd|pwd|kennwort)(?:\s(?:for|of|to|f.{1,2}r|von)\s\S{1,30})?\s(?:is|was|are|lautet|ist|war)\s{1,4}(?:(?:now|still|jetzt)\s)?VALUE"
    ),
)
_BARE_ON_A_LINE = (
    _form(r"^\s{0,20}(?:export\s|set\s|env\s|arg\s|-\s{0,4})?NAME=(?P<od>[^\s\"'`$<>(){},;|&]{5,200})\s*$"),
    _form(
        r"^\s{0,20}(?:-\s{0,4})?[\w.\"'-]{0,60}(?:password|passwd|passphrase|pwd)[\"']?:\s{1,4}(?P<od>[^\s\"'`$<>(){},;|&\[\]]{5,200})\s*$"
    ),
    # in the middle of a line as well, where the name is an environment's: "call it with DB_PASS=…"
    _form(r"(?<![\w-])(?-i:[A-Z0-9_]{0,40}(?:PASS|PASSWORD|PASSWD|PWD))=(?P<od>[^\s\"'`$<>(){},;|&]{5,200})"),
    _form(r"(?<![\w-])--?NAME(?:=|\s{1,4})OPTION"),
    _form(r"\b(?:machine|login)\s[^\n]{1,100}\bpassword\s{1,4}(?P<od>\S{5,200})"),  # netrc
    _form(
        r"(?<![a-z0-9])\w{0,30}(?:passwor[dt]|passwd|pwd)(?:\s(?:for|of|to)\s\S{1,30})?\s(?:is|was|lautet|ist)\s{1,4}(?P<od>[^\s\"'`$<>(){},;|&]{5,200}?)\.?(?=\s|$)"
    ),
)
_ENVIRONMENT = re.compile(
    r"^\s{0,20}(?:export\s+|ENV\s+|ARG\s+|-\s*)?[A-Z0-9_]*(?:PASS|PASSWORD|PASSWD|PWD)=(?P<qa>[a-z]{6,60})\s*$"
)
# By what is on the line; nobody chooses these, so a value without a digit is none.
_SECRET_FORMS = {
    ("secret", "api_key", "apikey"): _form(
        r"(?:secret|api_?key)[\"'\])]{0,3}\s{0,4}(?::=|=>|=|:)\s{0,8}[\"'](?P<spaced>(?=[^\"'\n]*\s)[^\"'\n]{6,200})[\"']"
    ),
    ("-secret", "-token", "-api-key", "-apikey"): _form(
        r"(?<![\w-])--?[\w-]{0,30}(?:secret|api-?key|token)(?:=|\s{1,4})OPTION"
    ),
}
_COMMANDS = {
    "mysql": r"\s-p(?:\"(?P<oa>[^\"\n]{4,200})\"|'(?P<ob>[^'\n]{4,200})'|(?P<od>[^\s\"'$-][^\s\"'$]{3,200}))",
    "mariadb": r"\s-p(?:\"(?P<oa>[^\"\n]{4,200})\"|'(?P<ob>[^'\n]{4,200})'|(?P<od>[^\s\"'$-][^\s\"'$]{3,200}))",
    "sshpass": r"\s-p\s{0,4}OPTION",
    "redis-cli": r"\s-a\s{1,4}OPTION",
    "docker login": r"\s-p\s{1,4}OPTION",
    "ldap": r"\s-w\s{1,4}OPTION",
    "unzip": r"\s-P\s{0,4}OPTION",
    "openssl": r"\bpass:(?P<od>[^\s\"'$]{4,200})",
    "curl": r"\s(?:-u|--user|--proxy-user|-U)[\s=]{0,4}[\"']?[^\s:\"'$]{1,60}:(?P<od>[^\s\"'$@/]{4,200})",
    "smbclient": r"\s-U\s{0,4}[\"']?[^\s%\"']{1,60}%(?P<od>[^\s\"'$]{4,200})",
    "htpasswd": r"\s-\w*b\w*\s+\S{1,200}\s+\S{1,60}\s+OPTION",
}
_COMMAND_FORMS = {word: _form(pattern) for word, pattern in _COMMANDS.items()}
_MAX_LINE = 2_000  # longer ones are minified or data, and each form would be tried all along them

_LABELS = frozenset(
    (  # noqa: SIM905 - a line for each word would be a hundred lines
        "required optional missing invalid incorrect hidden visible plaintext plain bcrypt scrypt argon string text "
        "varchar char keyring prompt strong weak secure insecure empty none null nil true false undefined unknown unset "
        "disabled enabled passwort kennwort contrasena contraseña senha wachtwoord salasana losenord lösenord haslo "
        "hasło parola heslo motdepasse confirm confirmation repeat again change changed reset forgot update remove "
        "delete cancel submit credentials expired correct match mismatch encrypted encoded hashed clear cleartext basic "
        "digest form input field label object array number integer boolean bytes binary file stdin stdout environment "
        "variable attribute property parameter argument option identifier literal password passphrase authentication "
        "authorization interactive something anything whatever nothing"
    ).split()
)
_PROSE = re.compile(
    r"\b(?:the|an?|your|my|our|their|this|that|is|are|was|be|been|must|should|may|can|cannot|not|no|or|of|for|with|in|on|at|by|"
    r"from|to|if|enter|please|password|passphrase|passwort|field|user|username|account|required|invalid|incorrect|wrong|"
    r"characters?|letters|digits|least|long|short|again|again\)|new|old|current|default|set|use|used|database|admin|login)\b",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"[a-z]+(?:[A-Z][a-z]+)+|[A-Za-z]+(?:[_-][A-Za-z]+)+|[A-Z][A-Z_]+|[a-z_]+\.[\w.]+|[\w.]+\(.*")
_TAIL = re.compile(r"[.:?…]$")


def chosen_passwords(text: str, lower: str) -> Iterator[Span]:
    """Where the passwords of a text stand; `lower` is it in small letters."""
    short = {lower.rfind("\n", 0, match.start()) + 1 for match in _SHORT_STEM.finditer(lower)}
    lines = {(start, _end_of_line(lower, start)) for start in short}
    for start, end in sorted(lines.union(_lines_with(_STEMS, lower))):  # sorted: a set has no order to rely on
        for form in (*_ON_A_LINE, *_BARE_ON_A_LINE, _ENVIRONMENT):
            for match in form.finditer(text[start:end]):
                yield from _spans(match, start)
    for stems, form in _SECRET_FORMS.items():
        for start, end in _lines_with(stems, lower):
            for match in form.finditer(text[start:end]):
                yield from (span for span in _spans(match, start) if any(map(str.isdigit, text[slice(*span)])))
    # From the command on: the option of another one before it says nothing.
    for word, form in _COMMAND_FORMS.items():
        at = lower.find(word)
        while at >= 0:
            end = _end_of_line(text, at)
            if end - at < _MAX_LINE:
                for match in form.finditer(text[at:end]):
                    yield from _spans(match, at)
            at = lower.find(word, end)


def _lines_with(stems: tuple[str, ...], lower: str) -> Iterator[Span]:
    """The lines with one of `stems`, but for very long ones."""
    places: set[int] = set()
    for stem in stems:
        at = lower.find(stem)
        while at >= 0:
            places.add(lower.rfind("\n", 0, at) + 1)
            at = lower.find(stem, _end_of_line(lower, at))
    for start in sorted(places):
        end = _end_of_line(lower, start)
        if end - start < _MAX_LINE:
            yield start, end


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    if end < 0:
        return len(text)
    return end


def _spans(match: re.Match[str], offset: int) -> Iterator[Span]:
    for name, value in match.groupdict().items():
        if value is not None and _may_be_chosen(value, is_bare=name == "od"):
            start, end = match.span(name)
            yield offset + start, offset + end


def _may_be_chosen(value: str, *, is_bare: bool) -> bool:
    """Whether someone may have chosen a value as a password; a bare one has a digit or a sign, or it may be a name.

    >>> [_may_be_chosen(value, is_bare=False) for value in ("kastanienbaum", "blue tulip 48!", "Your password", "user_name")]
    [True, True, False, False]
    """
    if STAND_IN.search(value) or len(set(value)) < 4 or is_code_like(value):
        return False
    has_digit = any(map(str.isdigit, value))
    signs = set(value) & set("!@#$%^&*+=~|")
    if " " in value.strip():
        # With blanks a value needs a digit or a sign, and one word of a sentence is chance.
        is_sentence = _TAIL.search(value) or len(_PROSE.findall(value)) > 1
        return (has_digit or bool(signs)) and not is_sentence and not _PROSE.match(value)
    if len(without_common_words(value)) < 2 and not signs:
        return False
    if has_digit or signs:
        return any(map(str.isalpha, value)) and not value.startswith(("--", "%", "&")) and len(value) >= 5
    is_word = value.isalpha() and len(value) >= 6 and value.lower() not in _LABELS
    return is_word and not _IDENTIFIER.fullmatch(value) and not is_bare
