"""Invented names: what an answer speaks of and what exists nowhere.

An import, a name, an attribute, a parameter or a citation counts as invented where it is neither in what the model was
shown, nor in the repository, nor in the language's standard library or an installed package, and the answer did not define
it itself. Attributes are looked up on their owner where that is known (a module, a class), else among all names; parameters
only where the callee is known. So a name that exists elsewhere passes on an owner that nobody knows: what is told is a lower
bound. Precision and recall on answers labelled by hand: `tests/unit/judge/test_hallucination.py`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ai_forge.data_pipeline.schemas import Document
from ai_forge.judge.metrics.known_names import KnownNames, Standard, package_of, standard_names
from ai_forge.judge.metrics.mentions import (
    FENCED,
    UNKNOWN,
    Chain,
    Imported,
    Keyword,
    Mentions,
    fence_language,
    mentions_in,
)

InventionKind = Literal["import", "name", "attribute", "parameter", "citation"]
_PLACEHOLDER = re.compile(r"(?:my|your|foo|bar|example|some)(?![a-z])|(?:My|Your|Example|Foo|Bar|Some)(?![a-z])")
_GIVEN = frozenset(
    {
        "self",
        "cls",
        "this",
        "super",
        "None",
        "True",
        "False",
        "null",
        "nil",
        "undefined",
        "true",
        "false",
        "_",
        "args",
        "kwargs",
    }
)
_LIKE_CODE = re.compile(r"_|[a-z0-9][A-Z]|[A-Z]{2}[a-z]")
_NO_FILE = re.compile(r"example|path/to|^/|your|\bfoo\b")


@dataclass(frozen=True)
class Invention:
    """Something that does not exist, as the answer writes it."""

    kind: InventionKind
    name: str


def inventions_in(
    answer: str, question: str, documents: Sequence[Document], known: KnownNames, language: str | None = None
) -> tuple[Invention, ...]:
    """What `answer` invents, each once, in order. `language` is the documents' own where it is left out."""
    if language is None:
        languages = Counter(
            document.language for document in documents if document.language not in ("", "markdown", "text")
        )
        language = languages.most_common(1)[0][0] if languages else "python"
    asked = set(re.findall(r"[A-Za-z_]\w*", question))
    spoken = {language, *(fence_language(named, language) for named, _ in FENCED.findall(answer))}
    check = _Check(known, mentions_in(answer, language), asked, [standard_names(name) for name in sorted(spoken)])
    return tuple(dict.fromkeys(check.inventions()))


