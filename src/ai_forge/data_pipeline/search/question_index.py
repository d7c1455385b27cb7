"""What answers a question that a person asks about a repository: code, documentation, configuration, commits, tests.

Each entry's score is a weighted sum of what several rankings say of it, each scaled to its best:

* `bm25`: BM25 over stems of the entry's names, place and text (`terms`);
* `prose`: BM25 over its name and what the author wrote of it (docstring, first lines of a section);
* `file`: BM25 over all of its file: a file that speaks of nothing else is likelier than one sentence elsewhere;
* `dense`: the cosine to the question, with a small sentence encoder where one is on the machine (`minilm`);
* `dense_file`: what the closest entries of its file say together, the second at half, the third at a quarter;
* `names`: whether the question spells its name or its path.

Tests and examples count only when the question is about them, changelogs and commits fully only when it asks for a
change, benchmarks and documents beside tests (how a test's certificates were made) at half, documentation at 0.7 where
the question asks how something is done. One file does not fill the list: each further entry of it counts three quarters of
the one before. The graph is not asked: it cost places among the first three. What each ranking is worth is measured by
`bench/bench_questions.py`. The lexical weights were chosen on half of the questions about click, RxJS, gin and gson, those
of the encoder by hand after looking at ten sets (`EXPERIMENTS.md`).
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ai_forge.data_pipeline.search.bm25 import Bm25, best
from ai_forge.data_pipeline.search.embedders.embedding import (
    Embedder,
    Matrix,
    Texts,
    for_many,
    load_embedder,
    save_embedder,
)
from ai_forge.data_pipeline.search.embedders.kept import embedded
from ai_forge.data_pipeline.search.entries import Entry, is_benchmark_path, is_example_path, is_test_file
from ai_forge.data_pipeline.search.spelled import SpelledNames
from ai_forge.data_pipeline.search.terms import question_terms, terms
from ai_forge.errors import InputError

__all__ = ["WEIGHTS", "Found", "QuestionIndex", "read_entries", "search"]

WEIGHTS = {"bm25": 1.0, "prose": 0.6, "file": 0.6, "dense": 2.0, "dense_file": 0.6, "names": 3.0}
"""What each ranking counts."""
_FORMAT = 1
_POOL = 200
_LEAST_SHARE = 0.2
"""The fourth of a file's entries adds nothing: long files would win by their length."""
_AGAIN = 0.75
"""What each further entry of a file counts of the one before."""
_ASIDE = 0.5
_TOLD = 0.7
"""What documentation counts where a question asks for the code."""
_TEST_ASKED = re.compile(
    r"\btested\b|\btests? (?:for|of|that|cover\w*|case\w*|check\w*)\b|\b(?:which|what|do|does|are there) (?:\w+ )?tests\b",
    re.I,
)
_CODE_ASKED = re.compile(
    r"^\W*(?:where|who|how (?:is|are|does|did)|which (?:file|function|class|module)"
    r"|what (?:checks|decides|reads|writes|makes|calls))\b",
    re.I,
)
"""How something is done; "how do I" is answered by documentation as well."""
_EXAMPLE_ASKED = re.compile(r"\b(?:examples?|samples?|demos?|usage)\b", re.I)
_SPEED_ASKED = re.compile(r"\b(?:bench\w*|fast\w*|slow\w*|speed|perform\w*|measur\w*)\b", re.I)
_CHANGE_ASKED = re.compile(
    r"\b(?:changed|changes|changelog|history|commit(?:s|ted)?|releases?d?|removed|deprecated|renamed|introduced|new in"
    r"|was new|fix(?:ed|es)?|bugs?|why was|v?\d+\.\d+)\b",
    re.I,
)
_BESIDE = ("documentation", "configuration")
_CHANGELOG = re.compile(r"^(?:change|history|news|release)", re.I)


class Found(NamedTuple):
    """An entry that answers a question: where it stands, how well it ranks, and which rankings brought it there."""

    path: str
    first_line: int
    last_line: int
    name: str
    kind: str
    score: float
    why: dict[str, float]
    """What each ranking added, the largest first."""
    entry: Entry

    def row(self) -> dict[str, str | int | float]:
        """What a program is told: place, name, kind and score."""
        return {
            "path": self.path,
            "first_line": self.first_line,
            "last_line": self.last_line,
            "name": self.name,
            "kind": self.kind,
            "score": self.score,
        }


