"""Families that read their answers off the structure of one block: parameters, exceptions, guards, members, bases."""

import re
from collections import Counter

from ai_forge.data_pipeline.examples.families.base import (
    MAX_LISTED,
    MAX_QUOTED,
    Draft,
    Subject,
    documentation,
    draft_of,
    facts_as,
    is_callable,
    is_class,
    listed,
    plural,
)
from ai_forge.data_pipeline.examples.families.members import overridable, own_methods, required_members
from ai_forge.data_pipeline.examples.families.signatures import calls_only, optional_parameters
from ai_forge.data_pipeline.examples.families.ways_out import (
    conditions_around,
    falls_through,
    leaves_early_once,
    raised_by,
    returned_by,
)
from ai_forge.data_pipeline.graph.symbols import overlap
from ai_forge.data_pipeline.schemas import CodeBlock, Fact, Guard

# What a function gives that comes to its end, in languages where no type has to be declared and no last value is
# returned
_NOTHING = {
    "python": "None",
    "javascript": "undefined",
    "typescript": "undefined",
    "tsx": "undefined",
    "php": "null",
    "kotlin": "Unit",
}
_RAISING = ("python", "ruby")  # Ruby's `throw` is another thing, and its `yield` calls the block that it was given
_GENERATORS = ("python", "javascript", "typescript", "tsx", "php", "csharp")
_MAX_RETURNS = 3
_WITHOUT_EXCEPTIONS = ("go", "rust", "c", "bash")
# What may end a function by an exception without saying so in a statement
_MAY_RAISE = re.compile(r"\b(?:raise|throw|fail|assert|require|check|error|abort|exit|die)\w*\b", re.IGNORECASE)
_MAX_GUARDS = 3
_MAX_CALLEES = 2
# Names of calls are read off the whole body: longer lists are where a small model makes names up
_MAX_CALLS = 4


# What looks like a call and is none
_OPERATORS = frozenset(
    {"nameof", "typeof", "sizeof", "default", "isset", "empty", "unset", "exit", "die", "alignof", "decltype"}
)
_WITH_PROPERTIES = ("csharp", "kotlin")
_OVERLOADING = ("java", "csharp", "kotlin", "scala", "cpp")


def purpose(subject: Subject) -> list[Draft]:
    """What the documentation says that it does."""
    sentence = documentation(subject.block)
    if sentence is None:
        return []
    name = subject.block.name
    answer = f'The documentation of `{name}` says: "{sentence}"'
    kind = "purpose_type" if is_class(subject.block) else "purpose"
    return [draft_of("purpose", subject, answer, facts_as("name", [name]), wording=kind)]


def parameters(subject: Subject) -> list[Draft]:
    """The names that a caller may pass."""
    block = subject.block
    names = block.metadata.parameters
    is_named = all(name.strip("_") for name in names)  # what is called `_` is there to be ignored
    if not is_callable(block) or len(names) > MAX_LISTED + 2 or not is_named:
        return []
    if not names and "(" not in block.metadata.signature and block.language in _WITH_PROPERTIES:
        return []
    if not names:
        if int(block.id, 16) % 4:  # a few of these, so that "none" is learnt but does not become a habit
            return []
        return [draft_of("parameters", subject, f"`{block.name}` takes no parameters.", kinds=("parameter",))]
    answer = f"`{block.name}` takes the {plural('parameter', names)} {listed(names)}."
    return [draft_of("parameters", subject, answer, facts_as("parameter", names))]


def returns(subject: Subject) -> list[Draft]:
    """The declared type, or the few expressions that it returns."""
    block, meta = subject.block, subject.block.metadata
    if not is_callable(block) or meta.is_generator:
        return []
    if meta.returns and meta.returns not in ("void",) and len(meta.returns) <= MAX_QUOTED and "`" not in meta.returns:
        answer = f"`{block.name}` is declared to return `{meta.returns}`."
        return [draft_of("returns", subject, answer, facts_as("type", [meta.returns]))]
    if meta.returns or block.language not in _NOTHING or not 1 <= len(meta.return_values) <= _MAX_RETURNS:
        return []
    values, may_end = returned_by(block), falls_through(block)
    if not values or may_end is None or any(len(value) > MAX_QUOTED or "`" in value for value in values):
        return []
    answer = f"`{block.name}` returns {' or '.join(f'`{value}`' for value in values)}"
    if may_end:
        answer += f", or {_NOTHING[block.language]} where it ends without one of these"
    return [draft_of("returns", subject, f"{answer}.")]


