"""The contenders on a tiny random model, end to end; perplexity against the Hugging Face computation."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas import Document
from ai_forge.events import Event, StageProgress
from ai_forge.judge.evaluator import CONTENDERS, TUNED, Evaluation, Evaluator, HeldOut, code_windows, compute_perplexity
from ai_forge.judge.scoring import rouge_l
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import messages_for
from ai_forge.serving.runtime import Completion
from ai_forge.training.backends.base import Generator
from ai_forge.training.backends.torch_model import TorchGenerator
from ai_forge.training.tokens.packing import TokenizedExample
from tiny_models import make_tiny
from tiny_training import document, raft_examples, random_examples, reference_log_probs, reference_model

CODE = "def first(values):\n    return values[0]\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    root = tmp_path_factory.mktemp("evaluator")
    return {tuned: make_tiny(root / str(tuned), seed=int(tuned)) for tuned in (False, True)}


def test_perplexity_equals_the_hugging_face_computation(folders: dict[bool, Path]) -> None:
    examples = random_examples(5)
    model = reference_model(folders[False])
    nats, n_tokens = 0.0, 0
    for example in examples:  # as in transformers' guide "Perplexity of fixed-length models"
        labels = torch.tensor([example.ids])
        labels[:, : example.n_prompt] = -100
        with torch.no_grad():
            loss = model(torch.tensor([example.ids]), labels=labels).loss
        nats += float(loss) * example.n_supervised
        n_tokens += example.n_supervised
    ours = compute_perplexity(TorchGenerator.load(folders[False], 2, exact=True), examples)
    assert ours == pytest.approx(math.exp(nats / n_tokens), rel=1e-4)


def test_perplexity_of_nothing_is_an_error(folders: dict[bool, Path]) -> None:
    with pytest.raises(ValueError, match=r"^perplexity needs at least one supervised token$"):
        compute_perplexity(TorchGenerator.load(folders[False], 2), [])


@pytest.mark.parametrize("n", [0, 1, 2, 9, 10, 11, 18, 19, 20, 100])
def test_windows_score_every_token_but_the_first_once(n: int) -> None:
    windows = code_windows(list(range(n)), size=10)
    scored = [token for window in windows for token in window.ids[window.n_prompt :]]
    assert scored == list(range(1, n))
    assert all(len(window.ids) <= 10 for window in windows)


class FromTrainer:
    """Answers with the trainer's model where a deployed file would."""

    def __init__(self, model: Generator, tokenizer: ChatTokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    def completions(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Completion]:
        told = self._model.generate(prompts, max_tokens)
        texts = [self._tokenizer.decode(ids) for ids in told]
        return [Completion(text, 0, len(ids), tuple(ids)) for text, ids in zip(texts, told, strict=True)]


class Scripted:
    """Gives the same answer to everything, and counts."""

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, 0

    def completions(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Completion]:
        self.asked += len(prompts)
        return [Completion(self.answer, 0, 1, None) for _ in prompts]


@pytest.fixture(scope="module")
def evaluated(folders: dict[bool, Path]) -> tuple:  # type: ignore[type-arg]
    tokenizer = ChatTokenizer(folders[False])
    questions = raft_examples(3)
    settings = JudgeSettings(max_new_tokens=8)
    loaded: list[bool] = []
    heard: list[Event] = []

    def load(tuned: bool) -> Generator:
        loaded.append(tuned)
        return TorchGenerator.load(folders[tuned], tokenizer.end_of_turn_id, exact=True)

    def retrieve(question: str) -> Sequence[Document]:
        return (document("parse", 1), document("trim"))

    @contextmanager
    def serve(tuned: bool, num_ctx: int) -> Iterator[FromTrainer]:
        yield FromTrainer(TorchGenerator.load(folders[tuned], tokenizer.end_of_turn_id, exact=True), tokenizer)

    held_out = HeldOut(questions, raft_examples(8)[6:7], [("a.py", CODE), ("b.py", CODE * 3)])
    evaluation = Evaluator(load, serve, tokenizer, retrieve, settings, heard.append).evaluate(held_out)
    return evaluation, questions, tokenizer, loaded, heard


def test_every_contender_answers_every_question(evaluated: tuple) -> None:  # type: ignore[type-arg]
    evaluation, questions, _, loaded, heard = evaluated
    assert loaded == [False, True]
    assert [(a.contender, a.question) for a in evaluation.answers] == [
        (c.name, q.question) for c in CONTENDERS for q in questions
    ]
    assert evaluation.n_worked_examples == 1
    progress = [e for e in heard if isinstance(e, StageProgress)]
    asked, losses = ([e for e in progress if e.note.startswith("losses") is said] for said in (False, True))
    assert (asked[-1].done, asked[-1].total) == (15, 15)
    # each answer, and of each model two files and the general texts
    assert [e.done for e in losses] == list(range(1, 22))
    assert losses[-1].total == 21


def test_loss_and_answer_are_those_of_the_contenders_own_prompt(
    evaluated: tuple,  # type: ignore[type-arg]
    folders: dict[bool, Path],
) -> None:
    evaluation, questions, tokenizer, _, _ = evaluated
    models = {tuned: reference_model(folder) for tuned, folder in folders.items()}
    shown = (document("parse", 1), document("trim"))
    for contender in CONTENDERS:
        worked = raft_examples(8)[6:7] if contender.worked_examples else []
        for answer, question in zip(evaluation.of(contender.name), questions, strict=True):
            prompt = tokenizer.encode_prompt(
                messages_for(question.question, shown if contender.retrieval else (), worked)
            )
            reference = TokenizedExample((*prompt, *tokenizer.encode_target(question.target)), len(prompt))
            model = models[contender.is_tuned]
            assert answer.loss == pytest.approx(-float(reference_log_probs(model, reference).sum()), rel=1e-4)
            assert answer.n_tokens == reference.n_supervised
            ids = torch.tensor([prompt])
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=8,
                eos_token_id=2,
                pad_token_id=2,
            )
            assert answer.answer == tokenizer.decode(whole[0, len(prompt) :].tolist())
            assert answer.similarity == rouge_l(answer.answer, question.target)


