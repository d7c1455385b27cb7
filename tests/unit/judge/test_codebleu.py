"""Against the package `codebleu`: pairs of functions of CPython, Guava, commons-lang, express, lodash, rxjs, cobra, x/tools, ATen,
serde and tokio, with its values (`tests/oracles/run_codebleu.py --write`)."""

import json
from pathlib import Path

import pytest

from ai_forge.errors import InputError
from ai_forge.judge.metrics.codebleu import LANGUAGES, codebleu_components, compute_codebleu

PAIRS = json.loads((Path(__file__).parents[2] / "fixtures" / "codebleu_pairs.json").read_text(encoding="utf-8"))
CODE = {
    "python": "def f(a, b):\n    c = a + b\n    return c\n",
    "java": "class A { int f(int a, int b) { int c = a + b; return c; } }",
    "javascript": "function f(a, b) { const c = a + b; return c; }",
    "typescript": "function f(a: number, b: number): number { const c = a + b; return c; }",
    "tsx": "const f = (a: number) => { const c = a; return <p>{c}</p>; };",
    "go": "package a\nfunc f(a, b int) int { var c = a + b; return c }",
    "cpp": "int f(int a, int b) { int c; c = a + b; return c; }",
    "c": "int f(int a, int b) { int c; c = a + b; return c; }",
    "csharp": "class A { int F(int a, int b) { int c; c = a + b; return c; } }",
    "rust": "fn f(a: i32, b: i32) -> i32 { let c = a + b; c }",
}


@pytest.mark.parametrize("language", PAIRS)
def test_equals_the_codebleu_package_on_real_pairs(language: str) -> None:
    assert len(PAIRS[language]) == 20
    for pair in PAIRS[language]:
        made = codebleu_components([pair["prediction"]], [pair["reference"]], language)
        ours = (made.score, made.ngram, made.weighted_ngram, made.syntax, made.data_flow or 0.0)
        assert ours == pytest.approx(pair["values"], abs=1e-5), pair["prediction"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_equal_code_scores_one_and_the_empty_text_little(language: str) -> None:
    code = CODE[language]
    same = codebleu_components([code], [code], language)
    assert (same.score, same.ngram, same.syntax, same.data_flow) == pytest.approx((1.0, 1.0, 1.0, 1.0))
    assert compute_codebleu([""], [code], language) <= 0.25


def test_data_flow_does_not_depend_on_names() -> None:
    renamed = CODE["python"].replace("a", "x").replace("c ", "total ").replace("return c", "return total")
    made = codebleu_components([renamed], [CODE["python"]], "python")
    assert made.data_flow == 1.0
    assert made.ngram < 0.5


def test_a_reference_without_data_flow_leaves_that_part_unscored() -> None:
    made = codebleu_components(["pass"], ["pass"], "python")
    assert made.data_flow is None
    assert made.score == pytest.approx(1.0, abs=0.8)


def test_the_best_of_several_references_counts_for_words() -> None:
    one = codebleu_components([CODE["go"]], ["package b"], "go")
    two = codebleu_components([CODE["go"]], [["package b", CODE["go"]]], "go")
    assert two.ngram == pytest.approx(1.0)
    assert two.ngram > one.ngram


def test_comments_and_docstrings_change_no_syntax() -> None:
    noted = 'def f(a, b):\n    """Adds."""\n    # both\n    c = a + b\n    return c\n'
    made = codebleu_components([noted], [CODE["python"]], "python")
    assert (made.syntax, made.data_flow) == (1.0, 1.0)


def test_code_that_nests_a_thousand_deep_is_scored_without_its_data_flow() -> None:
    deep = "x = " + "(" * 3000 + "1" + ")" * 3000
    assert codebleu_components([deep], [deep], "python").data_flow is None


@pytest.mark.parametrize(
    ("predictions", "references", "language", "says"),
    [
        ([], [], "python", "0 predictions with 0 references"),
        (["a"], ["a", "b"], "python", "1 predictions with 2 references"),
        (["a"], [[]], "python", "no reference"),
        (["a"], ["a"], "cobol", "no CodeBLEU for 'cobol'"),
    ],
)
def test_what_cannot_be_compared_is_refused(predictions, references, language, says) -> None:
    with pytest.raises(InputError, match=says):
        compute_codebleu(predictions, references, language)


def test_languages_go_by_their_common_names() -> None:
    code = CODE["javascript"]
    assert compute_codebleu([code], [code], "JS") == compute_codebleu([code], [code], "javascript")
