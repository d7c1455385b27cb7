"""What commands print: results on stdout, for people on a terminal and as JSON elsewhere; messages on stderr."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
LEAST_ROOM, MOST_LINES = 20, 4
"""Of the widest column: columns of a terminal that it needs at the least, and lines that it may be folded into."""


def is_json(asked: bool) -> bool:
    """Whether a result is printed as JSON: where that was asked for, and where no person reads it (a pipe, a file)."""
    return asked or sys.stdout is None or not sys.stdout.isatty()  # None: started with stdout closed


def show(value: Any, text: Callable[[], None] | str, as_json: bool = False) -> None:
    """Print a result: `text` (or what it prints) on a terminal, `value` as JSON elsewhere."""
    if is_json(as_json):
        print_json(value)
    elif isinstance(text, str):
        print(text)
    else:
        text()


def print_json(value: Any) -> None:
    """`value` as JSON on stdout."""
    # `default`: paths and dates as people write them
    print(json.dumps(value, indent=1, default=str, ensure_ascii=False))


def warn(text: str, style: str = "yellow") -> None:
    """A message on stderr."""
    from rich.markup import escape

    # escaped, because names and code hold brackets, which rich would take for its markup
    stderr().print(f"[{style}]{escape(text)}[/{style}]", soft_wrap=True)


def stderr() -> Console:
    """The console on stderr; made when it is needed, because importing rich takes a while."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Columns with headings; the columns named in `right` hold numbers. Where the terminal is too narrow for columns that can
    be read, each row is written as lines of heading and value. Nothing where there are no rows."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    console = Console(highlight=False)
    # one cell that is far longer than the others of its column is folded, and decides nothing
    lengths = [[len(cell) for cell in cells] for cells in zip(*rows, strict=True)]
    usual = [min(max(column), int(2 * statistics.median(column))) for column in lengths]
    *others, widest = sorted(map(max, usual, map(len, headings)))
    if sum(others) + GAP * len(others) + max(min(widest, LEAST_ROOM), widest // MOST_LINES) <= console.width:
        made = Table(box=None, pad_edge=False, header_style="dim")
        for heading in headings:
            # folded, not cut: paths and ids are copied from here
            made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
        for row in rows:
            made.add_row(*map(escape, row))
        console.print(made)
        return
    for number, row in enumerate(rows):
        record = Table.grid(padding=(0, GAP, 0, 0))
        record.add_column(style="dim", no_wrap=True)
        record.add_column(overflow="fold")
        for heading, cell in zip(headings, row, strict=True):
            if cell:
                record.add_row(heading, escape(cell))
        if number:
            console.print()
        console.print(record)
