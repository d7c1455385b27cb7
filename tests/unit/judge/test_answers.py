import pytest

from ai_forge.judge.metrics.answers import code_compiles, compile_rates, refusal_rates, refuses
from ai_forge.prompting.prompt import NOT_IN_CONTEXT
from tiny_training import raft_examples


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("python", "  async with a as b:\n      await b", "def f(:\n    pass"),
        ("python", "print(1)", "print 1"),
        ("javascript", "const a = () => 1", "const a = ( => 1"),
        ("typescript", "let a: string = 'b'", "let a: = 'b'"),
        ("go", "x := 1\nfmt.Println(x)", "x := = 1"),
        ("java", "public void run() { return; }", "public void run( { return; }"),
        ("java", "int a = 1;", "int a = = 1;"),
        ("rust", "let a = 1;", "let = = 1;"),
        ("cpp", "std::vector<int> a = {1, 2};", "std::vector<int a = {1, 2;"),
        ("csharp", "var a = 1;", "var a = = 1;"),
    ],
)
def test_code_that_compiles_is_told_from_code_that_does_not(language: str, good: str, bad: str) -> None:
    assert code_compiles(good, language) is True
    assert code_compiles(bad, language) is False


@pytest.mark.parametrize("code", ["x = '\0'", "(" * 5000, "1" * 10_000, "\ud800"])
def test_hostile_python_is_no_crash(code: str) -> None:
    assert code_compiles(code, "python") in (True, False)


def test_rates_are_told_by_language_and_by_what_checked_them() -> None:
    answers = ["```python\nx = 1\n```\n```\ny =\n```", "```go\nfunc f() {}\n```", "```klingon\nqapla\n```", "no code"]
    rates = compile_rates(answers, "python")
    assert {name: (made.n_compiling, made.n_pieces, made.checked_by) for name, made in rates.items()} == {
        "go": (1, 1, "syntax"),
        "python": (1, 2, "compile"),
    }
    assert rates["python"].rate == 0.5
    assert compile_rates(["no code"]) == {}


@pytest.mark.parametrize(
    "answer",
    [
        NOT_IN_CONTEXT,
        f"None of the documents defines `retry`.\n{NOT_IN_CONTEXT}",
        "I'm sorry, but the provided documents don't mention a retry policy.",
        "There is no information about retries in the given code.",
        "The given text does not contain any information about generating shell completions for zsh.",
    ],
)
def test_a_refusal_is_known_in_other_words(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "`retry` calls `retry_all` [src/retry.py:1-2].",
        "It does not provide a default, so it raises [src/retry.py:1-2].",
        "`ClickException` takes a message.",
        "",
    ],
)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert not refuses(answer)


def test_refusals_count_where_they_should_and_where_they_should_not() -> None:
    with_answer, without, third = raft_examples(3)
    without = without.model_copy(update={"oracle_documents": ()})
    made = refusal_rates([NOT_IN_CONTEXT, NOT_IN_CONTEXT, "It calls `x`."], [with_answer, without, third])
    assert (made.rate, made.wrong_rate) == (1.0, 0.5)
    assert (made.n_without_answer, made.n_with_answer) == (1, 2)
    assert refusal_rates([], []).rate is None
