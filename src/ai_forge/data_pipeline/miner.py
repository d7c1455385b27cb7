"""Files to `CodeBlock`s: whole definitions, with documentation, provenance and what the syntax says about them.

`parse_repository` answers "what may be asked about"; `mine` also keeps the sound blocks that make poor subjects (tests,
undocumented helpers), because a retriever must know them. Broken, odd or hostile files cost themselves and are counted.
One process parses 4–5 MB/s of source into blocks, which is seconds for most repositories.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline.cutting import as_part, cut
from ai_forge.data_pipeline.filters import (
    file_rejection,
    first_of_each,
    is_private,
    score,
    subject_rejection,
)
from ai_forge.data_pipeline.languages import LANGUAGES
from ai_forge.data_pipeline.licences import licence_allowed, licence_of
from ai_forge.data_pipeline.parsing import ParsedFile, Unit, normalise, parse
from ai_forge.data_pipeline.repository import Repository, SourceFile, read_repository
from ai_forge.data_pipeline.schemas import BlockMetadata, CodeBlock, Import
from ai_forge.data_pipeline.secrets import Scrubbed, scrub
from ai_forge.data_pipeline.text import LineTokens, approximate_tokens
from ai_forge.errors import AIForgeError, InputError, PrerequisiteError

__all__ = [
    "MiningResult",
    "extract_classes",
    "extract_functions",
    "extract_module_info",
    "mine",
    "mine_repository",
    "parse_repository",
]

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""

_FEW_SUBJECTS = 20
_CLASS_TYPES = ("class", "interface", "type")


@dataclass(frozen=True)
class MiningResult:
    """Every sound block, which of them may be asked about, and counted reasons for the rest.

    `documents` are in order of path and line. `rejected` counts blocks, `skipped` files.
    """

    documents: tuple[CodeBlock, ...]
    subject_ids: frozenset[str]
    rejected: Counter[str]
    skipped: Counter[str]
    n_files: int
    imports: dict[str, tuple[Import, ...]]
    require_docstring: bool = True

    @cached_property
    def blocks(self) -> tuple[CodeBlock, ...]:
        """The documents that may be the subject of a question."""
        return tuple(block for block in self.documents if block.id in self.subject_ids)

    @property
    def advice(self) -> str | None:
        """What to change when few blocks may be asked about, in one sentence."""
        undocumented = self.rejected["no_docstring"]
        if self.require_docstring and undocumented and len(self.blocks) < max(_FEW_SUBJECTS, undocumented // 10):
            return (
                f"Only {len(self.blocks)} blocks have documentation, {undocumented} have none: "
                "set miner.require_docstring to false to ask about those too."
            )
        return None

    def summary(self) -> dict[str, Any]:
        """Counts, for a report or a progress line."""
        return {
            "files": self.n_files,
            "documents": len(self.documents),
            "subjects": len(self.blocks),
            "by_language": dict(Counter(b.language for b in self.documents).most_common()),
            "by_type": dict(Counter(b.block_type for b in self.documents).most_common()),
            "rejected": dict(self.rejected.most_common()),
            "skipped": dict(self.skipped.most_common()),
            "masked": sum(1 for block in self.documents if block.metadata.n_masked),
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
        raise InputError(
            f"No block of {repo_path} passes the filters ({reasons}).",
            "Set miner.require_docstring to false."
            if result.rejected["no_docstring"]
            else "Give a folder with more code.",
        )
    return list(result.blocks)


def mine_repository(
    repository: Repository, settings: MinerSettings | None = None, *, progress: Progress | None = None
) -> MiningResult:
    """`mine` over a repository that was read, with its commit and its skipped files in the result."""
    own = repository.licence
    result = mine(repository.files, settings, commit=repository.commit, own_licence=own, progress=progress)
    result.skipped.update(repository.skipped)
    return result


def mine(
    files: Iterable[SourceFile],
    settings: MinerSettings | None = None,
    *,
    commit: str | None = None,
    own_licence: str | None = None,
    progress: Progress | None = None,
) -> MiningResult:
    """Blocks of `files`, without secrets. Never fails on a file's content: what cannot be used is counted.

    `own_licence` is the one under which everything may be used (see `licences`).
    """
    settings = settings or MinerSettings()
    sources = sorted(files, key=lambda file: file.path)
    documents: list[CodeBlock] = []
    candidates: list[CodeBlock] = []
    rejected: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    imports: dict[str, tuple[Import, ...]] = {}
    n_files = 0
    for index, source in enumerate(sources, start=1):
        licence = licence_of(source.content) or source.folder_licence
        allowed = licence_allowed(licence, own_licence, settings.allow_licence)
        read = _read(source, settings, skipped, None if allowed else "licence")
        if read is not None:
            parsed, clean = read
            n_files += 1
            imports[source.path] = tuple(parsed.imports)
            for block in _blocks(source, parsed, clean, commit, licence, settings, rejected):
                documents.append(block)
                reason = subject_rejection(block, settings)
                if reason is None:
                    candidates.append(block)
                else:
                    rejected[reason] += 1
        if progress is not None:
            progress(index, len(sources))
    kept, repeats = first_of_each(candidates)
    subjects = frozenset(block.id for block in kept)
    return MiningResult(
        tuple(documents), subjects, rejected + repeats, skipped, n_files, imports, settings.require_docstring
    )


def _read(
    source: SourceFile, settings: MinerSettings, skipped: Counter[str], reason: str | None
) -> tuple[ParsedFile, Scrubbed] | None:
    """The file without its secrets, parsed; None with the reason counted, which may be known before."""
    if settings.languages and source.language not in settings.languages:
        reason = "other_language"
    elif len(source.content) > settings.max_file_bytes:
        reason = "too_large"
    reason = reason or file_rejection(source.path, source.content)
    if reason is None:
        clean = scrub(normalise(source.content), settings.secret_placeholder)
        parsed = parse(clean.content, source.language)
        if parsed is None:
            reason = f"no_grammar_{source.language}"
        elif parsed.has_error and not parsed.units:
            reason = "syntax_error"
        else:
            return parsed, clean
    skipped[reason] += 1
    return None


def _blocks(
    source: SourceFile,
    parsed: ParsedFile,
    clean: Scrubbed,
    commit: str | None,
    licence: str | None,
    settings: MinerSettings,
    rejected: Counter[str],
) -> list[CodeBlock]:
    """The file's sound blocks. Two definitions on the same lines would be one citation: the outer one stays."""
    lines = parsed.text.decode("utf-8", "replace").split("\n")
    tokens = LineTokens(lines)
    outside = {i.local for i in parsed.imports} | set(parsed.constants) | {unit.name for unit in parsed.units}
    blocks: list[CodeBlock] = []
    spans: set[tuple[int, int]] = set()
    unit_spans = {(unit.first_line, unit.last_line) for unit in parsed.units}
    for unit in _units_with_head(source, parsed, settings, rejected):
        span = (unit.first_line, unit.last_line)
        text = "\n".join(lines[unit.first_line - 1 : unit.last_line])
        n_tokens = tokens.of(*span)
        n_masked = sum(unit.first_line <= line <= unit.last_line for line in clean.lines)
        if n_masked and (unit.has_error or settings.secrets == "drop"):
            rejected["secret"] += 1
        elif unit.has_error:
            rejected["syntax_error"] += 1
        elif n_tokens > settings.max_tokens:
            parts, n_too_long = cut(unit, parsed.text, tokens, LANGUAGES[source.language], settings.max_tokens)
            own = [part for part in parts if (part.first_line, part.last_line) not in unit_spans | spans]
            rejected["too_long"] += n_too_long
            for number, part in enumerate(own, start=1):
                spans.add((part.first_line, part.last_line))
                whole = _block(source, parsed, unit, part.text, part.n_tokens, outside, commit, licence, n_masked)
                blocks.append(as_part(whole, part, number, len(own)))
        elif span in spans:
            rejected["same_lines"] += 1
        else:
            spans.add(span)
            blocks.append(_block(source, parsed, unit, text, n_tokens, outside, commit, licence, n_masked))
    return blocks


