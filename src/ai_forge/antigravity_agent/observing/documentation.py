"""Whether documentation speaks of the code that it stands beside: what no score of single examples sees.

An example whose answer is a docstring is as well formed when the docstring is nonsense. One that shares no word with the name and the
code below it says little about them. Of seven packages 95 to 100 % share one; with random words, one text for all or a laugh in
the place of each docstring 0 to 14 %, with docstrings dealt out at random 60 to 94 % (EXPERIMENTS.md). Documentation in
another language than its code shares less, so what counts is a fall against the last training, not the share.
"""

from __future__ import annotations

from collections.abc import Iterable

from ai_forge.antigravity_agent.observing.trained import BESIDE_CODE
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.terms import question_terms, terms

__all__ = ["share_that_speaks_of_its_code"]

FEW = 10  # documented blocks below which a share says nothing


def share_that_speaks_of_its_code(entries: Iterable[Entry]) -> float | None:
    """Share of documented blocks whose documentation has a word of their name or code, 0–1; None for fewer than ten."""
    documented = [e for e in entries if e.kind not in (*BESIDE_CODE, "module", "test") and e.summary.strip()]
    if len(documented) < FEW:
        return None
    return sum(map(_speaks, documented)) / len(documented)


def _speaks(entry: Entry) -> bool:
    code = entry.text
    for line in entry.summary.splitlines():
        if line.strip():
            code = code.replace(line.strip(), " ")
    return not set(question_terms(entry.summary)).isdisjoint(terms(f"{entry.name} {code}"))
