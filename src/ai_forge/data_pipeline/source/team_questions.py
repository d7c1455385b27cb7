"""`.ai-forge/questions.yaml` of a repository: the questions that its team wants answered right.

Read from the disk, committed or not: whoever has just written it wants to see it used. Every scalar is a text, so `must: [no]`
is the word and not a truth value, `1.10` keeps its zero and a date stays as it was written. What is wrong is told with its
line, all of it together. The file is not trusted more than the rest of the repository: no link is followed, nothing in it is
executed, its size and depth are bounded.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from ai_forge.data_pipeline.schemas.code_blocks import content_id
from ai_forge.data_pipeline.schemas.team_questions import MAX_QUESTIONS, TeamQuestion
from ai_forge.data_pipeline.source.repository import OWN_FOLDER, read_one
from ai_forge.errors import InputError

__all__ = ["QUESTIONS_FILE", "TeamQuestions", "parse_team_questions", "read_team_questions"]

QUESTIONS_FILE = f"{OWN_FOLDER}/questions.yaml"
MAX_BYTES = 1_000_000
_FIELDS = tuple(TeamQuestion.model_fields)
_LISTS = ("files", "symbols", "must", "must_not")
_HOW = "`ai-forge questions add` writes one; the user guide shows the form."
_MAX_TOLD = 10
Written = dict[str, str | list[str]]


@dataclass(frozen=True)
class TeamQuestions:
    """What the file holds, in its order; `lines` says where each question begins, `state` changes with what is asked."""

    path: Path
    questions: tuple[TeamQuestion, ...]
    lines: tuple[int, ...]

    @property
    def state(self) -> str:
        """The hash of the questions: comments and the order of fields are no part of it."""
        return content_id(*(question.model_dump_json() for question in self.questions))


def read_team_questions(root: Path) -> TeamQuestions | None:
    """The questions of the repository at `root`; None where it has no such file.

    Raises:
        InputError: it cannot be read, is no YAML, or a question in it is not as it must be.
    """
    path = root / QUESTIONS_FILE
    content = read_one(root, QUESTIONS_FILE, MAX_BYTES)
    if content is None:
        return None
    return parse_team_questions(path, content)


def parse_team_questions(path: Path, content: bytes) -> TeamQuestions:
    """The questions in the bytes of the file at `path`. Raises `InputError` as `read_team_questions`."""
    return TeamQuestions(path, *_questions(path, content))


def _questions(path: Path, content: bytes) -> tuple[tuple[TeamQuestion, ...], tuple[int, ...]]:
    try:
        top = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {_told(error)}.", _HOW) from error
    except RecursionError as error:
        raise InputError(f"{path} is nested deeper than it can be read.", _HOW) from error
    problems: list[str] = []
    found: list[tuple[TeamQuestion, int]] = []
    lines: dict[str, int] = {}
    for item in _items(path, top):
        line = _line(item)
        problem, question = _question(item)
        if question is not None:
            asked = " ".join(question.question.lower().split())
            if asked in lines:
                problem.append(f"line {line}: {question.question!r} is asked on line {lines[asked]} already")
            lines.setdefault(asked, line)
            found.append((question, line))
        problems += problem
    if problems:
        more = f"; and {len(problems) - _MAX_TOLD} more" if len(problems) > _MAX_TOLD else ""
        raise InputError(f"{path}: {'; '.join(problems[:_MAX_TOLD])}{more}.", "mend these lines. " + _HOW)
    return tuple(question for question, _ in found), tuple(line for _, line in found)


def _items(path: Path, top: yaml.Node | None) -> list[yaml.Node]:
    """The questions as nodes: of a list, or of a mapping whose `questions` is one. An empty file holds none."""
    if isinstance(top, yaml.MappingNode):
        keys = {key.value: value for key, value in top.value if isinstance(key, yaml.ScalarNode)}
        unknown = [name for name in keys if name != "questions"]
        if unknown or "questions" not in keys:
            what = f"{unknown[0]!r} on line {_line(top)}" if unknown else "nothing"
            raise InputError(f"{path} holds {what} where `questions:` is expected.", _HOW)
        top = keys["questions"]
    if top is None or _is_empty(top):
        return []
    if not isinstance(top, yaml.SequenceNode):
        raise InputError(f"{path}: line {_line(top)} is {_kind(top)}; a list of questions is expected.", _HOW)
    if len(top.value) > MAX_QUESTIONS:
        raise InputError(f"{path} holds {len(top.value)} questions; {MAX_QUESTIONS} are the most.", "leave some out.")
    return list(top.value)


def _question(node: yaml.Node) -> tuple[list[str], TeamQuestion | None]:
    """One question, or what is wrong with it."""
    if not isinstance(node, yaml.MappingNode):
        return [f"line {_line(node)} is {_kind(node)}; a question has `question:` and `files:`"], None
    written: Written = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for key, value in node.value:
        line = _line(key)
        name = str(key.value).strip().lower().replace("-", "_").replace(" ", "_")
        if not isinstance(key, yaml.ScalarNode) or name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_FIELDS)}"
            shown = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
            problems.append(f"line {line}: {shown!r} is not a field ({hint})")
        elif name in lines:
            problems.append(f"line {line}: {name} stands on line {lines[name]} already")
        else:
            lines[name] = line
            problems += _read(name, value, written)
    if problems:
        return problems, None
    try:
        return [], TeamQuestion.model_validate(written)
    except ValidationError as error:
        return list(_wrong(error, lines, _line(node))), None


def _read(name: str, node: yaml.Node, into: Written) -> list[str]:
    """Puts the value of a field into `into`; a single word stands for a list of one. Returns what is wrong."""
    if _is_empty(node):
        return []
    if isinstance(node, yaml.ScalarNode):
        into[name] = [node.value] if name in _LISTS else node.value
    elif name in _LISTS and isinstance(node, yaml.SequenceNode):
        texts = [item for item in node.value if not _is_empty(item)]
        wrong = [item for item in texts if not isinstance(item, yaml.ScalarNode)]
        if wrong:  # `- a: b` is a mapping: a colon in a term needs quotes
            return [f"line {_line(wrong[0])}: {name} holds {_kind(wrong[0])} where a text is expected (quote it)"]
        into[name] = [item.value for item in texts]
    else:
        wanted = "a list of texts" if name in _LISTS else "a text"
        return [f"line {_line(node)}: {name} is {_kind(node)}; {wanted} is expected (quote a text with a colon)"]
    return []


def _wrong(error: ValidationError, lines: dict[str, int], first: int) -> Iterator[str]:
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        line = lines.get(name, first)
        shown = item["input"] if isinstance(item["input"], str) else None
        value = f" {shown[:60]!r}" if shown is not None and item["type"] != "value_error" else ""
        yield f"line {line}: {name}{value}: {item['msg'].removeprefix('Value error, ')}".replace(": : ", ": ")


def _told(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return problem if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_empty(node: yaml.Node) -> bool:
    """Whether it is YAML's null: nothing, `~` or `null` without quotes."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f"the text {node.value[:40]!r}"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
