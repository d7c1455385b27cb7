"""Which unit a call, a raise, a parameter or a branch belongs to: the innermost definition around it."""

import bisect
import itertools
import re
from collections.abc import Callable

from tree_sitter import Node

from ai_forge.data_pipeline.languages import LanguageSpec
from ai_forge.data_pipeline.mining.units import CONTAINERS, Captured, Captures, Unit, node_text
from ai_forge.data_pipeline.schemas import Guard, Import
from ai_forge.data_pipeline.text.words import one_line

_EXPRESSION = re.compile(r"^[@\\]?[\w$]+(?:(?:\.|::|->|\?\.|&\.|\?->|!!\.|\\)[\w$]+)*[?!]?$")
_SEPARATOR = re.compile(r"::|->|\.|\\")
_JOINS = (".", "::", "->", "?.", "&.", "?->")
_IMPORT_WORDS = re.compile(r"^import\s+|\.?\{.*$|\.[_*]$", re.DOTALL)
# Characters; longer conditions and results are not quoted.
_MAX_QUOTE = 120


class Attribution:
    """Gives each capture to the innermost unit around it."""

    def __init__(self, units: list[Unit], spec: LanguageSpec, text: bytes) -> None:
        self.units, self.spec, self.text = units, spec, text
        self.starts = [unit.start for unit in units]
        self.anonymous: list[tuple[int, int]] = []

    def run(self, captured: Captured) -> None:
        """Fill the units from all matches of the file's query, grouped by capture."""
        self.anonymous = sorted(
            (n.start_byte, n.end_byte) for _, m in captured.get("anonymous", ()) for n in m["anonymous"]
        )
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
        around = self._around
        for key, handle in handlers.items():
            for _, captures in captured.get(key, ()):
                for node in captures[key]:
                    unit = around(*node.byte_range)
                    if unit is not None:
                        handle(unit, node, captures)
        for _, captures in captured.get("branch", ()):
            node = captures["branch"][0]
            unit = around(node.start_byte, node.end_byte)
            while unit is not None:  # a class is as complex as all that it holds
                unit.complexity += 1
                unit = unit.parent

    def _around(self, start: int, end: int) -> Unit | None:
        # The last unit that begins before it, or one around that: units nest and never overlap.
        index = bisect.bisect_right(self.starts, start) - 1
        if index < 0:
            return None
        unit: Unit | None = self.units[index]
        while unit is not None and unit.end < end:
            unit = unit.parent
        return unit

    def _is_own(self, unit: Unit, node: Node) -> bool:
        """Whether `node` runs as part of the unit itself, not of an anonymous function inside it."""
        first = bisect.bisect_right(self.anonymous, (unit.definition.start_byte, unit.definition.end_byte))
        last = bisect.bisect_right(self.anonymous, (node.start_byte, 0))
        return all(end < node.end_byte for _, end in self.anonymous[first:last])

    def _parameter(self, unit: Unit, node: Node, captures: Captures) -> None:
        if captures["parameters"][0].start_byte != unit.parameters_start:
            return
        name = node_text(node, self.text)
        if name == "this":  # TypeScript: a type for the body, which nobody passes
            return
        if unit.kind == "method" and name in self.spec.implicit_parameters:
            opening = captures["parameters"][0].named_child(0)
            if opening is not None and opening.start_byte == node.start_byte:
                return  # only the first one is not passed by callers
        unit.parameters[name] = None

    def _call(self, unit: Unit, node: Node, captures: Captures) -> None:
        name = node_text(node, self.text)
        if "called" in captures:  # Java, PHP, Ruby: the object stands in a field of its own
            target = captures["_object"][0]
            between = self.text[target.end_byte : node.start_byte].decode("utf-8", "replace").strip()
            if between not in _JOINS:
                between = "."
            name = node_text(target, self.text) + between + name
        if _EXPRESSION.match(name):
            unit.calls[name] = None

    def _raise(self, unit: Unit, node: Node, captures: Captures) -> None:
        name = node_text(node, self.text)
        *path, last = _SEPARATOR.split(name)
        if ".".join(path) in self.spec.implicit_parameters or not _EXPRESSION.match(name):
            return
        is_type = last[:1].isupper() or last in ("error", "timeout")  # a variable or a helper's result says no type
        is_type = is_type or "::" in name  # C++: std::invalid_argument
        if is_type and self._is_own(unit, node):
            unit.raises[name] = None

    def _return(self, unit: Unit, node: Node, captures: Captures) -> None:
        value = one_line(node_text(node, self.text))
        if len(value) <= _MAX_QUOTE and node.type != "comment" and self._is_own(unit, node):
            unit.return_values[value] = None

    def _yield(self, unit: Unit, node: Node, captures: Captures) -> None:
        unit.is_generator = unit.is_generator or self._is_own(unit, node)

    def _base(self, unit: Unit, node: Node, captures: Captures) -> None:
        is_type = node.type not in ("lifetime", "removed_trait_bound")  # Rust: 'static, ?Sized
        if unit.kind in CONTAINERS and is_type:
            unit.bases[one_line(node_text(node, self.text)).removeprefix("*")] = None

    def _decorator(self, unit: Unit, node: Node, captures: Captures) -> None:
        end_of_head = unit.end
        if unit.body is not None:
            end_of_head = unit.body.start_byte
        # In the body a decorator is of something that is no unit of its own.
        is_context = self.text.startswith(
            b"context(", node.start_byte - 1
        )  # Kotlin's, which a repair calls an annotation
        if not is_context and (node.start_byte < unit.definition.start_byte or node.end_byte <= end_of_head):
            unit.decorators[one_line(node_text(node, self.text)).strip("@#[]")] = None

    def _member(self, unit: Unit, node: Node, captures: Captures) -> None:
        if unit.kind in CONTAINERS:
            unit.members[node_text(node, self.text)] = None

    def _guard(self, unit: Unit, node: Node, captures: Captures) -> None:
        condition = one_line(node_text(node, self.text))
        outcome_node = captures["outcome"][0]
        outcome = one_line(node_text(outcome_node, self.text)).rstrip(";")
        if len(condition) <= _MAX_QUOTE and self._is_own(unit, node):
            raises = outcome_node.type.startswith(("raise", "throw")) or outcome.startswith(("raise ", "throw "))
            quoted = outcome if len(outcome) <= _MAX_QUOTE else ""  # its condition is worth asking about all the same
            unit.guard_starts.append(node.start_byte)
            unit.guards.append(
                Guard(
                    condition=condition,
                    action="raise" if raises else "return",
                    outcome=quoted,
                    line=node.start_point[0] + 1,
                )
            )


def imports_of(captured: Captured, text: bytes) -> tuple[list[Import], list[str]]:
    """Imported names in order, and the modules they come from (once each)."""
    imports: dict[Import, None] = {}
    modules: dict[str, None] = {}
    for _, captures in captured.get("module", ()):
        module = node_text(captures["module"][0], text).strip("<>")
        module = _IMPORT_WORDS.sub("", module)  # Scala: one node holds the whole import
        modules[module] = None
        originals = captures.get("original", [])
        for local, original in itertools.zip_longest(captures.get("imported", []), originals):
            if local is None:
                break
            name = node_text(local, text).rpartition("/")[2]  # Go: the package's name is the last part of its path
            imports[Import(name, module, original and node_text(original, text))] = None
    return list(imports), list(modules)