class QuestionIndex:
    """The rankings over a repository's entries. Deterministic; safe to read from threads."""

    def __init__(
        self,
        entries: Sequence[Entry],
        lexical: dict[str, Bm25],
        embedder: Embedder | None = None,
        vectors: Matrix | None = None,
    ) -> None:
        """`lexical` has an index for each of bm25, prose and file; `vectors` [entry, dimension] come from `embedder`."""
        self.entries = tuple(entries)
        self._lexical, self._embedder, self._vectors = lexical, embedder, vectors
        files: dict[str, int] = {}
        numbers = [files.setdefault(entry.path, len(files)) for entry in entries]
        self._file_of = np.array(numbers, dtype=np.int64)
        self._spelled = SpelledNames((e.name.rpartition(".")[2], e.name, e.path) for e in entries)
        self._is_test = np.array([entry.kind == "test" for entry in entries])
        self._is_change = np.array([_is_change(entry) for entry in entries])
        self._is_documentation = np.array([entry.kind == "documentation" for entry in entries])
        self._is_measuring = np.array([is_benchmark_path(entry.path) for entry in entries])
        self._is_of_tests = np.array([entry.kind in _BESIDE and is_test_file(entry.path) for entry in entries])
        self._is_example = np.array([is_example_path(entry.path) for entry in entries])

    @classmethod
    def build(
        cls,
        entries: Sequence[Entry],
        embedder: Embedder | None = None,
        *,
        vectors_folder: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "QuestionIndex":
        """Index `entries`; vectors are kept in `vectors_folder` by content, and made only for what is new. `progress` hears how
        many of them are made, of how many.

        Raises InputError without entries, PrerequisiteError where the embedder's model is not here.
        """
        if not entries:
            raise InputError("There is nothing to index.", "Give a folder with code.")
        of_entries = [terms(f"{e.name} {e.name} {e.path} {e.text}") for e in entries]
        of_files: dict[str, list[str]] = defaultdict(list)
        for entry, words in zip(entries, of_entries, strict=True):
            of_files[entry.path].extend(words)
        lexical = {
            "bm25": Bm25.build(of_entries),
            "prose": Bm25.build([terms(f"{e.name} {_prose(e)}") for e in entries]),
            "file": Bm25.build(list(of_files.values())),
        }
        vectors = None
        if embedder is not None and embedder.name != "none":
            vectors = _vectors(entries, embedder, vectors_folder, progress)
        return cls(entries, lexical, embedder, vectors)

    def search(self, question: str, k: int = 10, *, parts: Iterable[str] = tuple(WEIGHTS)) -> list[Found]:
        """The `k` best entries, best first, none of which lies in another. `parts` are the rankings that are asked."""
        asked = self._rankings(question, set(parts))
        if not asked:
            return []
        total = sum((WEIGHTS[name] * scores for name, scores in asked.items()), np.zeros(len(self.entries), np.float32))
        total = total * self._gate(question)
        found: list[Found] = []
        for position, score in self._spread(total, k):
            share = score / total[position]
            why = {
                name: round(float(WEIGHTS[name] * s[position] * share), 4)
                for name, s in asked.items()
                if s[position] > 0
            }
            entry = self.entries[position]
            found.append(
                Found(
                    entry.path,
                    entry.first_line,
                    entry.last_line,
                    entry.name,
                    entry.kind,
                    round(score, 4),
                    dict(sorted(why.items(), key=lambda item: -item[1])),
                    entry,
                )
            )
        return found

    def _rankings(self, question: str, parts: set[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Of each ranking that knows something about the question: a value from 0 to 1 for each entry."""
        words = question_terms(question)
        found = {name: index.scores(words) for name, index in self._lexical.items() if name in parts}
        if "file" in found:
            found["file"] = found["file"][self._file_of]
        if _TEST_ASKED.search(question):
            parts = parts - {"dense", "dense_file"}  # no test has a vector: what has one would win by that
        if "dense" in parts and self._embedder is not None and self._vectors is not None and self._vectors.any():
            cosines = self._vectors @ self._embedder.embed(Texts([question], []))[0]
            unrelated = np.median(cosines[~self._is_test]) if not self._is_test.all() else 0.0
            # half of a repository has nothing to do with a question
            closeness = np.maximum(cosines - unrelated, 0)
            found["dense"] = closeness
            if "dense_file" in parts:
                found["dense_file"] = _of_files(closeness, self._file_of)
        if "names" in parts:
            names = np.zeros(len(self.entries), dtype=np.float32)
            for position, strength in self._spelled.strengths(question).items():
                names[position] = min(strength, 1.0)
            found["names"] = names
        scaled = {name: scores / scores.max() for name, scores in found.items() if name != "names" and scores.max() > 0}
        return scaled | {name: scores for name, scores in found.items() if name == "names" and scores.max() > 0}

    def _gate(self, question: str) -> npt.NDArray[np.float32]:
        """What the kind of an entry takes from its score for a question of this kind."""
        gate = np.ones(len(self.entries), dtype=np.float32)
        if not _EXAMPLE_ASKED.search(question):
            gate[self._is_example] = 0.0
        if not _CHANGE_ASKED.search(question):
            gate[self._is_change] = _ASIDE
        if _CODE_ASKED.search(question):
            gate[self._is_documentation] *= _TOLD
        if not _SPEED_ASKED.search(question):
            gate[self._is_measuring] *= _ASIDE
        gate[self._is_of_tests] *= _ASIDE
        if _TEST_ASKED.search(question):
            gate[~self._is_test] *= _ASIDE
        else:
            gate[self._is_test] = 0.0
        return gate

    def _spread(self, total: npt.NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """(entry, score) of the best `k`: none overlaps a better one, and those of one file come in turns with others."""
        left = {position: float(total[position]) for position in best(total, max(_POOL, 4 * k)).tolist()}
        chosen: list[tuple[int, float]] = []
        while left and len(chosen) < k:
            position = max(left, key=lambda p: (left[p], -p))
            chosen.append((position, left.pop(position)))
            entry = self.entries[position]
            for other in [p for p in left if self.entries[p].path == entry.path]:
                if _overlap(entry, self.entries[other]):
                    del left[other]
                else:
                    left[other] *= _AGAIN
        return chosen

    def save(self, folder: str | Path) -> None:
        """Write the index into `folder` (made if missing): JSON and plain arrays, no pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "entries.jsonl").write_text("".join(e.to_json() + "\n" for e in self.entries), encoding="utf-8")
        for name, index in self._lexical.items():
            index.save(folder / name)
        if self._embedder is not None and self._vectors is not None:
            save_embedder(self._embedder, folder / "dense")
            np.save(folder / "vectors.npy", self._vectors, allow_pickle=False)
        has_vectors = self._vectors is not None
        (folder / "index.json").write_text(json.dumps({"format": _FORMAT, "dense": has_vectors}), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "QuestionIndex":
        """Read what `save` wrote. Raises InputError where it is not there, damaged, or of another format."""
        folder = Path(folder)
        try:
            head = json.loads((folder / "index.json").read_text("utf-8"))
            if head.get("format") != _FORMAT:
                raise InputError(
                    f"The index in {folder} has format {head.get('format')}, not {_FORMAT}.", "Build it again."
                )
            entries = list(_entries(folder))
            lexical = {name: Bm25.load(folder / name) for name in ("bm25", "prose", "file")}
            if not head["dense"]:
                return cls(entries, lexical)
            vectors = np.load(folder / "vectors.npy", allow_pickle=False)
            if len(vectors) != len(entries):
                raise ValueError(f"{len(vectors)} vectors of {len(entries)} entries")
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError) as error:
            raise InputError(f"{folder} holds no index ({error}).", "Build it again with `ai-forge mine`.") from error
        return cls(entries, lexical, load_embedder(folder / "dense"), vectors)


def read_entries(folder: str | Path) -> list[Entry]:
    """The entries of a saved index, without its rankings. Raises InputError where they are not there or damaged."""
    try:
        return list(_entries(Path(folder)))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} holds no index ({error}).", "Build it again with `ai-forge mine`.") from error


def _entries(folder: Path) -> Iterator[Entry]:
    for line in (folder / "entries.jsonl").read_text("utf-8").split("\n"):
        if line:
            yield Entry.from_json(line)


def search(index: QuestionIndex, question: str, k: int = 10) -> list[Found]:
    """The `k` best entries for a question, best first."""
    return index.search(question, k)


def _vectors(
    entries: Sequence[Entry], embedder: Embedder, folder: Path | None, progress: Callable[[int, int], None]
) -> Matrix:
    """[entry, dimension]; zeros for tests, which are half of a repository and are asked for by their words."""
    shown = [number for number, entry in enumerate(entries) if entry.kind != "test"]
    texts = Texts([f"{entries[n].name} {entries[n].path}\n{entries[n].text}" for n in shown], [])
    if not shown:
        return np.zeros((len(entries), 1), dtype=np.float32)
    made = embedded(texts, for_many(embedder), folder, progress)
    vectors = np.zeros((len(entries), made.shape[1]), dtype=np.float32)
    vectors[shown] = made
    return vectors


def _of_files(scores: npt.NDArray[np.float32], file_of: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """[entry]: the best of its file's `scores` and half of the second and a quarter of the third."""
    sums = np.zeros(file_of.max() + 1, dtype=np.float32)
    share = np.ones_like(sums)
    for position in best(scores, _POOL):
        file = file_of[position]
        if share[file] > _LEAST_SHARE:
            sums[file] += share[file] * scores[position]
            share[file] /= 2
    of_entries: npt.NDArray[np.float32] = sums[file_of]
    return of_entries


def _prose(entry: Entry) -> str:
    """What the author wrote of an entry; where nothing, its first lines."""
    return entry.summary or "\n".join(entry.text.split("\n")[:3])


def _is_change(entry: Entry) -> bool:
    return entry.kind == "commit" or bool(_CHANGELOG.match(entry.path.rpartition("/")[2]))


def _overlap(first: Entry, second: Entry) -> bool:
    return first.path == second.path and first.first_line <= second.last_line and second.first_line <= first.last_line
