"""What each package exports: everything in `__all__` exists, and importing a package loads no heavy library."""

import doctest
import importlib
import subprocess
import sys

import pytest

from ai_forge import lazy

PACKAGES = ("ai_forge.serving", "ai_forge.data_pipeline", "ai_forge.judge", "ai_forge.training")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_export_exists_and_nothing_else_does(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    assert sorted(package.__all__) == sorted(package._HOMES)
    assert all(getattr(package, export) is not None for export in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_a_package_loads_no_heavy_library(name: str) -> None:
    heavy = {"torch", "transformers", "numpy", "matplotlib", "sklearn", "xllamacpp"}
    code = f"import sys, {name}; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_example_of_lazy_exports_holds() -> None:
    assert doctest.testmod(lazy).failed == 0
