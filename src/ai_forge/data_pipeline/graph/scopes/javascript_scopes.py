"""A JavaScript, TypeScript or TSX file to its scopes; see `scopes_python` for what that means.

Classes, interfaces and object literals hold members; `this` is the instance around it. ES modules, CommonJS and
re-exports are read, types where TypeScript declares them. A JSX element calls its component. Not followed: prototypes
beyond `A.prototype.f = …`, destructured values, namespaces, type aliases, and `this` of callbacks that are no arrows.
"""

from tree_sitter import Node

from ai_forge.data_pipeline.graph.scopes.javascript_expressions import base_chains, types, values
from ai_forge.data_pipeline.graph.scopes.python_expressions import text_of
from ai_forge.data_pipeline.graph.scopes.scope import (
    Binding,
    CallSite,
    Chain,
    FileScopes,
    Scope,
    ScopeKind,
    Walk,
    scopes_with,
)

__all__ = ["javascript_scopes"]

_FUNCTIONS = frozenset({"arrow_function", "function_expression", "generator_function", "function"})
_DECLARED_FUNCTIONS = frozenset({"function_declaration", "generator_function_declaration", "function_signature"})
_CLASSES = frozenset({"class_declaration", "abstract_class_declaration", "interface_declaration", "class"})
_METHODS = frozenset({"method_definition", "method_signature", "abstract_method_signature"})
_FIELDS = frozenset({"field_definition", "public_field_definition", "property_signature"})
_ARGUMENTS_FOLLOWED = frozenset({"identifier", "member_expression", "new_expression", "this"})


def javascript_scopes(path: str, text: bytes, language: str) -> FileScopes | None:
    """The scopes of a file in `javascript`, `typescript` or `tsx` (UTF-8); None without that grammar."""
    return scopes_with(_Walk, path, text, language)


