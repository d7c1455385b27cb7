"""What a chain of names means: the definitions behind it, as far as the code itself says.

A small abstract interpreter over `scopes`: names through scopes, imports, wildcards and re-exports; attributes through
classes, their bases and what methods put into `self`; calls through declared types, else through what is returned.
Parameters without a type take what the repository's own calls give them (`arguments`). All bindings of a name count, whatever
their order: several meanings make an ambiguous answer, none an unknown one. Not followed: `isinstance` and other flow,
containers of different things, reflection.
"""

import builtins
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from ai_forge.data_pipeline.graph.scopes.modules import PYTHON, Modules
from ai_forge.data_pipeline.graph.scopes.scope import Binding, Chain, FileScopes, Scope
from ai_forge.data_pipeline.mining.filters import is_test_path

__all__ = ["OUTSIDE", "UNKNOWN", "Resolver", "Value", "Values", "in_order", "union"]

_BUILTINS = frozenset(dir(builtins))
_MAX_VALUES = 6
"""Meanings of one expression: with more, nothing is known."""
_MAX_DEPTH = 40
_ELEMENT_METHODS = frozenset({"get", "pop", "popleft", "popitem", "setdefault", "shift", "at", "find"})
_SAME_METHODS = frozenset({"copy", "values", "filter", "slice", "reverse", "sort", "union", "__iter__"})


class Value(NamedTuple):
    """One meaning. `scope` is the definition (of the class, for an instance); `elements` are what a container holds."""

    kind: Literal["module", "class", "function", "instance", "super", "many", "method_of_many", "outside", "unknown"]
    scope: Scope | None = None
    path: str = ""
    elements: frozenset["Value"] = frozenset()
    bound_to: Scope | None = None


Values = frozenset[Value]
NOTHING: Values = frozenset()
"""Of what is being evaluated already, and of None."""
OUTSIDE: Values = frozenset({Value("outside")})
UNKNOWN: Values = frozenset({Value("unknown")})
_ENDS = OUTSIDE | UNKNOWN


