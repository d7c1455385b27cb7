"""What exists: the names of a repository, of what was shown, of standard libraries and of installed packages.

A repository's come from its mined blocks (or its documents, which know no parameters): words, definitions with parameters
and members, files, and what it imports itself. Those of standard libraries are shipped lists that
`tests/oracles/standard_names.py` asks each toolchain for, so that an answer about Go is judged the same on a machine without
it. Nothing is imported or run for it.
"""

import functools
import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from importlib.resources import files

from ai_forge.data_pipeline.schemas import CodeBlock, Document

WORD = re.compile(r"[A-Za-z_$][\w$]*")
_BOUND = re.compile(
    r"^[ \t]*(?:export |const |let |var |static |final |public |type )*([A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?[:=]",
    re.MULTILINE,
)
_IMPORTED = re.compile(
    r"""(?:require\(|from |import |^[ \t]*(?:\w+ )?)['"]([\w@./:-]+)['"]"""
    r"""|^[ \t]*import (?:static )?([\w.]+\*?)|^[ \t]*(?:from|import) ([\w.]+)""",
    re.MULTILINE,
)
_EMBEDDED = re.compile(r"^[ \t]*\*?((?:\w+\.)?[A-Z]\w*)[ \t]*(?:`.*)?$", re.MULTILINE)
"""Of a Go struct the types that stand in it without a name: it has their members."""
_CLASSES = frozenset({"class", "interface", "type"})
_LISTS = {"typescript": "javascript", "tsx": "javascript", "c": "cpp"}
"""Languages that share another's list."""


@dataclass(frozen=True)
class Symbol:
    """A definition. `parameters` is None where they are not known or any are taken."""

    qualified_name: str
    kind: str
    parameters: frozenset[str] | None = None
    bases: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    """Of a class: every word in it, its members among them."""


@dataclass
class KnownNames:
    """The names of a repository and of what was shown; add to it with `add_block`, `add_document` and `add_text`."""

    words: set[str] = field(default_factory=set)
    symbols: dict[str, list[Symbol]] = field(default_factory=lambda: defaultdict(list))
    bound: set[str] = field(default_factory=set)
    """Names that some line gives a value, constants of modules among them."""
    last_lines: dict[str, int] = field(default_factory=dict)
    """Of each file the last line that is known."""
    modules: set[str] = field(default_factory=set)
    """What the repository itself imports, as written."""
    roots: set[str] = field(default_factory=set)
    """Names by which the repository is imported."""
    citations: set[str] = field(default_factory=set)
    packages: frozenset[str] = frozenset()
    """Importable names of installed packages."""
    _endings: set[str] = field(default_factory=set, repr=False)
    _folders: set[str] = field(default_factory=set, repr=False)
    _n_indexed: int = 0

    @classmethod
    def of(
        cls,
        blocks: Iterable[CodeBlock] = (),
        documents: Iterable[Document] = (),
        *,
        roots: Iterable[str] = (),
        packages: Iterable[str] | None = None,
    ) -> "KnownNames":
        """What `blocks` and `documents` hold; `packages` are this environment's where they are left out."""
        known = cls(packages=frozenset(installed_packages() if packages is None else packages))
        for block in blocks:
            known.add_block(block)
        for document in documents:
            known.add_document(document)
        known.roots.update(roots)
        return known

    def add_block(self, block: CodeBlock) -> None:
        """A mined block: its words, its definition, its file."""
        facts = block.metadata
        self.add_text(block.source_code)
        self._add_file(block.path, facts.last_line)
        parameters: frozenset[str] | None = frozenset(facts.parameters)
        if re.search(r"\*\*\w|\.\.\.\w|\bkwargs\b|\barguments\b", facts.signature):
            parameters = None
        words: frozenset[str] = frozenset()
        if block.block_type in _CLASSES:
            words = frozenset(WORD.findall(block.source_code)) | set(facts.method_names)
        bases = facts.bases
        if block.language == "go" and words:
            bases = (*bases, *_EMBEDDED.findall(block.source_code))
        self.add_symbol(Symbol(facts.qualified_name, block.block_type, parameters, bases, words))

    def add_document(self, document: Document) -> None:
        """What was shown or may be: its words, its name, its file and its citation."""
        self.add_text(document.text)
        self.add_text(document.name)
        self.citations.add(document.citation)
        if document.path is not None:
            self._add_file(document.path, document.last_line or 0)
        elif not document.citation.startswith("commit:"):
            path, _, lines = document.citation.rpartition(":")
            last = lines.rpartition("-")[2]
            self._add_file(path, int(last) if last.isdigit() else 0)
        name = re.split(r"[.:#]+", document.name)[-1]
        if document.language and name.isidentifier() and name not in self.symbols:
            self.add_symbol(Symbol(document.name, "unknown"))

    def add_text(self, text: str) -> None:
        """The words of a text, and what it gives values to and imports."""
        self.words.update(WORD.findall(text))
        self.bound.update(_BOUND.findall(text))
        self.modules.update(name for found in _IMPORTED.findall(text) for name in found if name)

    def add_symbol(self, symbol: Symbol) -> None:
        """A definition."""
        self.symbols[re.split(r"[.:#]+", symbol.qualified_name)[-1]].append(symbol)

    def _add_file(self, path: str, last_line: int) -> None:
        self.last_lines[path] = max(self.last_lines.get(path, 0), last_line)

    def has_file(self, path: str, *suffixes: str) -> bool:
        """Whether a file's path ends in `path`, as it stands or with one of `suffixes`."""
        endings, _ = self._places()
        path = path.strip("/")
        return path in endings or any(f"{path}{suffix}" in endings for suffix in suffixes)

    def has_folder(self, path: str) -> bool:
        """Whether files lie below a folder of that path."""
        _, folders = self._places()
        return path.strip("/") in folders

    def _places(self) -> tuple[set[str], set[str]]:
        """The ends of all files' paths, and every run of folders in them; made again when files were added."""
        if self._n_indexed != len(self.last_lines):
            self._endings, self._folders = set(), set()
            for known in self.last_lines:
                parts = known.split("/")
                self._endings.update("/".join(parts[start:]) for start in range(len(parts)))
                for start in range(len(parts) - 1):
                    self._folders.update("/".join(parts[start:end]) for end in range(start + 1, len(parts)))
            self._n_indexed = len(self.last_lines)
        return self._endings, self._folders

    def has_lines(self, citation: str) -> bool:
        """Whether `path:first-last` lies in a file that is known."""
        if citation in self.citations:
            return True
        path, _, lines = citation.rpartition(":")
        first, _, last = lines.partition("-")
        if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
            return False
        return any(
            (known == path or known.endswith(f"/{path}")) and int(last) <= known_last
            for known, known_last in self.last_lines.items()
        )

    @property
    def imported_packages(self) -> set[str]:
        """Packages that the repository imports anything of: it depends on them, installed here or not."""
        return {package_of(module) for module in self.modules}

    def classes(self, name: str) -> list[Symbol]:
        """The classes of that name."""
        return [symbol for symbol in self.symbols.get(name, ()) if symbol.kind in _CLASSES]

    def has_member(self, owner: str, name: str, standard: "Standard") -> bool:
        """Whether a class of the repository has a member of that name, or may have: bases that are not known may have any."""
        waiting, seen = [owner], {owner}
        while waiting:
            here = waiting.pop()
            classes = self.classes(here)
            if not classes:
                members = standard.members_of_type(here)
                if here in ("object", "Object", "ABC", "Generic", "Protocol"):
                    continue
                if members is None or name in members:
                    return True
                continue
            for symbol in classes:
                if name in symbol.words:
                    return True
                more = [re.split(r"[^\w]", base.split("[")[0].split("<")[0].strip())[-1] for base in symbol.bases]
                waiting += [base for base in more if base and base not in seen]
                seen.update(more)
        return any(
            symbol.qualified_name.split(".")[-2:-1] == [owner_seen]
            for symbol in self.symbols.get(name, ())
            for owner_seen in seen
        )

    def parameters_of(self, owner: str | None, name: str) -> frozenset[str] | None:
        """The parameters of a function, or of making a class; None where they are not known."""
        found = [
            s for s in self.symbols.get(name, ()) if owner is None or s.qualified_name.split(".")[-2:-1] == [owner]
        ]
        taken: set[str] = set()
        for symbol in found:
            if symbol.kind in _CLASSES:
                made = [s for s in self.symbols.get("__init__", ()) if s.qualified_name.split(".")[-2:-1] == [name]]
                if symbol.bases and not made:
                    return None
                found_parameters = [s.parameters for s in made] or [symbol.words]
                if any(p is None for p in found_parameters):
                    return None
                taken.update(*(p for p in found_parameters if p is not None), symbol.words if not made else ())
            elif symbol.parameters is None:
                return None
            else:
                taken |= symbol.parameters
        if not found:
            return None
        return frozenset(taken)


