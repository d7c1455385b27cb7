"""What every family works with: a `Subject` to ask about, a `Draft` to fill, and the helpers that word an answer."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ai_forge.data_pipeline.examples.project_notes import ProjectNotes
from ai_forge.data_pipeline.examples.question_templates import ASPECTS, TEMPLATES
from ai_forge.data_pipeline.graph.symbols import SymbolGraph, overlap
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, Document, Fact, content_id
from ai_forge.data_pipeline.schemas.raft_examples import FactKind
from ai_forge.data_pipeline.text.words import first_sentence, plain

__all__ = [
    "MAX_LISTED",
    "MAX_QUOTED",
    "TAGS",
    "Draft",
    "Subject",
    "closes_its_brackets",
    "documentation",
    "draft_of",
    "facts_as",
    "facts_of",
    "is_callable",
    "is_class",
    "listed",
    "plain",
    "plural",
]

MAX_LISTED = 6
"""Names in one answer: longer enumerations teach a small model to make names up."""
# What stands in grammars, tables and signatures: such a first line is no sentence
_CODE = re.compile(r"\{\{\{|```|~~~|<pre\b|@code\s|\\code\b")
_NO_PROSE = ('"', "[", " = ", "::=", "->")
# A line that begins with a tag ends the sentence above it, whether or not that has a full stop
TAGS = re.compile(r"^\s*(?:@\w|\\(?:param|return|brief|throws?)\b|:(?:param|return|raise|type)\w*\b)", re.MULTILINE)
MAX_QUOTED = 70
_CLASS_TYPES = ("class", "interface", "type")


@dataclass(frozen=True)
class Subject:
    """A block to ask about, how a question names it, and the graph around it."""

    block: CodeBlock
    reference: str
    graph: SymbolGraph
    seed: int
    notes: ProjectNotes = field(default_factory=ProjectNotes)
    mentions: Mapping[str, Sequence[CodeBlock]] = field(default_factory=dict)
    """By name: the shown blocks whose code holds it, outside of documentation and comments."""

    def is_named_elsewhere(self, known: Sequence[CodeBlock]) -> bool:
        """Whether code that is no test, besides `known` and the subject itself, names it and may mean it.

        The graph leaves out what it is not certain of: where a search finds more than it, a list of callers is not whole.
        Another thing is meant where the name is a parameter's, or that of another block that is certainly called.
        """
        name, around = self.block.name, (self.block, *known)
        for other in self.mentions.get(name, ()):
            if is_test_path(other.path) or name in other.metadata.parameters:
                continue
            if any(overlap(other, one) for one in around):
                continue
            if not any(callee.name == name for callee in self.graph.callees(other)):
                return True
        return False

    def choose(self, options: Sequence[str], salt: str) -> str:
        """One of `options`, fixed by the block, `salt` and the seed."""
        # By content and not drawn: the same block is asked in the same words in every run, whatever stands beside it.
        return options[int(content_id(self.block.id, salt, str(self.seed)), 16) % len(options)]


def closes_its_brackets(line: str) -> bool:
    """Whether a line of code stands for itself: it opens as many brackets of each kind as it closes."""
    return all(line.count(pair[0]) == line.count(pair[1]) for pair in ("()", "[]", "{}"))


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
    beside: tuple[Document, ...] = ()
    """Oracles that are no code: a commit, a section of the documentation."""
    shown_as: Document | None = None
    """The subject as it is shown where something was taken out of it."""

    @property
    def may_lack_oracle(self) -> bool:
        """Whether the question makes sense when its answer is not shown."""
        # A test that is asked for is never among the documents: that it is missing there would say nothing.
        return not self.beside and self.shown_as is None and self.family != "write_test"


def documentation(block: CodeBlock) -> str | None:
    """The first sentence of a block's documentation without markup, or None where it is no sentence of 3–40 words."""
    prose = _CODE.split(TAGS.split(block.docstring or "", maxsplit=1)[0], maxsplit=1)[0]
    sentence = plain(first_sentence(prose)).strip()
    if sentence.endswith((":", ",")):  # of what was to come only the code is there
        return None
    if not 3 <= len(sentence.split()) <= 40 or not sentence[0].isalpha() or any(mark in sentence for mark in _NO_PROSE):
        return None
    return sentence


def facts_of(block: CodeBlock, kind: FactKind) -> tuple[str, ...]:
    """The values of a kind that the block's syntax declares."""
    meta = block.metadata
    values: dict[FactKind, tuple[str, ...]] = {
        "name": (block.name,),
        "parameter": meta.parameters,
        "exception": meta.raises,
        "call": meta.calls,
        "base": meta.bases,
        "method": meta.method_names,
        "location": (block.path,),
        "type": tuple(filter(None, [meta.returns])),
        "decorator": meta.decorators,
    }
    return values[kind]


def facts_as(kind: FactKind, values: Iterable[str]) -> tuple[Fact, ...]:
    """Facts of one kind."""
    return tuple(Fact(kind=kind, value=value) for value in values)


def listed(values: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    *others, last = (f"`{value}`" for value in values)
    return f"{', '.join(others)} and {last}" if others else last


def plural(noun: str, values: Collection[object]) -> str:
    """`noun` as it is said of so many."""
    if len(values) == 1:
        return noun
    return f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"


def draft_of(
    family: str,
    subject: Subject,
    answer: str,
    facts: Iterable[Fact] = (),
    kinds: tuple[FactKind, ...] = (),
    others: tuple[CodeBlock, ...] = (),
    wording: str | None = None,
    beside: tuple[Document, ...] = (),
    shown_as: Document | None = None,
    **fields: str,
) -> Draft:
    """A draft in one of the wordings of its family (or of `wording`); `others` are further oracles."""
    kind = wording or family
    question = subject.choose(TEMPLATES[kind], kind).format(subject=subject.reference, **fields)
    aspect = ASPECTS[kind].format(**fields)
    return Draft(family, question, answer, (subject.block, *others), aspect, tuple(facts), kinds, beside, shown_as)


def is_class(block: CodeBlock) -> bool:
    """Whether the block is a class, an interface or another type."""
    return block.block_type in _CLASS_TYPES


def is_callable(block: CodeBlock) -> bool:
    """Whether the block is a function or a method."""
    return block.block_type not in _CLASS_TYPES
