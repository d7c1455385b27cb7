"""Train, valid and test by whole files, before any question is asked; and the check that nothing crossed over.

Files are tied together (union-find) when they hold near-duplicate blocks, or when one is the test of the other by name;
tied files go to one side.

*By date*: test is what was written last, valid what was written before that, train all that is older, so the verdict is on
what training could not know of, as with the questions that will be asked. A file's date is when it was first committed as it
is now (`file_dates.read_dates`), a group's that of its newest file, and what is not committed is newest. Two dates cut the
history; files of one date are never parted. *By file*: of 64 seeded deals the one closest to the wanted shares is taken.

By default it is by date where the cut can be made.
"""

import functools
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Literal

from ai_forge.config.data import SplitSettings
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, RAFTExample, content_id
from ai_forge.data_pipeline.text.near_duplicates import near_duplicate_pairs
from ai_forge.data_pipeline.text.words import approximate_tokens, one_line
from ai_forge.errors import InputError

Side = Literal["train", "valid", "test"]
_SIDES: tuple[Side, ...] = ("train", "valid", "test")
_N_DEALS = 64
# By how much of the subjects a cut's shares may be further from the wanted ones than the best deal's. One commit, a
# shallow clone of one, or a sweep over all files leave too few dates for that
_MAX_FURTHER_OFF = 0.2
_NOT_COMMITTED = math.inf
# The head of a file is compared without comments: many files of a project begin with the same licence.
_COMMENT_LINE = re.compile(
    r"^[ \t]*(?://|/?\*|#(?!\s*(?:include|define|undef|if|el|end|pragma|import)\w*\b)).*$\n?", re.MULTILINE
)
# Shorter blocks (`def __len__(self): …`) are alike by nature, not by copying
_MIN_DUPLICATE_TOKENS = 30


@dataclass(frozen=True)
class Cut:
    """Where a split by date cuts, in s since 1970: a side holds what was written from its date on. `inf`: not committed."""

    valid: float
    test: float


@dataclass(frozen=True)
class Split:
    """Subjects of each side, and for every document the side of its file.

    `cut` is None where it is by file; `because` then says what kept it from being by date, unless that was asked for.
    """

    train: tuple[CodeBlock, ...]
    valid: tuple[CodeBlock, ...]
    test: tuple[CodeBlock, ...]
    side_of_file: dict[str, Side]
    documents: tuple[CodeBlock, ...]
    cut: Cut | None = None
    because: str = ""

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

    def ends(self, side: str) -> float | None:
        """The time (s since 1970) from which on nothing may be known on a side; None: there is none."""
        if self.cut is None or side == "test":
            return None
        return self.cut.valid if side == "train" else self.cut.test

    @property
    def rule(self) -> str:
        """By what the files were dealt, in words."""
        if self.cut is not None:
            return f"by date: valid is from {_date(self.cut.valid)} on, test from {_date(self.cut.test)} on"
        return f"by file, because {self.because}" if self.because else "by file"

    def summary(self) -> dict[str, object]:
        """`rule`, and files, subjects and documents of each side."""
        files = Counter(self.side_of_file.values())
        shown = Counter(self.side_of_file[block.path] for block in self.documents)
        subjects = {"train": self.train, "valid": self.valid, "test": self.test}
        return {"rule": self.rule} | {
            side: {"files": files[side], "subjects": len(subjects[side]), "documents": shown[side]} for side in _SIDES
        }


@dataclass(frozen=True)
class Leak:
    """A training example that shows or asks about what is held out."""

    example_id: str
    citation: str
    reason: Literal["held-out file", "copy of a held-out block"]


