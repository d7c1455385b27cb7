"""Who defines, calls, extends, uses and tests what: a graph over the blocks of one repository.

Python and the JavaScript family are resolved as a reader would, through scopes, imports, classes and declared types
(`resolution`); other languages by qualified name (`qualified_names`). An edge whose target is one of several, or a guess
from a method's name, is marked ambiguous, and the neighbours asked for here leave it out: a missing edge costs a
question, a wrong one teaches a lie. On the hand-checked sample of 325 calls in `tests/fixtures/calls` the certain call
edges of Python are right in all 140 cases and cover 97 % of the calls that stay in the repository.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ai_forge.data_pipeline.graph.scopes import (
    Binding,
    Chain,
    FileScopes,
    Scope,
    in_order,
    javascript_scopes,
    python_scopes,
    resolver_of,
)
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.mining.names import NameResolver, imports_file
from ai_forge.data_pipeline.mining.parsing import normalise
from ai_forge.data_pipeline.schemas import CodeBlock, Import

__all__ = ["Edge", "EdgeKind", "SymbolGraph", "overlap"]

EdgeKind = Literal["calls", "extends", "references", "tests", "defines"]
_SCOPED = frozenset({"python", "javascript", "typescript", "tsx"})
_MAX_AMBIGUOUS = 4
"""Targets of one ambiguous call: with more, it says nothing."""


class Edge(NamedTuple):
    """`source` and `target` are block ids; `line` is where the source says so (0 for `defines` and `tests`)."""

    source: str
    target: str
    kind: EdgeKind
    line: int
    ambiguous: bool


class SymbolGraph:
    """The edges between blocks. Built once, read only."""

    def __init__(
        self,
        blocks: Sequence[CodeBlock],
        imports: Mapping[str, Iterable[Import]] | None = None,
        sources: Mapping[str, bytes] | None = None,
    ) -> None:
        """`imports` maps a path to its imports (`MiningResult.imports`), `sources` a path to the file's bytes.

        Without `sources` a file is what its blocks hold: bindings between them are not seen. Without `imports` either,
        an imported name means the only definition of that name.
        """
        self.blocks = tuple(blocks)
        self._by_id = {block.id: block for block in blocks}
        self._in_file: dict[str, list[CodeBlock]] = defaultdict(list)
        self._named: dict[tuple[str, str], list[CodeBlock]] = defaultdict(list)
        for block in blocks:
            self._in_file[block.path].append(block)
            self._named[block.path, block.name].append(block)
        self._imports = {path: {i.local: i for i in names} for path, names in (imports or {}).items()}
        self._names = NameResolver(blocks, self._imports)
        self._files = self._scopes(sources or {})
        self._scopes_named: dict[tuple[str, str], list[Scope]] = defaultdict(list)
        for path, file in self._files.items():
            for scope in file.scopes:
                if scope.kind != "module":
                    self._scopes_named[path, scope.name.rpartition(".")[2]].append(scope)
        self._resolver = resolver_of(self._files)
        self._edges: dict[tuple[str, str, EdgeKind], Edge] = {}
        for edge in (*self._calls(), *self._extends(), *self._references(), *self._defines()):
            self._add(edge)
        for edge in list(self._tests()):
            self._add(edge)
        self._from: dict[tuple[str, EdgeKind], list[Edge]] = defaultdict(list)
        self._to: dict[tuple[str, EdgeKind], list[Edge]] = defaultdict(list)
        for edge in self._edges.values():
            self._from[edge.source, edge.kind].append(edge)
            self._to[edge.target, edge.kind].append(edge)

    def edges(self, kind: EdgeKind | None = None) -> list[Edge]:
        """All edges, or those of one kind, in order of their sources; ambiguous ones are marked."""
        return [edge for edge in self._edges.values() if kind is None or edge.kind == kind]

    def definitions(self, name: str) -> list[CodeBlock]:
        """Blocks with this bare name, in order of path and line."""
        return list(self._names.by_name.get(name, ()))

    def callees(self, block: CodeBlock) -> list[CodeBlock]:
        """Blocks of the repository that `block` calls itself, in order of appearance."""
        return self._targets(block, "calls")

    def callers(self, block: CodeBlock) -> list[CodeBlock]:
        """Blocks that call `block`, code before tests, in order of path and line."""
        found = self._sources(block, "calls")
        return sorted(found, key=lambda caller: (is_test_path(caller.path), caller.path, caller.metadata.first_line))

    def call_line(self, caller: CodeBlock, block: CodeBlock) -> int | None:
        """The line of `caller`'s file at which it first calls `block`; None where only names tell that it does."""
        edge = self._edges.get((caller.id, block.id, "calls"))
        is_read = edge is not None and edge.line != caller.metadata.first_line
        return edge.line if edge is not None and is_read else None

    def bases(self, block: CodeBlock) -> list[CodeBlock]:
        """Classes of the repository that the class `block` extends directly."""
        return self._targets(block, "extends")

    def subclasses(self, block: CodeBlock) -> list[CodeBlock]:
        """Classes that extend `block` directly."""
        return self._sources(block, "extends")

    def references(self, block: CodeBlock) -> list[CodeBlock]:
        """Blocks that `block` names without calling them: types, classes in checks, functions passed on."""
        return self._targets(block, "references")

    def tests(self, block: CodeBlock) -> list[CodeBlock]:
        """Test code that calls or names `block`, in order of path and line."""
        return self._sources(block, "tests")

    def siblings(self, block: CodeBlock) -> list[CodeBlock]:
        """Other blocks of the same file that neither hold `block` nor lie in it."""
        return [other for other in self._in_file[block.path] if not overlap(block, other)]

    def neighbours(self, block: CodeBlock) -> list[CodeBlock]:
        """Callees, bases, callers, then subclasses, once each: what one reads next."""
        near = (*self.callees(block), *self.bases(block), *self.callers(block), *self.subclasses(block))
        return list({other.id: other for other in near}.values())

    def imported_files(self, path: str) -> list[str]:
        """Files of the repository that the file at `path` imports, in order of path."""
        file = self._files.get(path)
        if file is None:
            imported = self._imports.get(path, {}).values()
            return sorted({p for p in self._in_file for i in imported if p != path and imports_file(i, p)})
        found: set[str] = set()
        for scope in file.scopes:
            for binding in (b for bindings in scope.names.values() for b in bindings if b.module):
                source = self._resolver.modules.find(binding.module, path)
                inner = (
                    self._resolver.modules.submodule(source, binding.original) if source and binding.original else None
                )
                found.update(p for p in (inner if inner in self._files else source,) if p in self._files)
        whole = (*file.wildcards, *file.reexports)
        found.update(p for m in whole if (p := self._resolver.modules.find(m, path)) in self._files and p is not None)
        return sorted(found - {path})

    def resolve(self, block: CodeBlock, called: str) -> CodeBlock | None:
        """The definition that the name `called` (`a`, `a.b`) in `block` means, or None where that is not certain."""
        scope = self._scope_of(block)
        if scope is None:
            return self._names.resolve(block, called)
        head, *rest = called.replace("super()", "super").split(".")
        chain = ("super()" if head == "super" else head, *(f".{name}" for name in rest))
        targets, certain = self._resolver.called(chain, scope)
        return self._block_of(targets[0]) if certain else None

    def _add(self, edge: Edge) -> None:
        key = (edge.source, edge.target, edge.kind)
        known = self._edges.get(key)
        if edge.source != edge.target and (known is None or (known.ambiguous and not edge.ambiguous)):
            self._edges[key] = edge

    def _targets(self, block: CodeBlock, kind: EdgeKind) -> list[CodeBlock]:
        return [self._by_id[edge.target] for edge in self._from.get((block.id, kind), ()) if not edge.ambiguous]

    def _sources(self, block: CodeBlock, kind: EdgeKind) -> list[CodeBlock]:
        return [self._by_id[edge.source] for edge in self._to.get((block.id, kind), ()) if not edge.ambiguous]

    def _scopes(self, sources: Mapping[str, bytes]) -> dict[str, FileScopes]:
        """The scopes of every file in a language that is resolved through them."""
        files: dict[str, FileScopes] = {}
        for path, blocks in self._in_file.items():
            language = blocks[0].language
            if language in _SCOPED:
                text = normalise(sources[path]) if path in sources else _reassembled(blocks)
                read = python_scopes(path, text) if language == "python" else javascript_scopes(path, text, language)
                if read is not None:
                    read.is_partial = path not in sources
                    files[path] = read
        for path, text in sources.items():  # files without blocks pass names on
            if path not in files and path.endswith((".py", ".pyi")) and (read := python_scopes(path, normalise(text))):
                files[path] = read
        for path, names in self._imports.items():
            if path in files and path not in sources:
                _bind_imports(files[path], names.values())
        return files

    def _calls(self) -> Iterator[Edge]:
        for path, file in self._files.items():
            for scope in file.scopes if path in self._in_file else ():
                for site in scope.calls:
                    yield from self._call(scope, site.line, site.chain)
                for chain in scope.decorators:
                    yield from self._call(scope, scope.first_line, chain, scope.parent)
        for block in self.blocks:
            if block.path not in self._files:
                for called in block.metadata.calls:
                    target = self._names.resolve(block, called)
                    if target is not None:
                        yield Edge(block.id, target.id, "calls", block.metadata.first_line, False)
            elif self._files[block.path].is_partial and not self._imports:
                yield from self._guessed_imports(block)

    def _guessed_imports(self, block: CodeBlock) -> Iterator[Edge]:
        """Where no imports are known: an imported name is the only definition of that name."""
        for called in block.metadata.calls:
            if called in block.metadata.imports and (target := self._names.unique(called, block)) is not None:
                yield Edge(block.id, target.id, "calls", block.metadata.first_line, False)

    def _call(self, scope: Scope, line: int, chain: Chain, inside: Scope | None = None) -> Iterator[Edge]:
        block = self._block_at(scope, line)
        if block is None:
            return
        found, certain = self._resolver.called(chain, inside or scope)
        targets = [target for definition in found if (target := self._block_of(definition)) is not None]
        if not found and len(chain) > 1 and self._resolver.is_unknown(chain, inside or scope):
            guess = self._names.method(chain[-1].lstrip("."), block)
            targets = [guess] if guess is not None else []
        for target in targets if len(targets) <= _MAX_AMBIGUOUS else ():
            yield Edge(block.id, target.id, "calls", line, not certain)

    def _extends(self) -> Iterator[Edge]:
        for block in self.blocks:
            scope = self._scope_of(block) if block.metadata.bases else None
            if scope is None or scope.kind != "class":
                for written in block.metadata.bases:
                    base = self._names.base(block, written)
                    if base is not None:
                        yield Edge(block.id, base.id, "extends", block.metadata.first_line, False)
                continue
            for chain in scope.bases:
                values = self._resolver.evaluate(chain, scope.parent or scope)
                found = in_order(v.scope for v in values if v.kind == "class" and v.scope is not None)
                for target in map(self._block_of, found):
                    if target is not None:
                        yield Edge(block.id, target.id, "extends", scope.first_line, len(found) > 1)

    def _references(self) -> Iterator[Edge]:
        for block in self.blocks:
            scope = self._scope_of(block)
            for name in block.dependencies if scope is not None else ():
                values = self._resolver.evaluate((name,), scope) if scope is not None else ()
                found = in_order(v.scope for v in values if v.kind in ("class", "function") and v.scope is not None)
                for target in map(self._block_of, found):
                    if (
                        target is not None
                        and (block.id, target.id, "calls") not in self._edges
                        and not overlap(block, target)
                    ):
                        yield Edge(block.id, target.id, "references", block.metadata.first_line, len(found) > 1)

    def _defines(self) -> Iterator[Edge]:
        for blocks in self._in_file.values():
            known = {block.metadata.qualified_name: block for block in reversed(blocks)}
            for block in blocks:
                outer = known.get(block.metadata.qualified_name.rpartition(".")[0])
                if outer is not None and outer is not block:
                    yield Edge(outer.id, block.id, "defines", 0, False)

    def _tests(self) -> Iterator[Edge]:
        for edge in self._edges.values():
            source, target = self._by_id[edge.source], self._by_id[edge.target]
            if edge.kind in ("calls", "references") and is_test_path(source.path) and not is_test_path(target.path):
                yield Edge(edge.source, edge.target, "tests", edge.line, edge.ambiguous)

    def _scope_of(self, block: CodeBlock) -> Scope | None:
        meta, named = block.metadata, self._scopes_named.get((block.path, block.name), ())
        inside = [s for s in named if meta.first_line <= s.first_line <= meta.last_line]
        around = [s for s in named if s.first_line <= meta.first_line <= s.last_line] if meta.part else []
        return min(inside or around, key=lambda s: s.first_line, default=None)

    def _block_of(self, scope: Scope) -> CodeBlock | None:
        """The block of a definition: the smallest of its name around its first line."""
        name = scope.name.rpartition(".")[2]
        return self._named_at(scope.path, name, scope.first_line)

    def _block_at(self, scope: Scope, line: int) -> CodeBlock | None:
        """The block that a line of a scope belongs to."""
        current: Scope | None = scope
        while current is not None and current.kind != "module":
            found = self._named_at(scope.path, current.name.rpartition(".")[2], line)
            if found is not None:
                return found
            current = current.parent
        return None

    def _named_at(self, path: str, name: str, line: int) -> CodeBlock | None:
        same = self._named.get((path, name), ())
        around = [b for b in same if b.metadata.first_line <= line <= b.metadata.last_line]
        return min(around, key=lambda b: b.metadata.last_line - b.metadata.first_line, default=None)