def _units_with_head(
    source: SourceFile, parsed: ParsedFile, settings: MinerSettings, rejected: Counter[str]
) -> list[Unit]:
    """The file's head, named by the file, before its units."""
    head = parsed.module
    if head is None:
        return parsed.units
    head.name = PurePosixPath(source.path).name
    if approximate_tokens(parsed.text[head.start : head.end].decode("utf-8", "replace")) < settings.min_tokens:
        rejected["short_module"] += 1
        return parsed.units
    return [head, *parsed.units]


def _block(
    source: SourceFile,
    parsed: ParsedFile,
    unit: Unit,
    text: str,
    n_tokens: int,
    outside: set[str],
    commit: str | None,
    licence: str | None,
    n_masked: int,
) -> CodeBlock:
    used = parsed.code_names(unit)
    imported = {i.local for i in parsed.imports}
    local = {*unit.parameters, unit.name}
    called = {name.partition(".")[0] for name in (*unit.calls, *unit.bases, *unit.decorators)}
    implicit = LANGUAGES[source.language].implicit_parameters
    metadata = BlockMetadata(
        first_line=unit.first_line,
        last_line=unit.last_line,
        qualified_name=unit.qualified_name,
        signature=unit.signature,
        parameters=tuple(unit.parameters),
        returns=unit.returns,
        raises=tuple(unit.raises),
        calls=tuple(unit.calls),
        imports=tuple(name for name in used if name in imported and name not in local),
        decorators=tuple(unit.decorators),
        bases=tuple(unit.bases),
        method_names=tuple(unit.members),
        is_async="async" in unit.signature.partition("(")[0].split() or unit.signature.startswith("async"),
        is_generator=unit.is_generator,
        guards=tuple(unit.guards),
        return_values=tuple(unit.return_values),
        complexity=unit.complexity,
        n_tokens=n_tokens,
        commit=commit,
        blob_id=source.blob_id,
        licence=licence,
        n_masked=n_masked,
    )
    block = CodeBlock(
        path=source.path,
        language=source.language,
        block_type=unit.kind,
        name=unit.name if unit is parsed.module else unit.name.rpartition(".")[2],
        docstring=unit.docstring,
        source_code=text,
        dependencies=tuple(
            name for name in used if (name in outside or name in called) and name not in local and name not in implicit
        ),
        metadata=metadata,
    )
    return block.model_copy(update={"metadata": metadata.model_copy(update={"score": score(block)})})


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
    for block in result.documents if given.all else result.blocks:
        print(block.model_dump_json())
    print(json.dumps(result.summary()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
