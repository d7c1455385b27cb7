"""Asked as people ask: is the right file shown first, or among the first three files? By project and by ranking.

Each file of `questions/` holds questions with the files that answer them, and the command that fetches the project from a
package registry; give the folder where these were run (and further sets with their own folders by `--set FILE=FOLDER`).
Every other question of four projects chose the lexical weights; all sets but hono's were looked at when those of the encoder
were chosen. hono's was written before anything was run on it and chose only that benchmarks step aside. Nothing of a project
is kept here.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.embedders.embedding import embedder_named
from ai_forge.data_pipeline.search.entries import block_entries, entries_beside_code
from ai_forge.data_pipeline.search.question_index import WEIGHTS, QuestionIndex
from ai_forge.data_pipeline.source.repository import read_repository
from measure import record

QUESTIONS = Path(__file__).parent / "questions"
LEXICAL = ("bm25", "prose", "file", "names")
RIVALS: dict[str, tuple[str, ...]] = {
    **{part: (part,) for part in ("bm25", "prose", "file", "dense")},
    "lexical": LEXICAL,
    "all": tuple(WEIGHTS),
    **{f"all but {part}": tuple(p for p in WEIGHTS if p != part) for part in ("bm25", "prose", "file", "dense_file")},
}


def index_of(folder: Path, embedder: str, vectors: Path | None) -> tuple[QuestionIndex, dict[str, float]]:
    """The index of a project, and what making it cost."""
    repository = read_repository(folder)
    start = time.perf_counter()
    entries = [*block_entries(mine_repository(repository).documents), *entries_beside_code(repository)]
    mined = time.perf_counter()
    QuestionIndex.build(entries)
    lexical = time.perf_counter()
    index = QuestionIndex.build(entries, embedder_named(embedder), vectors_folder=vectors)
    return index, {
        "entries": len(entries),
        "mined_s": round(mined - start, 2),
        "lexical_s": round(lexical - mined, 2),
        "with_vectors_s": round(time.perf_counter() - lexical, 2),
    }


def first_and_among_three(
    index: QuestionIndex, asked: list[dict], parts: tuple[str, ...], show: bool
) -> tuple[int, int]:
    """How often the right file comes first, and among the first three files."""
    n_first = n_among = 0
    for question in asked:
        found = index.search(question["question"], 10, parts=parts)
        files = list(dict.fromkeys(hit.path for hit in found))[:3]
        is_right = [_is_among(path, question["files"]) for path in files]
        n_first += is_right[:1] == [True]
        n_among += any(is_right)
        if show and is_right[:1] != [True]:
            print(
                f"{'among three' if any(is_right) else 'missed     '}  {question['question']}  {files}", file=sys.stderr
            )
    return n_first, n_among


def _is_among(path: str, right: list[str]) -> bool:
    """Whether `path` is one of the `right` files, or in one of them that is a folder."""
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("projects", type=Path, help="folder in which the commands of the question files were run")
    parser.add_argument("--set", action="append", default=[], help="further questions and their project: FILE=FOLDER")
    parser.add_argument("--embedder", default="minilm", help="default: minilm; none: by words alone")
    parser.add_argument("--vectors", type=Path, help="folder in which vectors are kept")
    parser.add_argument("--misses", action="store_true", help="print the questions whose right file is not first")
    given = parser.parse_args()
    sets: dict[str, tuple[list[dict], Path]] = {}
    for file in sorted(QUESTIONS.glob("*.json")):
        held = json.loads(file.read_text("utf-8"))
        folder = given.projects / held["folder"]
        if not folder.is_dir():
            continue
        if held["tuned_on"]:
            sets[f"{file.stem}, tuned on"] = held["questions"][::2], folder
            sets[f"{file.stem}, other half"] = held["questions"][1::2], folder
        else:
            sets[f"{file.stem}, chose no lexical weight"] = held["questions"], folder
    for pair in given.set:
        file, _, folder = pair.partition("=")
        held = yaml.safe_load(Path(file).read_text("utf-8"))  # JSON is YAML
        sets["/".join(Path(file).parts[-2:])] = held if isinstance(held, list) else held["questions"], Path(folder)
    figures: dict[str, dict] = {}
    indexes: dict[Path, tuple[QuestionIndex, dict[str, float]]] = {}
    for name, (asked, folder) in sets.items():
        if folder not in indexes:
            kept = given.vectors / folder.name if given.vectors else None
            indexes[folder] = index_of(folder, given.embedder, kept)
        index, cost = indexes[folder]
        start = time.perf_counter()
        for question in asked:
            index.search(question["question"])
        figures[name] = {"n": len(asked), "ms": round(1000 * (time.perf_counter() - start) / len(asked), 1), **cost}
        for rival, parts in RIVALS.items():
            figures[name][rival] = first_and_among_three(index, asked, parts, given.misses and rival == "all")
    for half in ("tuned on", "other half", "chose no lexical weight", ""):
        of_half = [f for n, f in figures.items() if (n.endswith(f", {half}") if half else ", " not in n)]
        n = sum(f["n"] for f in of_half)
        for rival in RIVALS if n else ():
            share = [round(100 * sum(f[rival][i] for f in of_half) / n, 1) for i in (0, 1)]
            figures.setdefault(f"together, {half or 'further sets'}", {"n": n})[rival] = f"{share[0]} % / {share[1]} %"
    record("questions", figures)


if __name__ == "__main__":
    main()
