"""A Python file to its scopes: definitions, imports, what names and attributes are bound to, and the calls.

The tree is walked once. Types are read from annotations, also quoted ones; comments of types and stub files are not.
Not followed: `global`, `del`, star arguments, match patterns, and what decorators other than properties make of a
function.
"""

from tree_sitter import Node

from ai_forge.data_pipeline.graph.scopes.python_expressions import text_of, type_chains, values
from ai_forge.data_pipeline.graph.scopes.scope import Binding, CallSite, Chain, FileScopes, Scope, Walk, scopes_with

__all__ = ["python_scopes"]

_PROPERTIES = frozenset({"cached_property", "property", "abstractproperty", "reify"})
_GIVES_CLASS = frozenset({"__new__", "__init_subclass__", "__class_getitem__"})
_ARGUMENT_TYPES = frozenset({"identifier", "attribute", "call"})


def python_scopes(path: str, text: bytes) -> FileScopes | None:
    """The scopes of a Python file (UTF-8); None where the grammar is not installed."""
    return scopes_with(_Walk, path, text, "python")


class _Walk(Walk):
    """Statements and expressions are told apart only where it matters."""

    def enter(self, node: Node, scope: Scope) -> None:
        kind = node.type
        if kind in ("identifier", "string", "integer", "comment", "pass_statement"):
            if kind == "string" and node.named_child_count > 2:
                self.body(node, scope)
            return
        if kind in ("function_definition", "class_definition"):
            self.define(node, scope, [])
            return
        if kind == "decorated_definition":
            decorators = [
                c.named_children[0] for c in node.named_children if c.type == "decorator" and c.named_children
            ]
            definition = node.child_by_field_name("definition")
            if definition is not None:
                self.define(definition, scope, decorators)
            return
        if kind == "call":
            self.call(node, scope)
        elif kind == "assignment":
            self.assign(node, scope)
        elif kind == "named_expression":
            self.bind(node.child_by_field_name("name"), values(node.child_by_field_name("value")), scope)
        elif kind in ("for_statement", "for_in_clause"):
            self.loop(node, scope)
        elif kind == "as_pattern":
            self.as_pattern(node, scope)
        elif kind in ("import_statement", "import_from_statement"):
            self.imports(node, scope)
            return
        elif kind == "return_statement" and node.named_children:
            scope.results.extend(values(node.named_children[0]))
        elif kind == "yield":
            scope.is_generator = True
            if node.named_children and b"from" not in (node.text or b"")[:12]:
                scope.results.extend((*chain, "[*]") for chain in values(node.named_children[0]))
        self.body(node, scope)

    def define(self, node: Node, scope: Scope, decorators: list[Node]) -> None:
        name = text_of(node.child_by_field_name("name"))
        is_class = node.type == "class_definition"
        new = Scope(
            "class" if is_class else "function",
            name,
            self.file.path,
            node.start_point[0] + 1,
            node.end_point[0] + 1,
            scope,
        )
        for decorator in decorators:
            new.decorators.extend(values(decorator)[:1])
            self.visit(decorator, scope)
        scope.names[name].append(Binding(definition=new))
        self.file.scopes.append(new)
        if is_class:
            for base in getattr(node.child_by_field_name("superclasses"), "named_children", ()):
                if base.type != "keyword_argument":
                    new.bases.extend(
                        values(base.child_by_field_name("value") if base.type == "subscript" else base)[:1]
                    )
                self.visit(base, scope)
        else:
            self.signature(node, new, scope)
        body = node.child_by_field_name("body")
        if body is not None:
            self.body(body, new)

    def signature(self, node: Node, new: Scope, outer: Scope) -> None:
        marks = {chain[-1].lstrip(".") if chain[-1] != "()" else chain[-2].lstrip(".") for chain in new.decorators}
        is_method = outer.kind == "class"
        new.is_static = "staticmethod" in marks
        new.is_property = bool(marks & _PROPERTIES)
        new.is_overload = "overload" in marks or bool(marks & {"setter", "deleter"})
        new.receives_class = "classmethod" in marks or new.name in _GIVES_CLASS
        returns = node.child_by_field_name("return_type")
        if returns is not None:
            new.returns = type_chains(text_of(returns))
        positional = True
        for parameter in getattr(node.child_by_field_name("parameters"), "named_children", ()):
            kind = parameter.type
            if kind in ("keyword_separator", "list_splat_pattern"):
                positional = False
            annotation, default = parameter.child_by_field_name("type"), parameter.child_by_field_name("value")
            named = parameter.child_by_field_name("name") or (parameter if kind == "identifier" else None)
            if kind == "typed_parameter":
                named = parameter.named_children[0]
                if named.type != "identifier":
                    positional = positional and named.type != "list_splat_pattern"
                    self.splat(named, annotation, new)
                    continue
            if named is None or named.type != "identifier":
                continue
            name = text_of(named)
            (new.parameters if positional else new.keyword_parameters).append(name)
            bindings = new.names[name]
            if is_method and not new.is_static and new.receiver is None and positional:
                new.receiver = name
            elif annotation is not None:
                bindings.extend(Binding(chain, declared=True) for chain in type_chains(text_of(annotation)))
            if default is not None:
                if not bindings:
                    new.names[name].extend(Binding(chain) for chain in values(default))
                self.visit(default, outer)

    def splat(self, named: Node, annotation: Node | None, new: Scope) -> None:
        """`*args: T` and `**kwargs: T` hold many."""
        if annotation is not None and named.named_children:
            chains = type_chains(text_of(annotation))
            new.names[text_of(named.named_children[0])].extend(Binding((*c, "[*]"), declared=True) for c in chains)

    def call(self, node: Node, scope: Scope) -> None:
        function = node.child_by_field_name("function")
        given: list[tuple[str | None, Chain]] = []
        for argument in getattr(node.child_by_field_name("arguments"), "named_children", ()):
            keyword = None
            value: Node | None = argument
            if argument.type == "keyword_argument":
                keyword, value = text_of(argument.child_by_field_name("name")), argument.child_by_field_name("value")
            elif argument.type in ("list_splat", "dictionary_splat"):
                break
            chains = values(value) if value is not None and value.type in _ARGUMENT_TYPES else []
            given.append((keyword, chains[0] if chains else ()))
        if function is not None:
            line = function.end_point[0] + 1
            scope.calls.extend(CallSite(line, chain, tuple(given)) for chain in values(function))

    def assign(self, node: Node, scope: Scope) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        declared = node.child_by_field_name("type")
        if declared is not None and left is not None:
            chains = type_chains(text_of(declared))
            if chains:
                self.bind(left, chains, scope, declared=True)
                return
        while right is not None and right.type == "assignment":  # a = b = value
            right = right.child_by_field_name("right")
        self.bind(left, values(right), scope)

    def bind(self, target: Node | None, chains: list[Chain], scope: Scope, *, declared: bool = False) -> None:
        if target is None:
            return
        if target.type == "identifier":
            scope.names[text_of(target)].extend(Binding(chain, declared=declared) for chain in chains or [()])
        elif target.type == "attribute":
            held = target.child_by_field_name("object")
            owner = scope.owner
            function = scope
            while function.parent is not None and function.parent.kind == "function":
                function = function.parent
            if held is not None and owner is not None and text_of(held) == function.receiver:
                name = text_of(target.child_by_field_name("attribute"))
                owner.attributes[name].extend((scope, Binding(chain, declared=declared)) for chain in chains)
        elif target.type in ("pattern_list", "tuple_pattern", "list_pattern"):
            for part in target.named_children:
                self.bind(part, [], scope)

    def loop(self, node: Node, scope: Scope) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None:
            return
        if left.type in ("pattern_list", "tuple_pattern") and len(left.named_children) == 2:
            function = right.child_by_field_name("function") if right.type == "call" else None
            last = left.named_children[1]
            self.bind(left.named_children[0], [], scope)
            arguments = getattr(right.child_by_field_name("arguments"), "named_children", [])
            if function is not None and text_of(function) == "enumerate" and arguments:
                self.bind(last, [(*chain, "[]") for chain in values(arguments[0])], scope)
                return
            if function is not None and function.type == "attribute" and text_of(function).endswith(".items"):
                mapping = values(function.child_by_field_name("object"))
                self.bind(last, [(*chain, "[]") for chain in mapping], scope)
                return
        self.bind(left, [(*chain, "[]") for chain in values(right)], scope)

    def as_pattern(self, node: Node, scope: Scope) -> None:
        parts = node.named_children
        alias = node.child_by_field_name("alias")
        target = alias.named_children[0] if alias is not None and alias.named_children else None
        if target is None or not parts or node.parent is None:
            return
        if node.parent.type == "with_item":
            self.bind(target, [(*chain, "with") for chain in values(parts[0])], scope)
        elif parts[0].type == "tuple":
            caught = [chain for part in parts[0].named_children for chain in values(part)]
            self.bind(target, [(*chain, "()") for chain in caught], scope)
        else:
            self.bind(target, [(*chain, "()") for chain in values(parts[0])], scope)

    def imports(self, node: Node, scope: Scope) -> None:
        source = node.child_by_field_name("module_name")
        module = text_of(source) if source is not None else ""
        for child in node.named_children:
            if source is not None and child.id == source.id:
                continue
            if child.type == "wildcard_import":
                self.file.wildcards.append(module)
                continue
            named = child.child_by_field_name("name") if child.type == "aliased_import" else child
            alias = child.child_by_field_name("alias")
            original = text_of(named)
            if source is not None:
                scope.names[text_of(alias) if alias is not None else original].append(
                    Binding(module=module, original=original)
                )
            elif alias is not None:
                scope.names[text_of(alias)].append(Binding(module=original))
            else:
                scope.names[original.partition(".")[0]].append(Binding(module=original.partition(".")[0]))
                self.file.module.names.setdefault(f"import {original}", []).append(Binding(module=original))
