"""Where the large libraries may be imported: nothing else of AI Forge loads them, so the rest starts in an instant."""

import ast
from pathlib import Path

import pytest

import ai_forge

PACKAGE = Path(ai_forge.__file__).parent


def imported_by(text: str) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found = set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
    return found


def importers(package: str) -> set[str]:
    """The modules of AI Forge that import `package`."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in paths
        if package in imported_by(path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(
    ("package", "prefix"), [("torch", "torch_"), ("bitsandbytes", "torch_"), ("mlx", "mlx_"), ("mlx_lm", "mlx_")]
)
def test_a_backends_library_is_imported_by_its_modules_alone(package: str, prefix: str) -> None:
    assert {path for path in importers(package) if not Path(path).name.startswith(prefix)} == set()


def test_the_contract_sees_every_kind_of_import() -> None:
    assert imported_by("import torch.nn as nn, os") == {"torch", "os"}
    assert imported_by("def f():\n    from torch.nn import Linear\n") == {"torch"}
    assert imported_by("from . import torch\nname = 'torch'") == set()
    assert "training/backends/torch_backend.py" in importers("torch")
    assert "training/backends/mlx_model.py" in importers("mlx")