def split_by_file(
    blocks: Sequence[CodeBlock],
    settings: SplitSettings | None = None,
    *,
    documents: Sequence[CodeBlock] | None = None,
    dates: Mapping[str, int] | None = None,
) -> Split:
    """Deal `blocks` (the subjects) to three sides by whole files; `documents` are all sound blocks and follow their file.

    `dates` are those of `file_dates.read_dates`; without any the split is not by date.

    Raises InputError where fewer than three untied files hold subjects, or a split by date is asked for and cannot be.
    """
    settings = settings or SplitSettings()
    shown = tuple(documents if documents is not None else blocks)
    groups = _tied_files([*shown, *blocks], settings.near_duplicate)
    weight: Counter[str] = Counter(groups[block.path] for block in blocks)
    if len(weight) < len(_SIDES):
        raise _too_few([*shown, *blocks], {block.path for block in blocks}, len(weight), settings.near_duplicate)
    side_of_group = _deal(weight, settings)
    cut, because = None, ""
    if settings.by != "file":
        because = "no file has a commit date"
        newest = _newest(groups, dates or {})
        if dates:
            cut, because = _cut(weight, newest, settings, side_of_group)
        if cut is not None:
            side_of_group = {group: _side_of(date, cut) for group, date in newest.items()}
        elif settings.by == "date":
            raise InputError(f"A split by date cannot be made: {because}.", "Set split.by to auto or file.")
    side_of_file: dict[str, Side] = {path: side_of_group.get(group, "train") for path, group in groups.items()}
    dealt = {side: tuple(block for block in blocks if side_of_file[block.path] == side) for side in _SIDES}
    return Split(dealt["train"], dealt["valid"], dealt["test"], side_of_file, shown, cut, because)


def check_no_leak(examples: Iterable[RAFTExample], split: Split) -> list[Leak]:
    """Leaks in training examples: a document or subject from a held-out file, or an exact copy of a held-out block.

    Copies are compared by their words, whatever the white space; blocks under 30 tokens are not looked at.
    """
    held_out = {path for path, side in split.side_of_file.items() if side != "train"}
    hidden = ((block, _comparable(block)) for block in split.documents if block.path in held_out)
    ids = [(block.block_type, content_id(one_line(text))) for block, text in hidden if text]
    copies, heads = {of_text for _, of_text in ids}, {of_text for kind, of_text in ids if kind == "module"}

    @functools.cache  # a document is shown in many examples
    def is_copy(text: str) -> bool:
        if content_id(one_line(text)) in copies:
            return True
        return content_id(one_line(_COMMENT_LINE.sub("", text))) in heads

    leaks: list[Leak] = []
    for example in examples:
        if example.subject_path in held_out:
            leaks.append(Leak(example.id, example.subject_path, "held-out file"))
        for document in example.shown_documents:
            if document.path in held_out:
                leaks.append(Leak(example.id, document.citation, "held-out file"))
            elif is_copy(document.text):
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

    # Pairs chain: a copy of a copy belongs to the same group.
    for first, second in _files_with_copies(blocks, near_duplicate):
        tie(first, second)
    for test, subject in _tests_and_subjects(parent):
        tie(test, subject)
    return {path: find(path) for path in parent}


def _files_with_copies(blocks: Sequence[CodeBlock], near_duplicate: float) -> set[tuple[str, str]]:
    """Pairs of files that hold near-duplicates of each other's blocks, over all files at once."""
    distinct = list({block.id: block for block in blocks}.values())
    long = [(block.path, text) for block in distinct if (text := _comparable(block))]
    pairs = near_duplicate_pairs([text for _, text in long], near_duplicate)
    return {(long[a][0], long[b][0]) for a, b, _ in pairs if long[a][0] != long[b][0]}


def _too_few(blocks: Sequence[CodeBlock], asked: set[str], n_groups: int, near_duplicate: float) -> InputError:
    """Why the files that are `asked` about cannot be dealt, and which file shares code with most: mostly one built of others.

    Such a file ties all of them, or is the only one asked about, as what it repeats is no subject elsewhere.
    """
    tied = defaultdict[str, set[str]](set)
    for first, second in _files_with_copies(blocks, near_duplicate):
        tied[first].add(second)
        tied[second].add(first)
    ways = ["Give a larger repository"]
    are_few = len(asked) < len(_SIDES)
    problem = (
        f"A split needs at least 3 files with blocks to ask about, found {len(asked)}"
        if are_few
        else "Files that hold copies of each other's code stay on one side of a split, which needs at least 3 groups of "
        f"them: the {len(asked)} files with blocks to ask about make {n_groups}"
    )
    if tied:
        hub = min(tied, key=lambda path: (-len(tied[path]), path))
        problem += f"; {hub} shares code with {len(tied[hub])} of the others"
        ways.append(f"name a folder without {hub} if that file is built from others")
    if are_few:
        ways.append("set miner.require_docstring to false")
    else:
        exact = _tied_files(blocks, 1)
        if len({exact[path] for path in asked}) >= len(_SIDES):  # what is copied word for word stays tied
            ways.append("raise split.near_duplicate")
    *others, last = ways
    return InputError(f"{problem}.", f"{', '.join(others)}, or {last}." if others else f"{last}.")


