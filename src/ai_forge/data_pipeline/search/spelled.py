"""The names that a question spells out (`Class.method`, `src/a.py`), and where they stand."""

import re
from collections import defaultdict
from collections.abc import Iterable

from ai_forge.data_pipeline.languages import LANGUAGES

__all__ = ["SpelledNames"]

_SPELLED = re.compile(
    r"`([^`\n]+)`|([^\W\d][\w$]*(?:\.[\w$]+)+|\w*_\w+|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z][A-Z]\w*|[\w$]+(?=\())"
)
_EXTENSIONS = "|".join(extension[1:] for row in LANGUAGES.values() for extension in row.extensions)
_PATH = re.compile(rf"[\w.@+-]+(?:/[\w.@+-]+)+|[\w-]+\.(?:{_EXTENSIONS}|md|rst|adoc|toml|ya?ml|json|cfg|ini)\b")
_MAX_IN_FILE = 25
"""A file with more things than this says little about which of them is meant."""


class SpelledNames:
    """Things by their names and their files, numbered in the order in which they are given."""

    def __init__(self, things: Iterable[tuple[str, str, str]]) -> None:
        """`things` are (name, qualified name, path)."""
        self._names: list[set[str]] = []
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_path: dict[str, list[int]] = defaultdict(list)
        for position, (name, qualified_name, path) in enumerate(things):
            self._names.append({name, qualified_name})
            for form in self._names[position]:
                self._by_name[form].append(position)
            for form in {path, path.rpartition("/")[2]}:
                self._by_path[form].append(position)

    def strengths(self, question: str) -> dict[int, float]:
        """Things whose name a question spells: 1 for a name that only they have, less for a common one; a path adds."""
        strengths: dict[int, float] = {}
        for match in _SPELLED.finditer(question):
            name = (match.group(1) or match.group(2)).partition("(")[0].strip()
            found = self._by_name.get(name) or self._by_name.get(name.rpartition(".")[2], [])
            for position in found:
                strength = (1.0 if name in self._names[position] else 0.5) / len(found) ** 0.5
                strengths[position] = max(strengths.get(position, 0.0), strength)
        for path in _PATH.findall(question):
            named = self._by_path.get(path, ())
            for position in named:
                if position in strengths:
                    strengths[position] += 1.0
                elif len(named) <= _MAX_IN_FILE:
                    strengths[position] = 0.1
        return strengths
