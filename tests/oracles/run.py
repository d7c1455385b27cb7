"""`python tests/oracles/run.py [LANGUAGE…]`: our units against each language's own parser, on well-known packages.

Fetches the oracles' tools and the packages into a cache folder first (`AI_FORGE_ORACLES` names another one). Exits with
1 where the agreement is below the target: 100 % for Python, 99.9 % for Go, Java and Rust, 99.5 % for JavaScript and
TypeScript; in C and C++, which are read without a compile database, 97 % of what clang sees.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.mining.filters import file_rejection
from oracles.compare import CLANG, FOLDER, TYPESCRIPT, Agreement, compare, missing, tools
from oracles.standalone import blocks_that_do_not_parse

NPM = (
    f"typescript@{TYPESCRIPT}", "express@5.1.0", "lodash@4.17.21", "rxjs@7.8.2", "zod@4.1.12",
    "webpack@5.102.1", "three@0.181.0", "effect@3.19.3", "@tanstack/query-core@5.90.9",
)  # fmt: skip
SCRIPTS = ("express", "lodash", "rxjs/dist/esm", "webpack/lib", "three/src", "three/examples/jsm")
TYPED = ("typescript/lib", "rxjs/src", "zod/src", "effect/src", "@tanstack/query-core/src")
GO = (
    "github.com/spf13/cobra@v1.9.1", "golang.org/x/tools@v0.30.0", "github.com/gohugoio/hugo@v0.152.2",
    "github.com/prometheus/prometheus@v0.307.3",
)  # fmt: skip
MAVEN = (
    "org.apache.commons:commons-lang3:3.17.0", "com.google.guava:guava:33.4.0-jre",
    "org.hibernate.orm:hibernate-core:6.6.36.Final", "io.netty:netty-common:4.2.7.Final",
)  # fmt: skip
CRATES = {"serde": "=1.0.219", "tokio": "=1.44.2", "regex-automata": "=0.4.9"}
NEWER_CRATES = {"rustls": "=0.23.46", "bevy_ecs": "=0.20.1"}  # they want another serde
# Crates that carry sources of other languages: the folders below are read.
C_CRATES = {"libgit2-sys": "=0.18.8", "curl-sys": "=0.4.91"}
CPP_CRATES = {"librocksdb-sys": "=6.20.3"}
ROCKSDB = ("util", "table", "memtable", "cache")
CPP_WHEELS = ("libclang==18.1.1", "pybind11==3.0.1", "nanobind==2.9.2")
PYTHON_WHEELS = ("django==5.2.19", "networkx==3.6.1")
TARGETS = {"python": 1.0, "go": 0.999, "java": 0.999, "rust": 0.999, "c": 0.97, "cpp": 0.97}


def _call(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def _is_fetched(folder: Path, wanted: str) -> bool:
    """Whether a folder holds what is wanted now; what was fetched for an older list is fetched again."""
    mark = folder / ".fetched"
    return mark.is_file() and mark.read_text(encoding="utf-8") == wanted


def _npm() -> Path:
    folder, wanted = tools() / "npm", " ".join(NPM)
    if not _is_fetched(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        _call(
            "npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *NPM
        )
        (folder / ".fetched").write_text(wanted, encoding="utf-8")
    return folder / "node_modules"


def _go() -> list[Path]:
    folder = tools() / "go"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "go.mod").exists():
        _call("go", "mod", "init", "oracles", cwd=folder)
    _call("go", "mod", "download", *GO, cwd=folder)
    home = Path(_call("go", "env", "GOMODCACHE").strip())
    return [home / module for module in GO]


def _java() -> list[Path]:
    found = []
    for artifact in MAVEN:
        folder = tools() / "java" / artifact.replace(":", "-")
        if not folder.exists():
            repository = tools() / "m2"
            local = f"-Dmaven.repo.local={repository}"
            _call("mvn", "-q", local, "dependency:get", f"-Dartifact={artifact}:jar:sources", "-Dtransitive=false")
            group, name, version = artifact.split(":")
            jar = repository / group.replace(".", "/") / name / version / f"{name}-{version}-sources.jar"
            with zipfile.ZipFile(jar) as archive:
                archive.extractall(folder)
        found.append(folder)
    return found


def _rust() -> list[Path]:
    folder = tools() / "rust"
    build = ["cargo", "build", "--quiet", "--manifest-path", str(FOLDER / "rust" / "Cargo.toml")]
    subprocess.run([*build, "--target-dir", str(folder)], check=True)
    found = [_crates("crates", CRATES) / name for name in CRATES]
    return [*found, *(_crates("newer-crates", NEWER_CRATES) / name for name in NEWER_CRATES)]


def _crates(kind: str, crates: dict[str, str]) -> Path:
    """The sources of crates; nothing of them is built."""
    project = tools() / kind
    wanted = "\n".join(f'{name} = {{ version = "{v}", default-features = false }}' for name, v in crates.items())
    if not _is_fetched(project, wanted):
        (project / "src").mkdir(parents=True, exist_ok=True)
        (project / "src" / "lib.rs").write_text("", encoding="utf-8")
        manifest = f'[package]\nname = "{kind}"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{wanted}\n'
        (project / "Cargo.toml").write_text(manifest, encoding="utf-8")
        _call("cargo", "vendor", "--quiet", cwd=project)
        (project / ".fetched").write_text(wanted, encoding="utf-8")
    return project / "vendor"


def _wheels(kind: str, wheels: tuple[str, ...]) -> Path:
    folder, wanted = tools() / kind, " ".join(wheels)
    if not _is_fetched(folder, wanted):
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder))
        _call(*pip, *wheels)
        (folder / ".fetched").write_text(wanted, encoding="utf-8")
    return folder


def _files(folders: list[Path], *suffixes: str) -> list[Path]:
    """Readable source files below `folders`; minified and bundled ones are not mined and not compared."""
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith(suffixes)
        and path.is_file()
        and path.stat().st_size < 1_000_000
        and file_rejection(path.name, path.read_bytes()) != "minified"
    )


def packages(language: str) -> list[Path]:
    """The files to compare, fetched if need be."""
    if language == "python":
        library = Path(sysconfig.get_path("stdlib"))
        own = [path for path in _files([library], ".py") if "site-packages" not in path.parts]
        return [*own, *_files([_wheels("python", PYTHON_WHEELS)], ".py")]
    if language == "javascript":
        return _files([_npm() / folder for folder in SCRIPTS], ".js")
    if language == "typescript":
        return _files([_npm() / folder for folder in TYPED], ".ts", ".cts")
    if language == "go":
        return _files(_go(), ".go")
    if language == "java":
        return _files(_java(), ".java")
    if language in CLANG:
        wheels = _wheels("clang", CPP_WHEELS)
        if language == "c":
            vendored = _crates("c-crates", C_CRATES)
            folders = [Path(sysconfig.get_path("include")), *(vendored / name for name in C_CRATES)]
        else:
            rocksdb = _crates("cpp-crates", CPP_CRATES) / "librocksdb-sys" / "rocksdb"
            folders = [wheels / "pybind11", wheels / "nanobind", *(rocksdb / name for name in ROCKSDB)]
        found = _files(folders, ".h", ".c", ".cc", ".cpp")
        return [path for path in found if language_of(path.name, path.read_bytes()) == language]
    return _files(_rust(), ".rs")


def report(language: str, shown: int) -> bool:
    """Compare and print; whether the target is met."""
    program = {"javascript": "npm", "typescript": "npm", "go": "go", "java": "mvn", "rust": "cargo"}.get(language)
    if program is not None and shutil.which(program) is None:
        print(f"{language}: not compared, {program} is not on PATH")
        return True
    paths = packages(language)
    reason = missing(language)
    if reason is not None:
        print(f"{language}: not compared, {reason}")
        return True
    agreement: Agreement = compare(language, paths)
    print(f"{language}: {agreement.line()}")
    for difference in agreement.differences[:shown]:
        print(f"  {difference}")
    reached = agreement.found if language in CLANG else agreement.share
    good = reached >= TARGETS.get(language, 0.995)
    if language == "python":
        n_blocks, broken = blocks_that_do_not_parse(paths)
        print(f"python: {n_blocks} blocks, {len(broken)} do not parse on their own")
        for block in broken[:shown]:
            print(f"  {block}")
        good = good and not broken
    return good


def main() -> int:
    """Read the command line, compare, print."""
    known = ("python", "javascript", "typescript", "go", "java", "rust", *CLANG)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "languages", nargs="*", default=list(known), help=f"of {', '.join(known)}; all if none is named"
    )
    parser.add_argument("--show", type=int, default=10, help="differences to print for each language")
    given = parser.parse_args()
    results = [report(language, given.show) for language in given.languages]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
