"""Answers whose inventions were labelled by hand (`fixtures/hallucinations.jsonl`), and the names of the repositories they are about.

The labels were made before there was a detector, by these rules. What counts: imports, names that are called, made, extended,
annotated or used as types, attributes, parameters given to or said of a known function, citations and paths, and in prose what
stands in backticks, has underscores or is followed by `()`. What does not: what the answer defines itself or says that one should
create, placeholders (`my_…`, `MyGroup`), comments, text in strings, flags of commands, names taken from a module that is itself
invented, and code in a language whose library is not known (C#). A name that exists elsewhere in the repository is no invention
on an owner that nobody can tell. Packages that are installed: `PACKAGES`.

The answers are SmolLM2-135M's and Qwen2.5-Coder-1.5B's, cut where they were cut off or ran into a loop, and others written by
hand. Half of each kind, chosen by turns, was never looked at while the detector was written.
"""

import functools
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.judge.metrics.inventions import inventions_in
from ai_forge.judge.metrics.known_names import KnownNames, Symbol

FIXTURES = Path(__file__).parent / "fixtures"
LANGUAGE = {
    "httpx": "python", "click": "python", "ai-forge": "python", "cobra": "go", "gin": "go", "fastify": "javascript",
    "gson": "java",
}  # fmt: skip
PACKAGES = frozenset({"requests", "yaml", "transformers", "torch", "numpy", "httpx", "click", "pydantic"})


@functools.cache
def known_names(repository: str) -> KnownNames:
    """What was mined of a repository: names alone, none of its text."""
    packed = FIXTURES / "known_names" / f"{repository}.json.gz"
    data = json.loads(gzip.decompress(packed.read_bytes()))
    known = KnownNames(
        words=set(data["words"]),
        bound=set(data["bound"]),
        last_lines=data["last_lines"],
        modules=set(data["modules"]),
        roots=set(data["roots"]),
        packages=PACKAGES,
    )
    for name, kind, parameters, bases, words in data["symbols"]:
        taken = None if parameters is None else frozenset(parameters)
        known.add_symbol(Symbol(name, kind, taken, tuple(bases), frozenset(words)))
    return known


@dataclass
class Agreement:
    """Of names or of answers: found and right, found and wrong, missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def add(self, found: set[str], wanted: set[str]) -> None:
        self.right += len(found & wanted)
        self.wrong += len(found - wanted)
        self.missed += len(wanted - found)

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed)


def rows(half: str) -> list[dict]:
    lines = (FIXTURES / "hallucinations.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["half"] == half]


def agreement(chosen: Sequence[dict]) -> tuple[Agreement, Agreement]:
    """Over names (compared by their last part) and over answers (invents anything or not)."""
    names, answers = Agreement(), Agreement()
    for number, row in enumerate(chosen):
        repository = row["repository"]
        found = inventions_in(row["answer"], row["question"], (), known_names(repository), LANGUAGE[repository])
        ours = {invention.name.split(".")[-1] for invention in found}
        theirs = {invented["name"].split(".")[-1] for invented in row["invented"]}
        names.add(ours, theirs)
        answers.add({str(number)} if ours else set(), {str(number)} if theirs else set())
    return names, answers
