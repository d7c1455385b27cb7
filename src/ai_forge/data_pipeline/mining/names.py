"""Calls resolved by names alone, for the languages whose scopes are not followed, and guesses for the others.

`self.f` is the method of the own class; an imported name what its file imports; a bare name one of the same scope or
file; `A.f` that qualified name; else the only definition of that name in the language. More than one is no answer.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, Import
from ai_forge.data_pipeline.text.words import names_in

__all__ = ["NameResolver", "dotted"]

_SELF = frozenset({"self", "cls", "this", "super()", "Self", "$this"})
_CLASS_TYPES = frozenset({"class", "interface", "type", "module"})
# Attribute names that other libraries' objects have too: `x.get()` alone says nothing about whose `get` it is.
_COMMON_NAMES = frozenset({
    "Error", "String", "add", "append", "apply", "bind", "call", "catch", "clear", "close", "copy", "debug", "delete",
    "emit", "end", "equals", "error", "exit", "filter", "format", "get", "has", "hashCode", "info", "items", "join",
    "keys", "log", "map", "next", "off", "on", "open", "parse", "pop", "push", "put", "read", "remove", "run", "send",
    "set", "split", "start", "stop", "test", "then", "toString", "update", "values", "wait", "warn", "write",
})  # fmt: skip
# Words that stand before a name, or after it, and are no type.
_NO_TYPES = frozenset({
    "return", "new", "else", "in", "of", "const", "final", "let", "mut", "var", "val", "auto", "await", "throw",
    "case", "static", "yield", "if", "while", "for", "and", "or", "not", "out", "ref", "range", "func", "chan", "map",
    "delete", "typename", "mutable", "volatile", "readonly", "public", "private", "protected", "echo", "print", "as",
    "is", "use",
})  # fmt: skip
_IMPLICIT_THIS = frozenset({"java", "cpp", "csharp", "kotlin", "scala", "ruby"})
_UNTYPED = frozenset({"ruby", "bash", "php"})
# Languages whose bare names reach other files without an import that names them.
_FREE_FUNCTIONS = frozenset({"go", "java", "c", "cpp", "rust", "csharp", "ruby", "php", "kotlin", "scala", "bash"})


class NameResolver:
    """Definitions by name, by file and by qualified name."""

    def __init__(self, blocks: Sequence[CodeBlock], imports: Mapping[str, Mapping[str, Import]]) -> None:
        self.by_name: dict[str, list[CodeBlock]] = defaultdict(list)
        self._in_file: dict[tuple[str, str], list[CodeBlock]] = defaultdict(list)
        self._qualified: dict[tuple[str, str], list[CodeBlock]] = defaultdict(list)
        self._heirs: dict[str, list[CodeBlock]] = defaultdict(list)
        self._imports = imports
        for block in blocks:
            self.by_name[block.name].append(block)
            self._in_file[block.path, block.metadata.qualified_name].append(block)
            parts = block.metadata.qualified_name.split(".")
            for start in range(len(parts) - 1):
                self._qualified[block.language, ".".join(parts[start:])].append(block)
            for base in block.metadata.bases:
                self._heirs[dotted(base.partition("<")[0]).rpartition(".")[2]].append(block)

    def resolve(self, block: CodeBlock, called: str) -> CodeBlock | None:
        """The definition that the name `called` in `block` means, or None where that is not certain."""
        if (
            called.startswith("$") and "->" not in called and "::" not in called
        ):  # PHP: a function that a variable holds
            return None
        called = dotted(called)
        root, _, rest = called.partition(".")
        last = called.rpartition(".")[2]
        owner = block.metadata.qualified_name.rpartition(".")[0]
        if root in _SELF:
            if not rest.isidentifier():  # `self.a.f` is a method of another class
                return None
            return only(self._in_file.get((block.path, f"{owner}.{rest}")))
        imported = self._imports.get(block.path, {}).get(root)
        if not self._imports and root in block.metadata.imports:  # blocks alone do not say what is imported
            return self.unique(called, block) if not rest else None
        if imported is not None:
            return self._imported(imported, rest)
        if not rest and (called in block.metadata.parameters or _is_held(block.source_code, called)):
            return None  # what a parameter or a variable holds
        if not rest:
            is_free = block.language in _FREE_FUNCTIONS
            for scope in _scopes(block.metadata.qualified_name):
                local = self._in_file.get((block.path, f"{scope}{called}"))
                around = self._in_file.get((block.path, scope[:-1]), ())
                in_class = scope != "" and any(b.block_type in _CLASS_TYPES for b in around)
                if local and block.language not in _IMPLICIT_THIS:  # there no method is called by its bare name
                    local = [b for b in local if b.block_type != "method"]
                    in_class = in_class and not is_free
                if local and (is_free or not in_class):
                    return only(local)
            found = self.unique(called, block) if is_free else None
            is_method = found is not None and found.block_type == "method"
            return None if is_method and block.language not in _IMPLICIT_THIS else found
        qualified = self._in_file.get((block.path, called)) or self._qualified.get((block.language, called))
        if qualified:
            return only(qualified)
        if root in block.metadata.parameters and block.language in _UNTYPED:  # of whatever class the caller passes
            return None
        found = self.method(last, block)
        if found is None or not self._may_be_of(block, called.split(".")[-2], found):
            return None
        return found

    def _may_be_of(self, block: CodeBlock, receiver: str, method: CodeBlock) -> bool:
        """Whether `receiver` in `block` may be of the class of `method`: its type is that one where one is declared, and the
        class is named beside it where none is. A name alone says little: `file.read_to_end()` may be a library's.
        """
        *_, owner, _ = ("", *method.metadata.qualified_name.split("."))
        classes = {owner, *(heir.name for heir in self._heirs.get(owner, ()))}
        # The block itself, then the classes around it, whose fields it may mean.
        parts = block.metadata.qualified_name.split(".")[:-1]
        around = [b for name in parts for b in self.by_name.get(name, ()) if b.block_type in _CLASS_TYPES]
        texts = [b.source_code for b in (block, *around) if b.language == block.language]
        for text in texts:
            declared = declared_types(text, receiver, block.language)
            if declared:
                return not classes.isdisjoint(declared)
        return any(not classes.isdisjoint(names_in(text)) for text in texts)

    def method(self, name: str, block: CodeBlock) -> CodeBlock | None:
        """The only method called `name` in the block's language, unless other libraries have such names too."""
        if name in _COMMON_NAMES:
            return None
        return self.unique(name, block, attribute=True)

    def unique(self, name: str, block: CodeBlock, *, attribute: bool = False) -> CodeBlock | None:
        """The only definition of `name` in the block's language outside tests; for `x.name` it must be a method."""
        found = [b for b in self.by_name.get(name, ()) if b.language == block.language and not is_test_path(b.path)]
        if attribute and any(b.block_type != "method" for b in found):
            return None
        return only(found)

    def base(self, block: CodeBlock, written: str) -> CodeBlock | None:
        """The class that `block` names as its base."""
        name = dotted(written.partition("<")[0].partition("[")[0].partition("(")[0].strip())
        imported = self._imports.get(block.path, {}).get(name)
        if imported is not None:
            return self._imported(imported, "")
        here = self._in_file.get((block.path, name))
        found = here or [b for b in self.by_name.get(name.rpartition(".")[2], ()) if b.language == block.language]
        return only([b for b in found if b.block_type in _CLASS_TYPES])

    def _imported(self, imported: Import, rest: str) -> CodeBlock | None:
        """A definition in the file that the import names, if that file is in the repository."""
        wanted = ".".join(part for part in (imported.original or "", rest) if part)
        if not wanted:
            return None
        candidates = [
            b
            for b in self.by_name.get(wanted.rpartition(".")[2], ())
            if b.metadata.qualified_name in (wanted, rest) and imports_file(imported, b.path)
        ]
        if len(candidates) > 1:  # a package that re-exports: take the file the module names exactly
            stem = PurePosixPath(_as_path(imported.module)).stem
            candidates = [b for b in candidates if PurePosixPath(b.path).stem == stem] or candidates
        return only(candidates)


