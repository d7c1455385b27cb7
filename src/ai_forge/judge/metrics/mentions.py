"""What an answer speaks of: imports, names and their attributes, parameters, citations; and what it defines itself.

Code in fences is parsed with the language's grammar, a broken or cut-off one as far as it goes. In prose only what is marked
as code counts, and words that no prose has (`snake_case`, `call()`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tree_sitter import Node, Parser

from ai_forge.data_pipeline.languages import load
from ai_forge.judge.metrics.known_names import languages_with_names
from ai_forge.prompting.prompt import CITATION

FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_CHAIN = re.compile(r"@?([A-Za-z_$][\w$]*(?:(?:\.|::|#)[A-Za-z_$][\w$]*)*)(\([^()]*\))?")
_PATH = re.compile(
    r"(?<![\w/.])(?:[\w.-]+/)+[\w-]+\.(?:py|go|js|ts|tsx|jsx|mjs|java|rs|c|cc|cpp|h|hpp|kt|rb|php|cs|scala|sh)\b"
)
_BARE = re.compile(r"(?<![\w./-])([a-z][a-z0-9]*(?:_[a-z0-9]+)+|[A-Za-z_]\w*(?=\(\)))(?![\w/-])")
_MADE = re.compile(
    r"\b(?:creat|add|defin|implement|writ|introduc)\w*\s+(?:an?\s|your\s|another\s|the\s)?(?:\w+\s){0,3}$",
    re.IGNORECASE,
)
_TAKES = re.compile(r"`([\w.]+)`[^.`]*?\btakes?\b[^.`]*?\bparameters?\b[^.`]*?((?:`\w+`(?:,? (?:and )?|, )?)+)")
_DEFINES = re.compile(
    r"\b(?:def|class|func|function|fn|interface|struct|type|const|let|var|enum|trait|void|record)\s+(\w+)"
    r"|\b([A-Za-z_]\w*)\s*(?::[^=\n(]+)?(?<![=!<>])=(?![=>])|\bfunc \(\w* ?\*?\w+\) (\w+)"
)
_FENCE_NAMES = {
    "py": "python", "python3": "python", "js": "javascript", "jsx": "javascript", "ts": "typescript", "golang": "go",
    "c++": "cpp", "rs": "rust",
}  # fmt: skip
# Of a node that reads a member: the fields of what it is read from and of its name.
_MEMBERS = {
    "attribute": ("object", "attribute"),
    "selector_expression": ("operand", "field"),
    "member_expression": ("object", "property"),
    "method_invocation": ("object", "name"),
    "field_access": ("object", "field"),
    "qualified_type": ("package", "name"),
    "scoped_identifier": ("path", "name"),
    "scoped_type_identifier": ("path", "name"),
    "qualified_identifier": ("scope", "name"),
    "field_expression": ("value", "field"),
    "nested_type_identifier": ("module", "name"),
}
_NAMES = frozenset(
    f"{kind}identifier" for kind in ("", "type_", "field_", "property_", "package_", "namespace_", "private_property_")
)
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_DEFINING = re.compile(
    r"definition|declaration|declarator|_spec|_item|parameter|function|class|alias|record|catch|clause"
)
_WRITING = re.compile(
    r"assign|short_var|for_statement|for_in|range_clause|for_expression|let_|named_expression|as_pattern"
)
UNKNOWN = "?"
"""The root of a chain that hangs on what a call or an expression gives."""


@dataclass(frozen=True)
class Imported:
    """An import of `module`, of `names` of it where they are told."""

    module: str
    names: tuple[str, ...]
    language: str


@dataclass(frozen=True)
class Chain:
    """`a.b.c` as it is used; a single name where it is called, made, extended or marked as code."""

    parts: tuple[str, ...]
    language: str
    in_prose: bool = False


@dataclass(frozen=True)
class Keyword:
    """A parameter that is given to, or said of, what `callee` names."""

    callee: tuple[str, ...]
    name: str
    language: str


@dataclass
class Mentions:
    """All of one answer. `bindings` maps a local name to the module (and the name in it) that an import gave it."""

    imports: list[Imported] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    keywords: list[Keyword] = field(default_factory=list)
    citations: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    bindings: dict[str, str] = field(default_factory=dict)


def mentions_in(answer: str, language: str) -> Mentions:
    """What `answer` mentions; `language` is that of the repository, for code without a language of its own."""
    found = Mentions()
    for named, code in FENCED.findall(answer):
        known = fence_language(named, language)
        if known in languages_with_names():
            _read_code(code, known, found)
        else:  # a language that is not known is not judged, but what it defines is defined
            found.defined.update(word for groups in _DEFINES.findall(code) for word in groups if word)
    prose = FENCED.sub("\n", answer)
    found.citations = CITATION.findall(prose)
    prose = CITATION.sub(" ", prose)
    _read_prose(prose, language, found)
    return found


def fence_language(named: str, default: str) -> str:
    """The language that a fence names, by our names.

    >>> fence_language("js", "python"), fence_language("", "go")
    ('javascript', 'go')
    """
    named = named.lower()
    return _FENCE_NAMES.get(named, named) or default


def _read_prose(prose: str, language: str, found: Mentions) -> None:
    for callee, listed in _TAKES.findall(prose):
        found.keywords += [Keyword(tuple(callee.split(".")), name, language) for name in re.findall(r"`(\w+)`", listed)]
    said = {(keyword.name,) for keyword in found.keywords}
    for match in _INLINE.finditer(prose):
        text = match[1].strip()
        if path := _PATH.fullmatch(text):
            found.paths.append(path[0])
        elif chain := _CHAIN.fullmatch(text):
            parts = tuple(re.split(r"\.|::|#", chain[1]))
            if _MADE.search(prose[: match.start()][-60:]):
                found.defined.add(parts[-1])
            elif parts not in said:
                found.chains.append(Chain(parts, language, in_prose=not text.startswith("@")))
        elif re.search(r"[(=]", text):
            _read_code(text, language, found)
    for match in _BARE.finditer(_INLINE.sub(" ", prose)):
        found.chains.append(Chain((match[1],), language, in_prose=True))


def _read_code(code: str, language: str, found: Mentions) -> None:
    loaded = load(language)
    if loaded is None:
        return
    found.defined.update(word for groups in _DEFINES.findall(code) for word in groups if word)
    code = closed(code.rstrip(), ends_statements=language not in ("python", "go"))
    _Reader(code.encode("utf-8", "replace"), language, found).read(Parser(loaded[0]))


def closed(code: str, *, ends_statements: bool = False) -> str:
    """`code` with what it leaves open closed, and its last statement where `;` does that.

    An answer ends where its tokens end, and a call without its bracket is no call to a grammar.

    >>> closed("save(rows, 'a")
    "save(rows, 'a')"
    """
    left: list[str] = []
    quote = ""
    at = 0
    while at < len(code):
        sign = code[at]
        if quote:
            if sign == "\\":
                at += 1
            elif code.startswith(quote, at):
                at += len(quote) - 1
                quote = ""
            elif sign == "\n" and quote in ("'", '"'):
                quote = ""  # an apostrophe in a comment
        elif sign in "'\"`":
            quote = sign
            if code.startswith(sign * 3, at):
                quote = sign * 3
                at += 2
        elif sign in _CLOSERS:
            left.append(_CLOSERS[sign])
        elif left and sign == left[-1]:
            left.pop()
        at += 1
    end = "".join(reversed(left))
    if ends_statements and left:
        end = end.replace("}", ";}", 1)
    return code + quote + end


@dataclass
class _Reader:
    text: bytes
    language: str
    found: Mentions

    def read(self, parser: Parser) -> None:
        left = [parser.parse(self.text).root_node]
        while left:
            node = left.pop()
            if self._is_import(node):
                continue
            self._define(node)
            left += self._mention(node)

    def _word(self, node: Node) -> str:
        return self.text[slice(*node.byte_range)].decode("utf-8", "replace")

    def _mention(self, node: Node) -> list[Node]:
        """Take down what a node mentions; what is left to be read below it."""
        kind = node.type
        if kind in (
            "comment",
            "line_comment",
            "block_comment",
            "string",
            "interpreted_string_literal",
            "string_literal",
        ):
            return [child for child in node.children if child.type in ("interpolation", "template_substitution")]
        parts = self._chain(node)
        if len(parts) > 1 and all(parts):  # what a grammar puts in for something missing is empty
            self.found.chains.append(Chain(parts, self.language))
            rest = [child for child in node.children if child.type in ("argument_list", "arguments")]
            root: Node | None = self._object(node)
            while root is not None and root.type in _MEMBERS:
                rest += [child for child in root.children if child.type in ("argument_list", "arguments")]
                root = self._object(root)
            if root is not None and root.type not in _NAMES:
                rest.append(root)
            return rest
        self._single(node)
        if kind in ("call", "call_expression", "composite_literal", "object_creation_expression"):
            self._keywords(node)
        return node.children

    def _object(self, node: Node) -> Node | None:
        first, _ = _MEMBERS[node.type]
        return (
            node.child_by_field_name(first) or node.child_by_field_name("argument") or node.child_by_field_name("scope")
        )

    def _chain(self, node: Node) -> tuple[str, ...]:
        parts: list[str] = []
        while node.type in _MEMBERS:
            name = node.child_by_field_name(_MEMBERS[node.type][1])
            if name is None:
                return ()
            parts.append(self._word(name))
            owner = self._object(node)
            if owner is None:  # Java's `name()`
                return tuple(reversed(parts))
            between = self.text[owner.end_byte : name.start_byte]
            if self.language != "go" and b"\n" in between.partition(b".")[2]:  # the end of a sentence in a fence
                return ()
            node = owner
        if node.type in _NAMES or node.type in ("this", "self", "super"):
            parts.append(self._word(node))
        else:
            parts.append(UNKNOWN)
        return tuple(reversed(parts))

    def _single(self, node: Node) -> None:
        """A name alone where it must be somebody's: called, made, a type, a base, an annotation."""
        kind = node.type
        names: list[Node | None] = []
        if kind in ("call", "call_expression", "new_expression"):
            names = [node.child_by_field_name("function") or node.child_by_field_name("constructor")]
        elif kind in ("marker_annotation", "annotation", "method_invocation"):  # one on an object is a chain
            names = [node.child_by_field_name("name")]
        elif kind == "type_identifier":
            names = [node]
        elif kind == "class_heritage" or (kind in ("type", "decorator") and self.language == "python"):
            names = list(node.named_children)
        elif kind == "class_definition" and (bases := node.child_by_field_name("superclasses")) is not None:
            names = list(bases.named_children)
        for name in names:
            if name is not None and name.type in _NAMES and self._word(name):
                self.found.chains.append(Chain((self._word(name),), self.language))

    def _keywords(self, node: Node) -> None:
        callee = node.child_by_field_name("function") or node.child_by_field_name("type")
        if callee is None:
            return
        parts = self._chain(callee) if callee.type in _MEMBERS else (self._word(callee),)
        arguments = node.child_by_field_name("arguments") or node.child_by_field_name("body")
        for child in arguments.named_children if arguments is not None else ():
            name = child.child_by_field_name("name") if child.type == "keyword_argument" else None
            if child.type == "keyed_element" and child.named_children:
                name = child.named_children[0]
            if name is not None and self._word(name).isidentifier():
                self.found.keywords.append(Keyword(parts, self._word(name), self.language))

    def _define(self, node: Node) -> None:
        wanted: list[Node] = []
        if _DEFINING.search(node.type):
            for part in ("name", "parameters", "parameter", "declarator", "pattern", "alias"):
                wanted += node.children_by_field_name(part)
        if _WRITING.search(node.type):
            for part in ("left", "name", "pattern", "alias"):
                wanted += node.children_by_field_name(part)
        if node.type == "as_pattern_target":
            wanted.append(node)
        if node.type == "inferred_parameters":
            wanted += node.children
        for found in wanted:
            self.found.defined.update(self._written(found))

    def _written(self, node: Node) -> Iterator[str]:
        """The names in a pattern, a list of parameters or the left side of an assignment, without types and values."""
        if node.type in _NAMES or node.type == "shorthand_property_identifier_pattern":
            yield self._word(node)
            return
        if node.type in _MEMBERS:
            name = node.child_by_field_name(_MEMBERS[node.type][1])
            if name is not None:
                yield self._word(name)
            return
        for number, child in enumerate(node.children):
            if node.field_name_for_child(number) not in (
                "type",
                "value",
                "return_type",
                "default_value",
                "right",
                "body",
            ):
                yield from self._written(child)

    def _is_import(self, node: Node) -> bool:
        """Take down an import; whether the node was one."""
        if self.language == "python" and node.type in ("import_statement", "import_from_statement"):
            self._python_import(node)
        elif self.language == "go" and node.type == "import_spec":
            self._go_import(node)
        elif self.language == "java" and node.type == "import_declaration":
            self._plain_import(node, r"import\s+(?:static\s+)?(\w+(?:\.\w+)*(?:\.\*)?)")
        elif self.language == "rust" and node.type == "use_declaration":
            self._plain_import(node, r"(?:pub )?use\s+([\w:]+\w)")
            self.found.defined.update(re.findall(r"\w+", self._word(node)))
        elif node.type == "preproc_include":
            self._plain_import(node, r"#\s*include\s*[<\"]([^>\"]+)")
        elif self.language in ("javascript", "typescript", "tsx") and node.type == "import_statement":
            self._script_import(self._word(node))
        elif node.type == "call_expression" and (
            required := re.fullmatch(r"require\(\s*['\"]([^'\"]+)['\"]\s*\)", self._word(node))
        ):
            self._require(node, required[1])
        else:
            return False
        return True

    def _python_import(self, node: Node) -> None:
        names = [self._aliased(name) for name in node.children_by_field_name("name")]
        source = node.child_by_field_name("module_name")
        if source is not None:
            self._import(self._word(source), names)
            return
        for module, local in names:
            self._import(module, [])
            if local == module:  # `import a.b` binds `a`
                local = module = module.split(".")[0]
            self.found.bindings[local] = module

    def _go_import(self, node: Node) -> None:
        path, alias = node.child_by_field_name("path"), node.child_by_field_name("name")
        if path is None:
            return
        module = self._word(path).strip('"`')
        self._import(module, [])
        local = module.rpartition("/")[2]
        if alias is not None:
            local = self._word(alias)
        self.found.bindings[local] = module

    def _plain_import(self, node: Node, form: str) -> None:
        written = re.match(form, self._word(node))
        if written is not None:
            self._import(written[1], [])
            self.found.bindings[re.split(r"[.:/]+", written[1])[-1]] = written[1]

    def _require(self, node: Node, module: str) -> None:
        self._import(module, [])
        declared = node.parent
        name = None
        if declared is not None:
            name = declared.child_by_field_name("name")
        if name is not None and name.type == "identifier":
            self.found.bindings[self._word(name)] = module
        elif name is not None:
            self.found.bindings |= {word: f"{module}.{word}" for word in self._written(name)}

    def _aliased(self, node: Node) -> tuple[str, str]:
        """Name and local name of `a as b`."""
        name, alias = node.child_by_field_name("name"), node.child_by_field_name("alias")
        if name is not None and alias is not None:
            return self._word(name), self._word(alias)
        return self._word(node), self._word(node)

    def _import(self, module: str, names: list[tuple[str, str]]) -> None:
        self.found.imports.append(Imported(module, tuple(name for name, _ in names), self.language))
        self.found.bindings |= {local: f"{module}.{name}" for name, local in names}

    def _script_import(self, text: str) -> None:
        source = re.search(r"['\"]([^'\"]+)['\"]", text)
        if source is None:
            return
        module = source[1]
        braces = re.search(r"\{([^}]*)\}", text)
        listed = [part.split(" as ") for part in (braces[1].split(",") if braces else ()) if part.strip()]
        self._import(module, [(part[0].strip(), part[-1].strip()) for part in listed])
        whole = re.match(r"import\s+(?:type\s+)?(?:\*\s+as\s+)?(\w+)", text)
        if whole:
            self.found.bindings[whole[1]] = module
