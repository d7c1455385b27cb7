"""Names that a file's units use in code: not attributes, and nothing from strings and comments.

Units nest, and each would be searched once for each level: the text is searched once between the places where units
begin and end, and a unit's names are put together from that.
"""

import re
from bisect import bisect_left
from collections.abc import Collection
from itertools import accumulate, chain, pairwise

from ai_forge.data_pipeline.mining.parsing import ParsedFile
from ai_forge.data_pipeline.mining.units import Unit

__all__ = ["CodeNames"]

_NAME = re.compile(r"(?<![\w.$])[^\W\d][\w$]*")
# The same for ASCII, in two thirds of the time.
_ASCII_NAME = re.compile(r"(?<![A-Za-z0-9_.$])[A-Za-z_][A-Za-z0-9_$]*")


class CodeNames:
    """The names of each unit of a file, or only those that are `wanted`."""

    def __init__(self, parsed: ParsedFile, wanted: Collection[str] | None = None) -> None:
        code = bytearray(parsed.text)
        for first, last in parsed.opaque:
            code[first:last] = b" " * (last - first)  # offsets stay those of the file
        self._edges = places = sorted({edge for unit in parsed.all_units for edge in (unit.start, unit.end)})
        pattern = _ASCII_NAME
        if not code.isascii():  # from bytes to characters
            sizes = accumulate(len(code[a:b].decode("utf-8", "replace")) for a, b in pairwise([0, *places]))
            places, pattern = list(sizes), _NAME
        text = code.decode("utf-8", "replace")
        self._names: list[list[str]] = []
        for first, last in pairwise(places):
            found = pattern.findall(text, first, last)
            if wanted is not None:
                found = [name for name in found if name in wanted]
            self._names.append(list(dict.fromkeys(found)))

    def of(self, unit: Unit) -> list[str]:
        """Once each, in order of appearance."""
        first, last = bisect_left(self._edges, unit.start), bisect_left(self._edges, unit.end)
        return list(dict.fromkeys(chain.from_iterable(self._names[first:last])))
