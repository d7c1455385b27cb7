"""Mining CPython's library against tree-sitter's bare parse of the same files; then again, with one file in a hundred changed.

Everything from the files on disk on: both sides read them, the parse with one parser per language in one process, the
mining with as many processes as there are cores. What is mined can be looked at in several ways, and each is timed:

* `cold`: nothing known; `cold_cached` also stores what it found; `one_process` is without helpers;
* `changed`: one file in a hundred changed since, the others in the cache; `unchanged`: none;
* `documents`: making all blocks of a result that came out of the cache, which is done when they are first looked at.

CPU seconds count all processes: on a machine with other work they are fairer than the wall's.
"""

import argparse
import gc
import os
import resource
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from tree_sitter import Parser

from ai_forge.data_pipeline.languages import load
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.file_cache import FileCache
from measure import ROUNDS, record


def raw_parse(root: Path, paths: list[tuple[str, str]]) -> None:
    """Read and parse, nothing else."""
    parsers = {}
    for path, language in paths:
        if language not in parsers:
            loaded = load(language)
            assert loaded is not None
            parsers[language] = Parser(loaded[0])
        parsers[language].parse((root / path).read_bytes())


def mined(root: Path, cache: Path | None = None, processes: int | None = None) -> MiningResult:
    """The repository as it is now."""
    return mine_repository(read_repository(root), cache=FileCache(cache) if cache else None, processes=processes)


def cpu() -> float:
    """CPU seconds of this process and its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def change(root: Path, paths: list[str], text: str) -> None:
    """Another last line in each file."""
    for path in paths:
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(f"\n# {text}\n")


def same(first: MiningResult, second: MiningResult) -> bool:
    """Whether two results are equal, to the last character."""
    told = [
        (r.summary(), r.subject_ids, r.imports, [b.model_dump_json() for b in r.documents]) for r in (first, second)
    ]
    return told[0] == told[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root, cache = Path(place) / "lib", Path(place) / "cache.db"
        shutil.copytree(
            given.folder, root, ignore=shutil.ignore_patterns("site-packages", "__pycache__", "*.so", "*.a")
        )
        files = read_repository(root).files
        paths = [(file.path, file.language) for file in files]
        some = [file.path for file in files if file.language == "python"][::100]

        alone = mined(root, processes=1)
        equal = {"pooled": same(mined(root), alone), "stored": same(mined(root, cache), alone)}
        equal["from_cache"] = same(mined(root, cache), alone)
        change(root, some, "changed")
        equal["changed"] = same(mined(root, cache), mined(root, processes=1))
        if not all(equal.values()):
            sys.exit(f"results differ: {equal}")
        figures = {
            "cores": len(os.sched_getaffinity(0)),
            "files": len(files),
            "megabytes": round(sum(len(file.content) for file in files) / 1e6, 1),
            "documents": len(alone.documents),
            "changed_files": len(some),
        }
        del alone

        new = Path(place) / "new.db"
        rivals: dict[str, Callable[[], object]] = {
            "raw_parse": lambda: raw_parse(root, paths),
            "cold": lambda: mined(root),
            "cold_cached": lambda: mined(root, new),
            "one_process": lambda: mined(root, processes=1),
            "changed": lambda: mined(root, cache),
            "unchanged": lambda: mined(root, cache),
        }
        wall: dict[str, list[float]] = {name: [] for name in [*rivals, "documents"]}
        used: dict[str, list[float]] = {name: [] for name in wall}

        def timed(name: str, act: Callable[[], object], is_counted: bool) -> object:
            start, start_cpu = time.perf_counter(), cpu()
            result = act()
            if is_counted:
                wall[name].append(time.perf_counter() - start)
                used[name].append(cpu() - start_cpu)
            return result

        result: Any = None
        for number in range(given.rounds + 1):
            for name, act in rivals.items():
                if name == "changed":
                    change(root, some, f"round {number}")
                new.unlink(missing_ok=True)
                result = None
                gc.collect()  # what the one before left is not the next one's to look through
                result = timed(name, act, number > 0)
            timed("documents", lambda r=result: r.documents, number > 0)
    seconds = {name: statistics.median(values) for name, values in wall.items()}
    cpu_seconds = {name: statistics.median(values) for name, values in used.items()}
    record(
        "mining",
        figures
        | {
            "equal": equal,
            "rounds": given.rounds,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "cpu_seconds": {name: round(value, 3) for name, value in cpu_seconds.items()},
            "cold_over_raw_parse": round(seconds["cold"] / seconds["raw_parse"], 2),
            "cold_cpu_over_raw_parse": round(cpu_seconds["cold"] / cpu_seconds["raw_parse"], 2),
            "one_process_cpu_over_raw_parse": round(cpu_seconds["one_process"] / cpu_seconds["raw_parse"], 2),
            "cold_over_changed": round(seconds["cold"] / seconds["changed"], 1),
            "one_process_over_changed": round(seconds["one_process"] / seconds["changed"], 1),
        },
    )


if __name__ == "__main__":
    main()
