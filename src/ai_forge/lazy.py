"""Exports that are loaded on first use (PEP 562), so that importing a package costs nothing.

A package's `__init__` maps each public name to the module it lives in and sets `__getattr__ = lazy_exports(...)`:
`import ai_forge.training` then loads no library, and `python -m` of one module does not import the others first.
"""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of `package`, whose public names live in the modules that `homes` names: its own, or full names.

    >>> lazy_exports("json", {"JSONDecoder": "decoder"})("JSONDecoder")
    <class 'json.decoder.JSONDecoder'>
    """

    def load(name: str) -> object:
        if name not in homes:  # `hasattr`, `copy` and `inspect` ask for names that are not there
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        if not home.startswith("ai_forge."):
            home = f"{package}.{home}"
        return getattr(import_module(home), name)

    return load
