"""What commands print: results on stdout, for people on a terminal and as JSON elsewhere; messages on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


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
    """Columns with headings, as wide as the terminal; the columns named in `right` hold numbers."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        # folded, not cut: paths and ids are copied from here
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    Console(highlight=False).print(made)