def package_of(module: str) -> str:
    """The package that a module of Python or JavaScript comes in.

    >>> package_of("django.http"), package_of("lodash/map"), package_of("@fastify/cors/lib")
    ('django', 'lodash', '@fastify/cors')
    """
    if module.startswith("@"):
        return "/".join(module.split("/")[:2])
    return re.split(r"[./]", module)[0]


@dataclass(frozen=True)
class Standard:
    """A standard library: modules and types with their names."""

    containers: Mapping[str, frozenset[str]]

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """Every name, and every part of a module's name."""
        parts = {part for name in self.containers for part in WORD.findall(name)}
        return frozenset(parts).union(*self.containers.values())

    @functools.cached_property
    def by_last(self) -> Mapping[str, tuple[str, ...]]:
        """Containers by the last part of their names."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.containers:
            found[re.split(r"[./]|::", name)[-1]].append(name)
        return {last: tuple(names) for last, names in found.items()}

    def members_of_type(self, name: str) -> frozenset[str] | None:
        """The members of all types of that name; None where there is none."""
        found = [self.containers[container] for container in self.by_last.get(name, ())]
        if not found:
            return None
        return frozenset().union(*found)


@functools.cache
def standard_names(language: str) -> Standard:
    """The standard library of a language; empty for one without a list."""
    language = _LISTS.get(language, language)
    path = files(__package__).joinpath("standard_names", f"{language}.txt.gz")
    if not path.is_file():
        return Standard({})
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    return Standard({name: frozenset(members) for name, *members in (line.split(" ") for line in lines)})


def languages_with_names() -> Sequence[str]:
    """The languages whose standard library is known."""
    return ("python", "javascript", "typescript", "tsx", "go", "java", "rust", "c", "cpp")


@functools.cache
def installed_packages() -> frozenset[str]:
    """What can be imported from packages of this environment, by their own lists of files; nothing is imported."""
    return frozenset(packages_distributions())
