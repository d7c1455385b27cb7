"""Licences of files and folders, and which of them may be mined."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline import mine_repository, read_repository
from ai_forge.data_pipeline.miner import main
from ai_forge.data_pipeline.source.licences import (
    is_copyleft,
    is_licence_file,
    licence_allowed,
    licence_of,
    licence_of_text,
    nearest_licence,
)

ROOT = Path(__file__).parents[4]
NOTICES = {
    "MIT": "Permission is hereby granted, free of charge, to any person obtaining a copy of this software",
    "Apache-2.0": "Licensed under the Apache License, Version 2.0 (the License)",
    "BSD-3-Clause": "Redistribution and use in source and binary forms ... Neither the name of the owner nor",
    "BSD-2-Clause": "Redistribution and use in source and binary forms, with or without modification",
    "GPL-3.0": "under the terms of the GNU General Public License as published by the FSF, either version 3 of the licence",
    "GPL-2.0": "under the terms of the GNU General Public License as published by the FSF, version 2 of the licence",
    "LGPL-2.1": "under the terms of the GNU Lesser General Public License as published by the FSF; version 2.1",
    "AGPL-3.0": "GNU AFFERO GENERAL PUBLIC LICENSE Version 3, 19 November 2007. See the GNU General Public License",
    "MPL-2.0": "This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0. See GNU GPL",
    "Unlicense": "This is free and unencumbered software released into the public domain.",
}


def function(name: str, head: str = "") -> str:
    return (
        f'{head}def {name}(values, limit):\n    """Count the values that lie under the limit of {name}."""\n'
        "    return sum(1 for value in values if value < limit)\n"
    )


def test_this_repository_is_under_apache() -> None:
    assert licence_of_text((ROOT / "LICENSE").read_text()) == "Apache-2.0"


@pytest.mark.parametrize(("licence", "notice"), NOTICES.items())
def test_notices_are_recognised_in_any_comment(licence: str, notice: str) -> None:
    words = notice.split()
    lines = [" ".join(words[i : i + 6]) for i in range(0, len(words), 6)]
    assert (
        licence_of(("#!/bin/sh\n# Copyright\n" + "".join(f"# {line}\n" for line in lines) + "x=1\n").encode())
        == licence
    )
    assert licence_of(("/*\n" + "".join(f" * {line}\n" for line in lines) + " */\nint x;\n").encode()) == licence
    assert licence_of(("".join(f"// {line}\n" for line in lines) + "var x;\n").encode()) == licence
    assert licence_of(('"""Licence:\n' + "\n".join(lines) + '\n"""\nx = 1\n').encode()) == licence
    assert licence_of(f'x = 1\ny = "{notice}"\n'.encode()) is None, "a string is no notice"


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("# SPDX-License-Identifier: MIT", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */", "GPL-2.0-only WITH Linux-syscall-note"),
        ("// SPDX-License-Identifier: (MIT OR Apache-2.0) AND BSD-3-Clause", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
        ("<!-- SPDX-License-Identifier: LGPL-2.1+ -->", "LGPL-2.1+"),
        ("# SPDX-License-Identifier: MIT and more words", "MIT"),
        ("x = 'SPDX-License-Identifier: MIT'", None),
        ("x = 1", None),
    ],
)
def test_tags_count_in_comments_only(head: str, licence: str | None) -> None:
    assert licence_of(f"#!/usr/bin/env python\n{head}\nimport os\n".encode()) == licence


@pytest.mark.parametrize(
    ("licence", "own", "allow", "expected"),
    [
        (None, "MIT", (), True),
        ("GPL-3.0", "GPL-3.0", (), True),
        ("GPL-2.0-or-later", "GPL-3.0-only", (), True),
        ("LGPL-2.1", "GPL-3.0", (), False),
        ("GPL-3.0", None, (), False),
        ("MPL-2.0", "MIT", (), False),
        ("MPL-2.0", "MIT", ("mpl-2.0",), True),
        ("BSD-3-Clause", "MIT", (), True),
        ("BSD-3-Clause", "MIT", ("BSD-*",), True),
        ("Apache-2.0", "MIT", ("BSD-*",), False),
        ("MIT", "MIT", ("BSD-*",), True),
        ("GPL-2.0-only OR BSD-3-Clause", "MIT", (), True),
        ("GPL-2.0-only AND BSD-3-Clause", "MIT", (), False),
        ("(GPL-2.0-only OR MIT) AND (ISC OR AGPL-3.0)", "MIT", (), True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "MIT", (), False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "MIT", ("GPL-2.0-only",), True),
        ("((((", "MIT", (), True),
        ("AND OR", "MIT", (), True),
    ],
)
def test_what_is_allowed(licence: str | None, own: str | None, allow: tuple[str, ...], expected: bool) -> None:
    assert licence_allowed(licence, own, allow) is expected


def test_copyleft_is_told_from_permissive() -> None:
    assert all(
        map(is_copyleft, ("GPL-2.0", "AGPL-3.0-only", "LGPL-3.0+", "MPL-2.0", "EPL-2.0", "CC-BY-SA-4.0", "SSPL-1.0"))
    )
    assert not any(
        map(is_copyleft, ("MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "Zlib", "PSF-2.0", "CC0-1.0", "CC-BY-4.0"))
    )


def test_licence_files_and_the_nearest_one() -> None:
    assert all(map(is_licence_file, ("LICENSE", "a/LICENCE.md", "COPYING.LESSER", "license-mit", "UNLICENSE")))
    assert not any(map(is_licence_file, ("licences.py", "LICENSE.py", "licenses", "my_license", "COPYING.js")))
    assert nearest_licence("a/b/c.py", {"": "MIT", "a": "ISC", "a/b/c": "GPL-3.0"}) == "ISC"


def test_files_from_elsewhere_are_left_out_counted_and_can_be_allowed(
    make_repository: Callable[[dict[str, str]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(
        {
            "LICENSE": NOTICES["MIT"],
            "own.py": function("own"),
            "tagged.py": function("tagged", "# SPDX-License-Identifier: GPL-3.0-or-later\n"),
            "copied/COPYING": NOTICES["LGPL-2.1"],
            "copied/deep/lib.py": function("copied"),
            "copied/ours.py": function("ours", "# SPDX-License-Identifier: MIT\n"),
            "friendly.py": function("friendly", "# SPDX-License-Identifier: ISC\n"),
        }
    )
    repository = read_repository(root)

    def mined(*allow: str) -> dict[str, str | None]:
        result = mine_repository(repository, MinerSettings(allow_licence=allow))
        assert result.skipped["licence"] == 5 - len(result.documents)
        return {block.name: block.metadata.licence for block in result.documents}

    assert mined() == {"own": "MIT", "ours": "MIT", "friendly": "ISC"}
    assert mined("LGPL-*", "GPL-3.0-or-later") == {
        "own": "MIT",
        "ours": "MIT",
        "copied": "LGPL-2.1",
        "tagged": "GPL-3.0-or-later",
    }
    assert mined("ISC", "GPL-*", "LGPL-2.1").keys() == {"own", "ours", "friendly", "tagged", "copied"}
    assert main([str(root), "--allow-licence", "ISC", "--allow-licence", "GPL-*"]) == 0
    assert capsys.readouterr().out.count("\n") == 4
