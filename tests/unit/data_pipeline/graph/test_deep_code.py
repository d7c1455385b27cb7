"""Trees of any depth: no file of someone else's exhausts Python's stack, and what is not deep is still found."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.data_pipeline import Index
from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.source.repository import read_repository

PLAIN_PYTHON = '''
def one() -> int:
    """Give one, for all that want it."""
    return 1


def plain(x: int) -> int:
    """Add one to a number, as others do elsewhere."""
    return one() + x

'''
PLAIN_JS = "function one() { return 1 }\nfunction plain(x) { const y = one() + x; return y }\n"


def python(body: str) -> dict[str, str]:
    return {"deep.py": PLAIN_PYTHON + body, "plain.py": PLAIN_PYTHON}


def javascript(body: str, name: str = "deep.js") -> dict[str, str]:
    return {name: PLAIN_JS + body, "plain.js": PLAIN_JS}


def nested_ifs(n: int) -> str:
    ifs = "".join(" " * (depth + 1) + f"if x > {depth}:\n" for depth in range(n))
    return f"def deep(x):\n{ifs}{' ' * (n + 1)}one()\n"


SHAPES: dict[str, Callable[[], dict[str, str]]] = {
    "chained calls": lambda: python("def deep(x):\n    return x" + ".go()" * 300 + "\n"),
    "thousands of chained calls": lambda: python("def deep(x):\n    return x" + ".go()" * 3000 + "\n"),
    "terms": lambda: python("def deep(x):\n    return " + " + ".join(["one()"] * 600) + "\n"),
    "ifs": lambda: python(nested_ifs(300)),
    "conditions": lambda: python("def deep(x):\n    return " + "one() if x else " * 700 + "x\n"),
    "ors": lambda: python(
        "def deep(x):\n    y = " + " or ".join(f"x.a{n}" for n in range(900)) + "\n    return y.go()\n"
    ),
    "elements": lambda: python("def deep(x):\n    return x" + "[0]" * 700 + ".go()\n"),
    "builtins": lambda: python("def deep(x):\n    for y in " + "list(" * 400 + "x" + ")" * 400 + ":\n        y.go()\n"),
    "a long union": lambda: python("def deep(x: " + " | ".join(["int"] * 3000) + "):\n    return x.go()\n"),
    "functions": lambda: python(
        "".join(" " * depth + f"def f{depth}():\n" for depth in range(400)) + " " * 400 + "one()\n"
    ),
    "classes from last to first": lambda: python(
        "".join(f"class C{n}(C{n - 1}):\n    def m{n}(self):\n        return self.go()\n\n" for n in range(1200, 0, -1))
    ),
    "javascript calls": lambda: javascript("function deep(x) { return x" + ".go()" * 900 + " }\n"),
    "javascript terms": lambda: javascript("function deep(x) { return " + " + ".join(["one()"] * 900) + " }\n"),
    "javascript ors": lambda: javascript("function deep(x) { const y = " + "x.a || " * 900 + "x; return y.go() }\n"),
    "arrows": lambda: javascript("const deep = " + "() => " * 900 + "one();\n"),
    "assignments": lambda: javascript("let a;\na" + " = a" * 900 + " = one();\n"),
    "members of require": lambda: javascript("const a = require('b')" + ".c" * 900 + ";\n"),
    "else ifs": lambda: javascript("function deep(x) { if (x) one()" + " else if (x) one()" * 900 + " }\n"),
    "typescript unions": lambda: javascript(
        "function deep(x: " + " | ".join(["A"] * 900) + ") { x.go() }\n", "deep.ts"
    ),
    "wildcards": lambda: {
        **{f"m{n}.py": f"from m{n + 1} import *\n" for n in range(600)},
        "m600.py": PLAIN_PYTHON,
        "start.py": "from m0 import *\n" + PLAIN_PYTHON.replace("one() + x", "far() + x"),
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deep_file_ends_no_run_and_hides_no_other(shape: str, tmp_path: Path) -> None:
    for name, text in SHAPES[shape]().items():
        (tmp_path / name).write_text(text)
    repository = read_repository(tmp_path)
    mined = mine_repository(repository)
    graph = SymbolGraph(mined.documents, mined.imports, {file.path: file.content for file in repository.files})
    plain = next(block for block in mined.documents if block.name == "plain" and not block.path.startswith("deep"))
    assert [callee.name for callee in graph.callees(plain)] == ["one"]
    assert Index.build(mined.documents, graph=graph).search("`plain`", 1)[0].block.name == "plain"
