"""The question families: what can be asked about a block, and the answer that its code gives.

Each family is a function from a subject to drafts. `structure` reads one block, `calls` its callers, `words` what people
wrote about it (commits, comments, documentation), `code` asks for code. An answer is one or two regular sentences whose
names, conditions and quotations are copied from what is shown; nothing is inferred that the shown text does not hold.
"""

from collections.abc import Callable, Collection

from ai_forge.data_pipeline.examples.families.base import Draft, Subject, documentation, facts_of
from ai_forge.data_pipeline.examples.families.calls import callers, change_impact, usage
from ai_forge.data_pipeline.examples.families.code import fill_in_the_middle, write_docstring, write_test
from ai_forge.data_pipeline.examples.families.declarations import alias, fields, typed_parameters
from ai_forge.data_pipeline.examples.families.rationale import fits_together, why
from ai_forge.data_pipeline.examples.families.structure import (
    dependencies,
    edge_case,
    exceptions,
    extend,
    location,
    members,
    parameters,
    pattern,
    purpose,
    returns,
)
from ai_forge.data_pipeline.text.words import plain

__all__ = ["FAMILIES", "MENTION_TELLS", "Draft", "Subject", "documentation", "drafts_for", "facts_of", "plain"]

_ENOUGH = 5

Family = Callable[[Subject], list[Draft]]


def _together(*families: Family) -> Family:
    """Several functions that make one family."""
    return lambda subject: [draft for family in families for draft in family(subject)]


FAMILIES: dict[str, Family] = {
    "purpose": purpose,
    "parameters": _together(parameters, typed_parameters),
    "exceptions": exceptions,
    "dependencies": dependencies,
    "edge_case": edge_case,
    "pattern": _together(pattern, alias),
    "extend": extend,
    "usage": usage,
    "returns": returns,
    "members": _together(members, fields),
    "location": location,
    "why": why,
    "fits_together": fits_together,
    "callers": callers,
    "change_impact": change_impact,
    "fill_in_the_middle": fill_in_the_middle,
    "write_docstring": write_docstring,
    "write_test": write_test,
}
MENTION_TELLS = frozenset({"usage", "callers", "change_impact", "fill_in_the_middle", "write_docstring", "write_test"})
"""Families whose answer a document gives away, or makes incomplete, as soon as it names the subject."""


def drafts_for(subject: Subject, families: Collection[str] = ()) -> list[Draft]:
    """Every draft that the families (default: all) find for a subject, in the order of `FAMILIES`.

    The location, which every answer cites anyway, is asked only where there is little else.
    """
    asked = {name: family for name, family in FAMILIES.items() if not families or name in families}
    where = asked.pop("location", None)
    drafts = [draft for family in asked.values() for draft in family(subject)]
    if where is not None and len(drafts) < _ENOUGH:
        drafts += where(subject)
    return drafts
