"""Train, valid and test by whole files, before any question is asked; and the check that nothing crossed over.

Files are tied together (union-find) when they hold near-duplicate blocks, or when one is the test of the other by name;
tied files go to one side. Of 64 seeded deals the one closest to the wanted shares is taken, so the sides are as near to
70/10/20 as whole groups allow and the same in every run. Commit dates are not looked at here.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal

from ai_forge.config.data import SplitSettings
from ai_forge.data_pipeline.filters import is_test_path
from ai_forge.data_pipeline.near_duplicates import near_duplicate_pairs
from ai_forge.data_pipeline.schemas import CodeBlock, RAFTExample, content_id
from ai_forge.data_pipeline.text import one_line
from ai_forge.errors import InputError

Side = Literal["train", "valid", "test"]
_SIDES: tuple[Side, ...] = ("train", "valid", "test")
_N_DEALS = 64
_MIN_DUPLICATE_TOKENS = 30
"""Shorter blocks (`def __len__(self): …`) are alike by nature, not by copying."""


@dataclass(frozen=True)
class Split:
    """Subjects of each side, and for every document the side of its file."""

    train: tuple[CodeBlock, ...]
    valid: tuple[CodeBlock, ...]
    test: tuple[CodeBlock, ...]
    side_of_file: dict[str, Side]
    documents: tuple[CodeBlock, ...]

    @cached_property
    def train_documents(self) -> tuple[CodeBlock, ...]:
        """The only blocks that a training example may show."""
        return tuple(block for block in self.documents if self.side_of_file[block.path] == "train")

    @cached_property
    def valid_documents(self) -> tuple[CodeBlock, ...]:
        """What a validation example may show: everything but test files."""
        return tuple(block for block in self.documents if self.side_of_file[block.path] != "test")

    @property
    def test_documents(self) -> tuple[CodeBlock, ...]:
        """What a test example may show: the whole repository, as the deployed model sees it."""
        return self.documents

    def summary(self) -> dict[str, dict[str, int]]:
        """Files, subjects and documents of each side."""
        files = Counter(self.side_of_file.values())
        shown = Counter(self.side_of_file[block.path] for block in self.documents)
        subjects = {"train": self.train, "valid": self.valid, "test": self.test}
        return {
            side: {"files": files[side], "subjects": len(subjects[side]), "documents": shown[side]} for side in _SIDES
        }


@dataclass(frozen=True)
class Leak:
    """A training example that shows or asks about what is held out."""

    example_id: str
    citation: str
    reason: Literal["held-out file", "copy of a held-out block"]


def split_by_file(
    blocks: Sequence[CodeBlock], settings: SplitSettings | None = None, *, documents: Sequence[CodeBlock] | None = None
) -> Split:
    """Deal `blocks` (the subjects) to three sides by file; `documents` are all sound blocks and follow their file.

    Raises InputError where fewer than three untied files hold subjects.
    """
    settings = settings or SplitSettings()
    shown = tuple(documents if documents is not None else blocks)
    groups = _tied_files([*shown, *blocks], settings.near_duplicate)
    weight: Counter[str] = Counter(groups[block.path] for block in blocks)
    n_files = len({block.path for block in blocks})
    if n_files < len(_SIDES):
        raise InputError(
            f"A split needs at least 3 files with blocks to ask about, found {n_files}.",
            "Give a larger repository, or set miner.require_docstring to false.",
        )
    if len(weight) < len(_SIDES):
        raise InputError(
            f"A split needs at least 3 files that are not copies of each other, found {len(weight)} among {n_files}.",
            "Give a larger repository, or raise split.near_duplicate.",
        )
    side_of_group = _deal(weight, settings)
    side_of_file: dict[str, Side] = {path: side_of_group.get(group, "train") for path, group in groups.items()}
    dealt = {side: tuple(block for block in blocks if side_of_file[block.path] == side) for side in _SIDES}
    return Split(dealt["train"], dealt["valid"], dealt["test"], side_of_file, shown)


def check_no_leak(examples: Iterable[RAFTExample], split: Split) -> list[Leak]:
    """Leaks in training examples: a document or subject from a held-out file, or an exact copy of a held-out block.

    Copies are compared by their words, whatever the white space; blocks under 30 tokens are not looked at.
    """
    held_out = {path for path, side in split.side_of_file.items() if side != "train"}
    copies = {
        content_id(one_line(block.source_code))
        for block in split.documents
        if block.path in held_out and block.metadata.n_tokens >= _MIN_DUPLICATE_TOKENS
    }
    known: dict[str, bool] = {}
    leaks: list[Leak] = []
    for example in examples:
        if example.subject_path in held_out:
            leaks.append(Leak(example.id, example.subject_path, "held-out file"))
        for document in example.shown_documents:
            if document.citation.rpartition(":")[0] in held_out:
                leaks.append(Leak(example.id, document.citation, "held-out file"))
            elif known.setdefault(document.block_id, content_id(one_line(document.text)) in copies):
                leaks.append(Leak(example.id, document.citation, "copy of a held-out block"))
    return leaks


def _tied_files(blocks: Sequence[CodeBlock], near_duplicate: float) -> dict[str, str]:
    """Each file's group, named by its first path."""
    parent = {path: path for path in sorted({block.path for block in blocks})}

    def find(path: str) -> str:
        while parent[path] != path:
            parent[path] = parent[parent[path]]
            path = parent[path]
        return path

    def tie(first: str, second: str) -> None:
        low, high = sorted((find(first), find(second)))
        parent[high] = low

    distinct = list({block.id: block for block in blocks}.values())
    long = [block for block in distinct if block.metadata.n_tokens >= _MIN_DUPLICATE_TOKENS]
    for a, b, _ in near_duplicate_pairs([block.source_code for block in long], near_duplicate):
        tie(long[a].path, long[b].path)
    for test, subject in _tests_and_subjects(parent):
        tie(test, subject)
    return {path: find(path) for path in parent}


