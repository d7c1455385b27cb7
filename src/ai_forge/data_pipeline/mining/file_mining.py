"""One file's bytes to what the repository's result needs of it: blocks, imports, counts, and which may be asked about.

A `MinedFile` depends on nothing but the file, its path and folder's licence, and the settings: so it can be made in any
process and kept from one run to the next. Packed (JSON without the text, which the file has) it is small, and its blocks
are only made of it when someone looks at them.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

from ai_forge.code_hash import code_hash
from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline.languages import LANGUAGES, LanguageSpec
from ai_forge.data_pipeline.mining.chunking import as_part, cut
from ai_forge.data_pipeline.mining.filters import file_rejection, score, subject_rejection
from ai_forge.data_pipeline.mining.identifiers import CodeNames
from ai_forge.data_pipeline.mining.parsing import ParsedFile, Unit, normalise, parse
from ai_forge.data_pipeline.schemas import BlockMetadata, CodeBlock, Guard, Import
from ai_forge.data_pipeline.schemas.code_blocks import trusted
from ai_forge.data_pipeline.secrets.masking import Scrubbed, is_name_clean, mask, scrub
from ai_forge.data_pipeline.source.licences import licence_allowed, licence_of
from ai_forge.data_pipeline.source.repository import SourceFile
from ai_forge.data_pipeline.text.words import LineTokens, approximate_tokens

__all__ = ["MinedFile", "MiningTask", "mine_file"]

_META = tuple(BlockMetadata.model_fields)
_TUPLES = tuple(name for name, field in BlockMetadata.model_fields.items() if field.default == ())
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


@cache
def _version_of(module: str) -> str | None:
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class MiningTask:
    """What holds for all files: the settings, the repository's own licence and its commit."""

    settings: MinerSettings
    own_licence: str | None = None
    commit: str | None = None

    def keys_of(self, sources: Sequence[SourceFile]) -> list[bytes]:
        """For each file a hash of all that its `MinedFile` depends on: bytes and place, settings, this code, the grammars."""
        grammars = {LANGUAGES[name].grammar.partition(":")[0] for name in {source.language for source in sources}}
        # The commit is not among it: it is packed with no block, so that a new one mines only what changed.
        versions = {name: _version_of(name) for name in ("tree_sitter", "detect_secrets", *sorted(grammars))}
        same = [code_hash(__name__), sys.version, versions, self.settings.model_dump(mode="json"), self.own_licence]
        start = hashlib.blake2b(_encode(same).encode(), digest_size=16)
        keys = []
        for source in sources:
            key = start.copy()
            key.update(f"{source.path}\0{source.blob_id}\0{source.folder_licence or ''}".encode())
            keys.append(key.digest())
        return keys


@dataclass(frozen=True)
class MinedFile:
    """What one file gives. `skipped` is why it gives nothing; `rejected` counts blocks by reason.

    `subjects` are the blocks that may be asked about, in order: their id, and a hash of their words, by which a later one
    that repeats an earlier one is known.
    """

    skipped: str | None
    rejected: dict[str, int] = field(default_factory=dict)
    subjects: tuple[tuple[str, str], ...] = ()
    by_type: dict[str, int] = field(default_factory=dict)
    n_masked: int = 0
    content: "Content | bytes" = b"[[],[],[]]"

    def pack(self) -> bytes:
        """The value as bytes, without what the file itself says: its text, its blob id, the commit."""
        content = self.content
        if not isinstance(content, bytes):
            content = _encode([content.masked, content.imports, list(map(_row, content.blocks))]).encode()
        head = [self.skipped, self.rejected, self.subjects, self.by_type, self.n_masked]
        return _encode(head).encode() + b"\n" + content

    @classmethod
    def unpack(cls, data: bytes) -> "MinedFile":
        """What `pack` made; blocks stay packed until `open`.

        Raises:
            ValueError: it is not of this form.
        """
        head, _, content = data.partition(b"\n")
        skipped, rejected, subjects, by_type, n_masked = json.loads(head)
        return cls(skipped, rejected, tuple(map(tuple, subjects)), by_type, n_masked, content)

    def open(self, source: SourceFile, task: MiningTask) -> "Content":
        """Blocks and imports; `source` is the file that this was made of."""
        if not isinstance(self.content, bytes):
            return self.content
        masked, imports, rows = json.loads(self.content)
        spans = tuple((first, last) for first, last in masked)
        text = normalise(mask(normalise(source.content), spans, task.settings.secret_placeholder))
        lines = LineTokens(text)
        blocks = tuple(_from_row(row, lines, source, task.commit) for row in rows)
        return Content(blocks, tuple(Import(*names) for names in imports), spans)


