"""Code to complete as tokens: what a judge would ask, the missing text, its end; cut where it is long; learned by a tiny base."""

import sysconfig
from pathlib import Path

import pytest

from ai_forge.data_pipeline.gaps.cutting import chosen, gaps_in
from ai_forge.data_pipeline.gaps.examples import completion_examples
from ai_forge.data_pipeline.schemas.completions import CompletionExample
from ai_forge.errors import InputError
from ai_forge.events import Event, StepLogged
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.completion import FimTokens, fim_prompt
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.tokens.completions import require_fim, tokenize_completions
from ai_forge.workspace import Workspace
from tiny_models import make_tiny, make_tiny_fim
from tiny_training import document, raft_examples, tiny_config

END = 0  # <|endoftext|>


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_fim(tmp_path_factory.mktemp("fim") / "base", hidden=128, inner=256)


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> ChatTokenizer:
    return ChatTokenizer(base)


@pytest.fixture(scope="module")
def fim(tokenizer: ChatTokenizer) -> FimTokens:
    return require_fim(tokenizer, "tiny")


@pytest.fixture(scope="module")
def examples() -> list[CompletionExample]:
    """Of a real file, half of them with a document of another one."""
    text = (Path(sysconfig.get_path("stdlib")) / "textwrap.py").read_text()
    gaps = chosen(gaps_in("textwrap.py", "python", text, min_bytes=50), 24, per_file=24)
    return completion_examples(gaps, lambda gap: [document("load")], seed=1)[0]


def test_an_example_is_what_is_asked_then_the_missing_text_and_its_end(
    examples: list[CompletionExample], fim: FimTokens, tokenizer: ChatTokenizer
) -> None:
    made, n_too_long = tokenize_completions(examples, fim, tokenizer, 4096)
    assert (len(made), n_too_long) == (len(examples), 0)
    for example, tokens in zip(examples, made, strict=True):
        asked = fim_prompt(fim, example.path, example.prefix, example.suffix, example.documents)
        assert list(tokens.ids[: tokens.n_prompt]) == tokenizer.encode(asked)
        assert tokenizer.decode(tokens.ids[tokens.n_prompt :]) == example.text
        assert tokens.ids[-1] == END
        assert tokens.ids.count(END) == 1
    assert len({tokens.context for tokens in made}) == len(made)
    assert {bool(example.documents) for example in examples} == {False, True}


def test_what_is_long_is_cut_far_from_the_gap(
    examples: list[CompletionExample], fim: FimTokens, tokenizer: ChatTokenizer
) -> None:
    whole, _ = tokenize_completions(examples, fim, tokenizer, 4096)
    limit = sorted(len(tokens.ids) for tokens in whole)[len(whole) // 2]
    made, n_too_long = tokenize_completions(examples, fim, tokenizer, limit)
    assert len(made) + n_too_long == len(examples)
    assert all(len(tokens.ids) <= limit for tokens in made)
    texts = {example.text: example for example in examples}
    n_cut = 0
    for tokens in made:
        example = texts[tokenizer.decode(tokens.ids[tokens.n_prompt :])]
        before, _, after = "".join(asked_text(tokens.ids[: tokens.n_prompt], tokenizer)).partition(fim.suffix)
        before, after = before.rpartition(fim.prefix)[2], after.removesuffix(fim.middle)
        assert example.prefix.endswith(before)
        assert example.suffix.startswith(after)
        n_cut += tokens.ids not in {each.ids for each in whole}
    assert n_cut > 0
    none, n_too_long = tokenize_completions(examples, fim, tokenizer, 8)
    assert (none, n_too_long) == ([], len(examples))


def asked_text(ids: tuple[int, ...], tokenizer: ChatTokenizer) -> str:
    """The text of a prompt with its special tokens."""
    special = dict(
        zip(range(512, 516), ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>"), strict=True)
    )
    parts, run = [], list[int]()
    for token in ids:
        if token in special:
            parts += [tokenizer.decode(run), special[token]]
            run = []
        else:
            run.append(token)
    return "".join([*parts, tokenizer.decode(run)])


def test_a_tiny_base_learns_to_complete_among_its_questions(
    base: Path, examples: list[CompletionExample], tmp_path: Path
) -> None:
    workspace = Workspace.open(tmp_path / "home")
    events: list[Event] = []
    config = tiny_config(learning_rate=1e-2, max_steps=24, eval_steps=24, save_steps=24)
    resolved = resolve_base(str(base), cache_dir=workspace.cache_dir)
    folder = tmp_path / "work"
    folder.mkdir()
    trainer = FineTuneTrainer(config, base=resolved, folder=folder, workspace=workspace, emit=events.append)
    data = trainer.reading.examples(raft_examples(2), raft_examples(2), completions=examples[:6])
    assert sum(each.context.startswith("completion") for each in data.train) >= 5  # of 512 tokens at the most
    trainer.train(raft_examples(2), raft_examples(2), completions=examples[:6])
    losses = [event.loss for event in events if isinstance(event, StepLogged)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_base_without_the_tokens_is_told_so(examples: list[CompletionExample], tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(make_tiny(tmp_path / "plain"))
    with pytest.raises(InputError, match=r"Plain has no fill-in-the-middle tokens.*completion_share"):
        require_fim(tokenizer, "Plain")