def declared_types(text: str, name: str, language: str) -> set[str]:
    """The types that `text` declares for a variable, a field or a parameter, as far as a pattern tells.

    >>> declared_types("let mut file = BufReader::new(a);", "file", "rust"), declared_types("Node dest;", "dest", "java")
    ({'BufReader'}, {'Node'})
    """
    if name not in text or not name.isidentifier():
        return set()
    patterns = [
        rf"\b{name}\s*:\s*(?:[&*]|mut\s|dyn\s|'\w+\s)*(?:\w+(?:::|\.))*([A-Za-z_]\w*)",  # name: a::Type
        rf"\b{name}\s*:?=\s*(?:await\s+|new\s+|[&*])*(?:\w+(?:::|\.))*?([A-Z]\w*)(?:<[^<>]*>)?(?:::\w+|\.new)?\s*[({{]",
        rf"([A-Za-z_]\w*)(?:<[^;{{}}()]*>)?(?:\[\])?(?:\s|[*&])+(?:const\s+)?\$?{name}\s*(?=[=;,):{{\[])",  # Type name
    ]
    if language == "go":
        patterns[2] = rf"\b{name}\s+(?:\*|\[\])*(?:\w+\.)?([A-Za-z_]\w*)"
    found = {match for pattern in patterns for match in re.findall(pattern, text)}
    return found - _NO_TYPES


