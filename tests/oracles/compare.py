"""Units as a language's own parser sees them, beside ours.

Each oracle is a small program around the parser that the language's own tools use: Python's `ast`, the TypeScript
compiler, go/parser, the JDK's compiler, syn, libclang. It prints the kind, name, first and last line of every definition and
whether it is documented. Lines are those of the definition with its decorators, without the comment above it.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.mining.parsing import ParsedFile, Unit, parse

FOLDER = Path(__file__).parent
TIMEOUT_S = 1200
TYPESCRIPT = "5.9.3"
CLANG = ("c", "cpp")
# What clang's cursors have no definition for: the miner takes them as units too.
_NOT_OF_CLANG = ("preproc_function_def", "alias_declaration", "concept_definition", "lambda_expression")

OracleUnit = tuple[str, str, int, int, bool | None]
"""Kind (`function` or `type`), bare name, first line, last line, whether it is documented (None: not known)."""


def tools() -> Path:
    """Where `fetch` puts the TypeScript compiler, the built Rust oracle and the packages: `AI_FORGE_ORACLES` or a cache."""
    return Path(os.environ.get("AI_FORGE_ORACLES") or platformdirs.user_cache_path("ai-forge-oracles"))


def missing(language: str) -> str | None:
    """Why the oracle of `language` cannot run here, or None."""
    program = {"javascript": "node", "typescript": "node", "go": "go", "java": "javac"}.get(language)
    if program is not None and shutil.which(program) is None:
        return f"{program} is not on PATH"
    if language in ("javascript", "typescript") and not (tools() / "npm/node_modules/typescript").is_dir():
        return "the typescript package is not fetched: make oracles"
    if language in CLANG and not (tools() / "clang" / "clang").is_dir():
        return "libclang is not fetched: make oracles"
    if language == "rust" and not _rust_program().is_file():
        return "the syn oracle is not built: make oracles"
    return None


def _rust_program() -> Path:
    return tools() / "rust" / "debug" / "rust-units"


def _command(language: str) -> list[str]:
    return {
        "javascript": ["node", str(FOLDER / "typescript_units.js"), str(tools() / "npm/node_modules/typescript")],
        "typescript": ["node", str(FOLDER / "typescript_units.js"), str(tools() / "npm/node_modules/typescript")],
        "go": ["go", "run", str(FOLDER / "go_units.go")],
        "java": ["java", str(FOLDER / "JavaUnits.java")],
        "rust": [str(_rust_program())],
    }[language]


def oracle_units(language: str, paths: Iterable[Path]) -> Iterator[tuple[Path, list[OracleUnit] | None]]:
    """Each file with its units, or None where the language's own parser refuses it."""
    if language == "python":
        for path in paths:
            yield path, _python_units(path)
        return
    paths = list(paths)
    given = "".join(f"{path}\n" for path in paths)
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    if language in CLANG:
        named = {"c": "c", "cpp": "c++"}[language]
        given = "".join(f"{named}\t{path}\n" for path in paths)
        environment["PYTHONPATH"] = str(tools() / "clang")
        folders = sorted({str(path.parent) for path in paths})  # packages may lie far from each other
        command = [sys.executable, str(FOLDER / "clang_units.py"), *folders]
    else:
        command = _command(language)
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"The {language} oracle failed: {done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        result = json.loads(line)
        units = (
            None
            if result.get("error")
            else [(u[0], u[1] if language in CLANG else _bare(u[1]), *u[2:]) for u in result["units"]]
        )
        yield Path(result["path"]), units


def _python_units(path: Path) -> list[OracleUnit] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return None
    found: list[OracleUnit] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            kind = "type" if isinstance(node, ast.ClassDef) else "function"
            documented = bool((ast.get_docstring(node) or "").strip())
            found.append((kind, node.name, first, node.end_lineno or 0, documented))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if len(targets) == 1 and isinstance(targets[0], ast.Name):
                found.append(("function", targets[0].id, node.lineno, node.end_lineno or 0, False))
    return found