@dataclass(frozen=True)
class Content:
    """A file's blocks and imports in order, and the spans of its normalised bytes that were masked."""

    blocks: tuple[CodeBlock, ...]
    imports: tuple[Import, ...]
    masked: tuple[tuple[int, int], ...]


def _row(block: CodeBlock) -> list[Any]:
    meta = block.metadata
    guards = [[*guard.__dict__.values()] for guard in meta.guards]
    values = {**meta.__dict__, "commit": None, "blob_id": "", "guards": guards}
    text = None
    if meta.part:  # a part's text is put together from three places; any other block's is lines of its file
        text = block.source_code
    return [block.block_type, block.name, block.docstring, text, block.dependencies, [*values.values()]]


def _from_row(row: list[Any], lines: LineTokens, source: SourceFile, commit: str | None) -> CodeBlock:
    block_type, name, docstring, text, dependencies, values = row
    # Values by their place in the model: the fields are part of the code whose hash is in the cache's key.
    meta = dict(zip(_META, values, strict=True))
    for name_of_tuple in _TUPLES:  # JSON has lists alone
        meta[name_of_tuple] = tuple(meta[name_of_tuple])
    meta["guards"] = tuple(trusted(Guard, dict(zip(Guard.model_fields, g, strict=True))) for g in meta["guards"])
    meta["commit"], meta["blob_id"] = commit, source.blob_id
    if text is None:
        text = lines.text(meta["first_line"], meta["last_line"])
    return trusted(
        CodeBlock,
        {
            "path": source.path,
            "language": source.language,
            "block_type": block_type,
            "name": name,
            "docstring": docstring,
            "source_code": text,
            "dependencies": tuple(dependencies),
            "metadata": trusted(BlockMetadata, meta),
        },
    )


def mine_file(source: SourceFile, task: MiningTask) -> MinedFile:
    """Mine one file. Never fails on its content."""
    settings = task.settings
    licence = licence_of(source.content) or source.folder_licence
    is_allowed = licence_allowed(licence, task.own_licence, settings.allow_licence)
    read = _read(source, settings, is_allowed=is_allowed)
    if isinstance(read, str):
        return MinedFile(read)
    parsed, clean = read
    rejected: Counter[str] = Counter()
    blocks = tuple(_blocks(source, parsed, clean, task.commit, licence, settings, rejected))
    subjects = []
    for block in blocks:
        reason = subject_rejection(block, settings)
        if reason is None:
            # Hashed here, where the text is at hand: repeats are then known without making the blocks.
            words = " ".join(block.source_code.split()).encode("utf-8", "surrogatepass")
            subjects.append((block.id, hashlib.blake2b(words, digest_size=12).hexdigest()))
        else:
            rejected[reason] += 1
    by_type: Counter[str] = Counter(block.block_type for block in blocks)
    n_masked = sum(1 for block in blocks if block.metadata.n_masked)
    content = Content(blocks, tuple(parsed.imports), clean.spans)
    return MinedFile(None, dict(rejected), tuple(subjects), dict(by_type), n_masked, content)