def _is_held(text: str, name: str) -> bool:
    """Whether `text` declares a variable of that name.

    >>> _is_held("val done = { it }; done(1)", "done"), _is_held("done := f", "done"), _is_held("fun done() {}", "done")
    (True, True, False)
    """
    held = rf"\b(?:val|var|let|auto|const|local)\s+(?:mut\s+)?{re.escape(name)}\s*[:=]|(?<![\w$]){re.escape(name)}\s*:="
    return name in text and re.search(held, text) is not None


def dotted(name: str) -> str:
    """A name with every language's joints as dots.

    >>> dotted("Store::new"), dotted("$this->load"), dotted("a?.b")
    ('Store.new', 'this.load', 'a.b')
    """
    for joint in ("?->", "->", "::", "?.", "&.", "!!.", "\\"):
        name = name.replace(joint, ".")
    return name.lstrip("$@.")


def only(found: Sequence[CodeBlock] | None) -> CodeBlock | None:
    """The one block of a list of one."""
    return found[0] if found is not None and len(found) == 1 else None


def _scopes(qualified_name: str) -> list[str]:
    """Prefixes to look a bare name up in, innermost first.

    >>> _scopes("A.f")
    ['A.f.', 'A.', '']
    """
    parts = qualified_name.split(".")
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]


def _as_path(module: str) -> str:
    """A module's name with slashes: in one that has them already a dot is part of a file's name."""
    return module if "/" in module else module.replace(".", "/")


def imports_file(imported: Import, path: str) -> bool:
    """Whether an import's module can be the file at `path`: the tail of one is the tail of the other."""
    module = _as_path(imported.module).strip("./")
    if not module:  # `from . import x`: x is a module or defined in the package
        module = imported.original or ""
    tail = module
    if "/" in imported.module:
        tail = PurePosixPath(module).with_suffix("").as_posix()
    wanted = [tail]
    if imported.original:
        wanted.append(f"{tail}/{imported.original}")
    pure = PurePosixPath(path)
    stem = pure.with_suffix("").as_posix()
    places = {stem, pure.parent.as_posix()}
    for place in places - {"", "."}:
        # Either may be the longer one: a package lies deeper than its name says, or the name begins outside.
        if any(f"/{place}".endswith(f"/{name}") or name.endswith(f"/{place}") for name in wanted):
            return True
    return (tail != "" and path.startswith(f"{tail}/")) or f"/{tail}/" in path
