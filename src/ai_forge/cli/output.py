"""What commands print: results on stdout, for people on a terminal and as JSON elsewhere; messages on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
LEAST_ROOM = 16
"""Columns of a terminal: a text that is folded into fewer cannot be read."""


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
    widths = [max(map(len, cells)) for cells in zip(headings, *rows, strict=True)]
    widest = widths.index(max(widths))
    room = console.width - sum(widths) - GAP * (len(widths) - 1) + widths[widest]
    if room >= min(LEAST_ROOM, widths[widest]):
        made = Table(box=None, pad_edge=False, header_style="dim")
        for number, heading in enumerate(headings):
            # folded, not cut: paths and ids are copied from here
            justify = "right" if heading in right else "left"
            made.add_column(heading, justify=justify, overflow="fold", no_wrap=number != widest)
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
