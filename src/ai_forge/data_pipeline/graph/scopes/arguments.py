"""What the repository's own calls pass for parameters that declare no type: most of what untyped code tells.

Calls in tests do not count: they pass stand-ins. A value that is not known makes what the parameter means uncertain.
"""

from collections.abc import Mapping

from ai_forge.data_pipeline.graph.scopes.inference import OUTSIDE, UNKNOWN, Resolver, Value
from ai_forge.data_pipeline.graph.scopes.scope import CallSite, FileScopes, Scope
from ai_forge.data_pipeline.mining.filters import is_test_path

__all__ = ["resolver_of"]

_ROUNDS = 2
"""Times that arguments are carried into parameters: through a call, and through one more."""
_MAX_TARGETS = 2
Given = dict[tuple[int, str], set[Value]]


def resolver_of(files: Mapping[str, FileScopes]) -> Resolver:
    """A resolver for the files of one repository, which knows what its calls pass."""
    resolver = Resolver(files)
    for _ in range(_ROUNDS):
        given: Given = {}
        for path, file in files.items():
            for scope in () if is_test_path(path) else file.scopes:
                for site in scope.calls:
                    if site.arguments:
                        _carry(resolver, site, scope, given)
        resolver.learn(given)
    return resolver


def _carry(resolver: Resolver, site: CallSite, scope: Scope, given: Given) -> None:
    for function, is_bound in _functions(resolver, site, scope)[:_MAX_TARGETS]:
        names = function.parameters
        if is_bound and not function.is_static and names[:1] == [function.receiver]:
            names = names[1:]
        for position, (keyword, chain) in enumerate(site.arguments):
            name = keyword or (names[position] if position < len(names) else None)
            if name is None or any(b.declared for b in function.names.get(name, ())):
                continue
            if name in function.parameters or name in function.keyword_parameters:
                passed = resolver.evaluate(chain, scope)
                known = (passed - OUTSIDE) | (UNKNOWN if OUTSIDE & passed else frozenset())
                given.setdefault((id(function), name), set()).update(v for v in known if v.kind != "module")


def _functions(resolver: Resolver, site: CallSite, scope: Scope) -> list[tuple[Scope, bool]]:
    """The functions that a call runs, and whether their first parameter is given by what holds them."""
    functions: list[tuple[Scope, bool]] = []
    for value in resolver.evaluate(site.chain, scope):
        if value.kind == "class" and value.scope is not None:
            instance = Value("instance", value.scope)
            for name in ("__init__", "constructor"):
                methods = resolver.attribute(value.scope, name, instance)
                functions += [(m.scope, True) for m in methods if m.kind == "function" and m.scope is not None]
        elif value.kind == "function" and value.scope is not None:
            functions.append((value.scope, value.bound_to is not None))
    return functions
