"""Which block a name means: how a question refers to one without doubt, and where else in the code its name stands."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.text.words import closed_at, identifiers, names_in, one_line, outer_parts

__all__ = ["COMMENT_LINE", "mentions_of", "references_to"]

# Characters of the parameters that tell overloads apart
_MAX_PARAMETERS = 80
_NO_SIGNATURE = re.compile(r"@[\w.]+(?:\([^()]*\))?|/\*.*?\*/", re.DOTALL)
COMMENT_LINE = re.compile(r"^\s*(?:#|//|/?\*).*$", re.MULTILINE)


def references_to(shown: Sequence[CodeBlock]) -> dict[str, str]:
    """By block id: how a question names the block, by its qualified name, with the file where others bear it too.

    Where one file has several, with the parameters as well; a block that even so shares its name gets none.
    """
    bare = Counter(block.name for block in shown)
    in_file = Counter((block.path, block.metadata.qualified_name) for block in shown)
    calls = {block.id: _call_form(block) for block in shown}
    in_file_calls = Counter((block.path, calls[block.id]) for block in shown)
    references: dict[str, str] = {}
    for block in shown:
        name = block.metadata.qualified_name
        if in_file[block.path, name] > 1:
            if in_file_calls[block.path, calls[block.id]] > 1:
                continue
            name = calls[block.id]
        if "`" not in name:  # it would end the code span of the question too early
            references[block.id] = f"`{name}`" if bare[block.name] == 1 else f"`{name}` in `{block.path}`"
    return references


def _call_form(block: CodeBlock) -> str:
    """The qualified name with the parameters as declared: what stands in the parentheses behind the name."""
    signature = one_line(_NO_SIGNATURE.sub(" ", block.metadata.signature))
    # Not the first parentheses: a Go receiver or an attribute's arguments may stand before the name.
    behind = re.search(rf"(?<![\w$]){re.escape(block.name)}\s*(?:<[^()]*>)?\(", signature)
    opened = behind.end() - 1 if behind is not None else signature.find("(")
    parameters = "" if opened < 0 else signature[opened + 1 : closed_at(signature, opened)]
    return f"{block.metadata.qualified_name}({_cut(parameters.strip())})"


def _cut(parameters: str) -> str:
    """As many whole parameters as fit: half of one would be a name that nothing bears.

    >>> _cut("a, b"), _cut("first: Map<String, Int>, " + "x" * 80), _cut("y" * 90)
    ('a, b', 'first: Map<String, Int>, …', '…')
    """
    if len(parameters) <= _MAX_PARAMETERS:
        return parameters
    kept: list[str] = []
    for part in outer_parts(parameters):
        if len(",".join([*kept, part])) > _MAX_PARAMETERS:
            break
        kept.append(part)
    return ", ".join([*map(str.strip, kept), "…"])


def mentions_of(names: set[str], shown: Sequence[CodeBlock]) -> dict[str, list[CodeBlock]]:
    """By name: the blocks whose code, without documentation and lines of comment, holds it. Heads of modules only import."""
    found: dict[str, list[CodeBlock]] = defaultdict(list)
    for block in shown:
        if block.block_type == "module":
            continue
        # The cached names of the whole source decide first: few blocks hold one, and only those are read again.
        known = names & names_in(block.source_code) - {block.name}
        if known:
            code = COMMENT_LINE.sub("", block.source_code.replace(block.docstring or "\0", ""))
            for name in known & set(identifiers(code)):
                found[name].append(block)
    return found
