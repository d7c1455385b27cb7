"""What a file says about its names, in one form for every language that is resolved through imports and scopes.

A `Scope` is a module, class or function with the names it binds and the calls it makes. What a name is bound to is kept
as a *chain*, an expression without its arguments: `self._pool[key].get(x)` is `("self", "._pool", "[]", ".get", "()")`.
A type is the chain of a value that has it: `x: Store` is `("Store", "()")`, as if `x = Store()`; `x: list[Store]` is
`("Store", "()", "[*]")`, many of them. `inference` evaluates chains; this module knows neither files nor blocks.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tree_sitter import Node, Parser

from ai_forge.data_pipeline.languages import load

__all__ = ["Binding", "CallSite", "Chain", "FileScopes", "Scope", "Walk"]

Chain = tuple[str, ...]
"""A root name and its steps: `.name`, `()` a call, `[]` an element, `[*]` many of it, `with` what `as` binds."""
ScopeKind = Literal["module", "class", "function"]


class Binding(NamedTuple):
    """One thing that a name may be: a chain, a definition of this file, or something of another module.

    An import has `module`, and `original` unless it is the module itself. A declared type outweighs assigned values.
    """

    chain: Chain = ()
    definition: "Scope | None" = None
    module: str = ""
    original: str | None = None
    declared: bool = False


class CallSite(NamedTuple):
    """A call: its line, the chain that is called, and the chains given for parameters (`None` for positional ones)."""

    line: int
    chain: Chain
    arguments: tuple[tuple[str | None, Chain], ...] = ()


@dataclass(eq=False)
class Scope:
    """A module, class or function. `names` is in the order of the file; `attributes` are bound through `self.x = …`.

    `parameters` are positional names in order with the implicit first one; `results` the returned chains, empty with
    `returns` (the declared type) given. `receiver` is the name that stands for the instance or class, if there is one.
    """

    kind: ScopeKind
    name: str
    path: str
    first_line: int
    last_line: int
    parent: "Scope | None" = None
    names: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    attributes: dict[str, list[tuple["Scope", Binding]]] = field(default_factory=lambda: defaultdict(list))
    bases: list[Chain] = field(default_factory=list)
    decorators: list[Chain] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    keyword_parameters: list[str] = field(default_factory=list)
    returns: list[Chain] = field(default_factory=list)
    results: list[Chain] = field(default_factory=list)
    calls: list[CallSite] = field(default_factory=list)
    receiver: str | None = None
    receives_class: bool = False
    is_static: bool = False
    is_property: bool = False
    is_generator: bool = False
    is_overload: bool = False

    def __repr__(self) -> str:
        return f"<{self.kind} {self.qualified_name} at {self.path}:{self.first_line}>"

    @property
    def qualified_name(self) -> str:
        """Names of the enclosing definitions and its own, joined by dots; empty for a module."""
        names: list[str] = []
        scope: Scope | None = self
        while scope is not None:
            names.append(scope.name)
            scope = scope.parent
        return ".".join(name for name in reversed(names) if name)

    @property
    def owner(self) -> "Scope | None":
        """The class that the scope is a method of, or lies in a method of."""
        scope: Scope | None = self
        while scope is not None and not (scope.parent is not None and scope.parent.kind == "class"):
            scope = scope.parent
        return scope.parent if scope is not None and scope.kind == "function" else None


@dataclass
class FileScopes:
    """The scopes of one file: the module first, then definitions by position.

    `wildcards` are modules all of whose names are taken; `exports` what a JavaScript file exports under a name, and
    `reexports` modules that it passes on whole. `is_partial`: what stands between the definitions was not read.
    """

    path: str
    module: Scope
    scopes: list[Scope]
    wildcards: list[str] = field(default_factory=list)
    exports: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    reexports: list[str] = field(default_factory=list)
    is_partial: bool = False


class Walk:
    """One pass over a file's tree, its scopes put into `file`. A language says what is done with a node (`enter`).

    Nodes are entered in the order of the text. What lies deeper than a hand-written file goes waits until the rest is
    done, so that no tree, however deep, exhausts Python's stack.
    """

    MAX_DEPTH = 80

    def __init__(self, file: FileScopes) -> None:
        self.file = file
        self._depth = 0
        self._waiting: list[tuple[Node, Scope]] = []

    def walk(self, root: Node) -> None:
        """Enter the whole tree."""
        self.body(root, self.file.module)
        for node, scope in self._waiting:  # grows while it is read
            self.visit(node, scope)

    def body(self, node: Node, scope: Scope) -> None:
        """Visit what stands in `node`."""
        for child in node.named_children:
            self.visit(child, scope)

    def visit(self, node: Node, scope: Scope) -> None:
        """One node and all below it."""
        if self._depth >= self.MAX_DEPTH:
            self._waiting.append((node, scope))
            return
        self._depth += 1
        self.enter(node, scope)
        self._depth -= 1

    def enter(self, node: Node, scope: Scope) -> None:
        """Note what `node` says in `scope`, and visit what lies in it."""
        raise NotImplementedError


def scopes_with(walk: type[Walk], path: str, text: bytes, language: str) -> FileScopes | None:
    """The scopes of a file (UTF-8) as a language's `walk` finds them; None where the grammar is not installed."""
    loaded = load(language)
    if loaded is None:
        return None
    root = Parser(loaded[0]).parse(text).root_node
    module = Scope("module", "", path, 1, root.end_point[0] + 1)
    file = FileScopes(path, module, [module])
    walk(file).walk(root)
    return file
