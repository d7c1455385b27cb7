"""The package's exports, doctests, and what importing it costs."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import ai_forge.data_pipeline as package

MODULES = [name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_export_exists_and_unknown_ones_do_not() -> None:
    assert sorted(package.__all__) == sorted(package._HOMES)
    for name in package.__all__:
        assert getattr(package, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing  # type: ignore[attr-defined]


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = "{'sklearn', 'matplotlib', 'scipy', 'torch', 'numpy', 'bm25s'}"
    code = (
        f"import sys, ai_forge.data_pipeline, ai_forge.data_pipeline.miner; sys.exit(bool({heavy} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
