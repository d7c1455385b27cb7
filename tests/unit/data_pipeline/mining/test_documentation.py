"""Which comments document the definition below them, and which speak of something else."""

import pytest

from ai_forge.data_pipeline.mining.docstrings import documentation
from ai_forge.data_pipeline.mining.parsing import parse

NOT_DOCUMENTATION = {
    "typedef": "/**\n * @typedef {Object} Point\n * @property {number} x\n */",
    "callback": "/** @callback Visit @param {Node} node */",
    "file": "/**\n * @file Reading of settings.\n * @module settings\n */",
    "doxygen": "/** \\file tree.h\n * Trees. */",
    "group": "/** @defgroup trees Trees and what is done with them @{ */",
    "end of group": "/** @} */",
    "copyright": "/* Copyright (c) 2021 The Authors. */",
    "licensed": "// Licensed under the terms of the file that lies beside this one.",
    "rights": "/** Everything here belongs to its authors.\n * All rights reserved. */",
    "spdx": "// SPDX-License-Identifier: BSD-3-Clause",
    "section": "// ---------- reading ----------",
    "box": "//========\n// writing\n//========",
    "region": "// #region Helpers",
    "declaration": "// int old(void);",
    "statements": "// x := read(1)\n// write(x)",
    "binding": "// const limit = 3",
    "shell": '# echo "$1"\n# done',
    "condition": "# if stale?\n#   drop(one)\n# end",
    "reminder": "// TODO: make this faster\n// FIXME later",
}
DOCUMENTATION = {
    "/** Reads the licence of a file and checks its copyright line. */": "Reads the licence of a file and checks its copyright line.",
    "// return the rows (sorted)": "return the rows (sorted)",
    "//------\n// Add up the rows of a table.\n//------": "Add up the rows of a table.",
    "// ----\n// helpers\n// ----\n// Adds two numbers.": "Adds two numbers.",
    "/**\n * Sends mail.\n * @license MIT License\n */": "Sends mail.\n@license MIT License",
    "/** Adds.\n * @example\n * add(1, 2);\n * add(3);\n */": "Adds.\n@example\nadd(1, 2);\nadd(3);",
    "// TODO: faster.\n// Adds up the rows of a table.": "TODO: faster.\nAdds up the rows of a table.",
}


@pytest.mark.parametrize("comment", NOT_DOCUMENTATION.values(), ids=NOT_DOCUMENTATION.keys())
def test_this_is_no_documentation(comment: str) -> None:
    assert documentation(comment, ["#"] if comment.startswith("#") else ["/**", "/*", "//"]) is None


@pytest.mark.parametrize("comment", DOCUMENTATION)
def test_this_is_documentation(comment: str) -> None:
    assert documentation(comment, ["/**", "//"]) == DOCUMENTATION[comment]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("rust", "//// four\nstruct S;\n"),
        ("rust", "/*** three ***/\nfn f() {}\n"),
        ("csharp", "//// four\nclass A {}\n"),
        ("cpp", "//////////\nint f() { return 1; }\n"),
        (
            "php",
            "<?php\n/** This file is part of X. For the full copyright and license information see the LICENSE file. */\nclass A {}\n",
        ),
        ("typescript", "/** @file a */\n\nexport function f() { return 1; }\n"),
    ],
)
def test_a_unit_below_such_a_comment_has_none_and_does_not_begin_there(language: str, text: str) -> None:
    result = parse(text.encode(), language)
    assert result is not None
    (unit,) = result.units
    assert unit.docstring is None
    assert unit.first_line == unit.code_line


def test_the_first_comment_of_a_ruby_class_is_its_methods() -> None:
    result = parse(b"class A\n  # Give one.\n  def f\n    1\n  end\nend\n", "ruby")
    assert result is not None
    assert [unit.docstring for unit in result.units] == [None, "Give one."]
