"""Named measures of served answers: planted answers with counts known by hand."""

import math
from collections.abc import Sequence

import pytest

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.judge.evaluation import TUNED, Evaluation
from ai_forge.judge.metrics.served import look_with, speed_of
from ai_forge.judge.named import named_figures, perplexities_of
from ai_forge.serving.runtime import Completion
from evaluations import answer

ENTRY = Entry(
    "src/store.py", 1, 2, "Store.load", "method", "python", "def load(self, path):\n    return read_all(path)"
)
SHOWN = [ENTRY.document()]
CITED = "[src/store.py:1-2]"
PLANTED = [
    f"`Store.load` calls `read_all` {CITED}.",
    f"`Store.load` calls `write_everything_twice` {CITED}.",  # a name that exists nowhere
    "It is in [src/other.py:1-2].",  # a citation of nothing
    f"```python\nread_all(path)\n```\n```python\ndef broken(:\n```\nSee {CITED}.",  # one of two compiles
    f"```go\nx := 1\n```\nSee {CITED}.",
    "The given documents do not contain the answer.",
]


def looked_at(documents: Sequence[Document] = SHOWN) -> Evaluation:
    look = look_with(documents, ["repo"])
    answers = [
        answer(TUNED, i, answer=text, oracle_shown=i < 4, looked=look(text, "What does it do?", SHOWN))
        for i, text in enumerate(PLANTED)
    ]
    return Evaluation(answers=tuple(answers), code=(), n_worked_examples=0)


def test_planted_answers_are_counted() -> None:
    figures = named_figures(looked_at(), TUNED, 0.95)
    values = {name: (e.value, e.n) for name, e in figures.items() if e is not None}
    assert values == {
        "hallucination rate": (pytest.approx(2 / 6), 6),
        "cites only what it was shown, where it cites": (pytest.approx(4 / 5), 5),
        "refused where the context holds no answer": (0.5, 2),
        "refused where it holds one": (0.0, 4),
        "go in answers that has no syntax error": (1.0, 1),
        "python in answers that compiles": (0.5, 2),
    }
    assert all(e is None or (e.low is not None and e.low <= e.value <= e.high) for e in figures.values())  # type: ignore[operator]


def test_what_was_not_looked_at_is_unscored() -> None:
    figures = named_figures(Evaluation(answers=(answer(TUNED, 0),), code=(), n_worked_examples=0), TUNED, 0.95)
    assert set(figures.values()) == {None}


def test_perplexity_per_token_word_and_byte() -> None:
    """Two answers of 8 bytes and 2 words each, 6 nats and 4 tokens together."""
    answers = [answer(TUNED, i, reference="ab cdefg", loss=3.0, n_tokens=2) for i in range(2)]
    found = perplexities_of(answers)
    assert found is not None
    assert found.per_token == pytest.approx(math.exp(6 / 4))
    assert found.per_word == pytest.approx(math.exp(6 / 4))
    assert found.per_byte == pytest.approx(math.exp(6 / 16))
    assert perplexities_of([]) is None


class Steady:
    """Reads a token in 10 ms and writes one in 50 ms, by its own clock."""

    def __init__(self, longest: int) -> None:
        self.now, self.longest = 0.0, longest

    def greedy(self, prompt: Sequence[int], max_tokens: int) -> Completion:
        n = min(max_tokens, self.longest)
        self.now += 0.01 * len(prompt) + 0.05 * n
        return Completion("x" * n, len(prompt), n, None)


def test_speed_is_that_of_the_file() -> None:
    server = Steady(longest=100)
    speed = speed_of(server, [[1] * 20, [1] * 40, [1] * 60], clock=lambda: server.now)
    assert speed.first_token_s == pytest.approx(0.45)
    assert speed.tokens_per_s == pytest.approx(20)
    assert (speed.n_prompts, speed.prompt_tokens) == (3, 40)


def test_answers_of_one_token_have_no_speed() -> None:
    server = Steady(longest=1)
    assert speed_of(server, [[1]], clock=lambda: server.now).tokens_per_s is None
