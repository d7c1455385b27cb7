"""Natural questions, written by a stand-in: what is kept, what becomes a refusal, where it continues."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ai_forge.data_pipeline.schemas import Document
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.losses.distillation_loss import distillation_loss
from ai_forge.training.natural import Asked, NaturalWriter, Subject
from ai_forge.training.scribe import Scribe, best_of, certain, demanded
from ai_forge.training.tokens.packing import Batch, TeacherTokens, tokenize
from tiny_models import make_tiny
from tiny_training import document


class Scripted:
    """A writer that answers each prompt by what it finds in it."""

    def __init__(self, tokenizer: ChatTokenizer, *, reads_many: bool, room: int = 100) -> None:
        self.tokenizer, self.reads_many, self.room = tokenizer, reads_many, room
        self.calls: list[int] = []

    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float, top_p: float, seed: int
    ) -> list[tuple[list[int], bool]]:
        if len(prompts) > self.room:
            raise MemoryError("too many")
        self.calls.append(len(prompts))
        return [(self.tokenizer.encode(self.reply(self.tokenizer.decode(p), n)), True) for n, p in enumerate(prompts)]

    def reply(self, prompt: str, number: int) -> str:
        if "Write 4 different questions" in prompt:
            if "`load`" in prompt:
                return "1. How do I load all the values at once?\n2. Why does loading a value call load all?"
            return "1. How do I merge two values into one?"
        if "do not hold its answer" in prompt:
            return "I can't tell from what is shown: it does not say how values are merged, only how they are loaded."
        if number % 2:
            return "You load them all at once with `load`, which hands each value on to `load_all`."  # cites nothing
        return "To load all the values you call `load`, which hands the value on to `load_all` [src/load.py:1-2]."

    def top_tokens(self, batch: Batch, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        n = batch.n_supervised
        return np.tile(np.arange(k, dtype=np.int32), (n, 1)), np.full((n, k), -3.0, dtype=np.float32)


LOAD, MERGE, OTHER = document("load"), document("merge"), document("parse")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(make_tiny(tmp_path_factory.mktemp("tiny") / "m"))


def writer_in(folder: Path, script: Scripted, monkey_seed: int = 0) -> NaturalWriter:
    folder.mkdir(exist_ok=True)
    return NaturalWriter(
        scribe=Scribe(script, script.tokenizer, monkey_seed, samples=2),
        folder=folder,
        project="tiny",
        find=lambda question, side: (LOAD, OTHER),
        far=lambda question, side, files: tuple(d for d in (LOAD, OTHER) if d.path not in files),
        progress=lambda *_: None,
    )


def subjects(*documents: Document) -> list[Subject]:
    return [Subject("train", (each,)) for each in documents]


@pytest.mark.parametrize("reads_many", [True, False])
def test_questions_that_find_their_place_are_answered(
    tokenizer: ChatTokenizer, tmp_path: Path, reads_many: bool
) -> None:
    writer = writer_in(tmp_path / "w", Scripted(tokenizer, reads_many=reads_many))
    asked = writer.ask(subjects(LOAD), 10, "train")
    assert [a.question for a in asked] == [
        "How do I load all the values at once?",
        "Why does loading a value call load all?",
    ]
    answered = writer.answer(asked)
    assert [text for _, text in answered] == [
        "To load all the values you call `load`, which hands the value on to `load_all` [src/load.py:1-2]."
    ] * 2
    assert writer.dropped == {"cites_nothing": 2}
    example = answered[0][0].example(answered[0][1])
    assert [d.name for d in example.oracle_documents] == ["load"]
    assert [d.name for d in example.distractor_documents] == ["parse"]
    assert example.family == "natural"
    tokens = writer.top_tokens(answered)
    assert [len(t.ids) for t in tokens] == [tokenize(a.example(t), tokenizer).n_supervised for a, t in answered]


def test_a_question_whose_place_is_not_found_is_dropped_or_refused_honestly(
    tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    outcomes = set()
    for seed in range(12):  # which of the two is drawn by the seed
        writer = writer_in(tmp_path / str(seed), Scripted(tokenizer, reads_many=True), seed)
        asked = writer.ask(subjects(MERGE), 10, "train")
        if not asked:
            assert writer.dropped == {"question_not_found": 1}
            outcomes.add("dropped")
            continue
        (one,) = asked
        assert one.refusal
        ((_, text),) = writer.answer(asked)
        example = one.example(text)
        assert (example.oracle_documents, example.family) == ((), "natural_refusal")
        outcomes.add("refused")
    assert outcomes == {"dropped", "refused"}


def test_what_was_written_is_not_written_again(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    first = Scripted(tokenizer, reads_many=False)
    writer = writer_in(tmp_path / "w", first)
    answered = writer.answer(writer.ask(subjects(LOAD), 10, "train"))
    path = tmp_path / "w" / "answered.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0] + '{"question": "torn')
    again = Scripted(tokenizer, reads_many=False)
    continued = writer_in(tmp_path / "w", again)
    assert continued.answer(continued.ask(subjects(LOAD), 10, "train")) == answered
    assert (len(first.calls), len(again.calls)) == (3, 1)  # a prompt of questions and two of answers; one answer anew
    assert continued.dropped == writer.dropped


def test_too_many_at_a_time_become_fewer(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    script = Scripted(tokenizer, reads_many=True, room=1)
    writer = writer_in(tmp_path / "w", script)
    asked = [
        Asked(side="train", question=f"How do I load value number {n}?", subject=(LOAD,), shown=(LOAD,))
        for n in range(3)
    ]
    assert len(writer.answer(asked)) == 3
    assert set(script.calls) == {1}


def test_what_the_checks_demand_is_certain_and_the_rest_is_what_the_writer_thought(tokenizer: ChatTokenizer) -> None:
    asked = Asked(side="train", question="How do I load all the values?", subject=(LOAD,), shown=(LOAD, OTHER))
    answer = "You call `load` [src/load.py:1-2], and that is all."
    which = demanded(answer, asked.demanded(answer), tokenizer)
    target = tokenizer.encode_target(answer)
    assert len(which) == len(target)
    assert tokenizer.decode([i for i, yes in zip(target, which, strict=True) if yes]).strip() == "[src/load.py:1-2]"
    assert not which[-1]
    refusal = asked.model_copy(update={"refusal": True})
    assert all(demanded(answer, refusal.demanded(answer), tokenizer))

    n, k = len(target), 4
    thought = TeacherTokens(np.tile(np.arange(k, dtype=np.int32), (n, 1)), np.log(np.full((n, k), 0.2, np.float32)))
    made = certain(thought, target, which)
    for place, yes in enumerate(which):
        if yes:
            assert (made.ids[place, 0], made.log_probs[place, 0]) == (target[place], 0.0)
            assert np.exp(made.log_probs[place, 1:]).sum() < 1e-12
            assert len(set(made.ids[place].tolist())) == k
        else:
            assert (made.ids[place] == thought.ids[place]).all()
            assert (made.log_probs[place] == thought.log_probs[place]).all()
    # the divergence from what is certain is the loss of the written token
    student = torch.log_softmax(torch.randn(1, 1000), 1)
    first = which.index(True)
    picked = student[:, torch.as_tensor(made.ids[first].astype(np.int64))]
    assert distillation_loss(made.log_probs[first : first + 1])(picked).item() == pytest.approx(
        -student[0, target[first]].item(), abs=1e-4
    )


def test_of_several_answers_the_one_that_says_what_most_say_is_taken() -> None:
    asked = Asked(side="train", question="How do I load all the values?", subject=(LOAD,), shown=(LOAD, OTHER))
    usual = "To load all the values you call `load`, which hands each value on to `load_all` [src/load.py:1-2]."
    other = "To load all the values you call `load` [src/load.py:1-2]; it opens sockets, waits for rain and sorts planets twice."
    alike = usual.replace("To load all the values", "So as to load all the values")
    best = best_of([(other, True), (usual, True), (alike, True), (usual, False)], asked.problem_of)
    assert best["answer"] == usual
    shown = f"{usual}\n\n```python\nload()\n```"
    assert best_of([(usual, True), (alike, True), (shown, True)], lambda _: None, asked.wanted_in)["answer"] == shown
    where = asked.model_copy(update={"question": "Where are all the values loaded?"})
    assert best_of([(usual, True), (alike, True), (shown, True)], lambda _: None, where.wanted_in)["answer"] != shown
    assert best["dropped"] == {"cut_off": 1}
