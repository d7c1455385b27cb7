"""How the code reads, in figures: sizes, density, comments, loose types, by folder or as a whole.

    python bench/code_figures.py [FOLDER ...]     src/ai_forge where none is named

Functions, comprehensions and ternaries are counted in the syntax tree, comments by the tokenizer (those to tools left out),
all of them against the lines of the files. A folder's "most files" counts the Python files directly in it.
"""

import ast
import io
import re
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
TO_TOOLS = re.compile(r"#\s*(noqa|type:|fmt:|pragma)")


def figures(folder: Path) -> dict[str, float]:
    files = sorted(folder.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    lengths = [len(text.splitlines()) for text in texts]
    count: Counter[str] = Counter()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count["functions"] += 1
                parameters = node.args
                n = len(parameters.posonlyargs + parameters.args + parameters.kwonlyargs)
                count["many parameters"] += n > 8
                count["long functions"] += (node.end_lineno or node.lineno) - node.lineno + 1 > 60
            count["comprehensions"] += isinstance(node, COMPREHENSIONS)
            count["ternaries"] += isinstance(node, ast.IfExp)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        count["comments"] += sum(t.type == tokenize.COMMENT and not TO_TOOLS.match(t.string) for t in tokens)
        count["dict[str, Any]"] += text.count("dict[str, Any]")
    n_lines = max(1, sum(lengths))
    folders = Counter(path.parent for path in files)
    return {
        "files": len(files),
        "lines": sum(lengths),
        "median file": statistics.median(lengths or [0]),
        "longest file": max(lengths, default=0),
        "functions / 1000 lines": 1000 * count["functions"] / n_lines,
        "functions > 60 lines, %": 100 * count["long functions"] / max(1, count["functions"]),
        "functions > 8 parameters": count["many parameters"],
        "comprehensions / 1000 lines": 1000 * count["comprehensions"] / n_lines,
        "ternaries / 1000 lines": 1000 * count["ternaries"] / n_lines,
        "comments / 100 lines": 100 * count["comments"] / n_lines,
        "dict[str, Any]": count["dict[str, Any]"],
        "most files in a folder": max(folders.values(), default=0),
    }


def main() -> None:
    named = [Path(word) for word in sys.argv[1:]] or [Path(__file__).parents[1] / "src" / "ai_forge"]
    rows = [figures(folder) for folder in named]
    print(f"{'':<30}" + "".join(f"{folder.name:>16}" for folder in named))
    for name in rows[0]:
        print(f"{name:<30}" + "".join(f"{row[name]:>16.1f}" for row in rows))


if __name__ == "__main__":
    main()
