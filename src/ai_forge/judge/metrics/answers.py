"""What can be told of answers by looking at them: whether their code compiles, and whether they refuse."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tree_sitter import Parser

from ai_forge.data_pipeline.languages import load
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.judge.metrics.mentions import FENCED, fence_language
from ai_forge.prompting.prompt import citations_in

# As people and models put it; the trained wording is `NOT_IN_CONTEXT`.
_REFUSES = re.compile(
    r"\b(?:do(?:es)? not|don't|doesn't|did not|cannot|can't|is not|isn't|are not|aren't|no)\b[^.\n]{0,60}"
    r"\b(?:contain|hold|provide|mention|include|show|say|answer|information|specified|described|given|defin)\w*",
    re.IGNORECASE,
)
# A piece of a file is no file: a method stands in a class, statements in a function.
_AROUND = {
    "java": ("{}", "class A {{ {} }}", "class A {{ void f() {{ {} }} }}"),
    "csharp": ("{}", "class A {{ {} }}", "class A {{ void F() {{ {} }} }}"),
    "go": ("{}", "package a\n{}", "package a\nfunc f() {{\n{}\n}}"),
    "rust": ("{}", "fn f() {{ {} }}"),
    "c": ("{}", "void f() {{ {} }}"),
    "cpp": ("{}", "void f() {{ {} }}", "class A {{ {} }};"),
    "php": ("{}", "<?php\n{}"),
}


@dataclass(frozen=True)
class Compiled:
    """How many pieces of code there were and how many compile. `checked_by` is `compile` or `syntax` (tree-sitter)."""

    n_pieces: int
    n_compiling: int
    checked_by: str

    @property
    def rate(self) -> float:
        """The share that compiles."""
        return self.n_compiling / self.n_pieces


def compile_rates(answers: Iterable[str], language: str = "python") -> Mapping[str, Compiled]:
    """By language, of the code in the fences of `answers`; one without a language is `language`.

    Python is compiled (never run); of others it is only told that their grammar finds no error, no compiler was asked: names and
    types may be wrong. Languages without a grammar are left out.
    """
    counted: dict[str, list[bool]] = {}
    for answer in answers:
        for named, code in FENCED.findall(answer):
            of = fence_language(named, language)
            compiles = code_compiles(code, of)
            if compiles is not None and code.strip():
                counted.setdefault(of, []).append(compiles)
    by = {of: "compile" if of == "python" else "syntax" for of in counted}
    return {of: Compiled(len(pieces), sum(pieces), by[of]) for of, pieces in sorted(counted.items())}


def code_compiles(code: str, language: str) -> bool | None:
    """Whether a piece of code compiles (Python) or has no syntax error; None for a language without a grammar.

    >>> code_compiles("x = 1", "python"), code_compiles("x = ", "python"), code_compiles("int x = 1;", "java")
    (True, False, True)
    """
    if language == "python":
        return _python_compiles(code)
    try:
        loaded = load(language)
    except KeyError:
        return None
    if loaded is None:
        return None
    parser = Parser(loaded[0])
    around = _AROUND.get(language, ("{}",))
    return any(not parser.parse(frame.format(code).encode("utf-8", "replace")).root_node.has_error for frame in around)


def _python_compiles(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `"\d"` is told of on the terminal
            compile(textwrap.dedent(code), "answer", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def refuses(answer: str) -> bool:
    """Whether an answer says that it cannot tell: it says so first, in words, and cites nothing.

    >>> refuses("The given documents do not contain the answer."), refuses("It is `None` [a.py:1-2].")
    (True, False)
    """
    first = " ".join(answer.strip().split("\n\n")[0].split())[:300]
    return _REFUSES.search(first) is not None and not citations_in(answer) and "```" not in answer


@dataclass(frozen=True)
class Refusals:
    """`rate`: of questions whose documents hold no answer, how many were refused; `wrong_rate`: of the others. None: none asked."""

    rate: float | None
    wrong_rate: float | None
    n_without_answer: int
    n_with_answer: int


def refusal_rates(answers: Sequence[str], examples: Sequence[RAFTExample]) -> Refusals:
    """How often `answers` to `examples` refuse, where they should and where they should not."""
    should = [refuses(a) for a, example in zip(answers, examples, strict=True) if not example.oracle_documents]
    should_not = [refuses(a) for a, example in zip(answers, examples, strict=True) if example.oracle_documents]
    return Refusals(_share(should), _share(should_not), len(should), len(should_not))


def _share(values: Sequence[bool]) -> float | None:
    if not values:
        return None
    return sum(values) / len(values)