def overlap(first: CodeBlock, second: CodeBlock) -> bool:
    """Whether two blocks share lines of one file: one holds the other."""
    a, b = first.metadata, second.metadata
    return first.path == second.path and a.first_line <= b.last_line and b.first_line <= a.last_line


def _reassembled(blocks: Sequence[CodeBlock]) -> bytes:
    """A file as far as its blocks hold it, at the same lines; a class that is no block gets a line of its own."""
    lines: dict[int, str] = {}
    for block in sorted(blocks, key=lambda b: b.metadata.first_line - b.metadata.last_line):
        meta = block.metadata
        own = block.source_code.split("\n")[meta.head_lines :][: meta.last_line - meta.first_line + 1]
        for number, line in enumerate(own, meta.first_line):
            lines.setdefault(number, line)
    known = {block.metadata.qualified_name for block in blocks}
    opened: set[str] = set()
    for block in sorted(blocks, key=lambda b: b.metadata.first_line):
        outer = block.metadata.qualified_name.rpartition(".")[0]
        before = block.metadata.first_line - 1
        if outer.isidentifier() and outer not in known | opened and block.language == "python" and before > 0:
            opened.add(outer)
            lines.setdefault(before, f"class {outer}:")
    last = max(lines, default=0)
    return "\n".join(lines.get(number, "") for number in range(1, last + 1)).encode("utf-8", "replace")


def _bind_imports(file: FileScopes, imports: Iterable[Import]) -> None:
    for imported in imports:
        binding = Binding(module=imported.module, original=imported.original)
        if imported.original is None and "." in imported.module and imported.module.partition(".")[0] == imported.local:
            binding = Binding(module=imported.local)  # `import a.b` binds `a`
        if file.module.names.get(imported.local) is None:
            file.module.names[imported.local].append(binding)
