"""Who defines, calls and is called: a graph over the blocks of one repository.

A called name is resolved as a reader would: `self.f` to the method of the own class (or of a base in the repository);
an imported name through the file's imports; a bare name to the same file; else to the only definition of that name in
the same language. What stays ambiguous gives no edge: a missing edge costs a question, a wrong one teaches a lie.
Local variables' types are not followed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from ai_forge.data_pipeline.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, Import

_SELF = frozenset({"self", "cls", "this", "super()"})
_CLASS_TYPES = frozenset({"class", "interface", "type"})
_COMMON_NAMES = frozenset({
    "Error", "String", "add", "append", "apply", "bind", "call", "catch", "clear", "close", "copy", "debug", "delete",
    "emit", "end", "equals", "error", "exit", "filter", "format", "get", "has", "hashCode", "info", "items", "join",
    "keys", "log", "map", "next", "off", "on", "open", "parse", "pop", "push", "put", "read", "remove", "run", "send",
    "set", "split", "start", "stop", "test", "then", "toString", "update", "values", "wait", "warn", "write",
})  # fmt: skip
"""Attribute names that other libraries' objects have too: `x.get()` alone says nothing about whose `get` it is."""


class SymbolGraph:
    """Callers, callees and siblings of each block. Built once, read only."""

    def __init__(self, blocks: Sequence[CodeBlock], imports: Mapping[str, Iterable[Import]] | None = None) -> None:
        """`imports` maps a path to its imports (`MiningResult.imports`).

        Without it an imported name means the only definition of that name, which is less sure.
        """
        self.blocks = tuple(blocks)
        self._by_id = {block.id: block for block in blocks}
        self._by_name: dict[str, list[CodeBlock]] = defaultdict(list)
        self._by_file: dict[tuple[str, str], list[CodeBlock]] = defaultdict(list)
        self._in_file: dict[str, list[CodeBlock]] = defaultdict(list)
        for block in blocks:
            self._by_name[block.name].append(block)
            self._by_file[block.path, block.metadata.qualified_name].append(block)
            self._in_file[block.path].append(block)
        self._imports = {path: {i.local: i for i in names} for path, names in (imports or {}).items()}
        self._callees: dict[str, tuple[str, ...]] = {}
        callers: dict[str, list[str]] = defaultdict(list)
        for block in blocks:
            found = {target.id: None for name in block.metadata.calls if (target := self.resolve(block, name))}
            found.pop(block.id, None)
            self._callees[block.id] = tuple(found)
            for target_id in found:
                callers[target_id].append(block.id)
        self._callers = {target: tuple(ids) for target, ids in callers.items()}

    def definitions(self, name: str) -> list[CodeBlock]:
        """Blocks with this bare name, in order of path and line."""
        return list(self._by_name.get(name, ()))

    def callees(self, block: CodeBlock) -> list[CodeBlock]:
        """Blocks of the repository that `block` calls itself, in order of appearance."""
        return [self._by_id[i] for i in self._callees.get(block.id, ())]

    def callers(self, block: CodeBlock) -> list[CodeBlock]:
        """Blocks that call `block`, code before tests, in order of path and line."""
        found = [self._by_id[i] for i in self._callers.get(block.id, ())]
        return sorted(found, key=lambda caller: (is_test_path(caller.path), caller.path, caller.metadata.first_line))

    def siblings(self, block: CodeBlock) -> list[CodeBlock]:
        """Other blocks of the same file that neither hold `block` nor lie in it."""
        return [other for other in self._in_file[block.path] if not overlap(block, other)]

    def resolve(self, block: CodeBlock, called: str) -> CodeBlock | None:
        """The definition that the name `called` in `block` means, or None where that is not certain."""
        root, _, rest = called.partition(".")
        last = called.rpartition(".")[2]
        owner = block.metadata.qualified_name.rpartition(".")[0]
        if root in _SELF:
            return self._only(self._by_file.get((block.path, f"{owner}.{rest}"))) if rest.isidentifier() else None
        imported = self._imports.get(block.path, {}).get(root)
        if not self._imports and root in block.metadata.imports:
            return None if rest else self._unique(called, block)
        if imported is not None:
            return self._imported(imported, rest, block)
        if not rest:
            scopes = _scopes(block.metadata.qualified_name)
            for scope in scopes:
                local = self._by_file.get((block.path, f"{scope}{called}"))
                if local and (scope == "" or not self._is_class(block.path, scope[:-1])):
                    return self._only(local)
            return self._unique(called, block) if block.language in ("go", "java") else None
        qualified = self._by_file.get((block.path, called))
        if qualified:
            return self._only(qualified)
        return (
            None
            if last in _COMMON_NAMES or root in block.metadata.parameters
            else self._unique(last, block, attribute=True)
        )

    def _is_class(self, path: str, qualified: str) -> bool:
        return any(b.block_type in _CLASS_TYPES for b in self._by_file.get((path, qualified), ()))

    def _imported(self, imported: Import, rest: str, block: CodeBlock) -> CodeBlock | None:
        """A definition in the file that the import names, if that file is in the repository."""
        wanted = imported.original or ""
        dotted = ".".join(part for part in (wanted, rest) if part)
        if not dotted:
            return None
        candidates = [
            b
            for b in self._by_name.get(dotted.rpartition(".")[2], ())
            if b.metadata.qualified_name in (dotted, rest) and _imports_file(imported, b.path)
        ]
        if len(candidates) > 1:  # a package that re-exports: take the file the module names exactly
            near = [b for b in candidates if _module_stem(imported.module) == PurePosixPath(b.path).stem]
            candidates = near or candidates
        return self._only(candidates)

    def _unique(self, name: str, block: CodeBlock, *, attribute: bool = False) -> CodeBlock | None:
        """The only definition of `name` in the block's language outside tests; for `x.name` it must be a method."""
        found = [b for b in self._by_name.get(name, ()) if b.language == block.language and not is_test_path(b.path)]
        if attribute:
            found = found if all(b.block_type == "method" for b in found) else []
        return self._only(found)

    @staticmethod
    def _only(found: Sequence[CodeBlock] | None) -> CodeBlock | None:
        return found[0] if found is not None and len(found) == 1 else None


