"""The question families: what can be asked about a block, and the answer that its code gives.

Each family is a function from a subject to a `Draft` or None. An answer is one or two regular sentences whose names,
conditions and quotations are copied from the code and its documentation; nothing is inferred that the shown text does
not hold. Wordings vary by content hash, so the same block is asked in the same words in every run.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ai_forge.data_pipeline.filters import is_private, is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, Fact, content_id
from ai_forge.data_pipeline.schemas.raft_examples import FactKind
from ai_forge.data_pipeline.symbols import SymbolGraph, overlap
from ai_forge.data_pipeline.text import first_sentence, one_line
from ai_forge.data_pipeline.wording import ASPECTS, TEMPLATES

__all__ = ["FAMILIES", "Draft", "Subject", "documentation", "drafts_for", "facts_of"]

_MAX_LISTED = 6
"""Names in one answer: longer enumerations teach a small model to make names up."""
_ENOUGH = 5
_MAX_LINE = 100
_NO_PROSE = ('"', "[", " = ", "::=", "->")
"""What stands in grammars, tables and signatures: such a first line is no sentence."""
_MAX_QUOTED = 70
_CLASS_TYPES = ("class", "interface", "type")


@dataclass(frozen=True)
class Subject:
    """A block to ask about, how a question names it, and the graph around it."""

    block: CodeBlock
    reference: str
    graph: SymbolGraph
    seed: int

    def choose(self, options: Sequence[str], salt: str) -> str:
        """One of `options`, fixed by the block, `salt` and the seed."""
        return options[int(content_id(self.block.id, salt, str(self.seed)), 16) % len(options)]


@dataclass(frozen=True)
class Draft:
    """A question with its answer and the blocks that hold it, before documents are picked."""

    family: str
    question: str
    answer: str
    oracles: tuple[CodeBlock, ...]
    aspect: str
    """What the question asks for, in a few words."""
    facts: tuple[Fact, ...] = ()
    kinds: tuple[FactKind, ...] = ()
    """Kinds of fact that a wrong answer would mix up, where there is none to state."""


def documentation(block: CodeBlock) -> str | None:
    """The first sentence of a block's documentation without markup, or None where it is no sentence of 3–40 words."""
    sentence = plain(first_sentence(block.docstring or "")).strip()
    if not 3 <= len(sentence.split()) <= 40 or not sentence[0].isalpha() or any(mark in sentence for mark in _NO_PROSE):
        return None
    return sentence


def plain(text: str) -> str:
    """Text without reStructuredText and Javadoc marks, on one line.

    >>> plain("Uses :class:`A` and ``b`` {@code c}.")
    'Uses `A` and `b` `c`.'
    """
    text = re.sub(r"\{@(?:code|link|linkplain|literal)\s+([^}]*)\}", r"`\1`", text)
    text = re.sub(r":[\w:.+-]+:`[!~]?([^`<]*?)(?:\s*<[^`]*>)?`", r"`\1`", text)
    text = re.sub(r"</?(?:p|code|pre|b|i|em|tt|a|ul|li)\b[^>]*>", " ", text)
    return one_line(re.sub(r"`{2,}", "`", text))


def drafts_for(subject: Subject) -> list[Draft]:
    """Every draft that the families find for a subject, in the order of `FAMILIES`.

    The location, which every answer cites anyway, is asked only where there is little else.
    """
    drafts = [draft for name, family in FAMILIES.items() if name != "location" for draft in family(subject)]
    return drafts if len(drafts) >= _ENOUGH else [*drafts, *_location(subject)]


def facts_of(block: CodeBlock, kind: FactKind) -> tuple[str, ...]:
    """The values of a kind that the block's syntax declares."""
    meta = block.metadata
    if kind == "parameter":
        return meta.parameters
    if kind == "exception":
        return meta.raises
    if kind == "call":
        return meta.calls
    if kind == "base":
        return meta.bases
    if kind == "method":
        return meta.method_names
    if kind == "decorator":
        return meta.decorators
    if kind == "type":
        return (meta.returns,) if meta.returns else ()
    return (block.name,) if kind == "name" else (block.path,)


