"""Stage `evaluate` of the recipe `repository`: base and tuned model on held-out questions and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.events import Event, Notice
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.dataset import DatasetSummary, held_out_code, team_questions
from ai_forge.pipeline.stages.export import base_gguf_of, gguf_of
from ai_forge.pipeline.stages.index import IndexSummary
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.prompting.prompt import messages_for
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from ai_forge.judge.evaluation import Contender
    from ai_forge.judge.looked import ServedSpeed
    from ai_forge.pipeline.run import Run
    from ai_forge.serving.llama_server import LlamaServer

FILE = "evaluation.json"
SPEED_FILE = "speed.json"  # apart: seconds are others each time, and all else is the same
MOST_TOLD = 3  # of the questions that are left out; the report names all
# these change no answer, only how what was measured is judged
WHAT_ONLY_THE_VERDICT_READS = {"forgetting_budget", "general_code_budget", "general_chat_budget"}
ASKED = ("merge", "export", "base-export")  # the trainer's weights for losses, the files of both for answers


class JudgedSummary(Summary):
    """Of every recipe's judging: what a freshly deployed model is asked first."""

    first_question: str


class EvaluateSummary(JudgedSummary):
    """How much was asked."""

    questions: int
    code_files: int
    people_questions: int = 0

    def sentence(self) -> str:
        """In a few words."""
        people = f"{self.people_questions} questions of people, " if self.people_questions else ""
        return f"{people}{self.questions} held-out questions, {self.code_files} held-out files"


def key_of_asked(run: Run, outputs: Outputs) -> dict[str, str]:
    """What decides which weights and files are asked; the base stands in what was merged onto it."""
    return {"merge": outputs.key("merge"), "served": run.settings.export.quantization}


def evaluation_stage(contenders: Sequence[Contender] | None = None) -> Stage:
    """The stage, where only `contenders` answer; all five where they are left out."""

    def chosen() -> Sequence[Contender]:
        from ai_forge.judge.evaluation import CONTENDERS

        return CONTENDERS if contenders is None else contenders

    def inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
        dataset = outputs.summary("dataset", DatasetSummary)
        return {
            **key_of_asked(run, outputs),
            "data": [dataset.content, dataset.judged],
            "index": outputs.summary("index", IndexSummary).content,
            "settings": run.settings.judge.model_dump(exclude=WHAT_ONLY_THE_VERDICT_READS),
            "budget": run.settings.synthesis.max_context_tokens,
            "contenders": [contender.name for contender in chosen()],
        }

    return Stage(
        "evaluate",
        (*ASKED, "dataset", "index"),
        6,
        inputs,
        lambda context: _build(context, chosen()),
        EvaluateSummary,
        (
            "ai_forge.judge.evaluation",
            "ai_forge.judge.questions.held_out",
            "ai_forge.judge.metrics.served",
            "ai_forge.judge.questions.people",
            "ai_forge.judge.scoring",
            "ai_forge.judge.questions.team_questions",
            "ai_forge.data_pipeline.search.context",
            "ai_forge.serving.llama_server",
        ),
    )


def _build(context: StageContext, contenders: Sequence[Contender]) -> EvaluateSummary:
    from ai_forge.judge.evaluation import Evaluator, HeldOut
    from ai_forge.judge.metrics.served import look_with
    from ai_forge.judge.questions.held_out import code_of, worked_examples_of
    from ai_forge.judge.questions.team_questions import still_there

    settings, outputs = context.run.settings, context.outputs

    def emit(event: Event) -> None:
        context.cancel.check()
        context.emit(event)

    # loaded by the evaluator, one after the other: base and tuned model together may not fit into memory
    load, find = partial(load_generator, context), partial(retrieve, context)
    index = context.opened.index(outputs)
    # what the index holds of the repository, not its blocks: whatever became of it meanwhile
    look = look_with((entry.document() for entry in index.entries), [context.run.repository_name])
    tokenizer = context.opened.tokenizer
    evaluator = Evaluator(load, partial(serve, context), tokenizer, find, settings.judge, emit, look)
    questions = held_out_questions(context)
    people, left_out = still_there(team_questions(outputs), index)
    if left_out:
        named = "; ".join(f"{one.question!r} ({', '.join(one.missing)})" for one in left_out[:MOST_TOLD])
        more = f"; and {len(left_out) - MOST_TOLD} more" if len(left_out) > MOST_TOLD else ""
        text = f"{len(left_out)} questions of people not asked, nothing that answers them is found: {named}{more}."
        context.emit(Notice("warning", f"{text} See ai-forge questions check."))
    held_out = HeldOut(
        questions=questions,
        worked_examples=worked_examples_of(context.opened.examples(outputs, "train"), settings.judge),
        code=code_of(held_out_code(outputs), settings.judge),
        people=people,
        left_out=left_out,
    )
    evaluation = evaluator.evaluate(held_out, contenders)
    if any(contender.is_tuned for contender in contenders):
        speed = _speed(context, [q.question for q in questions])
        atomic_write(context.folder / SPEED_FILE, speed.model_dump_json(indent=1))
    atomic_write(context.folder / FILE, evaluation.model_dump_json(indent=1))
    # what something is for reads best as the first question of a freshly deployed model
    first = next((e.question for e in questions if e.family == "purpose"), questions[0].question)
    # fewer than there are, where they were told apart early
    asked = len({answer.question for answer in evaluation.answers})
    return EvaluateSummary(
        questions=asked,
        code_files=len(held_out.code),
        first_question=first,
        people_questions=evaluation.people.n_asked,
    )


def _speed(context: StageContext, questions: Sequence[str]) -> ServedSpeed:
    """How fast the tuned model's file answers, one question after the other, with the documents that a user's are shown."""
    from ai_forge.judge.metrics.served import N_PROMPTS, N_TOKENS, speed_of
    from ai_forge.serving.llama_server import LlamaServer

    tokenizer = context.opened.tokenizer
    prompts = [tokenizer.encode_prompt(messages_for(q, retrieve(context, q))) for q in questions[:N_PROMPTS]]
    context.report(0, 0, "speed")
    with LlamaServer(gguf_of(context.run, context.outputs), max(map(len, prompts)) + N_TOKENS + 8) as server:
        return speed_of(server, prompts)


def serve(context: StageContext, tuned: bool, num_ctx: int) -> LlamaServer:
    """The exported file of the tuned model or the base, in the type that is deployed; `num_ctx` tokens for each answer."""
    from ai_forge.serving.llama_server import LlamaServer

    run, outputs = context.run, context.outputs
    file = gguf_of(run, outputs) if tuned else base_gguf_of(outputs)
    # some tokens more: llama.cpp keeps a few back
    return LlamaServer(file, num_ctx + 8, n_slots=run.settings.runtime.slots)


def held_out_questions(context: StageContext) -> list[RAFTExample]:
    """The test questions that the judge asks."""
    from ai_forge.judge.questions.held_out import questions_of

    examples = context.opened.examples(context.outputs, "test")
    # excerpts and functions with a gap are not in the index: nobody who is shown what is found could answer about them
    findable = {entry.id for entry in context.opened.index(context.outputs).entries}
    return questions_of(examples, findable, context.run.settings.judge)


def retrieve(context: StageContext, question: str) -> tuple[Document, ...]:
    """The documents that are shown with a question."""
    settings = context.run.settings
    index = context.opened.index(context.outputs)
    k, max_tokens = settings.judge.retrieved_documents, settings.synthesis.max_context_tokens
    return documents_for(question, index, k=k, max_tokens=max_tokens)


EVALUATE = evaluation_stage()
