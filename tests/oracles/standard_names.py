"""`python tests/oracles/standard_names.py [LANGUAGE…]`: the names of each standard library, asked of its own toolchain.

Writes `judge/metrics/standard_names/LANGUAGE.txt.gz`: a line for each module or type, `container name name …`. Python tells by
inspection, Go by its `api` files, Java by reflection over its modules, JavaScript by node and TypeScript's declarations, Rust by
the documentation of its toolchain, C++ by its headers. Only own trusted code is imported. `--add` keeps what the file holds already:
so the lists of several versions become one.
"""

import argparse
import builtins
import gzip
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tokenize
import warnings
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parent
TARGET = FOLDER.parents[1] / "src" / "ai_forge" / "judge" / "metrics" / "standard_names"
Names = dict[str, set[str]]
# Opening a browser, a window, or the whole test suite when imported; not for callers.
LEFT_OUT = {"antigravity", "this", "idlelib", "test", "turtledemo", "lib2to3", "tkinter.test", "distutils.tests"}


def python() -> Names:
    found: Names = defaultdict(set)
    waiting = sorted(name for name in sys.stdlib_module_names if not name.startswith("_") and name not in LEFT_OUT)
    waiting = ["builtins", "__future__", *waiting]
    while waiting:
        name = waiting.pop(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(name)
        except (ImportError, OSError, AttributeError, SystemExit):  # another system's
            found[name] = set()
            continue
        _add_python(found, name, module)
        for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
            full = f"{name}.{inner.name}"
            found[name].add(inner.name)
            if inner.name not in ("__main__", "tests", "test") and full not in LEFT_OUT:
                waiting.append(full)
    for kind in (type((lambda: (yield))()), type(lambda: 0), type(sys), type(found.get)):
        found[f"builtins.{kind.__name__}"] = set(dir(kind))
    return found


def _add_python(found: Names, name: str, module: object) -> None:
    found[name].update(dir(module))
    for inner, value in vars(module).items():
        if inspect.isclass(value) and (getattr(value, "__module__", "") == name or name == "builtins"):
            found[f"{name}.{inner}"].update(dir(value))
            found[f"{name}.{inner}"].update(_assigned(value))
    if name == "os":
        found["os.path"].update(dir(module.path))


def _assigned(kind: type) -> set[str]:
    """Attributes that a class gives its instances in its own text."""
    try:
        return set(re.findall(r"\bself\.([A-Za-z]\w*)\s*(?::[^=\n]+)?=", inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return set()


def go() -> Names:
    root = Path(_told("go", "env", "GOROOT").strip())
    found: Names = defaultdict(set)
    entry = re.compile(r"^pkg ([\w/.]+)(?: \([\w-]+\))?, (func|method|type|const|var) (.*)$")
    for path in sorted((root / "api").glob("go1*.txt")):
        for line in path.read_text().splitlines():
            if not (match := entry.match(line)):
                continue
            package, kind, rest = match.groups()
            if kind == "method":
                owner, member = re.match(r"\(\*?(\w+)(?:\[.*?\])?\) (\w+)", rest).groups()
                found[f"{package}.{owner}"].add(member)
                continue
            name = re.match(r"\w+", rest)[0]
            found[package].add(name)
            if kind == "type":
                found[f"{package}.{name}"].update(
                    re.findall(r"(?:struct,(?: embedded)? |\{ |, )\*?(?:\w+\.)?([A-Z]\w*)", rest)
                )
    words = "append cap clear close complex copy delete imag len make max min new panic print println real recover"
    types = "any bool byte comparable complex64 complex128 error float32 float64 int int8 int16 int32 int64 rune string uint"
    found["builtin"].update(f"{words} {types} uint8 uint16 uint32 uint64 uintptr true false iota nil Error".split())
    return found


def java() -> Names:
    return {name: set(members) for name, members in json.loads(_told("java", str(FOLDER / "JavaNames.java"))).items()}


def javascript() -> Names:
    found = {name: set(members) for name, members in json.loads(_told("node", str(FOLDER / "node_names.js"))).items()}
    sys.path.insert(0, str(FOLDER.parent))
    from oracles.run import _npm

    declared = re.compile(r"^\s*(?:readonly |static |abstract )*(\w+)\??\s*[(:<]", re.MULTILINE)
    top = re.compile(r"^(?:declare )?(?:interface|type|var|function|class|const|namespace) (\w+)", re.MULTILINE)
    found["typescript"] = set()
    for path in sorted((_npm() / "typescript" / "lib").glob("lib*.d.ts")):
        text = path.read_text(encoding="utf-8")
        found["globals"].update(top.findall(text))
        found["typescript"].update(declared.findall(text))
    return found


def rust() -> Names:
    root = Path(_told("rustc", "--print", "sysroot").strip()) / "share" / "doc" / "rust" / "html"
    found: Names = defaultdict(set)
    for crate in ("std", "core", "alloc"):
        for path in sorted((root / crate).rglob("*.html")):
            place = "::".join(path.relative_to(root).parent.parts)
            if path.name in ("index.html", "all.html"):
                continue
            kind, _, name = path.stem.partition(".")
            if not name or kind == "sidebar-items":
                continue
            found[place].add(name)
            if kind in ("struct", "enum", "trait", "union", "primitive"):
                text = path.read_text(encoding="utf-8")
                members = re.findall(
                    r'id="(?:method|tymethod|variant|structfield|associatedconstant|associatedtype)\.(\w+)"', text
                )
                found[f"{place}::{name}"].update(members)
    return found


def cpp() -> Names:
    done = subprocess.run(["c++", "-E", "-x", "c++", "-std=c++20", "-v", "/dev/null"], capture_output=True, text=True)
    folders = re.findall(r"^ (/\S*include/c\+\+/\d+)$", done.stderr, re.MULTILINE)
    found: Names = {"std": set()}
    for folder in folders:
        for path in [*Path(folder).iterdir(), *Path(folder, "bits").iterdir()]:
            if path.is_file():
                found[path.name] = set()
                found["std"].update(re.findall(r"\b[a-z][a-z0-9_]{2,}\b", path.read_text(errors="replace")))
    for header in Path("/usr/include").glob("*.h"):
        found[header.name] = set()
        found["std"].update(re.findall(r"\b[a-zA-Z][A-Za-z0-9_]{2,}\b(?=\s*\()", header.read_text(errors="replace")))
    return found


def _told(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


MAKERS = {"python": python, "go": go, "java": java, "javascript": javascript, "rust": rust, "cpp": cpp}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("languages", nargs="*", default=list(MAKERS))
    parser.add_argument("--add", action="store_true")
    given = parser.parse_args()
    TARGET.mkdir(exist_ok=True)
    for language in given.languages:
        names = MAKERS[language]()
        path = TARGET / f"{language}.txt.gz"
        if given.add and path.exists():
            for line in gzip.decompress(path.read_bytes()).decode().splitlines():
                name, *members = line.split(" ")
                names.setdefault(name, set()).update(members)
        kept = {name: sorted(n for n in members if n.isidentifier()) for name, members in sorted(names.items())}
        lines = "".join(" ".join([name, *members]) + "\n" for name, members in kept.items())
        path.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
        print(
            f"{language}: {len(kept)} modules and types, {sum(map(len, kept.values()))} names, {path.stat().st_size} bytes"
        )
    return 0


if __name__ == "__main__":
    builtins.print(end="")
    sys.exit(main())