def _read(source: SourceFile, settings: MinerSettings, *, is_allowed: bool) -> tuple[ParsedFile, Scrubbed] | str:
    """The file without its secrets, parsed; or why not."""
    if settings.languages and source.language not in settings.languages:
        return "other_language"
    if len(source.content) > settings.max_file_bytes:
        return "too_large"
    if not is_allowed:
        return "licence"
    reason = file_rejection(source.path, source.content)
    if reason is not None:
        return reason
    if not is_name_clean(source.path):
        return "secret"
    # Masked before it is parsed: what the query captures (signatures, defaults, conditions) holds no secret either.
    clean = scrub(normalise(source.content), settings.secret_placeholder)
    parsed = parse(clean.content, source.language)
    if parsed is None:
        return f"no_grammar_{source.language}"
    if parsed.has_error and not parsed.units:
        return "syntax_error"
    return parsed, clean


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
    units = parsed.units
    if parsed.module is not None:
        head = parsed.module
        head.name = PurePosixPath(source.path).name
        if approximate_tokens(parsed.text[head.start : head.end].decode("utf-8", "replace")) < settings.min_tokens:
            rejected["short_module"] += 1
        else:
            units = [head, *units]
    tokens = LineTokens(parsed.text, (line for u in units for line in (u.first_line - 1, u.last_line)))
    names = _Names(parsed, LANGUAGES[source.language])
    blocks: list[CodeBlock] = []
    spans: set[tuple[int, int]] = set()
    unit_spans = {(unit.first_line, unit.last_line) for unit in parsed.units}
    for unit in units:
        span = (unit.first_line, unit.last_line)
        n_tokens = tokens.of(span)
        n_masked = sum(unit.first_line <= line <= unit.last_line for line in clean.lines)
        if n_masked and (unit.has_error or settings.secrets == "drop"):
            rejected["secret"] += 1
        elif unit.has_error:
            rejected["syntax_error"] += 1
        elif n_tokens > settings.max_tokens:
            parts, n_too_long = cut(unit, tokens, LANGUAGES[source.language], settings.max_tokens)
            taken = unit_spans | spans  # a statement that is a definition has a block of its own
            own = [part for part in parts if (part.first_line, part.last_line) not in taken]
            rejected["too_long"] += n_too_long
            for number, part in enumerate(own, start=1):
                spans.add((part.first_line, part.last_line))
                whole = _block(source, names, unit, part.text, part.n_tokens, commit, licence, n_masked)
                blocks.append(as_part(whole, part, number, len(own)))
        elif span in spans:
            rejected["same_lines"] += 1
        else:
            spans.add(span)
            blocks.append(_block(source, names, unit, tokens.text(*span), n_tokens, commit, licence, n_masked))
    return blocks


class _Names:
    """Which of a unit's names come from outside of it."""

    def __init__(self, parsed: ParsedFile, spec: LanguageSpec) -> None:
        self.parsed, self.spec = parsed, spec
        self.imported = {i.local for i in parsed.imports}
        self.outside = {*self.imported, *parsed.constants, *(unit.name for unit in parsed.units)}
        self.called: dict[int, set[str]] = {}
        for unit in parsed.all_units:
            written = (*unit.calls, *unit.bases, *unit.decorators)
            self.called[id(unit)] = {name.partition(".")[0] for name in written}
        # Only these are asked about below: every other name of a file would be kept for nothing.
        self.in_code = CodeNames(parsed, self.outside.union(*self.called.values()))

    def of(self, unit: Unit) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The imported names that `unit` uses, and all that are defined outside of it (or called), in order."""
        own, called = {*unit.parameters, unit.name}, self.called[id(unit)]
        found = self.in_code.of(unit)
        used = [name for name in found if name not in own and (name in self.outside or name in called)]
        implicit = self.spec.implicit_parameters
        return tuple(name for name in used if name in self.imported), tuple(n for n in used if n not in implicit)


def _block(
    source: SourceFile,
    names: _Names,
    unit: Unit,
    text: str,
    n_tokens: int,
    commit: str | None,
    licence: str | None,
    n_masked: int,
) -> CodeBlock:
    """A block of values that need no validation; its score is filled in last, from the block itself."""
    imports, dependencies = names.of(unit)
    name = unit.name
    if unit is not names.parsed.module:  # a file's head is called as the file, with its dot
        name = name.rpartition(".")[2]
    meta: dict[str, object] = {
        "first_line": unit.first_line,
        "last_line": unit.last_line,
        "qualified_name": unit.qualified_name,
        "signature": unit.signature,
        "parameters": tuple(unit.parameters),
        "returns": unit.returns,
        "raises": tuple(unit.raises),
        "calls": tuple(unit.calls),
        "imports": imports,
        "decorators": tuple(unit.decorators),
        "bases": tuple(unit.bases),
        "method_names": tuple(unit.members),
        "is_async": "async" in unit.signature.partition("(")[0].split() or unit.signature.startswith("async"),
        "is_generator": unit.is_generator,
        "guards": tuple(unit.guards),
        "return_values": tuple(unit.return_values),
        "complexity": unit.complexity,
        "n_tokens": n_tokens,
        "score": 0.0,
        "part": 0,
        "n_parts": 0,
        "head_lines": 0,
        "tail_lines": 0,
        "commit": commit,
        "blob_id": source.blob_id,
        "licence": licence,
        "n_masked": n_masked,
    }
    block = trusted(
        CodeBlock,
        {
            "path": source.path,
            "language": names.spec.name,
            "block_type": unit.kind,
            "name": name,
            "docstring": unit.docstring,
            "source_code": text,
            "dependencies": dependencies,
            "metadata": trusted(BlockMetadata, meta),
        },
    )
    meta["score"] = score(block)
    return block