class Resolver:
    """Evaluates chains in the files of one repository."""

    def __init__(self, files: Mapping[str, FileScopes]) -> None:
        self.files = files
        self.modules = Modules(files)
        self._known: dict[tuple[int, Chain], Values] = {}
        self._open: set[tuple[int, Chain]] = set()
        self._bases: dict[int, tuple[list[Scope], bool]] = {}
        self._given: Mapping[tuple[int, str], set[Value]] = {}

    def learn(self, given: Mapping[tuple[int, str], set[Value]]) -> None:
        """Take what calls pass for parameters, by (id of the function's scope, name)."""
        self._given = given
        self._known.clear()

    def evaluate(self, chain: Chain, scope: Scope) -> Values:
        """The meanings of a chain that stands in `scope`."""
        key = (id(scope), chain)
        known = self._known.get(key)
        if known is not None:
            return known
        if not chain or len(self._open) > _MAX_DEPTH:
            return UNKNOWN
        if key in self._open:
            return NOTHING
        self._open.add(key)
        try:
            found = self._name(chain[0], scope) if len(chain) == 1 else self._dotted(chain, scope)
            if not found and len(chain) > 1:
                found = union(self._step(value, chain[-1]) for value in self.evaluate(chain[:-1], scope))
        finally:
            self._open.discard(key)
        found = found if len(found) <= _MAX_VALUES else UNKNOWN
        if found or not self._open:
            self._known[key] = found
        return found

    def called(self, chain: Chain, scope: Scope) -> tuple[list[Scope], bool]:
        """(the definitions that calling a chain may run, by place; whether it is certain which one).

        A class stands for its construction; calling an instance runs its class's `__call__`.
        """
        found: dict[int, Scope] = {}
        values = self.evaluate(chain, scope)
        for value in values:
            if value.kind in ("class", "function") and value.scope is not None:
                found[id(value.scope)] = value.scope
            elif value.kind == "instance" and value.scope is not None:
                for method in self.attribute(value.scope, "__call__", value):
                    if method.scope is not None and method.kind == "function":
                        found[id(method.scope)] = method.scope
            elif value.kind == "module":
                found |= {id(v.scope): v.scope for v in self._default_export(value.path) if v.scope is not None}
        certain = len(found) == 1 and not values >= UNKNOWN
        return in_order(found.values()), certain

    def is_unknown(self, chain: Chain, scope: Scope) -> bool:
        """Whether nothing at all is known about what holds the last step of a chain."""
        return self.evaluate(chain[:-1], scope) == UNKNOWN

    def bases(self, scope: Scope) -> tuple[list[Scope], bool]:
        """(a class and its bases in the repository, nearest first; whether some base is outside or unknown)."""
        if id(scope) not in self._bases:
            opened = [(scope, self._direct_bases(scope))]
            while (
                opened
            ):  # bases before what derives from them: a list, as a chain of classes may be longer than a stack
                current, direct = opened[-1]
                new = next((base for found in direct for base in found if id(base) not in self._bases), None)
                if new is not None:
                    opened.append((new, self._direct_bases(new)))
                    continue
                opened.pop()
                self._bases[id(current)] = self._linearised(current, direct)
        return self._bases[id(scope)]

    def _direct_bases(self, scope: Scope) -> list[list[Scope]]:
        """For each written base, the classes that it may be, by place."""
        self._bases[id(scope)] = ([scope], False)  # until it is known: a class may derive from itself
        written = [self.evaluate(chain, scope.parent or scope) for chain in scope.bases]
        return [in_order(v.scope for v in values if v.kind == "class" and v.scope) for values in written]

    def _linearised(self, scope: Scope, direct: list[list[Scope]]) -> tuple[list[Scope], bool]:
        order, outside = [scope], False
        for found in direct:
            outside = outside or not found
            for base in found:
                above, open_end = self._bases[id(base)]
                outside = outside or open_end
                order = [s for s in order if s not in above] + above
        return order, outside

    def member(self, path: str, name: str) -> Values:
        """What a module has under a name: its own, a submodule, or what it imports whole."""
        file = self.files.get(path)
        if file is not None:
            if not path.endswith(PYTHON):
                return self._export(file, name)
            bindings = file.module.names.get(name)
            found = self._bindings(bindings, file.module) if bindings else NOTHING
            if found:
                return found
        submodule = self.modules.submodule(path, name)
        if submodule is not None:
            return frozenset({Value("module", path=submodule)})
        for module in file.wildcards if file is not None else ():
            source = self.modules.find(module, path)
            key = (id(file), ("*", source or "", name))
            if source is not None and source != path and key not in self._open and len(self._open) <= _MAX_DEPTH:
                self._open.add(key)
                found = self.member(source, name)
                self._open.discard(key)
                if found and not name.startswith("_"):
                    return found
        return NOTHING

    def _export(self, file: FileScopes, name: str) -> Values:
        key = (id(file), ("export", name))
        if key in self._open or len(self._open) > _MAX_DEPTH:
            return NOTHING
        self._open.add(key)
        try:
            bindings = file.exports.get(name)
            if bindings:
                return self._bindings(bindings, file.module)
            if name == "default":
                return self._bindings(file.exports.get("=", []), file.module)
            whole = self._bindings(file.exports.get("=", []), file.module)
            found = union(self._step(value, f".{name}") for value in whole)
            for module in file.reexports if not found else ():
                source = self.files.get(self.modules.find(module, file.path) or "")
                if source is not None and (found := self._export(source, name)):
                    break
            if not found and file.is_partial and name in file.module.names:
                return self._bindings(file.module.names[name], file.module)
            return found
        finally:
            self._open.discard(key)

    def _default_export(self, path: str) -> Values:
        file = self.files.get(path)
        return NOTHING if file is None or path.endswith(PYTHON) else self._export(file, "default")

    def _name(self, name: str, scope: Scope) -> Values:
        if name == "super()":
            return frozenset({Value("super", scope.owner)}) if scope.owner is not None else NOTHING
        if name.startswith("<"):
            return OUTSIDE
        current: Scope | None = scope
        while current is not None:
            if current.kind != "class" or current is scope:
                if name == current.receiver and current.parent is not None:
                    kind: Literal["class", "instance"] = "class" if current.receives_class else "instance"
                    return frozenset({Value(kind, current.parent)})
                bindings = current.names.get(name)
                if bindings is not None:
                    meanings = self._bindings(bindings, current) | frozenset(self._given.get((id(current), name), ()))
                    return meanings if meanings or bindings else self._fixture(name, scope.path)
            current = current.parent
        found = self.member(scope.path, name) if scope.path in self.files and scope.path.endswith(PYTHON) else NOTHING
        found = frozenset(v for v in found if v.kind != "module" or v.path != scope.path)
        return found or (OUTSIDE if name in _BUILTINS and scope.path.endswith(PYTHON) else UNKNOWN)

    def _fixture(self, name: str, path: str) -> Values:
        """A parameter that nobody tells of: in a test, what the pytest fixture of that name gives."""
        folders = [str(folder) for folder in PurePosixPath(path).parents] if is_test_path(path) else []
        for place in [path, *(posixpath.join(folder, "conftest.py").removeprefix("./") for folder in folders)]:
            file = self.files.get(place)
            for binding in file.module.names.get(name, ()) if file is not None and folders else ():
                function = binding.definition
                if function is not None and any(
                    step.lstrip(".") == "fixture" for chain in function.decorators for step in chain
                ):
                    given = self._call(Value("function", function))
                    return union(v.elements if v.kind == "many" else frozenset({v}) for v in given)
        return UNKNOWN

    def _dotted(self, chain: Chain, scope: Scope) -> Values:
        """JavaScript's `app.f = function …`, and Python's `import a.b`: names with dots in them."""
        if any(not step.startswith(".") for step in chain[1:]):
            return NOTHING
        head = chain[0]
        if head == "this" and "." in scope.name:
            head = scope.name.rpartition(".")[0]
        dotted = head + "".join(chain[1:])
        module = self.files[scope.path].module if scope.path in self.files else None
        bindings = module.names.get(dotted) if module is not None else None
        return self._bindings(bindings, module) if bindings and module is not None else NOTHING

    def _bindings(self, bindings: Iterable[Binding], scope: Scope) -> Values:
        chosen = [b for b in bindings if b.declared or b.definition is not None or b.module]
        chosen = chosen if any(b.declared for b in chosen) else list(bindings)
        bodies = [b for b in chosen if b.definition is None or not b.definition.is_overload]
        return union(self._binding(b, scope) for b in bodies or chosen)

    def _binding(self, binding: Binding, scope: Scope) -> Values:
        if binding.definition is not None:
            kind: Literal["class", "function"] = "class" if binding.definition.kind == "class" else "function"
            return frozenset({Value(kind, binding.definition)})
        if not binding.module:
            return self.evaluate(binding.chain, scope)
        source = self.modules.find(binding.module, scope.path)
        if source is None:
            return OUTSIDE
        if binding.original is None:
            return frozenset({Value("module", path=source)})
        key = (id(scope), ("import", source, binding.original))
        if key in self._open:
            return NOTHING
        self._open.add(key)
        try:
            if source == scope.path:  # `from . import x` in the package itself
                submodule = self.modules.submodule(source, binding.original)
                return frozenset({Value("module", path=submodule)}) if submodule else NOTHING
            return self.member(source, binding.original) or UNKNOWN
        finally:
            self._open.discard(key)

    def _step(self, value: Value, step: str) -> Values:
        if step == "[*]":
            return frozenset({Value("many", elements=frozenset({value}))})
        if value.kind in ("outside", "unknown"):
            return frozenset({value})
        if step == "()":
            return self._call(value)
        if step == "with":
            return self._entered(value)
        if step == "[]":
            return self._element(value)
        name = step[1:]
        if value.kind == "module":
            return self.member(value.path, name) or UNKNOWN
        if value.kind == "many":
            return frozenset({Value("method_of_many", path=name, elements=value.elements)})
        if value.kind in ("class", "instance", "super") and value.scope is not None:
            if name in ("__class__", "constructor") and value.kind == "instance":
                return frozenset({Value("class", value.scope)})
            return self.attribute(value.scope, name, value)
        return OUTSIDE

    def attribute(self, scope: Scope, name: str, value: Value) -> Values:
        """What the class `scope`, or a base of it, has under a name, as seen from `value`."""
        order, outside = self.bases(scope)
        for holder in order[1:] if value.kind == "super" else order:
            bindings = holder.names.get(name, [])
            stored = holder.attributes.get(name, [])
            if not any(b.definition for b in bindings) and any(
                b.declared for b in (*bindings, *(b for _, b in stored))
            ):
                bindings, stored = [b for b in bindings if b.declared], [(s, b) for s, b in stored if b.declared]
            found = self._bindings(bindings, holder) | union(self._binding(b, s) for s, b in stored)
            if found or bindings or stored:
                instance = scope if value.kind != "super" or value.bound_to is None else value.bound_to
                return union(self._bound(member, value, instance) for member in found)
        return OUTSIDE if outside else NOTHING  # what lacks it is not meant

    def _bound(self, member: Value, holder: Value, instance: Scope) -> Values:
        """A member as seen from its holder: properties are their values, functions know what they are bound to."""
        if member.kind != "function" or member.scope is None:
            return frozenset({member})
        if holder.kind == "class" and not member.scope.receives_class:
            return frozenset({member})
        method = member._replace(bound_to=instance)
        return self._call(method) if member.scope.is_property else frozenset({method})

    def _call(self, value: Value) -> Values:
        if value.kind == "class":
            return frozenset({Value("instance", value.scope)})
        if value.kind == "function" and value.scope is not None:
            function = value.scope
            if any(chain[0] == "Self" for chain in function.returns) and value.bound_to is not None:
                return frozenset({Value("instance", value.bound_to)})
            if function.returns:
                return union(self.evaluate(chain, function.parent or function) for chain in function.returns)
            return union(self.evaluate(chain, function) for chain in function.results) or UNKNOWN
        if value.kind == "instance" and value.scope is not None:
            return union(self._call(m) for m in self.attribute(value.scope, "__call__", value) if m.kind == "function")
        if value.kind == "method_of_many":
            if value.path in _ELEMENT_METHODS:
                return value.elements
            return frozenset({Value("many", elements=value.elements)}) if value.path in _SAME_METHODS else OUTSIDE
        if value.kind == "module":
            return union(self._call(v) for v in self._default_export(value.path) if v.kind != "module")
        return UNKNOWN

    def _element(self, value: Value) -> Values:
        if value.kind == "many":
            return value.elements
        if value.kind == "class":
            return frozenset({value})
        if value.kind == "instance" and value.scope is not None:
            for name in ("__getitem__", "__iter__", "__aiter__", "__next__"):
                methods = self.attribute(value.scope, name, value)
                found = union(self._call(m) for m in methods if m.kind == "function")
                if name in ("__iter__", "__aiter__"):
                    found = union(each.elements for each in found if each.kind == "many")
                if found:
                    return found
        return UNKNOWN

    def _entered(self, value: Value) -> Values:
        if value.kind == "many":
            return value.elements
        if value.kind == "instance" and value.scope is not None:
            for name in ("__enter__", "__aenter__"):
                methods = self.attribute(value.scope, name, value)
                found = union(self._call(m) for m in methods if m.kind == "function")
                if found - _ENDS:
                    return found
            return frozenset({value})
        return UNKNOWN


def in_order(scopes: Iterable[Scope]) -> list[Scope]:
    """Scopes by place: sets of values come in another order in every process."""
    return sorted(scopes, key=lambda scope: (scope.path, scope.first_line))


def union(parts: Iterable[Values]) -> Values:
    """All meanings together."""
    together: set[Value] = set()
    for part in parts:
        together |= part
    return frozenset(together)