def exceptions(subject: Subject) -> list[Draft]:
    """What its own body raises."""
    block = subject.block
    if not is_callable(block) or block.language in _WITHOUT_EXCEPTIONS:
        return []
    raises = raised_by(block)
    if raises is None or len(raises) > MAX_LISTED:
        return []
    verb = "raise" if block.language in _RAISING else "throw"
    if not raises:
        if block.metadata.raises or int(block.id, 16) % 5 or _MAY_RAISE.search(block.source_code):
            return []
        answer = f"`{block.name}` does not {verb} any exception in its own body."
        return [draft_of("exceptions", subject, answer, kinds=("exception",), verb=verb)]
    answer = f"`{block.name}` {verb}s {listed(raises)}."
    return [draft_of("exceptions", subject, answer, facts_as("exception", raises), verb=verb)]


def edge_case(subject: Subject) -> list[Draft]:
    """What a guard at a condition does, with the conditions that stand around it."""
    block = subject.block
    drafts = []
    if not is_callable(block):  # the guard of a member that is none of the miner's units
        return []
    times = Counter(guard.condition for guard in block.metadata.guards)
    for guard in block.metadata.guards:
        effect, facts = _effect(block, guard)
        around = conditions_around(block, guard) if effect else None
        if around is None:
            continue
        conditions, loop = around
        if times[guard.condition] > 1 and len(conditions) == 1:  # nobody could tell which of them is asked about
            continue
        if any("`" in part or len(part) > MAX_QUOTED for part in (*conditions, loop)) or len(conditions) > _MAX_GUARDS:
            continue
        condition = " and ".join(f"`{part}`" for part in conditions)
        if loop:
            condition += f" in the loop `{loop}`"
        answer = f"If {condition}, `{block.name}` {effect}."
        is_only = len(block.metadata.guards) == 1 and leaves_early_once(block)
        wording = "edge_case_which" if is_only and int(block.id, 16) % 2 else "edge_case"
        drafts.append(draft_of("edge_case", subject, answer, facts, wording=wording, condition=condition))
    return drafts[:_MAX_GUARDS]


def _effect(block: CodeBlock, guard: Guard) -> tuple[str, tuple[Fact, ...]]:
    """What a guard does, in words, and the facts of that; nothing where it is long or uncertain."""
    if "`" in guard.outcome:
        return "", ()
    outcome = re.sub(r"^(return|raise|throw)\b\s*(new\b\s*)?", "", guard.outcome)
    if guard.action == "raise":
        exception = re.match(r"[\w.]+", outcome)
        if exception is None or exception[0] not in block.metadata.raises:
            return "", ()
        verb = "raises" if block.language in _RAISING else "throws"
        return f"{verb} `{exception[0]}`", facts_as("exception", [exception[0]])
    if guard.outcome == "return":
        # Go's results may have names: such a `return` gives their values.
        returns = block.metadata.returns not in (None, "void")
        return "" if returns else "returns early, without a value", ()
    return f"returns `{outcome}`" if 0 < len(outcome) <= MAX_QUOTED else "", ()


def dependencies(subject: Subject) -> list[Draft]:
    """What the block calls; and, where one callee is in the repository, what that one is (two oracles)."""
    block, meta = subject.block, subject.block.metadata
    drafts: list[Draft] = []
    calls = tuple(name for name in meta.calls if name not in meta.raises and name not in _OPERATORS)
    if block.language == "ruby":
        calls = tuple(name for name in calls if name not in ("raise", "fail"))
    # An overload that calls another one of its name would seem to call itself
    overloads = block.language in _OVERLOADING and any(name.rpartition(".")[2] == block.name for name in calls)
    if is_callable(block) and not overloads and 1 <= len(calls) <= _MAX_CALLS and calls_only(block, meta.calls):
        answer = f"`{block.name}` calls {listed(calls)}."
        drafts.append(draft_of("dependencies", subject, answer, facts_as("call", calls)))
    n_explained = 0
    for callee in subject.graph.callees(block):
        sentence = documentation(callee)
        written = next((c for c in meta.calls if c.rpartition(".")[2] == callee.name), None)
        if overlap(block, callee) or sentence is None or written is None or callee.name == block.name:
            continue
        answer = f'`{block.name}` calls `{written}`, whose documentation says: "{sentence}"'
        facts, named = facts_as("call", [written]), f"`{written}`"
        drafts.append(
            draft_of("dependencies", subject, answer, facts, others=(callee,), wording="callee", callee=named)
        )
        n_explained += 1
        if n_explained == _MAX_CALLEES:
            break
    return drafts


# Only those of the language and its library, whose meaning no project changes
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


