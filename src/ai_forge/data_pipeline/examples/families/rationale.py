"""Families that answer in the project's own words: commit messages and comments for why, documentation for the whole."""

import re

from ai_forge.data_pipeline.examples.block_tree import comments_in, node_text, tree_of_block
from ai_forge.data_pipeline.examples.families.base import Draft, Subject, closes_its_brackets, draft_of, is_callable
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.text.words import first_sentence, one_line, plain

_MAX_LINE = 90
_COMMENT = re.compile(r"^\s*(?:#+|//+|/\*+|\*+(?!/))\s?|\*+/\s*$")
# Comments for tools, and notes of what is left to do: neither explains the line
_TOOL = re.compile(
    r"^(?:type:|noqa|pragma|ruff|pylint|mypy|fmt|todo|fixme|xxx|hack|eslint|nolint|@|!|region|endregion|--|==)", re.I
)
# Code that was commented out
_CODE = re.compile(r"[=;{}]\s*$|^\w+\(.*\)$|^(?:if|for|return|import|def|var|let|const)\b.*[:;)]$")


def why(subject: Subject) -> list[Draft]:
    """What the commit that wrote the code says, and what a comment says about the line below it."""
    return [*_commit(subject), *_comment(subject)]


def _commit(subject: Subject) -> list[Draft]:
    block = subject.block
    reason = subject.notes.commits.get(block.id)
    if reason is None:
        return []
    answer = f'The commit that wrote most of `{block.name}` says: "{reason.quotation}"'
    return [draft_of("why", subject, answer, wording="why_commit", beside=(reason.document,))]


def _comment(subject: Subject) -> list[Draft]:
    """The first comment of the body that is a sentence and stands above a short line."""
    block = subject.block
    tree = tree_of_block(block)
    if tree is None or not is_callable(block):
        return []
    on_one_line = [node for node in comments_in(tree) if node.start_point[0] == node.end_point[0]]
    comments = [(node.start_point[0] - tree.n_before, node_text(node)) for node in on_one_line]
    for sentence, line in _commented_lines(block, comments):
        answer = f'At `{line}` the comment in `{block.name}` says: "{sentence}"'
        return [draft_of("why", subject, answer, wording="why_comment", line=f"`{line}`")]
    return []


def _commented_lines(block: CodeBlock, comments: list[tuple[int, str]]) -> list[tuple[str, str]]:
    """(sentence, line of code) of comments at the end of a line or on lines of their own above one, in order."""
    lines = block.source_code.split("\n")
    found: list[tuple[str, str]] = []
    while comments:
        number, text = comments.pop(0)
        code, last, run = lines[number].rpartition(text)[0], number, [text]
        # A comment over several lines is a node a line; one behind code ends with its line.
        while not code.strip() and comments and comments[0][0] == last + 1:
            if lines[last + 1].strip() != comments[0][1]:
                break
            last, text = comments.pop(0)
            run.append(text)
        if not code.strip() and last + 1 < len(lines):
            code = lines[last + 1]
        line = one_line(code).rstrip(" {:;,")
        sentence = first_sentence(plain("\n".join(_COMMENT.sub("", part) for part in run)))
        is_prose = sentence[:1].isalpha() and 4 <= len(sentence.split()) <= 40 and '"' not in sentence
        if number == 0 or not is_prose or _TOOL.match(sentence) or _CODE.search(sentence):
            continue
        is_short = 4 <= len(line) <= _MAX_LINE and sum(map(str.isalnum, line)) > 3
        is_one = sum(one_line(other).rstrip(" {:;,") == line for other in lines) < 2 and not line.isalnum()
        if is_short and is_one and "`" not in line and closes_its_brackets(line):
            found.append((sentence, line))
    return found


def fits_together(subject: Subject) -> list[Draft]:
    """What a section of the documentation says about the block that it names."""
    block = subject.block
    drafts = []
    for section in subject.notes.sections.get(block.id, ())[:1]:
        answer = f'`{section.document.path}` mentions `{block.name}` and says: "{section.quotation}"'
        drafts.append(draft_of("fits_together", subject, answer, beside=(section.document,)))
    return drafts
