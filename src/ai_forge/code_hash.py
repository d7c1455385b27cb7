"""What a piece of code is made of: a hash over a module and every module of AI Forge that it imports, however far.

A cache whose values are made by code is keyed by that hash, so a change of the code makes them anew, and a change
elsewhere does not. Imports are read off the text; a package's own `__init__` counts where something is imported from it
by name, not where only one of its modules is. Files that lie beside a package's code (queries) count with it, templates
with the module that loads them.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).parent
_IMPORT = re.compile(r"^[ \t]*(?:from ai_forge(\S*) import (\([^)]*\)|.*)|import ai_forge(\S*))", re.MULTILINE)
_TEMPLATES = re.compile(r"PackageLoader\(\"ai_forge\.([\w.]+)\"")
_NAME = re.compile(r"(\w+)(?: as \w+)?")


@cache
def code_hash(*modules: str) -> str:
    """Thirty-two hex digits over `modules` ("ai_forge.events", …), all that they import and what lies beside it."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files_behind(*modules):
        digest.update(f"{path.relative_to(_SOURCE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def files_behind(*modules: str) -> tuple[Path, ...]:
    """The files that `code_hash` reads, sorted."""
    # Each file once: modules may import each other, here or below `TYPE_CHECKING`.
    waiting, found = [_file_of(module) for module in modules], set[Path]()
    while waiting:
        path = waiting.pop()
        if path is None or path in found:
            continue
        found.add(path)
        if path.name == "__init__.py":  # queries of grammars, rows of data: what is read by name and never imported
            found.update(p for p in path.parent.iterdir() if p.is_file() and p.suffix != ".py")
        text = path.read_text(encoding="utf-8")
        for package in _TEMPLATES.findall(text):
            found.update(_SOURCE.joinpath(*package.split("."), "templates").iterdir())
        waiting += [_file_of(name) for name in _imported_by(text)]
    return tuple(sorted(found))


def _imported_by(text: str) -> list[str]:
    """Full names of what a module's text imports from AI Forge; of `from package import module`, the module."""
    # By pattern: nothing is imported for it, and what only some machines can import (mlx) counts on all of them.
    names = []
    for package, listed, module in _IMPORT.findall(text):
        if not listed:
            names.append(f"ai_forge{module}")
            continue
        for name in _NAME.findall(listed.split("#")[0]):
            inner = f"ai_forge{package}.{name}"
            names.append(inner if _file_of(inner) else f"ai_forge{package}")
    return names


def _file_of(module: str) -> Path | None:
    # A name that is neither is one that a package exports: its `__init__` counts then.
    place = _SOURCE.joinpath(*module.split(".")[1:])
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
