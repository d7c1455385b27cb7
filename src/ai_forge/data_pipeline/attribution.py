"""Which unit a call, a raise, a parameter or a branch belongs to: the innermost definition around it."""

import bisect
import re
from collections.abc import Callable

from tree_sitter import Node

from ai_forge.data_pipeline.languages import LanguageSpec
from ai_forge.data_pipeline.schemas import Guard, Import
from ai_forge.data_pipeline.text import one_line
from ai_forge.data_pipeline.units import CONTAINERS, Captures, Unit, node_text

_EXPRESSION = re.compile(r"^[@\\]?[\w$]+(?:(?:\.|::|->|\?\.|&\.|\?->|!!\.|\\)[\w$]+)*[?!]?$")
_SEPARATOR = re.compile(r"::|->|\.|\\")
_JOINS = (".", "::", "->", "?.", "&.", "?->")
_IMPORT_WORDS = re.compile(r"^import\s+|\.?\{.*$|\.[_*]$", re.DOTALL)
_MAX_QUOTE = 120
"""Characters: longer conditions and results are not quoted."""


class Attribution:
    """Gives each capture to the innermost unit around it."""

    def __init__(self, units: list[Unit], spec: LanguageSpec, text: bytes) -> None:
        self.units, self.spec, self.text = units, spec, text
        self.starts = [unit.start for unit in units]
        self.anonymous: list[tuple[int, int]] = []

    def run(self, matches: list[Captures]) -> None:
        """Fill the units from all matches of the file's query."""
        self.anonymous = sorted((n.start_byte, n.end_byte) for m in matches for n in m.get("anonymous", ()))
        handlers: dict[str, Callable[[Unit, Node, Captures], None]] = {
            "parameter": self._parameter,
            "call": self._call,
            "raise": self._raise,
            "return": self._return,
            "yield": self._yield,
            "base": self._base,
            "decorator": self._decorator,
            "member": self._member,
            "guard": self._guard,
        }
        for captures in matches:
            for key, nodes in captures.items():
                if key == "branch":
                    self._branch(nodes[0])
                elif key in handlers:
                    for node in nodes:
                        unit = self._around(node)
                        if unit is not None:
                            handlers[key](unit, node, captures)

    def _around(self, node: Node) -> Unit | None:
        index = bisect.bisect_right(self.starts, node.start_byte) - 1
        unit = self.units[index] if index >= 0 else None
        while unit is not None and unit.end < node.end_byte:
            unit = unit.parent
        return unit

    def _is_own(self, unit: Unit, node: Node) -> bool:
        """Whether `node` runs as part of the unit itself, not of an anonymous function inside it."""
        first = bisect.bisect_right(self.anonymous, (unit.definition.start_byte, unit.definition.end_byte))
        last = bisect.bisect_right(self.anonymous, (node.start_byte, 0))
        return all(end < node.end_byte for _, end in self.anonymous[first:last])

    def _add(self, values: list[str], value: str) -> None:
        if value not in values:
            values.append(value)

    def _parameter(self, unit: Unit, node: Node, captures: Captures) -> None:
        if captures["parameters"][0].start_byte != unit.parameters_start:
            return
        name = node_text(node, self.text)
        opening = captures["parameters"][0].named_children[:1]
        is_first = unit.kind == "method" and any(first.start_byte == node.start_byte for first in opening)
        if not (is_first and name in self.spec.implicit_parameters) and name != "this":
            self._add(unit.parameters, name)

    def _call(self, unit: Unit, node: Node, captures: Captures) -> None:
        name = node_text(node, self.text)
        if "called" in captures:  # Java, PHP, Ruby: the object stands in a field of its own
            target = captures["_object"][0]
            between = self.text[target.end_byte : node.start_byte].decode("utf-8", "replace").strip()
            name = node_text(target, self.text) + (between if between in _JOINS else ".") + name
        if _EXPRESSION.match(name):
            self._add(unit.calls, name)

    def _raise(self, unit: Unit, node: Node, captures: Captures) -> None:
        name = node_text(node, self.text)
        *path, last = _SEPARATOR.split(name)
        if ".".join(path) in self.spec.implicit_parameters or not _EXPRESSION.match(name):
            return
        is_type = last[:1].isupper() or last in ("error", "timeout")  # a variable or a helper's result says no type
        is_type = is_type or "::" in name  # C++: std::invalid_argument
        if is_type and self._is_own(unit, node):
            self._add(unit.raises, name)

    def _return(self, unit: Unit, node: Node, captures: Captures) -> None:
        value = one_line(node_text(node, self.text))
        if len(value) <= _MAX_QUOTE and node.type != "comment" and self._is_own(unit, node):
            self._add(unit.return_values, value)

    def _yield(self, unit: Unit, node: Node, captures: Captures) -> None:
        unit.is_generator = unit.is_generator or self._is_own(unit, node)

    def _base(self, unit: Unit, node: Node, captures: Captures) -> None:
        if unit.kind in CONTAINERS:
            self._add(unit.bases, one_line(node_text(node, self.text)).removeprefix("*"))

    def _decorator(self, unit: Unit, node: Node, captures: Captures) -> None:
        if node.start_byte < unit.definition.start_byte or node.end_byte <= (
            unit.body.start_byte if unit.body is not None else unit.end
        ):
            self._add(unit.decorators, one_line(node_text(node, self.text)).strip("@#[]"))

    def _member(self, unit: Unit, node: Node, captures: Captures) -> None:
        if unit.kind in CONTAINERS:
            self._add(unit.members, node_text(node, self.text))

    def _guard(self, unit: Unit, node: Node, captures: Captures) -> None:
        condition = one_line(node_text(node, self.text))
        outcome_node = captures["outcome"][0]
        outcome = one_line(node_text(outcome_node, self.text)).rstrip(";")
        if len(condition) <= _MAX_QUOTE and self._is_own(unit, node):
            raises = outcome_node.type.startswith(("raise", "throw")) or outcome.startswith(("raise ", "throw "))
            quoted = outcome if len(outcome) <= _MAX_QUOTE else ""
            unit.guard_starts.append(node.start_byte)
            unit.guards.append(
                Guard(
                    condition=condition,
                    action="raise" if raises else "return",
                    outcome=quoted,
                    line=node.start_point[0] + 1,
                )
            )

    def _branch(self, node: Node) -> None:
        unit = self._around(node)
        while unit is not None:
            unit.complexity += 1
            unit = unit.parent


def imports_of(matches: list[Captures], text: bytes) -> tuple[list[Import], list[str]]:
    """Imported names in order, and the modules they come from (once each)."""
    imports: dict[Import, None] = {}
    modules: dict[str, None] = {}
    for captures in matches:
        if "module" not in captures:
            continue
        module = node_text(captures["module"][0], text).strip("<>")
        module = _IMPORT_WORDS.sub("", module)  # Scala: one node holds the whole import
        modules[module] = None
        originals = captures.get("original", [])
        for index, local in enumerate(captures.get("imported", [])):
            original = node_text(originals[index], text) if index < len(originals) else None
            name = node_text(local, text)
            imports[Import(name.rpartition("/")[2] if "/" in name else name, module, original)] = None
    return list(imports), list(modules)
