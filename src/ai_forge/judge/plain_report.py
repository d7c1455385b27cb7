"""What the Markdown reports on handbooks and datasets share: the verdict and its figures first, answers as they were given."""

from collections.abc import Mapping

from ai_forge.judge.verdict import Verdict


def head_of(verdict: Verdict, figures: Mapping[str, str]) -> list[str]:
    """The first lines: headline, checks, and `figures` by name."""
    lines = [f"# {verdict.headline}", ""]
    lines += [f"- {check.name}: {check.text}" for check in verdict.checks]
    return lines + [f"- {name}: {value}" for name, value in figures.items()]


def quoted(who: str, answer: str) -> list[str]:
    """An answer as a quotation, line by line, so that headings and lists of its own stay inside of it.

    >>> quoted("tuned", "# Yes\\nor no")
    ['', 'tuned:', '', '> # Yes\\n> or no']
    """
    lines = [f"> {line}" for line in answer.strip().splitlines()]
    return ["", f"{who}:", "", "\n".join(lines) or "> (nothing)"]
