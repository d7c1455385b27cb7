"""Files to `CodeBlock`s: whole definitions, with documentation, provenance and what the syntax says about them.

`parse_repository` answers "what may be asked about"; `mine` also keeps the sound blocks that make poor subjects (tests,
undocumented helpers), because a retriever must know them. Broken, odd or hostile files cost themselves and are counted.
One process makes blocks of 2–3 MB of source a second; large repositories are mined by one process a core (`mining.pool`), and
files that a cache knows are not mined again.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline.languages import LANGUAGES
from ai_forge.data_pipeline.mining.file_mining import Content, MinedFile, MiningTask
from ai_forge.data_pipeline.mining.filters import is_private
from ai_forge.data_pipeline.mining.parsing import ParsedFile, parse
from ai_forge.data_pipeline.mining.pool import mine_files, no_collection
from ai_forge.data_pipeline.schemas import CodeBlock, Import
from ai_forge.data_pipeline.source.repository import Repository, SourceFile, read_repository
from ai_forge.errors import AIForgeError, InputError, PrerequisiteError
from ai_forge.events import Progress
from ai_forge.json_lines import JsonObject

__all__ = [
    "MiningResult",
    "extract_classes",
    "extract_functions",
    "extract_module_info",
    "mine",
    "mine_repository",
    "parse_repository",
]


class FileStore(Protocol):
    """Keeps what was made of files; see `ai_forge.file_cache`."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are there."""

    def put_many(self, values: Mapping[bytes, bytes], in_use: Sequence[bytes]) -> None:
        """Keep `values`; those with keys `in_use` are still wanted."""


_FEW_SUBJECTS = 20
_CLASS_TYPES = ("class", "interface", "type")