@dataclass(frozen=True)
class _Check:
    known: KnownNames
    mentions: Mentions
    asked: set[str]
    standards: Sequence[Standard]

    def inventions(self) -> Iterable[Invention]:
        for imported in self.mentions.imports:
            yield from self._import(imported)
        for chain in self.mentions.chains:
            yield from self._chain(chain)
        for keyword in self.mentions.keywords:
            yield from self._keyword(keyword)
        for citation in self.mentions.citations:
            if not citation.startswith("commit:") and not self.known.has_lines(citation):
                yield Invention("citation", citation)
        for path in self.mentions.paths:
            if not self.known.has_file(path) and not _NO_FILE.search(path):
                yield Invention("citation", path)

    def _exists(self, word: str) -> bool:
        return (
            word in self.known.words
            or word in self.mentions.defined
            or word in self.mentions.bindings
            or word in self.asked
            or word in _GIVEN
            or _PLACEHOLDER.match(word) is not None
            or any(word in standard.words for standard in self.standards)
        )

    # --- imports

    def _import(self, imported: Imported) -> Iterable[Invention]:
        module, language = imported.module, imported.language
        if not self._has_module(module, language):
            yield Invention("import", module)
            return
        container = _container(module, language)
        names = standard_names(language).containers.get(container)
        for name in imported.names:
            if name == "*":
                continue
            if names is not None and not self._is_own_module(module, language):
                exists = name in names or f"{container}.{name}" in standard_names(language).containers
            elif self._is_own_module(module, language):
                exists = self._is_exported(name)
            else:
                exists = True
            if not exists:
                yield Invention("import", f"{module}.{name}")

    def _is_own_module(self, module: str, language: str) -> bool:
        """Whether a module is the repository's."""
        if language == "python":
            return module.startswith(".") or self._root(module.split(".")[0])
        if language in ("javascript", "typescript", "tsx"):
            return module.startswith(".") or module.split("/")[0] in self.known.roots
        if language == "go":
            return self._go_folder(module) is not None
        if language == "java":
            return self._java_file(module)
        return module.split("::")[0] in ("crate", "self", "super") or self.known.has_file(module)

    def _root(self, name: str) -> bool:
        return (
            name in self.known.roots
            or self.known.has_file(f"{name}/__init__.py")
            or self.known.has_file(f"{name}.py")
            or self.known.has_folder(name)
        )

    def _has_module(self, module: str, language: str) -> bool:
        standard = standard_names(language)
        container = _container(module, language)
        if language == "python":
            if module.startswith("."):
                return True
            top = module.split(".")[0]
            if self._root(top):
                path = module.replace(".", "/")
                return (
                    module == top
                    or self.known.has_file(path, ".py", "/__init__.py", ".pyi")
                    or self.known.has_folder(path)
                )
            if top in standard.containers:
                return container in standard.containers
            return top in self.known.packages or top in self.known.imported_packages
        if language in ("javascript", "typescript", "tsx"):
            if module.startswith("."):
                path = re.sub(r"^(?:\.{1,2}/)+", "", module)
                return self.known.has_file(
                    path, ".js", ".ts", ".mjs", ".cjs", ".tsx", "/index.js", "/index.ts"
                ) or path in ("..", ".", "")
            if module.split("/")[0] in self.known.roots:
                rest = module.partition("/")[2]
                return not rest or self.known.has_file(rest, ".js", ".ts", "/index.js")
            return container in standard.containers or package_of(module) in self.known.imported_packages
        if language == "go":
            return module in standard.containers or self._go_folder(module) is not None or module in self.known.modules
        if language == "java":
            return self._has_java(module, standard)
        first = module.split("::")[0].split("/")[0]
        if language == "rust":
            return first in ("std", "core", "alloc", "crate", "self", "super") or first in self.known.words
        return (
            module in standard.containers
            or module.rpartition("/")[2] in standard.containers
            or self.known.has_file(module)
        )

    def _go_folder(self, module: str) -> str | None:
        """The folder of the repository that an import path means, "" for its root; None where it is not the repository's."""
        for prefix in self.known.modules:
            if "." in prefix.split("/")[0] and prefix.split("/")[-1].split(".")[0] in self.known.roots:
                if module == prefix:
                    return ""
                rest = module.removeprefix(f"{prefix}/")
                if rest != module and self.known.has_folder(rest):
                    return rest
        return None

    def _java_file(self, name: str) -> bool:
        path = name.removesuffix(".*").replace(".", "/")
        parent = path.rpartition("/")[0]
        return (
            self.known.has_file(path, ".java")
            or (self.known.has_file(parent, ".java") and parent != "")
            or (name.endswith(".*") and self.known.has_folder(path))
        )

    def _has_java(self, name: str, standard: Standard) -> bool:
        if self._java_file(name) or name in self.known.modules:
            return True
        owner, _, last = name.rpartition(".")
        if last == "*":
            return (
                any(container.startswith(f"{owner}.") for container in standard.containers)
                or owner in standard.containers
            )
        return name in standard.containers or last in standard.containers.get(owner, ())

    def _is_exported(self, name: str) -> bool:
        return (
            name in self.known.symbols
            or name in self.known.bound
            or self.known.has_file(name, ".py", "/__init__.py", ".js", ".ts")
            or self.known.has_folder(name)
            or name.startswith("__")
        )

    # --- names and their attributes

    def _chain(self, chain: Chain) -> Iterable[Invention]:
        root, *rest = chain.parts
        if not self._exists(root) and root != UNKNOWN and self._looks_like_a_name(root, chain, alone=not rest):
            yield Invention("name", root)
        for number, owner in enumerate(self._owners(chain) if rest else ()):
            name = chain.parts[number + 1]
            if not self._has(owner, name, chain):
                yield Invention(
                    "attribute", ".".join(chain.parts[max(0, number) : number + 2]).removeprefix(f"{UNKNOWN}.")
                )
                return

    def _looks_like_a_name(self, word: str, chain: Chain, *, alone: bool) -> bool:
        """Whether a word must be somebody's name: in prose by its form, before a member by its capital (else a variable)."""
        if chain.in_prose:
            return _LIKE_CODE.search(word) is not None
        return alone or word[:1].isupper()

    def _owners(self, chain: Chain) -> list[str]:
        """For each part but the last what it is: `module:NAME`, `own`, `class:NAME`, or "" where nobody knows."""
        root = chain.parts[0]
        here = self._root_of(root, chain.language)
        owners = [here]
        for part in chain.parts[1:-1]:
            here = self._inner(here, part, chain.language)
            owners.append(here)
        return owners

    def _root_of(self, root: str, language: str) -> str:
        bound = self.mentions.bindings.get(root)
        if bound is not None:
            return self._bound(bound, language)
        if root in self.mentions.defined or root == UNKNOWN or root in _GIVEN:
            return ""
        if root in self.known.roots:
            return "own"
        if self.known.classes(root):
            return f"class:{root}"
        if root in self.known.symbols or root in self.known.bound:
            return ""
        standard = standard_names(language)
        if language == "go":
            packages = [name for name in standard.by_last.get(root, ()) if name.rpartition("/")[2] == root]
            if not packages:
                return ""
            return f"module:{packages[0]}" if len(packages) == 1 else f"any:{root}"
        if language == "python" and root in standard.containers:
            return f"module:{root}"
        if language == "python" and f"builtins.{root}" in standard.containers:
            return f"module:builtins.{root}"
        if language in ("javascript", "typescript", "tsx") and f"globals.{root}" in standard.containers:
            return f"module:globals.{root}"
        if language == "java" and (types := standard.by_last.get(root)):
            return f"module:{types[0]}" if len(types) == 1 else f"any:{root}"
        return ""

    def _bound(self, bound: str, language: str) -> str:
        """What an imported name is."""
        standard = standard_names(language)
        container = _container(bound, language)
        name = bound.rpartition(".")[2]
        if language == "python":
            if self._is_own_module(bound, language):
                if self.known.classes(name):
                    return f"class:{name}"
                is_module = self._has_module(bound, language)
                return "own" if is_module else ""
        elif language == "go":
            if self._go_folder(bound) is not None:
                return "own"
        elif language == "java":
            if self.known.classes(name):
                return f"class:{name}"
        elif bound in self.known.roots:
            return ""  # what a script's module is, a function or an object, is not known
        return f"module:{container}" if container in standard.containers else "foreign"

    def _inner(self, owner: str, part: str, language: str) -> str:
        kind, _, name = owner.partition(":")
        if kind == "module":
            inner = f"{name}.{part}"
            return f"module:{inner}" if inner in standard_names(language).containers else ""
        if kind == "own":
            if self.known.classes(part):
                return f"class:{part}"
            is_module = self.known.has_file(part, ".py", "/__init__.py") and part not in self.known.symbols
            return "own" if is_module or part in self.known.roots else ""
        return "foreign" if kind == "foreign" else ""

    def _has(self, owner: str, name: str, chain: Chain) -> bool:
        kind, _, of = owner.partition(":")
        language = chain.language
        standard = standard_names(language)
        if name in self.mentions.defined or (name.startswith("__") and name.endswith("__")):
            return True
        if kind == "module":
            return (
                name in standard.containers[of]
                or f"{of}.{name}" in standard.containers
                or name in _inherited(standard, language)
            )
        if kind == "any":
            return name in (standard.members_of_type(of) or ())
        if kind == "own":
            return self._is_exported(name)
        if kind == "foreign":  # a package that is not looked into, or an invented one, which was told already
            return True
        if kind == "class":
            return self.known.has_member(of, name, standard) or name in _inherited(standard, language)
        return self._exists(name)

    # --- parameters

    def _keyword(self, keyword: Keyword) -> Iterable[Invention]:
        *owners, name = keyword.callee
        if any(owner in self.mentions.defined for owner in owners) or name in self.mentions.defined:
            return
        owner: str | None = None
        if owners:
            root = self._owners(Chain(keyword.callee, keyword.language))[-1]
            if root not in ("own", f"class:{owners[-1]}"):
                return
            owner = owners[-1] if root.startswith("class:") else None
        elif name not in self.mentions.bindings and name not in self.known.symbols:
            return
        parameters = self._parameters(owner, name, has_owner=bool(owners))
        if parameters is not None and keyword.name not in parameters:
            yield Invention("parameter", keyword.name)

    def _parameters(self, owner: str | None, name: str, *, has_owner: bool) -> frozenset[str] | None:
        if owner is None:  # of a module: functions and classes that are no members
            tops = [s for s in self.known.symbols.get(name, ()) if "." not in s.qualified_name]
            if not tops and has_owner:
                return None
        return self.known.parameters_of(owner, name)


def _container(module: str, language: str) -> str:
    if language in ("javascript", "typescript", "tsx"):
        return module.removeprefix("node:")
    return module


def _inherited(standard: Standard, language: str) -> frozenset[str]:
    """What everything has in a language."""
    if language == "java":
        return standard.containers.get("java.lang.Object", frozenset()) | {"class", "length"}
    if language in ("javascript", "typescript", "tsx"):
        return (
            standard.containers.get("Object.prototype", frozenset())
            | standard.containers.get("Function.prototype", frozenset())
            | {"prototype"}
        )
    return frozenset()
