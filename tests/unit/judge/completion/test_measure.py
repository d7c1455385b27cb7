"""What a completion is worth, and base against tuned: a planted better model is better, the same one is not."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ai_forge.data_pipeline.gaps.cutting import Gap, chosen, gaps_in
from ai_forge.data_pipeline.gaps.neighbours import neighbours
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.judge.completion.measure import BATCH, complete_all, figures_of
from ai_forge.prompting.chat import ChatTokenizer
from tiny_models import make_tiny

SOURCE = "".join(
    f"def f{n}(value):\n    total_{n} = summed(value, {n})\n    return doubled_{n}(total_{n})\n\n\n" for n in range(4)
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder)
    return ChatTokenizer(Path(folder))


class Knowing:
    """A model that writes the truth (`knows`) or nonsense; the truth costs it 1 nat a token, or 3."""

    def __init__(self, tokenizer: ChatTokenizer, knows: bool) -> None:
        self.tokenizer, self.knows, self.prompts = tokenizer, knows, [""]

    def answer(
        self, prompts: Sequence[Sequence[int]], references: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[list[int], float]]:
        self.prompts += [self.tokenizer.decode(prompt) for prompt in prompts]
        wrong = self.tokenizer.encode("nothing(like, it)")
        return [(list(ref) if self.knows else wrong, len(ref) * (1.0 if self.knows else 3.0)) for ref in references]


def gaps(n_files: int = 6) -> list[Gap]:
    return chosen([gap for n in range(n_files) for gap in gaps_in(f"a{n}.py", "python", SOURCE)], 24)


def test_a_planted_better_model_is_better_and_the_same_one_is_not(tokenizer: ChatTokenizer) -> None:
    asked = gaps()
    loads = {False: Knowing(tokenizer, False), True: Knowing(tokenizer, True)}
    rows = complete_all(asked, loads.__getitem__, tokenizer, lambda gap: (), budget_s=60, progress=lambda *told: None)  # type: ignore[arg-type]
    assert len(rows) == 4 * len(asked)
    for figures in figures_of(rows):
        assert (figures.n, figures.n_files) == (len(asked), 6)
        assert figures.tuned["exact"] == 1.0
        assert figures.base["exact"] == 0.0
        for name in ("exact", "edit_similarity", "names_right"):
            low = figures.difference[name].low
            assert low is not None
            assert low > 0
        high = figures.difference["nats_per_byte"].high
        assert high is not None
        assert high < 0
    same = [row for row in rows if not row.tuned]
    both = [*same, *(row.model_copy(update={"tuned": True}) for row in same)]
    assert all(estimate.value == 0 for one in figures_of(both) for estimate in one.difference.values())


def test_the_truth_is_in_no_prompt(tokenizer: ChatTokenizer) -> None:
    model = Knowing(tokenizer, True)
    only = [gap for gap in gaps_in("a.py", "python", SOURCE) if gap.kind == "line"]
    complete_all(only, lambda tuned: model, tokenizer, lambda gap: (), budget_s=60, progress=lambda *told: None)  # type: ignore[arg-type,return-value]
    for gap, prompt in zip(only, model.prompts[1:], strict=False):
        assert gap.text not in prompt
        assert gap.prefix.strip()[-20:] in prompt


def test_the_tuned_model_gets_what_the_base_had_time_for(tokenizer: ChatTokenizer) -> None:
    rows = complete_all(
        gaps(),
        lambda tuned: Knowing(tokenizer, tuned),
        tokenizer,
        lambda gap: (),
        budget_s=0,
        progress=lambda *told: None,  # type: ignore[arg-type,return-value]
    )
    assert [sum(row.tuned is tuned for row in rows) for tuned in (False, True)] == [2 * BATCH, 2 * BATCH]


def test_context_comes_from_other_files_than_the_gaps() -> None:
    gap = next(gap for gap in gaps_in("a.py", "python", SOURCE) if gap.kind == "line")
    entries = [
        Entry("a.py", 1, 3, "f0", "function", "python", SOURCE),
        Entry("b.py", 1, 2, "summed", "function", "python", "def summed(value, n):\n    return value + n"),
        Entry("commit:1", 1, 1, "summed", "commit", "text", "summed value"),
    ]
    assert [document.path for document in neighbours(gap.path, gap.prefix, QuestionIndex.build(entries))] == ["b.py"]


def test_nothing_completed_has_no_figures() -> None:
    assert figures_of([]) == []
