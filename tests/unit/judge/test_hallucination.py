from collections.abc import Sequence

import pytest

from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.schemas.code_blocks import BlockMetadata
from ai_forge.judge.evaluator import evaluate_hallucination_rate, measure_hallucination
from ai_forge.judge.metrics.inventions import inventions_in
from ai_forge.judge.metrics.known_names import KnownNames, languages_with_names, standard_names
from ai_forge.prompting.prompt import Message
from labelled_answers import agreement, rows
from tiny_training import raft_examples

SHOP = '''class Basket(dict):
    """What is bought."""

    def add(self, item, count=1):
        self.items_added = count


def checkout(basket, discount=0.0):
    """Pay."""
'''


def block(name: str, kind: str, source: str, parameters: Sequence[str] = (), bases: Sequence[str] = ()) -> CodeBlock:
    facts = BlockMetadata(
        first_line=1,
        last_line=9,
        qualified_name=name,
        signature=source.splitlines()[0],
        parameters=tuple(parameters),
        bases=tuple(bases),
        blob_id="0" * 40,
    )
    return CodeBlock(
        path="shop/basket.py",
        language="python",
        block_type=kind,
        name=name.split(".")[-1],
        docstring=None,
        source_code=source,
        metadata=facts,
    )


@pytest.fixture
def known() -> KnownNames:
    blocks = [
        block("Basket", "class", SHOP.split("\n\n\n")[0], bases=["dict"]),
        block("Basket.add", "method", "def add(self, item, count=1):", ["item", "count"]),
        block("checkout", "function", "def checkout(basket, discount=0.0):", ["basket", "discount"]),
        block("log", "function", "def log(message, **more):", ["message", "more"]),
    ]
    return KnownNames.of(blocks, roots=["shop"], packages=["numpy"])


@pytest.mark.parametrize("half", ["tuned on", "test"])
def test_finds_what_people_labelled(half: str) -> None:
    chosen = rows(half)
    assert len(chosen) >= 100
    names, answers = agreement(chosen)
    for measured in (names, answers):
        assert measured.precision >= 0.95, measured
        assert measured.recall >= 0.95, measured


@pytest.mark.parametrize(
    ("answer", "invented"),
    [
        ("```python\nfrom shop import checkout\ncheckout(basket, discount=0.1)\n```", []),
        ("```python\nfrom shop import checkout\ncheckout(basket, rebate=0.1)\n```", ["parameter: rebate"]),
        ("```python\nfrom shop import log\nlog('a', level=3)\n```", []),
        ("```python\nfrom shop import Wallet\n```", ["import: shop.Wallet"]),
        ("```python\nimport shop.payments\n```", ["import: shop.payments"]),
        ("```python\nimport numpy as np\nnp.array([1])\n```", []),
        ("```python\nimport numpie\nnumpie.array([1])\n```", ["import: numpie"]),
        ("```python\nimport json\njson.loads('1')\njson.parse('1')\n```", ["attribute: json.parse"]),
        ("`Basket.add` takes an item, `Basket.update` is a dict's.", []),
        ("Use `Basket.remove_all`.", ["attribute: Basket.remove_all"]),
        ("`checkout` takes two parameters: `basket` and `rebate`.", ["parameter: rebate"]),
        ("You call `pay_now()` for it, or pay_later().", ["name: pay_now", "name: pay_later"]),
        ("Create a new function `pay_now`, then call `pay_now`.", []),
        ("See [shop/basket.py:1-9].", []),
        ("See [shop/basket.py:1-90].", ["citation: shop/basket.py:1-90"]),
        ("It stands in `shop/wallet.py`, not in `shop/basket.py`.", ["citation: shop/wallet.py"]),
        (
            "```python\nclass Coupon(Basket):\n    def use(self):\n        self.used = True\n        self.used_up()\n```",
            ["attribute: self.used_up"],
        ),
        ("```python\ndef broken(:\n    my_thing.do_it(\n```", ["attribute: my_thing.do_it"]),
        ("```csharp\nusing System.Imaginary;\n```", []),
        ("```python\nChecks that it is a string.\nRaises where it is none.\n```", []),
        ("```go\npackage a\n\nfunc f() { gone.\n\tThing() }\n```", ["attribute: gone.Thing"]),
        ("Nothing to see in `this` or `None`.", []),
        ("", []),
    ],
)
def test_what_counts_as_invented(answer: str, invented: list[str], known: KnownNames) -> None:
    found = inventions_in(answer, "What is bought?", (), known, "python")
    assert [f"{one.kind}: {one.name}" for one in found] == invented


def test_what_the_question_and_the_documents_name_exists(known: KnownNames) -> None:
    (example,) = raft_examples(1)
    name = example.oracle_documents[0].name
    for document in example.shown_documents:
        known.add_document(document)
    said = f"`{name}_all` is called, `wish_list` is not."
    assert inventions_in(said, "What of `wish_list`?", example.shown_documents, known) == ()


class Parrot:
    """Says the same to everything."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def reply(self, messages: Sequence[Message], max_new_tokens: int = 0) -> str:
        return self.answers.pop(0)


def test_the_rate_is_the_share_of_answers_that_invent() -> None:
    examples = raft_examples(4)
    answers = [
        "It calls `made_up_here`.",
        f"See [{examples[1].oracle_documents[0].citation}].",
        "No.",
        "`also_made_up()`",
    ]
    assert evaluate_hallucination_rate(Parrot(*answers), examples) == 0.5
    report = measure_hallucination(Parrot(*answers), examples)
    assert (report.n_answers, report.by_kind) == (4, {"name": 2})
    with pytest.raises(ValueError, match="at least one question"):
        evaluate_hallucination_rate(Parrot(), [])


def test_a_model_without_a_tokenizer_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match=r"give Scoring\(generator, tokenizer\)"):
        evaluate_hallucination_rate(object(), raft_examples(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        "`a` takes takes parameters " * 5000,
        "```python\n" + "(" * 50_000,
        "`" * 100_000,
        "a_b " * 50_000,
        "[" * 50_000,
        "\n" * 100_000,
        f"```python\n{'a' * 100_000}\n```",
    ],
    ids=["takes", "brackets", "ticks", "words", "citations", "lines", "name"],
)
@pytest.mark.timeout(20)
def test_hostile_answers_take_no_longer_than_others(answer: str, known: KnownNames) -> None:
    inventions_in(answer, "What?", (), known, "python")
    known.add_text(answer)


@pytest.mark.parametrize("language", languages_with_names())
def test_every_language_has_its_standard_names(language: str) -> None:
    assert len(standard_names(language).words) > 5_000


def test_standard_names_are_those_of_the_running_python() -> None:
    import json
    import os.path

    containers = standard_names("python").containers
    assert {name for name in dir(json) if not name.startswith("_")} <= containers["json"]
    assert {"join", "exists"} <= containers["os.path"] & set(dir(os.path))
