"""What each stage is made of, as hashes: so that a stage that makes something else cannot keep its version by oversight.

    python tests/renew_stage_versions.py     write tests/unit/pipeline/stage_versions.json anew

A file counts by what it does: Python by its syntax tree without docstrings and comments, anything else by its bytes.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ai_forge
from ai_forge.code_hash import files_behind
from ai_forge.pipeline.recipes import RECIPES
from ai_forge.pipeline.stage import Stage

PATH = Path(__file__).parent / "unit" / "pipeline" / "stage_versions.json"
PACKAGE = Path(ai_forge.__file__).parent
COMMAND = "python tests/renew_stage_versions.py"


def stages() -> dict[str, Stage]:
    """Every stage by `recipe/stage`."""
    return {f"{recipe.name}/{stage.name}": stage for recipe in RECIPES.values() for stage in recipe.stages}


def place_of(function: Callable[..., Any]) -> Path:
    """The file where a function is written."""
    return Path(inspect.getsourcefile(function) or "")


def version_file(stage: Stage) -> str:
    """Where the version of a stage stands: beside the function that makes its key."""
    return place_of(stage.inputs).relative_to(PACKAGE.parent).as_posix()


def files_of(stage: Stage) -> list[Path]:
    """What a stage is made of: the modules that it names with all they import, and where its own functions are written."""
    functions = [stage.inputs, stage.build]
    for function in (stage.inputs, stage.build):  # a factory's stage holds the functions that it was given
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        functions += [held for held in cells if inspect.isfunction(held)]
    return sorted({*files_behind(*stage.made_of), *map(place_of, functions)})


def file_hash(path: Path) -> str:
    """Of what a file does: comments, docstrings and line breaks change nothing.

    >>> [hash_of_code(text) == hash_of_code("x = 1") for text in ("x = 1  # one", "'''One.'''\\nx  =  1", "x = 2")]
    [True, True, False]
    """
    content = path.read_bytes()
    return hash_of_code(content.decode()) if path.suffix == ".py" else hashlib.sha256(content).hexdigest()[:16]


def hash_of_code(text: str) -> str:
    """The hash of a module's syntax tree."""
    return hashlib.sha256("\n".join(_pieces(ast.parse(text))).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _pieces(node: ast.AST) -> Iterator[str]:
    # Not `ast.dump`: which empty fields it writes differs from one Python to the next.
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        values = value if isinstance(value, list) else [value]
        for inner in values:
            if isinstance(inner, ast.AST):
                if not _is_docstring(inner):
                    yield name
                    yield from _pieces(inner)
            elif inner is not None and name not in ("type_comment", "kind"):
                yield f"{name} {inner!r}"
    yield ")"


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def current() -> dict[str, Any]:
    """Versions and hashes as the code is now: `files` by path, `stages` by name."""
    paths = {path for stage in stages().values() for path in files_of(stage)}
    files = {path.relative_to(PACKAGE).as_posix(): file_hash(path) for path in sorted(paths)}
    rows = {}
    for name, stage in stages().items():
        held = {path.relative_to(PACKAGE).as_posix() for path in files_of(stage)}
        digest = hashlib.sha256(json.dumps([(path, files[path]) for path in sorted(held)]).encode()).hexdigest()[:16]
        rows[name] = {"version": stage.version, "hash": digest}
    return {"stages": rows, "files": files}


if __name__ == "__main__":
    PATH.write_text(json.dumps(current(), indent=1) + "\n")
    print(PATH)
