"""CodeBLEU (Ren et al. 2020, arXiv 2009.10297): how like a reference code is, in its words, its syntax and its data flow.

A quarter each: BLEU over words, BLEU's recall over words with keywords five times the others, the share of the reference's
subtrees that the prediction has, the share of its data flow (`data_flow`). All four are over the whole corpus, not means of
pairs. On our own parsers, and equal to the `codebleu` package within 0.005 (`tests/oracles/run_codebleu.py` compares).

Two habits of that package are kept for the sake of equal figures: words are split at white space, and a data flow of 0
counts as 1 in the sum. The components tell the 0, and None where the references have no data flow at all.
"""

import functools
import io
import json
import math
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from tree_sitter import Node, Parser

from ai_forge.data_pipeline.languages import load
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.judge.metrics.data_flow import RULES, data_flow

LANGUAGES = tuple(RULES)
_ORDERS = (1, 2, 3, 4)
_SMOOTHING = 0.1  # an order of which nothing matches counts as a tenth of a match (Chen and Cherry 2014, method 1)
_COMMON_WORD = 0.2
_COMMENT = re.compile(r'//.*?$|/\*.*?\*/|\'(?:\\.|[^\\\'])*\'|"(?:\\.|[^\\"])*"', re.DOTALL | re.MULTILINE)
_ALIASES = {"js": "javascript", "ts": "typescript", "c_sharp": "csharp", "c#": "csharp", "c++": "cpp", "golang": "go"}


@dataclass(frozen=True)
class CodeBLEU:
    """The score and its parts, each 0–1; `data_flow` is None where the references have none."""

    score: float
    ngram: float
    weighted_ngram: float
    syntax: float
    data_flow: float | None


References = Sequence[str] | Sequence[Sequence[str]]


def compute_codebleu(predictions: Sequence[str], references: References, language: str = "python") -> float:
    """CodeBLEU of `predictions`, 0–1, against a reference each, or several each; 1 for equal texts.

    >>> round(compute_codebleu(["def add(a, b):\\n    return a + b"], ["def plus(x, y):\\n    return x + y"]), 2)
    0.52

    Raises:
        InputError: none or unequally many texts, or a language that is none of `LANGUAGES`.
        PrerequisiteError: the language's grammar is not installed.
    """
    return codebleu_components(predictions, references, language).score


def codebleu_components(predictions: Sequence[str], references: References, language: str = "python") -> CodeBLEU:
    """CodeBLEU with its four parts. Raises as `compute_codebleu` does."""
    language = _ALIASES.get(language.lower(), language.lower())
    if language not in RULES:
        raise InputError(f"There is no CodeBLEU for {language!r}.", f"Use one of {', '.join(LANGUAGES)}.")
    if not predictions or len(predictions) != len(references):
        raise InputError(
            f"CodeBLEU compares {len(predictions)} predictions with {len(references)} references.",
            "Give as many of the one as of the other, at least one.",
        )
    ours = [prediction.strip() for prediction in predictions]
    theirs = [[given] if isinstance(given, str) else list(given) for given in references]
    if not all(theirs):
        raise InputError("A prediction has no reference to be compared with.", "Give one for each.")
    theirs = [[text.strip() for text in texts] for texts in theirs]
    words = [text.split() for text in ours]
    reference_words = [[text.split() for text in texts] for texts in theirs]
    weights = keyword_weights(language)
    parse = _parser(language)
    trees = [_Tree.of(text, language, parse) for text in ours]
    reference_trees = [[_Tree.of(text, language, parse) for text in texts] for texts in theirs]
    ngram = _bleu(words, reference_words, _precision, _closest(words, reference_words))
    # Theirs takes every reference here for two words long: recall falls by itself where a prediction is too short.
    weighted = _bleu(words, reference_words, functools.partial(_recall, weights), 2 * len(words))
    syntax = _syntax(trees, reference_trees)
    flow = _flow(trees, reference_trees)
    return CodeBLEU((ngram + weighted + syntax + (flow or 1.0)) / 4, ngram, weighted, syntax, flow)


@functools.cache
def keyword_weights(language: str) -> frozenset[str]:
    """The words of a language that count five times as much as others."""
    words: Mapping[str, str] = json.loads(files(__package__).joinpath("keywords.json").read_text(encoding="utf-8"))
    return frozenset(words["typescript" if language == "tsx" else language].split())


Words = Sequence[str]
Matched = Callable[[Words, Sequence[Words], int], tuple[float, float]]


def _ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _precision(words: Words, references: Sequence[Words], n: int) -> tuple[float, float]:
    """Of a prediction's n-grams: how many a reference has as well, and how many there are."""
    ours = _ngrams(words, n)
    theirs = [_ngrams(reference, n) for reference in references]
    matched = sum(min(count, max(other[gram] for other in theirs)) for gram, count in ours.items())
    return matched, max(1, ours.total())


