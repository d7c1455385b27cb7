"""The languages that can be mined: one table row and one tree-sitter query (`.scm`) each.

A query names what a grammar's nodes mean, so the miner itself knows no language. Its captures are:

* units: `@function @method @class @interface @type` (and `@mixin` for Ruby's modules) for the whole definition, with
  `@name`; where the definition is a binding (`const f = () => …`), `@value` for the function that is bound; `@receiver`
  for the type of a Go method; `@own_parameters` where the grammar has no `parameters` field on the definition;
* names around units: `@scope` (a namespace) and `@impl` (its functions are methods), with `@name`;
* inside units: `@call @raise @branch @yield @return @base @decorator @parameter` (in `@parameters`), and `@guard` with
  `@outcome` for a condition whose whole body is a raise or a return, and `@anonymous` for functions without a name;
* in files: `@imported` (the local name) with `@module` and `@original`, `@constant`, and `@opaque` for the text of
  strings and comments.

To add a language: write its `.scm`, add a row to `LANGUAGES`, depend on its grammar wheel. A wheel that is not
installed costs that language's files (counted), never the run.
"""

import importlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tree_sitter import Language, Query

from ai_forge.data_pipeline.languages import repairs
from ai_forge.data_pipeline.languages.draft import Repair
from ai_forge.data_pipeline.languages.macros import blank_macros
from ai_forge.data_pipeline.languages.preprocessor import flatten_conditionals, is_cpp

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
    docs: tuple[str, ...] = ("/**",)
    """Marks of the comments that document what stands below them; without one it is the first string of the body."""
    wrappers: tuple[str, ...] = ()
    """Node types around a definition that belong to it: decorators, `export`."""
    prefixes: tuple[str, ...] = ()
    """Node types that stand before a definition as its siblings and belong to it: Rust's attributes."""
    bodies: tuple[str, ...] = ()
    """Node types of a definition's body where the grammar has no field for it."""
    sigil: str = ""
    """What every variable's name starts with and no caller writes: PHP's `$`."""
    repairs: tuple[Repair, ...] = ()
    """Second tries for text that the grammar refuses; each is kept where it helps."""
    suspect: re.Pattern[bytes] | None = None
    """Text that the grammar takes and misreads, so that the repairs are tried all the same."""
    macros: re.Pattern[str] | None = None
    """Names that are macros where a function would have a type."""
    implicit_parameters: tuple[str, ...] = ()
    """First parameters of a method that callers do not pass."""


_TYPESCRIPT_REPAIRS: tuple[Repair, ...] = (
    repairs.blank_variance,
    repairs.reword_accessors,
    repairs.blank_template_types,
    repairs.reword_backticks,
    repairs.close_members,
)
_MACRO_NAME = re.compile(r"[A-Z][A-Z0-9_]{2,}")
_MACRO_SIGNS = re.compile(
    rb"(?<![\w)])(?!else\b|do\b)[A-Za-z_]\w*\s+(?:if|for|while|switch)\s*\(|"  # a macro without semicolon: a function called `if`
    rb"\b(?:class|struct|union|enum)\s+\w+\s+\w+\s*(?:final\s*)?[:{]",
    re.MULTILINE,
)

