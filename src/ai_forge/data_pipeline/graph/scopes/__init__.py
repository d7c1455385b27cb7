"""What names mean in Python and the JavaScript family: from a file's text to the definitions behind a call.

`python_scopes` and `javascript_scopes` read a file into `scopes`; `modules` finds the file of an import; `inference`
evaluates what is called; `arguments` carries what calls pass into parameters without a type. `symbols` makes edges of it.
"""

from ai_forge.data_pipeline.graph.scopes.arguments import resolver_of
from ai_forge.data_pipeline.graph.scopes.inference import Resolver, in_order
from ai_forge.data_pipeline.graph.scopes.javascript_scopes import javascript_scopes
from ai_forge.data_pipeline.graph.scopes.python_scopes import python_scopes
from ai_forge.data_pipeline.graph.scopes.scope import Binding, Chain, FileScopes, Scope

__all__ = [
    "Binding",
    "Chain",
    "FileScopes",
    "Resolver",
    "Scope",
    "in_order",
    "javascript_scopes",
    "python_scopes",
    "resolver_of",
]