def _facts(kind: FactKind, values: Iterable[str]) -> tuple[Fact, ...]:
    return tuple(Fact(kind=kind, value=value) for value in values)


def _listed(values: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    quoted = [f"`{value}`" for value in values]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _draft(
    family: str,
    subject: Subject,
    answer: str,
    facts: Iterable[Fact] = (),
    kinds: tuple[FactKind, ...] = (),
    others: tuple[CodeBlock, ...] = (),
    wording: str | None = None,
    **fields: str,
) -> Draft:
    kind = wording or family
    question = subject.choose(TEMPLATES[kind], kind).format(subject=subject.reference, **fields)
    aspect = ASPECTS[kind].format(**fields)
    return Draft(family, question, answer, (subject.block, *others), aspect, tuple(facts), kinds)


def _is_callable(block: CodeBlock) -> bool:
    return block.block_type not in _CLASS_TYPES


def _purpose(subject: Subject) -> list[Draft]:
    sentence = documentation(subject.block)
    if sentence is None:
        return []
    name = subject.block.name
    answer = f'The documentation of `{name}` says: "{sentence}"'
    return [_draft("purpose", subject, answer, _facts("name", [name]))]


def _parameters(subject: Subject) -> list[Draft]:
    block = subject.block
    names = block.metadata.parameters
    if not _is_callable(block) or len(names) > _MAX_LISTED + 2:
        return []
    if not names:
        if int(block.id, 16) % 4:  # a few of these, so that "none" is learnt but does not become a habit
            return []
        return [_draft("parameters", subject, f"`{block.name}` takes no parameters.", kinds=("parameter",))]
    plural = "parameters" if len(names) > 1 else "parameter"
    answer = f"`{block.name}` takes the {plural} {_listed(names)}."
    return [_draft("parameters", subject, answer, _facts("parameter", names))]


def _returns(subject: Subject) -> list[Draft]:
    block, meta = subject.block, subject.block.metadata
    if not _is_callable(block) or meta.is_generator:
        return []
    if meta.returns and meta.returns not in ("void",) and len(meta.returns) <= _MAX_QUOTED and "`" not in meta.returns:
        answer = f"`{block.name}` is declared to return `{meta.returns}`."
        return [_draft("returns", subject, answer, _facts("type", [meta.returns]))]
    values = [v for v in meta.return_values if len(v) <= _MAX_QUOTED and "`" not in v]
    if meta.returns or not 1 <= len(meta.return_values) <= 2 or len(values) != len(meta.return_values):
        return []
    return [_draft("returns", subject, f"`{block.name}` returns {_listed(values).replace(' and ', ' or ')}.")]


def _exceptions(subject: Subject) -> list[Draft]:
    block = subject.block
    raises = block.metadata.raises
    if not _is_callable(block) or block.language == "go" or len(raises) > _MAX_LISTED:
        return []
    verb = "raise" if block.language == "python" else "throw"
    if not raises:
        if int(block.id, 16) % 5 or re.search(r"\b(raise|throw)\b", block.source_code):
            return []
        answer = f"`{block.name}` does not {verb} any exception in its own body."
        return [_draft("exceptions", subject, answer, kinds=("exception",), verb=verb)]
    answer = f"`{block.name}` {verb}s {_listed(raises)}."
    return [_draft("exceptions", subject, answer, _facts("exception", raises), verb=verb)]


def _edge_case(subject: Subject) -> list[Draft]:
    block = subject.block
    drafts = []
    for guard in block.metadata.guards[:2]:
        if "`" in guard.condition + guard.outcome or len(guard.condition) > _MAX_QUOTED:
            continue
        facts: tuple[Fact, ...] = ()
        outcome = re.sub(r"^(return|raise|throw)\b\s*(new\b\s*)?", "", guard.outcome)
        if guard.action == "raise":
            exception = re.match(r"[\w.]+", outcome)
            if exception is None or exception.group(0) not in block.metadata.raises:
                continue
            facts = _facts("exception", [exception.group(0)])
            effect = f"{'raises' if block.language == 'python' else 'throws'} `{exception.group(0)}`"
        elif guard.outcome == "return":
            effect = "returns early, without a value"
        elif outcome and len(outcome) <= _MAX_QUOTED:
            effect = f"returns `{outcome}`"
        else:
            continue
        answer = f"If `{guard.condition}`, `{block.name}` {effect}."
        wording = "edge_case_which" if len(block.metadata.guards) == 1 and int(block.id, 16) % 2 else "edge_case"
        drafts.append(_draft("edge_case", subject, answer, facts, wording=wording, condition=f"`{guard.condition}`"))
    return drafts


def _dependencies(subject: Subject) -> list[Draft]:
    """What the block calls; and, where one callee is in the repository, what that one is (two oracles)."""
    block, meta = subject.block, subject.block.metadata
    drafts = []
    calls = tuple(name for name in meta.calls if name not in meta.raises)
    if _is_callable(block) and 1 <= len(calls) <= _MAX_LISTED:
        drafts.append(_draft("dependencies", subject, f"`{block.name}` calls {_listed(calls)}.", _facts("call", calls)))
    for callee in subject.graph.callees(block):
        sentence = documentation(callee)
        written = next((c for c in meta.calls if c.rpartition(".")[2] == callee.name), None)
        if overlap(block, callee) or sentence is None or written is None or callee.name == block.name:
            continue
        answer = f'`{block.name}` calls `{written}`, whose documentation says: "{sentence}"'
        drafts.append(
            _draft("dependencies", subject, answer, _facts("call", [written]), others=(callee,),
                   wording="callee", callee=f"`{written}`")
        )  # fmt: skip
        break
    return drafts


def _usage(subject: Subject) -> list[Draft]:
    block = subject.block
    for caller in subject.graph.callers(block):
        line = _call_line(caller, block.name)
        if overlap(block, caller) or line is None or caller.name == block.name:
            continue
        answer = f"`{caller.name}` uses `{block.name}`: `{line}`."
        where = "usage_test" if is_test_path(caller.path) else "usage"
        return [_draft("usage", subject, answer, _facts("name", [caller.name]), ("name",), (caller,), where)]
    return []


def _call_line(caller: CodeBlock, name: str) -> str | None:
    call = re.compile(rf"(?<![\w$]){re.escape(name)}\s*\(")
    for line in caller.source_code.splitlines()[1:]:
        text = one_line(line)
        if (
            call.search(text)
            and len(text) <= _MAX_LINE
            and "`" not in text
            and not re.match(r"(#|//|\*|def |class )", text)
        ):
            return text.rstrip(" {:;,")
    return None


_KNOWN_DECORATORS = {
    "property": "so callers read it like an attribute, without parentheses",
    "cached_property": "so its value is computed once per object and then read like an attribute",
    "staticmethod": "so it is called without an instance or class argument",
    "classmethod": "so it receives the class instead of an instance",
    "abstractmethod": "so every concrete subclass has to override it",
    "contextmanager": "so it is used in a with statement",
    "asynccontextmanager": "so it is used in an async with statement",
    "lru_cache": "so its results are cached by argument",
    "cache": "so its results are cached by argument",
    "dataclass": "so its initialiser and comparison are made from its fields",
    "total_ordering": "so the missing comparison methods are filled in",
    "wraps": "so it keeps the name and documentation of the function that it wraps",
    "Override": "so it replaces a method of its supertype",
    "Deprecated": "so new code should not use it",
    "FunctionalInterface": "so it can be given as a lambda",
}


def _pattern(subject: Subject) -> list[Draft]:
    block, meta = subject.block, subject.block.metadata
    drafts = []
    for decorator in meta.decorators:
        name = decorator.partition("(")[0]
        reason = _KNOWN_DECORATORS.get(name.rpartition(".")[2])
        if reason is not None:
            answer = f"`{block.name}` is decorated with `@{name}`, {reason}."
            facts = _facts("decorator", [f"@{name}"])
            drafts.append(_draft("pattern", subject, answer, facts, wording="decorator", decorator=f"`@{name}`"))
            break
    bases = tuple(base for base in meta.bases if len(base) <= _MAX_QUOTED and base != "object")
    if block.block_type in _CLASS_TYPES and 1 <= len(bases) <= _MAX_LISTED:
        verb = "embeds" if block.language == "go" else "extends"
        drafts.append(_draft("pattern", subject, f"`{block.name}` {verb} {_listed(bases)}.", _facts("base", bases),
                             wording="bases"))  # fmt: skip
    if _is_callable(block) and meta.is_generator:
        drafts.append(
            _draft("pattern", subject, f"`{block.name}` is a generator: it yields its results one at a time.",
                   wording="generator")
        )  # fmt: skip
    elif _is_callable(block) and meta.is_async:
        drafts.append(
            _draft("pattern", subject, f"`{block.name}` is declared async, so its callers have to await it.",
                   wording="async")
        )  # fmt: skip
    return drafts


def _members(subject: Subject) -> list[Draft]:
    block = subject.block
    names = block.metadata.method_names
    if not 1 <= len(names) <= _MAX_LISTED + 2:
        return []
    plural = "methods" if len(names) > 1 else "method"
    answer = f"`{block.name}` defines the {plural} {_listed(names)}."
    return [_draft("members", subject, answer, _facts("method", names))]


def _extend(subject: Subject) -> list[Draft]:
    """A class: subclass it and override its public methods. A function: its parameters that have a default."""
    block, meta = subject.block, subject.block.metadata
    if block.block_type in ("class", "interface"):
        hooks = tuple(n for n in meta.method_names if not is_private(n) and not n.startswith("__") and n != block.name)
        if not 1 <= len(hooks) <= _MAX_LISTED or (block.language == "go" and block.block_type == "class"):
            return []
        if block.block_type == "interface":
            answer = f"Implement `{block.name}` with its {'methods' if len(hooks) > 1 else 'method'} {_listed(hooks)}."
        else:
            answer = f"Subclass `{block.name}` and override {_listed(hooks)} as needed."
        return [_draft("extend", subject, answer, _facts("method", hooks))]
    optional = tuple(
        name
        for name in meta.parameters
        if re.search(rf"(?<!\w){re.escape(name)}(\s*:[^,=]+)?\s*=[^=>]", meta.signature)
    )
    if not 1 <= len(optional) <= _MAX_LISTED:
        return []
    plural = "parameters" if len(optional) > 1 else "parameter"
    answer = f"`{block.name}` can be adapted through its optional {plural} {_listed(optional)}."
    return [_draft("extend", subject, answer, _facts("parameter", optional), wording="adapt")]


def _location(subject: Subject) -> list[Draft]:
    block, meta = subject.block, subject.block.metadata
    if "` in `" in subject.reference:  # the question already names the file
        return []
    answer = f"`{block.name}` is defined in `{block.path}`, lines {meta.first_line} to {meta.last_line}."
    return [_draft("location", subject, answer, _facts("location", [block.path]))]


FAMILIES: dict[str, Callable[[Subject], list[Draft]]] = {
    "purpose": _purpose,
    "parameters": _parameters,
    "exceptions": _exceptions,
    "dependencies": _dependencies,
    "edge_case": _edge_case,
    "pattern": _pattern,
    "extend": _extend,
    "usage": _usage,
    "returns": _returns,
    "members": _members,
    "location": _location,
}
