"""The stages of `--recipe dataset` that are its own: a file of examples instead of a repository.

FILE  dataset (split, no secrets) → train → merge → export → evaluate (held-out answers, base against tuned) → report
                                                        └→ parity
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.datasets.chat_split import SIDES, split_chats
from ai_forge.data_pipeline.datasets.formats import read_dataset
from ai_forge.data_pipeline.datasets.storage import read_jsonl, write_jsonl
from ai_forge.data_pipeline.schemas.chats import ChatExample
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary, keyed_by_files
from ai_forge.pipeline.stages.evaluate import ASKED, WHAT_ONLY_THE_VERDICT_READS, JudgedSummary, key_of_asked, serve
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.pipeline.stages.parity import parity_stage
from ai_forge.pipeline.stages.report import ReportSummary, report_stage, summary_of
from ai_forge.pipeline.stages.train import TrainSummary, run_training, training_stage
from ai_forge.prompting.prompt import Message
from ai_forge.workspace import atomic_write, stage_key

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run
    from ai_forge.training.record import TrainingResult

FILE = "answers.json"


class ChatsSummary(Summary):
    """Conversations by side, what was left out, and the system message that all of them begin with, if they do."""

    format: str
    train: int
    valid: int
    test: int
    rejected: dict[str, int]
    system: str
    content: str

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.train} examples to train on, {self.valid} to stop on, {self.test} held out ({self.format})"


def _deal(context: StageContext) -> ChatsSummary:
    dataset = read_dataset(context.run.repository)
    split = split_chats(dataset)
    for side in SIDES:
        write_jsonl(context.folder / f"{side}.jsonl", split.sides[side])
    counts = {side: len(split.sides[side]) for side in SIDES}
    ids = {side: [chat.id for chat in split.sides[side]] for side in SIDES}
    # a deployed model is told before every chat what all of its examples began with; where they differ, nothing
    first = [chat.messages[0] for side in SIDES for chat in split.sides[side]]
    systems = {message.content if message.role == "system" else "" for message in first}
    return ChatsSummary(
        format=dataset.format,
        **counts,
        rejected=dict(split.rejected),
        system=systems.pop() if len(systems) == 1 else "",
        content=stage_key(**ids),
    )


def chats_of_side(outputs: Outputs, side: str) -> list[ChatExample]:
    """The conversations of a side."""
    return read_jsonl(outputs.folder("dataset") / f"{side}.jsonl", ChatExample)


def _content(outputs: Outputs) -> str:
    return outputs.summary("dataset", ChatsSummary).content


def _fit(context: StageContext) -> TrainingResult:
    from ai_forge.training.chats import ChatTrainer

    sides = [chats_of_side(context.outputs, side) for side in ("train", "valid")]
    result: TrainingResult = run_training(context, ChatTrainer, "train_chats", *sides)
    return result


class AnswersSummary(JudgedSummary):
    """How many conversations were answered."""

    questions: int

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.questions} held-out conversations"


def _evaluate_inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    settings = run.settings.judge.model_dump(
        exclude=WHAT_ONLY_THE_VERDICT_READS | {"retrieved_documents", "code_bytes"}
    )
    return {
        "recipe": run.recipe,
        **key_of_asked(run, outputs),
        "data": _content(outputs),
        "settings": settings,
    }


def _evaluate(context: StageContext) -> AnswersSummary:
    from ai_forge.judge.questions.chats import evaluate_chats

    settings, outputs = context.run.settings.judge, context.outputs
    asked = chats_of_side(outputs, "test")[: settings.n_questions]
    by_length = sorted(chats_of_side(outputs, "train"), key=lambda chat: sum(len(t.content) for t in chat.messages))
    first = len(by_length) // 4  # short ones leave room for the question, the very shortest show little
    worked = by_length[first : first + settings.n_worked_examples]
    load, served = partial(load_generator, context), partial(serve, context)
    evaluation = evaluate_chats(load, served, context.opened.tokenizer, asked, worked, settings, context.report)
    atomic_write(context.folder / FILE, evaluation.model_dump_json(indent=1))
    return AnswersSummary(questions=len(asked), first_question=asked[0].messages[-2].content)


def _chats(context: StageContext) -> list[list[Message]]:
    from ai_forge.training.chats import prompt_of

    held_out = chats_of_side(context.outputs, "test")
    return [prompt_of(chat) for chat in held_out[: context.run.settings.export.parity_prompts]]


def _report(context: StageContext) -> ReportSummary:
    from ai_forge.judge.questions.chats import ChatEvaluation, chat_report, judge_chats

    outputs, settings, base = context.outputs, context.run.settings.judge, context.opened.base
    evaluation = outputs.read("evaluate", FILE, ChatEvaluation)
    verdict = judge_chats(evaluation, settings)
    data = outputs.summary("dataset", ChatsSummary)
    figures = {
        "base": f"{base.name} ({base.origin.description})",
        "examples": data.sentence(),
        "left out": json.dumps(data.rejected) if data.rejected else "none",
        "training": outputs.summary("train", TrainSummary).sentence(),
    }
    atomic_write(context.folder / "report.md", chat_report(verdict, evaluation, figures, settings))
    return summary_of(verdict, "report.md")


SPLIT, JUDGE = ("ai_forge.data_pipeline.datasets.chat_split",), ("ai_forge.judge.questions.chats",)
FILE_DATASET = Stage("dataset", (), 1, keyed_by_files, _deal, ChatsSummary, SPLIT)
FILE_TRAIN = training_stage(_fit, _content, ("ai_forge.training.chats",))
FILE_EVALUATE = Stage("evaluate", (*ASKED, "dataset"), 2, _evaluate_inputs, _evaluate, AnswersSummary, JUDGE)
FILE_PARITY = parity_stage(_chats, lambda run, outputs: _content(outputs), ("dataset",))
FILE_REPORT = report_stage(_report, JUDGE)