def _tests_and_subjects(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Test files with the files that they test by name: `test_a.py` and `a.py`, `a.spec.ts` and `a.ts`, `ATest.java`.

    Several files of that name: those that share most folders with the test.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    tests: list[str] = []
    for path in paths:
        if is_test_path(path):
            tests.append(path)
        else:
            by_stem[PurePosixPath(path).stem].append(path)
    pairs: list[tuple[str, str]] = []
    for test in tests:
        stem = re.sub(r"^test_|_test$|\.(test|spec)$|Tests?$|TestCase$", "", PurePosixPath(test).stem)
        folders = set(PurePosixPath(test).parts[:-1])
        ranked = sorted(by_stem.get(stem, ()), key=lambda path: -len(folders & set(PurePosixPath(path).parts[:-1])))
        if ranked:
            pairs.append((test, ranked[0]))
    return pairs


def _deal(weight: Counter[str], settings: SplitSettings) -> dict[str, Side]:
    """The best of 64 seeded deals: groups in random order fill test, then valid, and the rest is train."""
    total = sum(weight.values())
    wanted: dict[Side, float] = {
        "train": settings.train * total,
        "valid": settings.valid * total,
        "test": settings.test * total,
    }
    best: tuple[float, dict[str, Side]] | None = None
    for attempt in range(_N_DEALS):
        order = sorted(weight)
        random.Random(f"{settings.seed}/{attempt}").shuffle(order)
        sides: dict[str, Side] = {order[0]: "test", order[1]: "valid", order[2]: "train"}
        filled: dict[Side, int] = {"test": weight[order[0]], "valid": weight[order[1]], "train": weight[order[2]]}
        for group in order[3:]:
            held_out: tuple[Side, ...] = ("test", "valid")
            side: Side = next((s for s in held_out if filled[s] + weight[group] <= wanted[s]), "train")
            sides[group] = side
            filled[side] += weight[group]
        distance = sum(abs(filled[side] - wanted[side]) for side in _SIDES)
        if best is None or distance < best[0]:
            best = (distance, sides)
    assert best is not None, "there is at least one deal"
    return best[1]
