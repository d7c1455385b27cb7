"""The languages that can be mined: one table row and one tree-sitter query (`.scm`) each.

A query names what a grammar's nodes mean, so the miner itself knows no language. Its captures are:

* units: `@function @method @class @interface @type` for the whole definition, with `@name` and, where the definition is
  a binding (`const f = () => …`), `@value` for the function that is bound and `@receiver` for a Go method's type;
* inside units: `@call @raise @branch @yield @return @base @decorator @parameter` (in `@parameters`), and `@guard` with
  `@outcome` for a condition whose whole body is a raise or a return, and `@anonymous` for functions without a name;
* in files: `@imported` (the local name) with `@module` and `@original`, `@constant`, and `@opaque` for the text of
  strings and comments.

To add a language: write its `.scm`, add a row to `LANGUAGES`, depend on its grammar wheel. A wheel that is not
installed costs that language's files (counted), never the run.
"""

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Literal

from tree_sitter import Language, Query

__all__ = ["LANGUAGES", "LanguageSpec", "language_of", "load"]


@dataclass(frozen=True)
class LanguageSpec:
    """One row: how a language is recognised, parsed and documented."""

    name: str
    extensions: tuple[str, ...]
    grammar: str
    """Module of the grammar wheel, and after a colon its function when that is not `language`."""
    query: str
    """File of this folder."""
    docs: Literal["docstring", "block_comment", "line_comments"]
    """Where documentation stands: first string of the body, a `/**` comment above, a run of `//` lines above."""
    wrappers: tuple[str, ...] = ()
    """Node types around a definition that belong to it: decorators, `export`."""
    implicit_parameters: tuple[str, ...] = ()
    """First parameters of a method that callers do not pass."""


LANGUAGES: dict[str, LanguageSpec] = {
    row.name: row
    for row in (
        LanguageSpec(
            "python",
            (".py", ".pyi"),
            "tree_sitter_python",
            "python.scm",
            "docstring",
            wrappers=("decorated_definition",),
            implicit_parameters=("self", "cls", "mcs", "metacls"),
        ),
        LanguageSpec(
            "javascript",
            (".js", ".jsx", ".mjs", ".cjs"),
            "tree_sitter_javascript",
            "javascript.scm",
            "block_comment",
            wrappers=("export_statement",),
        ),
        LanguageSpec(
            "typescript",
            (".ts", ".mts", ".cts"),
            "tree_sitter_typescript:language_typescript",
            "typescript.scm",
            "block_comment",
            wrappers=("export_statement", "ambient_declaration"),
            implicit_parameters=("this",),
        ),
        LanguageSpec(
            "tsx",
            (".tsx",),
            "tree_sitter_typescript:language_tsx",
            "typescript.scm",
            "block_comment",
            wrappers=("export_statement", "ambient_declaration"),
            implicit_parameters=("this",),
        ),
        LanguageSpec("go", (".go",), "tree_sitter_go", "go.scm", "line_comments"),
        LanguageSpec("java", (".java",), "tree_sitter_java", "java.scm", "block_comment"),
    )
}

_BY_EXTENSION = {extension: row.name for row in LANGUAGES.values() for extension in row.extensions}


def language_of(path: str) -> str | None:
    """The language of a file by its extension, or None.

    >>> language_of("src/a.tsx"), language_of("README")
    ('tsx', None)
    """
    return _BY_EXTENSION.get(PurePosixPath(path).suffix.lower())


@cache
def load(name: str) -> tuple[Language, Query] | None:
    """Grammar and query of a language, or None where its grammar wheel is not installed."""
    row = LANGUAGES[name]
    module_name, _, function = row.grammar.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        return None
    grammar = Language(getattr(module, function or "language")())
    return grammar, Query(grammar, files(__package__).joinpath(row.query).read_text(encoding="utf-8"))
