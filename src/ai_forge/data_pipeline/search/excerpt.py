"""Of a text that is too long to be shown: its head, and the lines that matter for the question."""

from ai_forge.data_pipeline.search.terms import question_terms, terms
from ai_forge.data_pipeline.text.words import approximate_tokens

__all__ = ["GAP", "excerpt"]

GAP = "…"
"""Stands alone on a line where lines were left out."""
_HEAD_SHARE = 1 / 3


def excerpt(text: str, question: str, max_tokens: int) -> str:
    """`text` where it fits into `max_tokens` approximate tokens, else its first lines and the best run of later ones.

    The head says what it is (a signature, the beginning of a docstring); the run is the one whose lines hold the most of the
    question's words. A gap is marked by a line. At least the first line is given, whatever it costs.

    >>> print(excerpt("def f():\\n    a = 1\\n    b = 2\\n    c = 3\\n    return close(a)", "what is closed?", 17))
    def f():
    …
        return close(a)
    """
    if approximate_tokens(text) <= max_tokens:
        return text
    lines = text.split("\n")
    costs = [approximate_tokens(line) + 1 for line in lines]
    n_head, spent = 1, costs[0]
    while n_head < len(lines) and spent + costs[n_head] <= max_tokens * _HEAD_SHARE:
        spent += costs[n_head]
        n_head += 1
    first, last = _best_run(lines, costs, n_head, max_tokens - spent - 4, question)
    kept = lines[:n_head]
    if last > first:
        kept += [*([GAP] if first > n_head else []), *lines[first:last]]
    if last < len(lines):
        kept.append(GAP)
    return "\n".join(kept)


def _best_run(lines: list[str], costs: list[int], start: int, budget: int, question: str) -> tuple[int, int]:
    """(first, last + 1) of the run from `start` on that fits into `budget` and holds the most words asked for."""
    wanted = set(question_terms(question))
    values = [len(wanted.intersection(terms(line))) for line in lines]
    best, best_value = (start, start), -1
    first, cost, value = start, 0, 0
    for last in range(start, len(lines)):
        cost += costs[last]
        value += values[last]
        while cost > budget and first <= last:
            cost -= costs[first]
            value -= values[first]
            first += 1
        if value > best_value and first <= last:
            best, best_value = (first, last + 1), value
    end, left = best[1], budget - sum(costs[best[0] : best[1]])
    while end < len(lines) and costs[end] <= left:  # what stands below explains more than nothing
        left -= costs[end]
        end += 1
    return best[0], end