def _comparable(block: CodeBlock) -> str:
    """What another block may be a copy of; nothing where it is too short."""
    text, n_tokens = block.source_code, block.metadata.n_tokens
    if block.block_type == "module":
        text = _COMMENT_LINE.sub("", text)
        n_tokens = approximate_tokens(text)
    return text if n_tokens >= _MIN_DUPLICATE_TOKENS else ""


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


def _newest(groups: Mapping[str, str], dates: Mapping[str, int]) -> dict[str, float]:
    """Each group's date: its newest file's."""
    newest: dict[str, float] = {}
    for path, group in groups.items():
        newest[group] = max(newest.get(group, -math.inf), dates.get(path, _NOT_COMMITTED))
    return newest


def _side_of(date: float, cut: Cut) -> Side:
    if date >= cut.test:
        return "test"
    return "valid" if date >= cut.valid else "train"


def _cut(
    weight: Counter[str], newest: Mapping[str, float], settings: SplitSettings, rival: Mapping[str, Side]
) -> tuple[Cut | None, str]:
    """The two dates that come nearest to the wanted shares, or why they would be too far from them."""
    of_date: Counter[float] = Counter()
    for group, n in weight.items():
        of_date[newest[group]] += n
    dates = sorted(of_date, reverse=True)
    if len(dates) < len(_SIDES):
        plural = "s" if len(dates) > 1 else ""
        return None, f"its files have {len(dates)} commit date{plural}, three are needed"
    # Newest first: `upto[i]` subjects are of `dates[i]` or later, and so on the held-out side of a cut there.
    upto = list(accumulate(of_date[date] for date in dates))
    held_out = (settings.test * upto[-1], (settings.test + settings.valid) * upto[-1])
    test = min(range(len(dates) - 2), key=lambda i: abs(upto[i] - held_out[0]))
    valid = min(range(test + 1, len(dates) - 1), key=lambda i: abs(upto[i] - held_out[1]))
    cut = Cut(dates[valid], dates[test])
    sides = {group: _side_of(newest[group], cut) for group in weight}
    if _distance(weight, sides, settings) - _distance(weight, rival, settings) > _MAX_FURTHER_OFF * upto[-1]:
        test_share, valid_share = upto[test] / upto[-1], (upto[valid] - upto[test]) / upto[-1]
        return None, (
            f"too much was written in one commit: by date {test_share:.0%} would be test and {valid_share:.0%} valid"
        )
    return cut, ""


def _date(time: float) -> str:
    """A time as it is told, in UTC."""
    return "what is not committed" if time == _NOT_COMMITTED else f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"


def _distance(weight: Counter[str], sides: Mapping[str, Side], settings: SplitSettings) -> float:
    """How many subjects a deal has too many or too few, over all sides."""
    filled: Counter[Side] = Counter()
    for group, n in weight.items():
        filled[sides[group]] += n
    total = sum(weight.values())
    shares: tuple[float, ...] = (settings.train, settings.valid, settings.test)
    return sum(abs(filled[side] - share * total) for side, share in zip(_SIDES, shares, strict=True))


def _deal(weight: Counter[str], settings: SplitSettings) -> dict[str, Side]:
    """The best of 64 seeded deals: groups in random order fill test, then valid, and the rest is train."""
    total = sum(weight.values())
    wanted: dict[Side, float] = {"test": settings.test * total, "valid": settings.valid * total}
    deals: list[dict[str, Side]] = []
    for attempt in range(_N_DEALS):
        order = sorted(weight)
        random.Random(f"{settings.seed}/{attempt}").shuffle(order)  # a string seeds alike in every process
        # One group each first: no side is ever empty, however large the groups are.
        sides: dict[str, Side] = {order[0]: "test", order[1]: "valid", order[2]: "train"}
        filled: Counter[Side] = Counter({"test": weight[order[0]], "valid": weight[order[1]]})
        for group in order[3:]:
            sides[group] = next((s for s in wanted if filled[s] + weight[group] <= wanted[s]), "train")
            filled[sides[group]] += weight[group]
        deals.append(sides)
    return min(deals, key=lambda sides: _distance(weight, sides, settings))