@dataclass(frozen=True)
class MiningResult:
    """Every sound block, which of them may be asked about, and counted reasons for the rest.

    `entries` are the files by path. Blocks are made when they are first looked at; counts are there at once.
    """

    entries: tuple[tuple[SourceFile, MinedFile], ...]
    task: MiningTask
    unread: Counter[str] = field(default_factory=Counter)
    """Why files of the repository were not read."""

    @cached_property
    def documents(self) -> tuple[CodeBlock, ...]:
        """All blocks, in order of path and line."""
        return tuple(block for content in self._contents.values() for block in content.blocks)

    @cached_property
    def imports(self) -> dict[str, tuple[Import, ...]]:
        """What each file imports, by its path."""
        return {path: content.imports for path, content in self._contents.items()}

    @cached_property
    def blocks(self) -> tuple[CodeBlock, ...]:
        """The documents that may be the subject of a question."""
        return tuple(block for block in self.documents if block.id in self.subject_ids)

    @cached_property
    def subject_ids(self) -> frozenset[str]:
        """The ids of `blocks`: those that do not repeat an earlier one but for white space."""
        # In the order of paths, whoever mined them: the same block is the subject on every machine.
        first: dict[str, str] = {}
        for _, mined in self.entries:
            for block_id, words in mined.subjects:
                first.setdefault(words, block_id)
        return frozenset(first.values())

    @cached_property
    def rejected(self) -> Counter[str]:
        """Blocks that may not be asked about (some are no documents either), by reason."""
        counts: Counter[str] = Counter()
        for _, mined in self.entries:
            counts.update(mined.rejected)
        # A repeat is known only among all files, so no file's own count has it.
        repeats = sum(len(mined.subjects) for _, mined in self.entries) - len(self.subject_ids)
        return counts + Counter({"duplicate": repeats})

    @cached_property
    def skipped(self) -> Counter[str]:
        """Files that were not mined, by reason."""
        return self.unread + Counter(mined.skipped for _, mined in self.entries if mined.skipped)

    @property
    def n_files(self) -> int:
        """Files that were mined."""
        return sum(1 for _, mined in self.entries if mined.skipped is None)

    @cached_property
    def _contents(self) -> dict[str, Content]:
        with no_collection():
            return {s.path: m.open(s, self.task) for s, m in self.entries if m.skipped is None}

    @property
    def advice(self) -> str | None:
        """What to change when few blocks may be asked about, in one sentence."""
        undocumented = self.rejected["no_docstring"]
        are_few = len(self.subject_ids) < max(_FEW_SUBJECTS, undocumented // 10)
        if not (self.task.settings.require_docstring and undocumented and are_few):
            return None
        return (
            f"Only {len(self.subject_ids)} blocks have documentation, {undocumented} have none: "
            "set miner.require_docstring to false to ask about those too."
        )

    def summary(self) -> JsonObject:
        """Counts, for a report or a progress line."""
        by_type: Counter[str] = Counter()
        by_language: Counter[str] = Counter()
        for source, mined in self.entries:
            by_type.update(mined.by_type)
            by_language[source.language] += sum(mined.by_type.values())
        return {
            "files": self.n_files,
            "documents": by_type.total(),
            "subjects": len(self.subject_ids),
            "by_language": dict((+by_language).most_common()),
            "by_type": dict(by_type.most_common()),
            "rejected": dict(self.rejected.most_common()),
            "skipped": dict(self.skipped.most_common()),
            "masked": sum(mined.n_masked for _, mined in self.entries),
            "advice": self.advice,
        }


def parse_repository(
    repo_path: str | Path, *, settings: MinerSettings | None = None, progress: Progress | None = None
) -> list[CodeBlock]:
    """The blocks of a repository that may be the subject of a question, in order of path and line.

    Raises InputError: not a folder, empty, no known language, or no block left by the filters.
    """
    result = mine_repository(read_repository(repo_path), settings or MinerSettings(), progress=progress)
    if not result.blocks:
        reasons = ", ".join(f"{reason} {n}" for reason, n in result.rejected.most_common(4)) or "no definitions found"
        hint = "Give a folder with more code."
        if result.rejected["no_docstring"]:
            hint = "Set miner.require_docstring to false."
        raise InputError(f"No block of {repo_path} passes the filters ({reasons}).", hint)
    return list(result.blocks)


def mine_repository(
    repository: Repository,
    settings: MinerSettings | None = None,
    *,
    progress: Progress | None = None,
    processes: int | None = None,
    cache: FileStore | None = None,
) -> MiningResult:
    """`mine` over a repository that was read, with its commit and its skipped files in the result."""
    result = mine(
        repository.files,
        settings,
        commit=repository.commit,
        own_licence=repository.licence,
        progress=progress,
        processes=processes,
        cache=cache,
    )
    return replace(result, unread=repository.skipped)


def mine(
    files: Iterable[SourceFile],
    settings: MinerSettings | None = None,
    *,
    commit: str | None = None,
    own_licence: str | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
    cache: FileStore | None = None,
) -> MiningResult:
    """Blocks of `files`, without secrets. Never fails on a file's content: what cannot be used is counted.

    `own_licence` is the one under which everything may be used (see `licences`), `processes` how many mine (by default
    one a core where it is worth it). With a `cache` only files are mined that it does not know.
    """
    task = MiningTask(settings or MinerSettings(), own_licence, commit)
    sources = sorted(files, key=lambda file: file.path)  # results come in any order, blocks in this one
    with no_collection():
        entries = _entries(sources, task, progress, processes, cache)
    return MiningResult(entries, task)


def _entries(
    sources: list[SourceFile],
    task: MiningTask,
    progress: Progress | None,
    processes: int | None,
    cache: FileStore | None,
) -> tuple[tuple[SourceFile, MinedFile], ...]:
    """Each file with what it gives: from the cache, or mined now and put there."""
    found: list[MinedFile | None] = [None] * len(sources)
    keys: list[bytes] = []
    if cache is not None:
        keys = task.keys_of(sources)
        kept = cache.get_many(keys)
        found = [_unpacked(kept.get(key)) for key in keys]
    missing = [index for index, mined in enumerate(found) if mined is None]
    n_done = len(sources) - len(missing)
    results = mine_files([sources[index] for index in missing], task, processes=processes)
    for done, (place, mined) in enumerate(results, start=n_done + 1):
        found[missing[place]] = mined
        if progress is not None:
            progress(done, len(sources))
    entries = tuple((source, mined) for source, mined in zip(sources, found, strict=True) if mined is not None)
    assert len(entries) == len(sources), "every file has a result, if only why it has none"
    if cache is not None:
        # A crash may be the machine's (memory): such a file is tried again by the next run.
        fresh = (index for index in missing if entries[index][1].skipped != "crashed")
        cache.put_many({keys[index]: entries[index][1].pack() for index in fresh}, in_use=keys)
    return entries


def _unpacked(packed: bytes | None) -> MinedFile | None:
    if packed is None:
        return None
    try:
        return MinedFile.unpack(packed)
    except (ValueError, TypeError):  # damaged in a way that the cache's checksum does not see: mined again
        return None


def _units_of(code: bytes, language: str) -> ParsedFile:
    if language not in LANGUAGES:
        raise InputError(f"Unknown language {language!r}.", f"Known: {', '.join(LANGUAGES)}.")
    parsed = parse(code, language)
    if parsed is None:
        grammar = LANGUAGES[language].grammar.partition(":")[0].replace("_", "-")
        raise PrerequisiteError(f"The grammar for {language} is not installed.", f"Run `pip install {grammar}`.")
    return parsed


def extract_functions(
    code: bytes, language: str, *, include_private: bool = False, include_tests: bool = False
) -> list[tuple[str, str | None, str]]:
    """(qualified name, docstring, source) of each function and method, in order of appearance.

    Private ones (`_name`) and tests (`test_name`) are left out unless asked for.

    >>> extract_functions(b"def add(a, b):\\n    'Sum.'\\n    return a + b\\ndef _no(): pass", "python")
    [('add', 'Sum.', "def add(a, b):\\n    'Sum.'\\n    return a + b")]
    """
    parsed = _units_of(code, language)
    lines = parsed.text.decode("utf-8", "replace").split("\n")
    found = []
    for unit in parsed.units:
        if unit.kind in _CLASS_TYPES or (is_private(unit.name) and not include_private):
            continue
        if unit.name.lower().startswith("test") and not include_tests:
            continue
        found.append((unit.qualified_name, unit.docstring, "\n".join(lines[unit.first_line - 1 : unit.last_line])))
    return found


def extract_classes(code: bytes, language: str) -> list[tuple[str, str | None, list[str]]]:
    """(qualified name, docstring, method names) of each class, interface or type, in order of appearance.

    >>> extract_classes(b"class A:\\n    def f(self): pass", "python")
    [('A', None, ['f'])]
    """
    units = _units_of(code, language).units
    return [(u.qualified_name, u.docstring, list(u.members)) for u in units if u.kind in _CLASS_TYPES]


def extract_module_info(code: bytes, language: str = "python") -> dict[str, Any]:
    """A file's `docstring`, `imports` (local names), `constants` and `dependencies` (modules), each in order.

    >>> info = extract_module_info(b"import os.path\\nfrom re import sub as s\\nLIMIT = 3")
    >>> info["imports"], info["constants"], info["dependencies"]
    (['os', 's'], ['LIMIT'], ['os.path', 're'])
    """
    parsed = _units_of(code, language)
    defined = {unit.name for unit in parsed.units}
    constants = [c for c in parsed.constants if c not in defined and (language != "python" or c.lstrip("_").isupper())]
    return {
        "docstring": parsed.docstring,
        "imports": list(dict.fromkeys(i.local for i in parsed.imports)),
        "constants": constants,
        "dependencies": parsed.modules,
    }


def main(arguments: list[str] | None = None) -> int:
    """`python -m ai_forge.data_pipeline.miner PATH`: blocks as JSON lines on stdout, counts on stderr."""
    parser = argparse.ArgumentParser(prog="python -m ai_forge.data_pipeline.miner", description=main.__doc__)
    parser.add_argument("path", help="folder of a repository")
    parser.add_argument("--all", action="store_true", help="print every sound block, not only the possible subjects")
    parser.add_argument("--no-require-docstring", action="store_true", help="undocumented blocks may be subjects")
    parser.add_argument(
        "--allow-licence", action="append", default=[], help="beside the repository's own; several times"
    )
    given = parser.parse_args(arguments)
    allowed = tuple(given.allow_licence)
    settings = MinerSettings(require_docstring=not given.no_require_docstring, allow_licence=allowed)
    try:
        result = mine_repository(read_repository(given.path, max_file_bytes=settings.max_file_bytes), settings)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    blocks = result.documents if given.all else result.blocks
    for block in blocks:
        print(block.model_dump_json())
    print(json.dumps(result.summary()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
