"""`python tests/oracles/run_codebleu.py [LANGUAGE…]`: our CodeBLEU against the package `codebleu` 0.7 on functions of real packages.

A pair is a function and the next one of its file, both in ASCII: elsewhere the package takes columns in bytes for columns in
characters and reads other names. Each is scored alone and all together, and must lie within 0.005 of what
the package says with the order of its sets held (`codebleu_values.py`). How far the package is from itself under three hash
seeds is told beside it. `--write` keeps 20 pairs of each language with the package's values for the unit tests.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ai_forge.data_pipeline.mining.parsing import parse
from ai_forge.judge.metrics.codebleu import codebleu_components
from oracles.compare import tools
from oracles.run import packages

FOLDER = Path(__file__).parent
VERSION = "codebleu==0.7.0"
THEIR_NAMES = {"csharp": "c_sharp"}
TOLERANCE = 0.005
FIXTURE = FOLDER.parent / "fixtures" / "codebleu_pairs.json"
RESULTS = FOLDER.parents[1] / "bench" / "results" / "codebleu.json"
PARTS = ("codebleu", "ngram_match_score", "weighted_ngram_match_score", "syntax_match_score", "dataflow_match_score")


def sources(language: str) -> list[Path]:
    if language == "cpp":  # the headers that come with torch
        import torch

        return sorted((Path(torch.__file__).parent / "include" / "ATen").rglob("*.h"))
    if language == "c":  # and those that come with Python
        return sorted(Path(sysconfig.get_path("include")).rglob("*.h"))
    return packages(language)


def pairs_of(language: str, n: int) -> list[tuple[str, str]]:
    """`n` pairs of functions that stand one below the other, of 60 to 1,500 bytes, at most twelve of a file."""
    choose = random.Random(language)
    paths = sources(language)
    choose.shuffle(paths)
    found: list[tuple[str, str]] = []
    for path in paths:
        parsed = parse(path.read_bytes(), language)
        if parsed is None:
            continue
        units = [
            unit
            for unit in parsed.units
            if unit.kind in ("function", "method") and 60 < unit.end - unit.code_start < 1500
        ]
        texts = [parsed.text[unit.code_start : unit.end].decode() for unit in units]
        near = [(a, b) for a, b in itertools.pairwise(texts) if (a + b).isascii() and a not in b and b not in a]
        found += choose.sample(near, min(12, len(near)))
        if len(found) >= n:
            break
    return found[:n]


def package() -> Path:
    """Where the package lies, in a folder of its own: its pin of tree-sitter would take ours away."""
    folder = tools() / "codebleu"
    if not (folder / "codebleu").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), VERSION]
        subprocess.run(command, check=True)
    return folder


def theirs(language: str, pairs: list[tuple[str, str]], *, ordered: bool, seed: int = 0) -> dict:
    paths = os.pathsep.join([str(package()), *sys.path])
    command = [sys.executable, str(FOLDER / "codebleu_values.py"), *(["--ordered"] if ordered else [])]
    given = json.dumps({"language": THEIR_NAMES.get(language, language), "pairs": pairs})
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(command, input=given, env=environment, text=True, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def ours(language: str, pairs: list[tuple[str, str]]) -> tuple[float, ...]:
    made = codebleu_components([p for p, _ in pairs], [r for _, r in pairs], language)
    return made.score, made.ngram, made.weighted_ngram, made.syntax, made.data_flow or 0.0


def report(language: str, n: int) -> dict:
    """Compare, print a line, and give the pairs with the package's values."""
    pairs = pairs_of(language, n)
    oracle = theirs(language, pairs, ordered=True)
    others = [theirs(language, pairs, ordered=False, seed=seed)["pairs"] for seed in range(3)]
    rows = []
    for number, pair in enumerate(pairs):
        mine, its = ours(language, [pair]), oracle["pairs"][number]
        rows.append(max(abs(a - its[name]) for a, name in zip(mine, PARTS, strict=True)))
        if rows[-1] > TOLERANCE:
            print(f"--- {language}: {mine} {its}\n{pair[0]}\n--- against\n{pair[1]}")
    scores = [[values[number]["codebleu"] for values in others] for number in range(len(pairs))]
    spread = [max(values) - min(values) for values in scores]
    whole = abs(ours(language, pairs)[0] - oracle["whole"]["codebleu"])
    off = sum(row > TOLERANCE for row in rows)
    unsteady = sum(s > TOLERANCE for s in spread)
    row = {
        "pairs": len(pairs),
        "off_by_more_than_0.005": off,
        "largest_difference": round(max(rows), 6),
        "difference_of_all_together": round(whole, 6),
        "pairs_on_which_the_package_differs_from_itself": unsteady,
        "by_at_most": round(max(spread), 3),
    }
    print(
        f"| {language} | {len(pairs)} | {off} | {max(rows):.6f} | {whole:.6f} | {unsteady} | {max(spread):.3f} |",
        flush=True,
    )
    values = [[its[name] for name in PARTS] for its in oracle["pairs"]]
    return {"row": row, "off": off, "pairs": pairs, "values": values}


def main() -> int:
    known = ("python", "java", "javascript", "go", "cpp", "c", "rust")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("languages", nargs="*", default=list(known))
    parser.add_argument("--pairs", type=int, default=250)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    print(
        "| language | pairs | off by > 0.005 | largest difference | of all together | package differs from itself | by |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    reports = {language: report(language, given.pairs) for language in given.languages}
    if given.write:
        kept = {
            language: [
                {"prediction": p, "reference": r, "values": [round(v, 6) for v in values]}
                for (p, r), values in list(zip(made["pairs"], made["values"], strict=True))[::12][:20]
            ]
            for language, made in reports.items()
        }
        rows = {language: made["row"] for language, made in reports.items()}
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        FIXTURE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return int(any(made["off"] for made in reports.values()))


if __name__ == "__main__":
    sys.exit(main())