def overlap(first: CodeBlock, second: CodeBlock) -> bool:
    """Whether two blocks share lines of one file: one holds the other."""
    a, b = first.metadata, second.metadata
    return first.path == second.path and a.first_line <= b.last_line and b.first_line <= a.last_line


def _scopes(qualified_name: str) -> list[str]:
    """Prefixes to look a bare name up in, innermost first.

    >>> _scopes("A.f")
    ['A.f.', 'A.', '']
    """
    parts = qualified_name.split(".")
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]


def _module_stem(module: str) -> str:
    return PurePosixPath(module.replace(".", "/") if "/" not in module else module).stem


def _imports_file(imported: Import, path: str) -> bool:
    """Whether an import's module can be the file at `path`: the tail of one is the tail of the other."""
    module = imported.module.strip("./") if "/" in imported.module else imported.module.strip(".").replace(".", "/")
    if not module:  # `from . import x`: x is a module or defined in the package
        module = imported.original or ""
    pure = PurePosixPath(path)
    stem = pure.with_suffix("").as_posix()
    places = {stem, pure.parent.as_posix()}
    tail = PurePosixPath(module).with_suffix("").as_posix() if "/" in imported.module else module
    with_name = f"{tail}/{imported.original}" if imported.original else tail
    return any(
        place == wanted or place.endswith(f"/{wanted}") or wanted.endswith(f"/{place}")
        for place in places
        if place not in ("", ".")
        for wanted in (tail, with_name)
    ) or ((tail != "" and pure.as_posix().startswith(f"{tail}/")) or f"/{tail}/" in pure.as_posix())
