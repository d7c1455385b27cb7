"""Units of C and C++ files as clang parses them, without a compile database: `python clang_units.py FOLDER…`.

Prints one JSON line a file: path and units (kind, name, first line, last line, documented) of what it defines itself.
Every folder below the given ones that holds a header is searched for includes; what stands in branches that the
preprocessor leaves out is not there. Needs the package `libclang`.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from clang import cindex  # type: ignore[import-not-found]

_K = cindex.CursorKind
_FUNCTIONS = {
    _K.FUNCTION_DECL, _K.CXX_METHOD, _K.CONSTRUCTOR, _K.DESTRUCTOR, _K.CONVERSION_FUNCTION, _K.FUNCTION_TEMPLATE,
}  # fmt: skip
_TYPES = {
    _K.STRUCT_DECL, _K.UNION_DECL, _K.CLASS_DECL, _K.ENUM_DECL, _K.CLASS_TEMPLATE,
    _K.CLASS_TEMPLATE_PARTIAL_SPECIALIZATION,
}  # fmt: skip
# libclang lets a member of a template begin at the last of its `template <…>`.
_TEMPLATE_HEADS = re.compile(rb"(?:\btemplate\s*<[^;{}]*>\s*)+\Z")
_WORD = re.compile(r"~?\w*")
_INSIDE = {_K.NAMESPACE, _K.LINKAGE_SPEC, _K.UNEXPOSED_DECL, *_TYPES}


def units_of(path: Path, folders: list[Path], is_cpp: bool) -> list[list[Any]]:
    """What clang sees in one file."""
    language = ["-x", "c++", "-std=c++20"] if is_cpp else ["-x", "c", "-std=gnu11"]
    arguments = [*language, "-ferror-limit=0", *(f"-I{folder}" for folder in folders), *_system_folders()]
    options = cindex.TranslationUnit.PARSE_INCOMPLETE | 0x200  # keep going after fatal errors
    unit = cindex.Index.create().parse(str(path), arguments, options=options)
    text = path.read_bytes()
    return [one for cursor in _defined(unit.cursor, str(path)) if (one := _unit(cursor, text)) is not None]


@cache
def _system_folders() -> list[str]:
    """The compiler's own headers (`stddef.h`), which the wheel of libclang lacks, and Python's."""
    folders = [sysconfig.get_path("include")]
    if shutil.which("gcc"):
        asked = subprocess.run(["gcc", "-print-file-name=include"], capture_output=True, text=True, check=True)
        folders.append(asked.stdout.strip())
    return [f"-idirafter{folder}" for folder in folders]


def _defined(cursor: Any, path: str) -> Iterator[Any]:
    waiting = list(cursor.get_children())
    while waiting:
        child = waiting.pop()
        if child.location.file is None or child.location.file.name != path:
            continue
        yield child
        if child.kind in _INSIDE:
            waiting.extend(child.get_children())


def _unit(cursor: Any, text: bytes) -> list[Any] | None:
    kind = "function" if cursor.kind in _FUNCTIONS else "type" if cursor.kind in _TYPES else None
    if kind is None or not cursor.is_definition():
        return None
    name = cursor.spelling.partition("<")[0] if not cursor.spelling.startswith("operator") else cursor.spelling
    if not name or ("(" in name and not name.startswith("operator")):
        return None  # it has none
    if not text.startswith(_WORD.match(name)[0].encode(), cursor.location.offset):  # type: ignore[index]
        return None  # what a macro expands to is written nowhere
    if cursor.kind == _K.FUNCTION_DECL and cursor.extent.start.offset == cursor.location.offset:
        return None  # it has no type: a macro of a header that is not here, `TEST(Suite, name) { … }`
    if cursor.kind == _K.CONVERSION_FUNCTION or name.startswith("operator "):
        name = "operator"  # libclang spells the type by its own names
    extent = cursor.extent
    # `= default` has a body too once it is used, though nothing of it is written.
    if text[extent.end.offset - 1 : extent.end.offset] != b"}":
        return None
    start = extent.start.offset
    if (heads := _TEMPLATE_HEADS.search(text, max(0, start - 1000), start)) is not None:
        start = heads.start()
    return [kind, name, text.count(b"\n", 0, start) + 1, extent.end.line, None]


def main() -> None:
    """Paths come on standard input, one a line, each after `c` or `c++` and a tab; folders to search as arguments."""
    given = [Path(folder) for folder in sys.argv[1:]]
    folders = sorted(
        {path.parent for folder in given for pattern in ("*.h", "*.hpp") for path in folder.rglob(pattern)}
    )
    for line in sys.stdin.read().splitlines():
        language, _, path = line.partition("\t")
        print(json.dumps({"path": path, "units": units_of(Path(path), folders, language == "c++")}), flush=True)


if __name__ == "__main__":
    main()