LANGUAGES: dict[str, LanguageSpec] = {
    row.name: row
    for row in (
        LanguageSpec(
            "python",
            (".py", ".pyi"),
            "tree_sitter_python",
            "python.scm",
            docs=(),
            wrappers=("decorated_definition",),
            repairs=(
                repairs.blank_comments_below_decorators,
                repairs.blank_type_defaults,
                repairs.join_bracketed_lines,
            ),
            implicit_parameters=("self", "cls", "mcs", "metacls"),
        ),
        LanguageSpec(
            "javascript",
            (".js", ".jsx", ".mjs", ".cjs"),
            "tree_sitter_javascript",
            "javascript.scm",
            wrappers=("export_statement",),
            repairs=(repairs.reword_accessors,),
        ),
        LanguageSpec(
            "typescript",
            (".ts", ".mts", ".cts"),
            "tree_sitter_typescript:language_typescript",
            "typescript.scm",
            wrappers=("export_statement", "ambient_declaration"),
            prefixes=("decorator",),
            repairs=_TYPESCRIPT_REPAIRS,
            implicit_parameters=("this",),
        ),
        LanguageSpec(
            "tsx",
            (".tsx",),
            "tree_sitter_typescript:language_tsx",
            "typescript.scm",
            wrappers=("export_statement", "ambient_declaration"),
            prefixes=("decorator",),
            repairs=_TYPESCRIPT_REPAIRS,
            implicit_parameters=("this",),
        ),
        LanguageSpec("go", (".go",), "tree_sitter_go", "go.scm", docs=("//", "/*")),
        LanguageSpec("java", (".java",), "tree_sitter_java", "java.scm", repairs=(repairs.blank_record_scopes,)),
        LanguageSpec(
            "rust", (".rs",), "tree_sitter_rust", "rust.scm", docs=("///", "/**", "//!"), prefixes=("attribute_item",)
        ),
        LanguageSpec(
            "c",
            (".c", ".h"),
            "tree_sitter_c",
            "c.scm",
            docs=("//", "/*"),
            bodies=("preproc_arg",),
            # Conditionals first: macros are told by the words around them, which are another branch's before.
            repairs=(repairs.blank_old_parameters, repairs.blank_c_gaps, flatten_conditionals, blank_macros),
            suspect=_MACRO_SIGNS,
            macros=_MACRO_NAME,
        ),
        LanguageSpec(
            "cpp",
            (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx"),
            "tree_sitter_cpp",
            "cpp.scm",
            docs=("//", "/*"),
            wrappers=("template_declaration",),
            bodies=("preproc_arg",),
            repairs=(
                repairs.blank_c_gaps,
                repairs.blank_new_words,
                flatten_conditionals,
                blank_macros,
            ),
            suspect=_MACRO_SIGNS,
            macros=_MACRO_NAME,
        ),
        LanguageSpec(
            "csharp",
            (".cs",),
            "tree_sitter_c_sharp",
            "c_sharp.scm",
            docs=("///", "/**"),
            repairs=(repairs.blank_new_csharp, flatten_conditionals),
        ),
        LanguageSpec(
            "ruby",
            (".rb", ".rake"),
            "tree_sitter_ruby",
            "ruby.scm",
            docs=("#",),
            repairs=(repairs.bracket_endless_commands,),
        ),
        LanguageSpec(
            "php", (".php",), "tree_sitter_php:language_php", "php.scm", sigil="$", implicit_parameters=("this",)
        ),
        LanguageSpec(
            "kotlin",
            (".kt", ".kts"),
            "tree_sitter_kotlin",
            "kotlin.scm",
            bodies=("function_body", "class_body", "enum_class_body", "block"),
            suspect=re.compile(rb"^[ \t]*context\([^\n]*\)[ \t]*$", re.MULTILINE),
            repairs=(repairs.reword_new_kotlin, repairs.reword_soft_keywords, repairs.close_last_members),
        ),
        LanguageSpec("scala", (".scala", ".sc"), "tree_sitter_scala", "scala.scm"),
        LanguageSpec(
            "bash", (".sh", ".bash"), "tree_sitter_bash", "bash.scm", docs=("#",), repairs=(repairs.blank_heredocs,)
        ),
    )
}

_BY_EXTENSION = {extension: row.name for row in LANGUAGES.values() for extension in row.extensions}


def language_of(path: str, content: bytes | None = None) -> str | None:
    """The language of a file by its extension, or None; which of two share `.h` is told by its content, where given.

    >>> language_of("src/a.tsx"), language_of("README"), language_of("a.h"), language_of("a.h", b"namespace a {}")
    ('tsx', None, 'c', 'cpp')
    """
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    if not stem:  # `.py` is a hidden file's name
        return None
    language = _BY_EXTENSION.get(f"{dot}{extension}".lower())
    if language == "c" and content is not None and extension in ("h", "H") and is_cpp(content):
        return "cpp"
    return language


@cache
def load(name: str) -> tuple[Language, Query] | None:
    """Grammar and query of a language, or None where its grammar wheel is not installed."""
    row = LANGUAGES[name]
    module_name, _, function = row.grammar.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError:  # its files are counted as `no_grammar_…`
        return None
    grammar = Language(getattr(module, function or "language")())
    return grammar, Query(grammar, files(__package__).joinpath(row.query).read_text(encoding="utf-8"))