class _Walk(Walk):
    def enter(self, node: Node, scope: Scope) -> None:
        kind = node.type
        if kind in _DECLARED_FUNCTIONS:
            self.function(node, text_of(node.child_by_field_name("name")), scope)
        elif kind in _CLASSES:
            self.type(node, text_of(node.child_by_field_name("name")), scope)
        elif kind in _METHODS:
            self.method(node, scope)
        elif kind in _FIELDS:
            self.field(node, scope)
        elif kind in _FUNCTIONS:
            self.function(node, "", scope)
        elif kind == "variable_declarator":
            self.declare(node, scope)
        elif kind == "assignment_expression":
            self.assign(node, scope)
        elif kind == "import_statement":
            self.imports(node)
        elif kind == "export_statement":
            self.export(node, scope)
        elif kind in ("call_expression", "new_expression", "jsx_opening_element", "jsx_self_closing_element"):
            self.call(node, scope)
            self.body(node, scope)
        elif kind == "for_in_statement":
            self.loop(node, scope)
            self.body(node, scope)
        elif kind == "return_statement" and node.named_children:
            scope.results.extend(values(node.named_children[0]))
            self.body(node, scope)
        elif kind not in ("comment", "string", "regex", "type_annotation"):
            self.body(node, scope)

    def open(self, kind: ScopeKind, name: str, node: Node, parent: Scope) -> Scope:
        scope = Scope(kind, name, self.file.path, node.start_point[0] + 1, node.end_point[0] + 1, parent)
        self.file.scopes.append(scope)
        return scope

    def function(self, node: Node, name: str, outer: Scope, *, declares: bool = True) -> Scope:
        new = self.open("function", name, node, outer)
        new.is_overload = node.type in ("function_signature", "method_signature", "abstract_method_signature")
        if name and declares:
            outer.names[name].append(Binding(definition=new))
        returns = node.child_by_field_name("return_type")
        if returns is not None:
            new.returns = types(returns)
        self.parameters(node, new)
        body = node.child_by_field_name("body")
        if body is not None:
            if node.type == "arrow_function" and body.type != "statement_block":
                new.results.extend(values(body))
            self.visit(body, new)
        return new

    def parameters(self, node: Node, new: Scope) -> None:
        single = node.child_by_field_name("parameter")
        listed = node.child_by_field_name("parameters")
        parameters = [] if listed is None else listed.named_children
        if single is not None:
            parameters = [single]
        for parameter in parameters:
            named = parameter.child_by_field_name("pattern") or parameter.child_by_field_name("left") or parameter
            if named.type != "identifier":
                continue
            name = text_of(named)
            new.parameters.append(name)
            declared = types(parameter.child_by_field_name("type"))
            new.names[name].extend(Binding(chain, declared=True) for chain in declared)
            default = parameter.child_by_field_name("value") or parameter.child_by_field_name("right")
            if default is not None:
                new.names[name].extend(Binding(chain) for chain in values(default) if not declared)
                self.visit(default, new)
            if any(child.type in ("accessibility_modifier", "readonly") for child in parameter.children):
                owner = new.parent
                if owner is not None:
                    owner.attributes[name].extend((new, Binding(chain, declared=True)) for chain in declared)

    def type(self, node: Node, name: str, outer: Scope, *, declares: bool = True) -> Scope:
        new = self.open("class", name, node, outer)
        if name and declares:
            outer.names[name].append(Binding(definition=new))
        for child in node.named_children:
            if child.type in ("class_heritage", "extends_type_clause"):
                clauses = [c for c in child.named_children if c.type in ("extends_clause", "implements_clause")] or [
                    child
                ]
                for clause in clauses:
                    new.bases.extend(chain for base in clause.named_children for chain in base_chains(base))
                self.body(child, outer)
            elif child.type == "decorator":
                self.visit(child, outer)
        body = node.child_by_field_name("body")
        if body is not None:
            self.body(body, new)
        return new

    def method(self, node: Node, scope: Scope) -> None:
        name = text_of(node.child_by_field_name("name")).strip("\"'")
        new = self.function(node, name, scope)
        words = {child.type for child in node.children}
        new.receiver, new.receives_class = "this", "static" in words
        new.is_property = "get" in words
        new.is_overload = new.is_overload or "set" in words

    def field(self, node: Node, scope: Scope) -> None:
        name = text_of(node.child_by_field_name("property") or node.child_by_field_name("name")).strip("\"'")
        value, declared = node.child_by_field_name("value"), types(node.child_by_field_name("type"))
        if value is not None and value.type in _FUNCTIONS:
            self.function(value, name, scope).receiver = "this"
            return
        scope.names[name].extend(Binding(chain, declared=True) for chain in declared)
        if value is not None:
            if not declared:
                scope.names[name].extend(Binding(chain) for chain in values(value) or [()])
            self.visit(value, scope)

    def declare(self, node: Node, scope: Scope) -> None:
        target, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if target is None:
            return
        source, original = _required(value)
        if source:
            if target.type == "identifier":
                scope.names[text_of(target)].append(Binding(module=source, original=original))
            for part in target.named_children if target.type == "object_pattern" else []:
                key, local = part.child_by_field_name("key") or part, part.child_by_field_name("value") or part
                scope.names[text_of(local)].append(Binding(module=source, original=text_of(key)))
            return
        declared = types(node.child_by_field_name("type"))
        if target.type == "identifier":
            scope.names[text_of(target)].extend(Binding(chain, declared=True) for chain in declared)
            if self.define(text_of(target), value, scope):
                return
            if not declared:
                scope.names[text_of(target)].extend(Binding(chain) for chain in values(value) or [()])
        if value is not None:
            self.visit(value, scope)

    def define(self, name: str, value: Node | None, scope: Scope, names: str | None = None) -> bool:
        """Bind `name` to a function, class or object literal; False if `value` is none of them."""
        if value is None:
            return False
        if value.type in _FUNCTIONS:
            self.function(value, name, scope)
        elif value.type == "class":
            self.type(value, name, scope)
        elif value.type == "object":
            self.object(value, name, scope)
        else:
            return False
        return True

    def object(self, node: Node, name: str, outer: Scope) -> Scope:
        """An object literal holds members as a class does."""
        new = self.open("class", name, node, outer)
        if name:
            outer.names[name].append(Binding(definition=new))
        for part in node.named_children:
            if part.type == "pair":
                key = text_of(part.child_by_field_name("key")).strip("\"'")
                value = part.child_by_field_name("value")
                if value is not None and value.type in _FUNCTIONS:
                    self.function(value, key, new).receiver = "this"
                elif value is not None:
                    new.names[key].extend(Binding(chain) for chain in values(value))
                    self.visit(value, new)
            elif part.type == "shorthand_property_identifier":
                outer_chain = (text_of(part),)
                new.attributes[text_of(part)].append((outer, Binding(outer_chain)))
            else:
                self.visit(part, new)
        return new

    def assign(self, node: Node, scope: Scope) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None:
            return
        target = text_of(left).replace(".prototype.", ".")
        if target == "module.exports" or (target.startswith(("exports.", "module.exports.")) and target.count(".") < 3):
            self.common_export(target.removeprefix("module.").removeprefix("exports").lstrip(".") or "=", right, scope)
            return
        if left.type == "member_expression" and target.startswith("this."):
            owner = scope.owner
            if owner is not None and target.count(".") == 1:
                name = target.partition(".")[2]
                if right.type in _FUNCTIONS:
                    function = self.function(right, name, scope, declares=False)
                    owner.attributes[name].append((scope, Binding(definition=function)))
                    return
                owner.attributes[name].extend((scope, Binding(chain)) for chain in values(right) or [()])
        elif left.type in ("identifier", "member_expression") and self.define(target, right, scope):
            if left.type == "member_expression" and scope is not self.file.module and target in scope.names:
                self.file.module.names[target].extend(scope.names[target])
            return
        elif left.type == "identifier":
            scope.names[target].extend(Binding(chain) for chain in values(right) or [()])
        self.visit(right, scope)
        if right.type != "assignment_expression":
            self.visit(left, scope)

    def common_export(self, name: str, right: Node, scope: Scope) -> None:
        inner = right
        while inner.type == "assignment_expression":
            further = inner.child_by_field_name("right")
            if further is None:
                return
            inner = further
        local = text_of(inner.child_by_field_name("name")) if inner.type in (*_FUNCTIONS, "class") else ""
        if inner.type in _FUNCTIONS:
            definition = self.function(inner, local or name.replace("=", "exports"), scope)
        elif inner.type == "class":
            definition = self.type(inner, local or name.replace("=", "exports"), scope)
        elif inner.type == "object":
            definition = self.object(inner, "", scope)
        else:
            source, original = _required(inner)
            if source:
                self.file.exports[name].append(Binding(module=source, original=original))
            else:
                self.file.exports[name].extend(Binding(chain) for chain in values(inner))
                self.visit(inner, scope)
            return
        self.file.exports[name].append(Binding(definition=definition))

    def imports(self, node: Node) -> None:
        module = text_of(node.child_by_field_name("source")).strip("\"'`")
        names = self.file.module.names
        for clause in (c for c in node.named_children if c.type == "import_clause"):
            for part in clause.named_children:
                if part.type == "identifier":
                    names[text_of(part)].append(Binding(module=module, original="default"))
                elif part.type == "namespace_import" and part.named_children:
                    names[text_of(part.named_children[0])].append(Binding(module=module))
                for specifier in part.named_children if part.type == "named_imports" else []:
                    original = text_of(specifier.child_by_field_name("name"))
                    local = text_of(specifier.child_by_field_name("alias")) or original
                    names[local].append(Binding(module=module, original=original))

    def export(self, node: Node, scope: Scope) -> None:
        source = text_of(node.child_by_field_name("source")).strip("\"'`")
        is_default = any(child.type == "default" for child in node.children)
        clause = next((c for c in node.named_children if c.type == "export_clause"), None)
        renamed = next((c for c in node.named_children if c.type == "namespace_export"), None)
        for specifier in clause.named_children if clause is not None else []:
            original = text_of(specifier.child_by_field_name("name"))
            name = text_of(specifier.child_by_field_name("alias")) or original
            exported = Binding(module=source, original=original) if source else Binding((original,))
            self.file.exports[name].append(exported)
        if source and renamed is not None and renamed.named_children:
            self.file.exports[text_of(renamed.named_children[0])].append(Binding(module=source))
        elif source and clause is None:
            self.file.reexports.append(source)
        declaration = node.child_by_field_name("declaration")
        value = node.child_by_field_name("value")
        if declaration is not None:
            before = {name: len(found) for name, found in scope.names.items()}
            self.visit(declaration, scope)
            for name, found in scope.names.items():
                if len(found) > before.get(name, 0) and "." not in name:
                    self.file.exports["default" if is_default else name].append(Binding((name,)))
        elif value is not None:
            if value.type in _FUNCTIONS:
                self.file.exports["default"].append(Binding(definition=self.function(value, "default", scope)))
            elif value.type == "class":
                self.file.exports["default"].append(Binding(definition=self.type(value, "default", scope)))
            elif value.type == "object":
                self.file.exports["default"].append(Binding(definition=self.object(value, "", scope)))
            else:
                self.file.exports["default"].extend(Binding(chain) for chain in values(value))
                self.visit(value, scope)

    def call(self, node: Node, scope: Scope) -> None:
        is_element = node.type.startswith("jsx")
        field = "name" if is_element else {"new_expression": "constructor"}.get(node.type, "function")
        function = node.child_by_field_name(field)
        if function is None or (is_element and not text_of(function)[:1].isupper()):
            return
        given: list[tuple[str | None, Chain]] = []
        for argument in getattr(node.child_by_field_name("arguments"), "named_children", ()):
            if argument.type == "spread_element":
                break
            chains = values(argument) if argument.type in _ARGUMENTS_FOLLOWED else []
            given.append((None, chains[0] if chains else ()))
        line = function.end_point[0] + 1
        scope.calls.extend(CallSite(line, chain, tuple(given)) for chain in values(function))

    def loop(self, node: Node, scope: Scope) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None and left.type == "identifier" and any(child.type == "of" for child in node.children):
            scope.names[text_of(left)].extend(Binding((*chain, "[]")) for chain in values(right) or [()])


def _required(node: Node | None) -> tuple[str, str | None]:
    """(module, member) of `require("module").member`; ("", None) for anything else."""
    if node is None:
        return "", None
    if node.type == "member_expression":
        held = node.child_by_field_name("object")
        module = _required(held)[0] if held is not None and held.type == "call_expression" else ""
        return (module, text_of(node.child_by_field_name("property"))) if module else ("", None)
    if node.type != "call_expression" or text_of(node.child_by_field_name("function")) != "require":
        return "", None
    arguments = getattr(node.child_by_field_name("arguments"), "named_children", [])
    return (text_of(arguments[0]).strip("\"'`"), None) if arguments and arguments[0].type == "string" else ("", None)
