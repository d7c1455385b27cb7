"""Files that are broken in every way, read and mined: does one ever end a run, or hang it?

    python bench/fuzz_files.py --write                      (`make soak`)
    python bench/fuzz_files.py --files 0 --models 10000     (the other part alone)

Sources of this repository's tests in nine languages, configuration, Markdown, reStructuredText, AsciiDoc and notebooks are mutated
(bytes flipped, cut, doubled, nested deep, Unicode's line ends, lines of a megabyte, zeros) and mined fifty at a time as one
repository, indexed beside its code, and searched for secrets. Model and dataset files are
mutated by `fuzz_models`. Prints what failed and the slowest; ends with 1 where one did.
"""

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_models
from ai_forge.config import MinerSettings
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.entries import block_entries, entries_beside_code
from ai_forge.data_pipeline.source.repository import read_repository
from measure import RESULTS, record

ROOT = Path(__file__).parents[1]
BATCH = 50
SLOW_S = 60.0
LINE_ENDS = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\r\n")
SUFFIXES = {
    ".py",
    ".go",
    ".java",
    ".rs",
    ".js",
    ".ts",
    ".c",
    ".cpp",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".json",
    ".sh",
    ".html",
    ".css",
}
PLAIN = {
    "a.rst": b"Title\n=====\n\nSome words stand here.\n\nPart\n----\n\nMore words of it.\n",
    "a.adoc": b"= Title\n\nSome words stand here.\n\n== Part\n\nMore words of it.\n",
    "a.ipynb": b'{"cells": [{"cell_type": "code", "source": ["def f(a):\\n", "    return a + 1\\n"]}], "nbformat": 4}',
}
Mutation = Callable[[bytes, random.Random], bytes]


def _flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 3, 30, 300))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _line_ends(content: bytes, chance: random.Random) -> bytes:
    end = chance.choice(LINE_ENDS).encode()
    return b"".join(line + (end if chance.random() < 0.3 else b"\n") for line in content.split(b"\n"))


def _spliced(content: bytes, chance: random.Random) -> bytes:
    at, piece = chance.randrange(len(content)), chance.randrange(len(content))
    return content[:at] + content[piece : piece + chance.randrange(2000)] + content[at:]


MUTATIONS: dict[str, Mutation] = {
    "flipped": _flipped,
    "cut": lambda content, chance: content[: chance.randrange(len(content))],
    "headless": lambda content, chance: content[chance.randrange(len(content)) :],
    "spliced": _spliced,
    "line ends": _line_ends,
    "zeros": lambda content, chance: content.replace(b" ", b"\0", chance.randrange(1, 50)),
    "UTF-16": lambda content, chance: content.decode("utf-8", "replace").encode(chance.choice(("utf-16", "utf-16-le"))),
    "a huge line": lambda content, chance: content.replace(b"\n", b" " * chance.choice((10, 200_000)), 5),
    "nested": lambda content, chance: content + chance.choice((b"(", b"[", b"{", b"f(", b"if x:\n ", b"> ", b"- ", b"<a>")) * 5000,
    "indented": lambda content, chance: b"\n".join(b" " * n + b"if a:" for n in range(chance.choice((50, 900)))) + content,
    "no lines": lambda content, chance: content.replace(b"\n", b""),
    "surrogates": lambda content, chance: _spliced(content, chance) + b"\xed\xa0\x80 = '\xf0\x9f\x98'\n",
}  # fmt: skip


def originals() -> list[tuple[str, bytes]]:
    """Names and contents to begin with."""
    found = [
        path for folder in ("tests/fixtures", "docs", "src", "deploy") for path in sorted((ROOT / folder).rglob("*"))
    ]
    files = [path for path in found if path.is_file() and path.suffix in SUFFIXES and 0 < path.stat().st_size < 40_000]
    return [(path.name, path.read_bytes()) for path in files] + list(PLAIN.items()) * 20


def measured(*, n_files: int, seed: int) -> dict[str, Any]:
    """The report."""
    chance, known = random.Random(seed), originals()
    faults: list[dict[str, str]] = []
    slowest, n_blocks, n_entries = 0.0, 0, 0
    for first in range(0, n_files, BATCH):
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            root, made = Path(folder), []
            for number in range(first, min(first + BATCH, n_files)):
                name, content = chance.choice(known)
                how = chance.choice(list(MUTATIONS))
                (root / f"f{number}").mkdir()
                (root / f"f{number}" / name).write_bytes(MUTATIONS[how](content, chance))
                made.append(f"{name}, {how}")
            (root / "sound.py").write_text(
                'def sound(a: int) -> int:\n    """Add one."""\n    b = a + 1\n    return b\n'
            )
            began = time.monotonic()
            try:
                repository = read_repository(root)
                blocks = mine_repository(repository, MinerSettings(min_tokens=5)).documents
                n_entries += len(block_entries(blocks)) + len(entries_beside_code(repository))
                n_blocks += len(blocks)
                if not any(block.path == "sound.py" for block in blocks):
                    faults.append({"batch": str(first), "fault": "a sound file was lost"})
            except Exception:  # noqa: BLE001 (what is looked for)
                faults.append({"batch": str(first), "fault": traceback.format_exc()[-1500:], "files": "; ".join(made)})
            seconds = time.monotonic() - began
            slowest = max(slowest, seconds)
            if seconds > SLOW_S:
                faults.append({"batch": str(first), "fault": f"{seconds:.0f} s", "files": "; ".join(made)})
    told = {"seed": seed, "files": n_files, "mutations": len(MUTATIONS), "blocks": n_blocks, "entries": n_entries}
    return told | {"slowest_batch_s": round(slowest, 2), "faults": faults}


def main() -> int:
    """Mutate, mine, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="sources, settings and texts; 0 leaves them out")
    parser.add_argument("--models", type=int, default=10_000, help="model and dataset files; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/fuzz.json")
    chosen = parser.parse_args()
    made: dict[str, Any] = {}
    if chosen.files:
        made["sources"] = measured(n_files=chosen.files, seed=chosen.seed)
    if chosen.models:
        made["models"] = fuzz_models.measured(n_files=chosen.models, seed=chosen.seed, tell=_to_stderr)
    if chosen.write:
        before = json.loads((RESULTS / "fuzz.json").read_text()) if (RESULTS / "fuzz.json").exists() else {}
        kept = {part: before[part] for part in ("sources", "models") if part in before}
        record("fuzz", kept | made)
    else:
        print(json.dumps(made, indent=1))
    return int(any(part["faults"] for part in made.values()))


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