def _bare_cpp(name: str) -> str:
    """The name without the arguments of a template; conversions are all called `operator`.

    >>> _bare_cpp("hash<A<B>>"), _bare_cpp("operator T *"), _bare_cpp("operator<")
    ('hash', 'operator', 'operator<')
    """
    if name.startswith("operator"):
        return "operator" if name.startswith("operator ") else name
    return re.sub(r"\s*<.*", "", " ".join(name.split()), flags=re.DOTALL)


def _is_of_clang(unit: Unit) -> bool:
    """Whether clang would call a unit of C or C++ a definition with a body."""
    node = unit.definition
    if node.type == "type_definition":
        of = node.child_by_field_name("type")
        return of is not None and of.child_by_field_name("body") is not None
    has_body = unit.body is not None or any(child.type == "try_statement" for child in node.children)
    return node.type not in _NOT_OF_CLANG and (has_body or node.type != "function_definition")


def _bare(name: str) -> str:
    return " ".join(name.strip("\"'").split()).rpartition(".")[2]


def own_units(parsed: ParsedFile, language: str) -> list[OracleUnit]:
    """What the miner sees, in the oracles' terms; units with a syntax error are none, as in the miner."""
    bare = _bare_cpp if language in CLANG else _bare
    return [
        (
            "function" if unit.kind in ("function", "method") else "type",
            bare(unit.name),
            unit.code_line,
            unit.last_line,
            unit.docstring is not None,
        )
        for unit in parsed.units
        if not unit.has_error and (language not in CLANG or _is_of_clang(unit))
    ]


@dataclass
class Agreement:
    """Counts over files. `equal` counts units equal in kind, name and lines; `same_documentation` those of them that
    both call documented or both do not."""

    files: int = 0
    refused: int = 0
    oracle: int = 0
    ours: int = 0
    equal: int = 0
    same_documentation: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Equal units among all that either side sees, 0–1."""
        return self.equal / max(1, self.oracle + self.ours - self.equal)

    @property
    def found(self) -> float:
        """Equal units among those of the oracle, 0–1: clang sees nothing of the branches that it does not take."""
        return self.equal / max(1, self.oracle)

    def line(self) -> str:
        """One row of a report."""
        documented = self.same_documentation / max(1, self.equal)
        return (
            f"{self.files} files ({self.refused} refused by the oracle), {self.oracle} units there, {self.ours} here, "
            f"{self.equal} equal: {self.share:.3%}, {self.found:.3%} of those there; documentation agrees for {documented:.3%}"
        )


def compare(language: str, paths: Iterable[Path]) -> Agreement:
    """Our units of `paths` against the oracle's."""
    total = Agreement()
    for path, expected in oracle_units(language, list(paths)):
        total.files += 1
        if expected is None:
            total.refused += 1
            continue
        parsed = parse(path.read_bytes(), language if language in CLANG else language_of(path.name) or language)
        assert parsed is not None, f"the grammar of {language} is not installed"
        units = own_units(parsed, language)
        theirs, ours = Counter(u[:4] for u in expected), Counter(u[:4] for u in units)
        total.oracle += len(expected)
        total.ours += len(units)
        total.equal += (theirs & ours).total()
        documented, here = {u[:4]: u[4] for u in expected}, {u[:4]: u[4] for u in units}
        disagree = {
            key for key in documented if key in here and documented[key] is not None and here[key] != documented[key]
        }
        total.same_documentation += (theirs & ours).total() - sum((theirs & ours)[key] for key in disagree)
        total.differences += [f"{path}: only there {unit}" for unit in (theirs - ours).elements()]
        total.differences += [f"{path}: only here {unit}" for unit in (ours - theirs).elements()]
        total.differences += [f"{path}: documented {documented[key]} there {key}" for key in disagree]
    return total