def _recall(keywords: frozenset[str], words: Words, references: Sequence[Words], n: int) -> tuple[float, float]:
    """Of the references' n-grams: how much the prediction has, and how much there is; single words have weights."""
    ours = _ngrams(words, n)
    matched = total = 0.0
    for reference in references:
        theirs = _ngrams(reference, n)
        weight = dict.fromkeys(theirs, 1.0)
        if n == 1:
            weight = {gram: 1.0 if gram[0] in keywords else _COMMON_WORD for gram in theirs}
        matched += sum(weight[gram] * min(count, ours[gram]) for gram, count in theirs.items())
        total += max(1.0, sum(weight[gram] * count for gram, count in theirs.items()))
    return matched, total


def _closest(predictions: Sequence[Words], references: Sequence[Sequence[Words]]) -> int:
    """Summed lengths of the references that are nearest in length to their predictions, the shorter of two."""
    total = 0
    for words, given in zip(predictions, references, strict=True):
        total += min((abs(len(reference) - len(words)), len(reference)) for reference in given)[1]
    return total


def _bleu(
    predictions: Sequence[Words], references: Sequence[Sequence[Words]], matched: Matched, n_reference_words: int
) -> float:
    """BLEU-4 of a corpus (Papineni et al. 2002), with `matched` for each text's share."""
    logs = []
    for n in _ORDERS:
        pairs = [matched(words, given, n) for words, given in zip(predictions, references, strict=True)]
        above, below = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        if n == 1 and above == 0:
            return 0.0
        logs.append(math.log((above or _SMOOTHING) / below))
    n_words = sum(len(words) for words in predictions)
    penalty = 1.0
    if n_words <= n_reference_words:
        penalty = math.exp(1 - n_reference_words / n_words)
    return penalty * math.exp(math.fsum(logs) / len(_ORDERS))


@dataclass(frozen=True)
class _Tree:
    subtrees: Counter[str]
    flow: tuple[tuple[str, str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, text: str, language: str, parse: Callable[[bytes], Node]) -> "_Tree":
        source = without_comments(text, language).encode("utf-8", "replace")
        root = parse(source)
        return cls(_subtrees(root), tuple(data_flow(root, source, language)))


def _parser(language: str) -> Callable[[bytes], Node]:
    loaded = load(language)
    if loaded is None:
        raise PrerequisiteError(
            f"The grammar of {language} is not installed.", f"Install it: pip install tree-sitter-{language}."
        )
    parser = Parser(loaded[0])
    return lambda source: parser.parse(source).root_node


def _subtrees(root: Node) -> Counter[str]:
    """Every subtree with children, as its shape: node types and fields, without what is written in it."""
    found: Counter[str] = Counter([str(root)])
    left = [root]
    while left:
        for child in left.pop().children:
            if child.child_count:
                found[str(child)] += 1
                left.append(child)
    return found


def _syntax(trees: Sequence[_Tree], references: Sequence[Sequence[_Tree]]) -> float:
    matched = total = 0
    for tree, given in zip(trees, references, strict=True):
        for reference in given:
            matched += sum(n for shape, n in reference.subtrees.items() if shape in tree.subtrees)
            total += reference.subtrees.total()
    return matched / total


def _flow(trees: Sequence[_Tree], references: Sequence[Sequence[_Tree]]) -> float | None:
    matched = total = 0
    for tree, given in zip(trees, references, strict=True):
        for reference in given:
            matched += (Counter(reference.flow) & Counter(tree.flow)).total()
            total += len(reference.flow)
    if not total:
        return None
    return matched / total


def without_comments(text: str, language: str) -> str:
    """`text` without comments and, of Python, without docstrings; as it is where Python's own tokenizer refuses it."""
    if language != "python":
        return _COMMENT.sub(lambda found: " " if found[0].startswith("/") else found[0], text)
    lines = io.StringIO(text).readlines()  # as the tokenizer counts them
    before, kept = tokenize.INDENT, lines.copy()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            is_docstring = token.type == tokenize.STRING and (
                before in (tokenize.INDENT, tokenize.NEWLINE) or token.start[1] == 0
            )
            if is_docstring or token.type == tokenize.COMMENT:
                _blank(kept, token.start, token.end)
            before = token.type
    except (tokenize.TokenError, SyntaxError):
        return text
    return "".join(line for line in kept if line.strip())


def _blank(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> None:
    """Spaces for what stands between two places (line from 1, column from 0)."""
    for number in range(start[0], end[0] + 1):
        line = lines[number - 1]
        first = start[1] if number == start[0] else 0
        last = end[1] if number == end[0] else len(line.rstrip("\n"))
        lines[number - 1] = line[:first] + " " * (last - first) + line[last:]
