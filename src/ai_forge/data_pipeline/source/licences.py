"""Under which licence a file stands, and whether it may be learned from.

A file's licence is the SPDX tag or the licence notice in its head; else that of the nearest licence file up the folders;
else unknown. The repository's own licence is that of its root folder. The rule, in this order:

1. own licence, or unknown: allowed (the code is the team's to use);
2. with `miner.allow_licence`: allowed only if the list satisfies the expression;
3. without: copyleft licences are refused, the others allowed.

So the default mines everything of a repository under its own licence, copyleft or not, and leaves out files that came from
elsewhere under terms that a trained model might not meet. This is a filter, not legal advice. Licence texts are recognised
by their telling sentences; a text that is not known stays unknown.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

__all__ = ["is_copyleft", "is_licence_file", "licence_allowed", "licence_of", "licence_of_text", "nearest_licence"]

_TAG = re.compile(
    r"^[\s#/*;%!<\"'(-]{0,40}(?:@license\s+)?SPDX-License-Identifier:[ \t]*(?P<v>[A-Za-z0-9.+\-() \t]{2,120})",
    re.MULTILINE,
)
_FILE_NAME = re.compile(r"^(?:LICEN[CS]E|COPYING|UNLICENSE)(?:[.-][\w.-]+)?$", re.IGNORECASE)
_NOT_TEXT = re.compile(r"\.(?:py|pyi|js|ts|tsx|go|java|rs|c|h|rb|php|kt|scala|sh|json|ya?ml|toml)$", re.IGNORECASE)
_COPYLEFT = re.compile(
    r"^(?:A?GPL|LGPL|MPL|EPL|EUPL|CDDL|CPL|CECILL(?!-B)|OSL|SSPL|QPL|RPL|MS-RL|NPL|SISSL|APSL|CC-BY(?:-NC)?-SA|CC-BY-NC|Sleepycat)\b",
    re.IGNORECASE,
)
# In this order where two begin at the same place: a longer name stands above the one that it holds.
_TELLING: tuple[tuple[str, str], ...] = (
    ("AGPL-3.0", r"GNU AFFERO GENERAL PUBLIC LICENSE"),
    (
        "LGPL-3.0",
        r"GNU LESSER GENERAL PUBLIC LICENSE.{0,40}Version 3|GNU Lesser General Public License.{0,80}version 3",
    ),
    ("LGPL-2.1", r"GNU (?:LESSER|LIBRARY) GENERAL PUBLIC LICENSE"),
    ("GPL-3.0", r"GNU GENERAL PUBLIC LICENSE.{0,120}Version 3"),
    ("GPL-2.0", r"GNU GENERAL PUBLIC LICENSE"),
    ("MPL-2.0", r"Mozilla Public License,? v(?:ersion|\.) ?2\.0|MPL,? v(?:ersion|\.) ?2\.0"),
    ("EPL-2.0", r"Eclipse Public License.{0,20}2\.0"),
    ("EPL-1.0", r"Eclipse Public License"),
    ("EUPL-1.2", r"European Union Public Licen[cs]e"),
    ("CDDL-1.0", r"COMMON DEVELOPMENT AND DISTRIBUTION LICENSE"),
    ("SSPL-1.0", r"Server Side Public License"),
    ("BUSL-1.1", r"Business Source License 1\.1"),
    ("CC-BY-SA-4.0", r"(?:Attribution-ShareAlike|CC[- ]BY[- ]SA)"),
    ("CC-BY-NC-4.0", r"Attribution-NonCommercial|CC[- ]BY[- ]NC"),
    ("CC-BY-4.0", r"Creative Commons Attribution 4\.0|CC[- ]BY[- ]4\.0"),
    ("CC0-1.0", r"CC0 1\.0"),
    ("Apache-2.0", r"Apache License,?\s+Version 2\.0"),
    ("BSL-1.0", r"Boost Software License"),
    ("PSF-2.0", r"PYTHON SOFTWARE FOUNDATION LICENSE"),
    ("Unlicense", r"This is free and unencumbered software released into the public domain"),
    (
        "ISC",
        r"Permission to use, copy, modify, and(?:/or)? distribute this software for any purpose with or without fee",
    ),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
    (
        "BSD-3-Clause",
        r"Redistribution and use in source and binary forms.*(?:Neither the name|names? of its contributors)",
    ),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
    ("Zlib", r"This software is provided 'as-is', without any express or implied warranty"),
)
_TELLING_COMPILED = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _TELLING)
_NOTICE = re.compile(r"licen[cs]e|redistribution|permission|copyright|unencumbered", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|;|--|<!--|\"\"\"|'''|$)")
_HEAD = 4096  # bytes
# `(A OR B) AND (C OR D) AND …` has twice as many alternatives with each bracket.
_MAX_WORDS, _MAX_ALTERNATIVES = 40, 64


def is_licence_file(path: str) -> bool:
    """Whether a file is a licence's text by its name.

    >>> is_licence_file("vendor/x/LICENSE.txt"), is_licence_file("COPYING"), is_licence_file("src/license.py")
    (True, True, False)
    """
    name = path.rpartition("/")[2]
    return bool(_FILE_NAME.match(name)) and not _NOT_TEXT.search(name)


def licence_of_text(text: str) -> str | None:
    """The SPDX name of a licence text or notice, by its telling sentences, the first of several; versions are plain (`GPL-3.0`).

    >>> licence_of_text("Licensed under the Apache License, Version 2.0 (the ...)")
    'Apache-2.0'
    """
    tag = _TAG.search(text)
    if tag is not None:
        return _tidy(tag["v"])
    flat = re.sub(r"\s+", " ", re.sub(r"^[\s#/*;%]+", " ", text[:20_000], flags=re.MULTILINE))
    matches = [(name, pattern.search(flat)) for name, pattern in _TELLING_COMPILED]
    found = [(match.start(), name) for name, match in matches if match is not None]
    if not found:
        return None
    # The first in the text: licences name others further down, as the GPL does the LGPL.
    _, name = min(found, key=lambda place_and_name: place_and_name[0])
    return name


def licence_of(content: bytes) -> str | None:
    """The licence that a source file names in its first 4 kB: an SPDX tag, or a notice in the comment that opens it.

    >>> licence_of(b"// SPDX-License-Identifier: (MIT OR GPL-2.0-only)")
    '(MIT OR GPL-2.0-only)'
    """
    head = content[:_HEAD].decode("utf-8", "replace")
    tag = _TAG.search(head)
    if tag is not None:
        return _tidy(tag["v"])
    opening = _opening_comment(head)
    if not _NOTICE.search(opening):  # two dozen patterns are only tried where it speaks of a licence
        return None
    return licence_of_text(opening)


def _tidy(expression: str) -> str:
    words = expression.replace("(", " ( ").replace(")", " ) ").split()
    kept: list[str] = []
    for word in words:  # an expression ends where two names stand side by side
        is_operator = word in ("(", ")", "AND", "OR", "WITH")
        if kept and not is_operator and kept[-1] not in ("(", "AND", "OR", "WITH"):
            break
        kept.append(word)
    return " ".join(kept).replace("( ", "(").replace(" )", ")").rstrip("-.")


def _opening_comment(head: str) -> str:
    lines: list[str] = []
    in_block: str | None = None
    for line in head.split("\n"):
        if in_block is not None:
            lines.append(line)
            if in_block in line:
                in_block = None
            continue
        if not _COMMENT.match(line) and not line.startswith("#!"):  # code: what stands below may be a text in a string
            break
        lines.append(line)
        for opens, closes in (("/*", "*/"), ('"""', '"""'), ("'''", "'''")):
            _, found, rest = line.partition(opens)
            if found and closes not in rest:
                in_block = closes
    return "\n".join(lines)


def nearest_licence(path: str, licences: Mapping[str, str]) -> str | None:
    """The licence of the nearest folder above `path` that has one; `licences` maps folders ("" is the root) to licences.

    >>> nearest_licence("lib/a/b.c", {"": "MIT", "lib": "GPL-3.0"}), nearest_licence("x.py", {})
    ('GPL-3.0', None)
    """
    folder = path
    while folder:
        folder = folder.rpartition("/")[0]
        if folder in licences:
            return licences[folder]
    return None


def is_copyleft(licence: str) -> bool:
    """Whether a licence asks that what derives from it is given under the same terms (or bars commercial use).

    >>> is_copyleft("LGPL-2.1-or-later"), is_copyleft("BSD-3-Clause")
    (True, False)
    """
    return bool(_COPYLEFT.match(licence))


def _family(licence: str) -> str:
    """A licence without version and suffix: `GPL-2.0-or-later` is of the same hand as `GPL-3.0`."""
    return re.sub(r"[-+ ]?(?:v?\d[\d.]*)?(?:-only|-or-later|\+)?$", "", licence.lower())


def licence_allowed(licence: str | None, own: str | None, allow: Sequence[str] = ()) -> bool:
    """Whether code under `licence` (an SPDX expression) may be used in a repository under `own`.

    `allow` holds names, `*` stands for any characters: `BSD-*`.

    >>> licence_allowed("GPL-3.0-only", "MIT"), licence_allowed("MIT OR GPL-3.0-only", "Apache-2.0")
    (False, True)
    >>> licence_allowed("GPL-3.0-or-later", "GPL-3.0"), licence_allowed("Zlib", "MIT", ["BSD-*"])
    (True, False)
    """
    if licence is None or licence == own:
        return True
    # By family: a repository under GPL-3.0 holds files that say `GPL-3.0-or-later`.
    owned = {_family(name) for name in re.findall(r"[\w.+-]+", own or "") if name not in ("AND", "OR", "WITH")}

    def permitted(name: str) -> bool:
        if _family(name) in owned:
            return True
        if allow:
            return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in allow)
        return not is_copyleft(name)

    return any(all(map(permitted, names)) for names in _alternatives(re.findall(r"[()]|[\w.+-]+", licence)))


def _alternatives(words: list[str]) -> list[list[str]]:
    """An expression as the lists of licences of which one must be permitted whole; `WITH` eases the name before it.

    >>> _alternatives(["MIT", "AND", "(", "ISC", "OR", "GPL-2.0", "WITH", "Classpath", ")"])
    [['MIT', 'ISC'], ['MIT', 'GPL-2.0']]
    """

    def either() -> list[list[str]]:
        found = both()
        while words and words[0] == "OR":
            words.pop(0)
            found = found + both()
        return found

    def both() -> list[list[str]]:
        found = one()
        while words and words[0] == "AND":
            words.pop(0)
            right = one()
            found = [a + b for a in found for b in right][:_MAX_ALTERNATIVES]
        return found

    def one() -> list[list[str]]:
        word = "".join(words[:1])
        del words[:1]
        found = [[word]]
        if word == "(":
            found = either()
            del words[:1]
        if words and words[0] == "WITH":
            del words[:2]  # an exception only eases what it stands with
        return found

    words = words[:_MAX_WORDS]
    return either()