# The miner counts a companion's base to the class around it
_COMPANION_BASE = re.compile(r"\bcompanion\s+object\b\s*\w*\s*:")
_ATTRIBUTE = {"php": "#[{}]", "csharp": "[{}]", "rust": "#[{}]"}
_CONSUME_GENERATORS = frozenset({"contextmanager", "asynccontextmanager", "fixture", "coroutine", "inlineCallbacks"})


def pattern(subject: Subject) -> list[Draft]:
    """A decorator, base types, a generator, async: what each means."""
    block, meta = subject.block, subject.block.metadata
    drafts = []
    for decorator in meta.decorators:
        name = decorator.partition("(")[0]
        reason = _KNOWN_DECORATORS.get(name.rpartition(".")[2])
        if reason is not None:
            written = _ATTRIBUTE.get(block.language, "@{}").format(name)
            answer = f"`{block.name}` is decorated with `{written}`, {reason}."
            facts = facts_as("decorator", [written])
            drafts.append(draft_of("pattern", subject, answer, facts, wording="decorator", decorator=f"`{written}`"))
            break
    bases = tuple(base for base in meta.bases if len(base) <= MAX_QUOTED and base != "object")
    is_mixed = block.language == "kotlin" and _COMPANION_BASE.search(block.source_code) is not None
    if is_class(block) and 1 <= len(bases) <= MAX_LISTED and not is_mixed:
        verb = {"go": "embeds", "python": "extends"}.get(block.language, "builds on")
        answer = f"`{block.name}` {verb} {listed(bases)}."
        drafts.append(draft_of("pattern", subject, answer, facts_as("base", bases), wording="bases"))
    names = {decorator.partition("(")[0].rpartition(".")[2] for decorator in meta.decorators}
    if names & _CONSUME_GENERATORS:
        return drafts  # whoever calls it gets no generator
    if is_callable(block) and meta.is_generator and block.language in _GENERATORS:
        answer = f"`{block.name}` is a generator: it yields its results one at a time."
        drafts.append(draft_of("pattern", subject, answer, wording="generator"))
    elif is_callable(block) and meta.is_async:  # an async generator is not awaited, it is looped over
        answer = f"`{block.name}` is declared async, so its callers have to await it."
        drafts.append(draft_of("pattern", subject, answer, wording="async"))
    return drafts


def members(subject: Subject) -> list[Draft]:
    """The methods of a class."""
    block = subject.block
    if block.language == "kotlin" and "companion object" in block.source_code:  # its methods are another object's
        return []
    names = own_methods(block)
    if not 1 <= len(names) <= MAX_LISTED + 2:
        return []
    answer = f"`{block.name}` defines the {plural('method', names)} {listed(names)}."
    return [draft_of("members", subject, answer, facts_as("method", names))]


def extend(subject: Subject) -> list[Draft]:
    """A class: override its public methods. An interface: what to implement. A function: its optional parameters."""
    block = subject.block
    if block.block_type == "interface":
        return _implement(subject)
    if block.block_type == "class":
        hooks = overridable(block)
        holds_values = any("dataclass" in decorator for decorator in block.metadata.decorators)  # nobody overrides it
        if holds_values or not 1 <= len(hooks) <= MAX_LISTED:
            return []
        answer = f"Subclass `{block.name}` and override {listed(hooks)} as needed."
        return [draft_of("extend", subject, answer, facts_as("method", hooks))]
    return _adapt(subject)


def _implement(subject: Subject) -> list[Draft]:
    block = subject.block
    required = required_members(block)
    if required is None or not required[0] or not 1 <= len(required[0]) + len(required[1]) <= MAX_LISTED:
        return []
    methods, properties = required
    answer = f"Implement `{block.name}` with its {plural('method', methods)} {listed(methods)}"
    if properties:
        answer += f" and its {plural('property', properties)} {listed(properties)}"
    return [draft_of("extend", subject, f"{answer}.", facts_as("method", methods), wording="implement")]


def _adapt(subject: Subject) -> list[Draft]:
    block = subject.block
    optional = optional_parameters(block)
    if not 1 <= len(optional) <= MAX_LISTED:
        return []
    answer = f"`{block.name}` can be adapted through its optional {plural('parameter', optional)} {listed(optional)}."
    return [draft_of("extend", subject, answer, facts_as("parameter", optional), wording="adapt")]


def location(subject: Subject) -> list[Draft]:
    """File and lines."""
    block, meta = subject.block, subject.block.metadata
    if "` in `" in subject.reference:  # the question already names the file
        return []
    answer = f"`{block.name}` is defined in `{block.path}`, lines {meta.first_line} to {meta.last_line}."
    return [draft_of("location", subject, answer, facts_as("location", [block.path]))]