def test_the_oracle_is_shown_only_where_it_was_retrieved(evaluated: tuple) -> None:  # type: ignore[type-arg]
    evaluation = evaluated[0]
    assert [a.oracle_shown for a in evaluation.of("tuned + retrieval")] == [True, False, False]
    assert [a.oracle_shown for a in evaluation.of("tuned")] == [False, False, False]


def test_code_is_scored_by_both_models(evaluated: tuple, folders: dict[bool, Path]) -> None:  # type: ignore[type-arg]
    evaluation, _, tokenizer, _, _ = evaluated
    assert [(c.path, c.n_bytes) for c in evaluation.code] == [("a.py", len(CODE)), ("b.py", 3 * len(CODE))]
    (window,) = code_windows(tokenizer.encode(CODE))
    for tuned, value in ((False, evaluation.code[0].base_nats), (True, evaluation.code[0].tuned_nats)):
        expected = -float(reference_log_probs(reference_model(folders[tuned]), window).sum())
        assert value == pytest.approx(expected, rel=1e-4)


def asked(folders: dict[bool, Path], base: str, tuned: str, **settings: float) -> tuple[Evaluation, int]:
    """What is measured where base and tuned model answer everything alike, and how many questions each was asked."""
    tokenizer = ChatTokenizer(folders[False])
    one = raft_examples(1)[0]
    questions = [one.model_copy(update={"subject_path": f"f{i}.py", "question": f"What is {i}?"}) for i in range(48)]
    served = {False: Scripted(base), True: Scripted(tuned.format(citation=one.oracle_documents[0].citation))}
    evaluator = Evaluator(
        lambda tuned: TorchGenerator.load(folders[tuned], tokenizer.end_of_turn_id),
        lambda tuned, num_ctx: nullcontext(served[tuned]),
        tokenizer,
        lambda question: (),
        JudgeSettings(max_new_tokens=8, **settings),  # type: ignore[arg-type]
    )
    evaluation = evaluator.evaluate(HeldOut(questions, [], []), (CONTENDERS[1], CONTENDERS[4]))
    return evaluation, served[True].asked


def test_no_more_is_asked_once_they_can_be_told_apart(folders: dict[bool, Path]) -> None:
    evaluation, n_asked = asked(folders, base="No.", tuned="It is. [{citation}]")
    assert n_asked == 12
    assert [len(evaluation.of(name)) for name in (CONTENDERS[1].name, TUNED)] == [12, 12]
    assert evaluation.n_looks == 3


def test_all_is_asked_where_they_answer_alike(folders: dict[bool, Path]) -> None:
    assert asked(folders, base="No.", tuned="No.")[1] == 48


def test_no_further_questions_beyond_the_time(folders: dict[bool, Path]) -> None:
    assert asked(folders, base="No.", tuned="No.", time_budget_s=1e-9)[1] == 12


def test_general_texts_are_scored_by_both_models(evaluated: tuple) -> None:  # type: ignore[type-arg]
    general = evaluated[0].general
    assert {score.kind for score in general} == {"code", "chat"}
    assert all(
        score.base_nats > 0 and score.tuned_nats > 0 and score.base_nats != score.tuned_nats for score in general
    )
