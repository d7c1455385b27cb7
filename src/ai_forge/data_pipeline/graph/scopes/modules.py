"""Which file of a repository an import names: Python's packages and the paths of the JavaScript family.

Python: relative imports by folder; absolute ones by the longest tail of a path that begins outside any package, nearest
to the importing file first. JavaScript: relative paths with the usual endings and `index` files, and `@/` or `~/` for a
`src` folder. Search paths, `tsconfig` aliases and installed packages are not read: what is not found is outside.
"""

import posixpath
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

__all__ = ["Modules"]

_ENDINGS = ("", ".ts", ".tsx", ".d.ts", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs")
_WRITTEN_AS = {".js": (".ts", ".tsx"), ".mjs": (".mts",), ".cjs": (".cts",), ".jsx": (".tsx",)}
_SOURCE_FOLDERS = ("", "src/", "app/", "lib/")
PYTHON = (".py", ".pyi")


class Modules:
    """The files of a repository as modules."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._found: dict[tuple[str, str], str | None] = {}
        self._packages = {posixpath.dirname(p) for p in self._paths if posixpath.basename(p).startswith("__init__.py")}
        self._folders = {str(f) for p in self._paths for f in PurePosixPath(p).parents}
        self._by_tail: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for path in sorted(self._paths):
            if path.endswith(PYTHON):
                pure = PurePosixPath(path)
                parts = pure.parent.parts if pure.stem == "__init__" else (*pure.parent.parts, pure.stem)
                if parts:
                    self._by_tail[parts[-1]].append(parts)

    def find(self, module: str, importer: str) -> str | None:
        """The file (or folder without `__init__.py`) that `module` means in the file `importer`; None if outside."""
        key = (module, importer)
        if key not in self._found:
            is_python = importer.endswith(PYTHON)
            self._found[key] = self._python(module, importer) if is_python else self._javascript(module, importer)
        return self._found[key]

    def submodule(self, package: str, name: str) -> str | None:
        """The module `name` of a package, given by its `__init__.py` or its folder."""
        folder = posixpath.dirname(package) if package.endswith(PYTHON) else package
        is_package = not package.endswith(PYTHON) or posixpath.basename(package).startswith("__init__.")
        return self._at(posixpath.join(folder, name)) if is_package else None

    def _at(self, stem: str) -> str | None:
        stem = "" if stem == "." else stem
        for path in (f"{stem}/__init__.py", f"{stem}.py", f"{stem}/__init__.pyi", f"{stem}.pyi"):
            if path.lstrip("/") in self._paths:
                return path.lstrip("/")
        return stem if stem in self._folders else None

    def _python(self, module: str, importer: str) -> str | None:
        name = module.lstrip(".")
        level = len(module) - len(name)
        parts = tuple(name.split(".")) if name else ()
        if level:
            folder = PurePosixPath(importer).parent.parts
            if level - 1 > len(folder):
                return None
            return self._at("/".join((*folder[: len(folder) - level + 1], *parts)))
        here = PurePosixPath(importer).parent.parts
        places: list[tuple[str, ...]] = []
        for found in self._by_tail.get(parts[-1], ()):
            root = found[: len(found) - len(parts)]
            if found[len(root) :] == parts and ("/".join(root) not in self._packages or root == here):
                places.append(root)
        around = [root for root in places if here[: len(root)] == root]
        if around:
            return self._at("/".join((*max(around, key=len), *parts)))
        if parts[0] in sys.stdlib_module_names:
            return None
        if places:
            best = min(places, key=len)
            return self._at("/".join((*best, *parts))) if sum(len(p) == len(best) for p in places) == 1 else None
        roots = ("", "src")
        return next((at for root in roots if (at := self._at("/".join(filter(None, (root, *parts)))))), None)

    def _javascript(self, module: str, importer: str) -> str | None:
        if module.startswith("."):
            return self._ending(posixpath.normpath(posixpath.join(posixpath.dirname(importer), module)))
        if module.startswith(("@/", "~/")):
            return next((p for folder in _SOURCE_FOLDERS if (p := self._ending(folder + module[2:]))), None)
        return self._ending(module) if "/" in module else None

    def _ending(self, stem: str) -> str | None:
        stem = "" if stem == "." else stem
        candidates = [stem + ending for ending in _ENDINGS]
        written, ending = posixpath.splitext(stem)
        candidates += [written + other for other in _WRITTEN_AS.get(ending, ())]
        candidates += [f"{stem}/index{ending}".lstrip("/") for ending in _ENDINGS[1:]]
        return next((path for path in candidates if path in self._paths), None)
