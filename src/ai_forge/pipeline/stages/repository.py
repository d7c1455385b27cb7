"""How the recipe `repository` trains: on questions about its code; and the chats that its GGUF is compared on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.errors import InputError
from ai_forge.pipeline.stage import Outputs, StageContext
from ai_forge.pipeline.stages.completions import CompletionsSummary, completions
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.pipeline.stages.evaluate import held_out_questions
from ai_forge.pipeline.stages.index import IndexSummary
from ai_forge.pipeline.stages.natural import NaturalSummary, mixed_with, natural_examples, read_teacher
from ai_forge.pipeline.stages.parity import parity_stage
from ai_forge.pipeline.stages.train import room_checks, run_training, training_stage
from ai_forge.preflight import require
from ai_forge.prompting.prompt import Message, messages_for

if TYPE_CHECKING:
    from ai_forge.data_pipeline.schemas import RAFTExample
    from ai_forge.pipeline.run import Run
    from ai_forge.training.forge import TrainingPlan
    from ai_forge.training.record import TrainingResult
    from ai_forge.training.tokens.packing import TeacherTokens


def _fit(context: StageContext) -> TrainingResult:
    from ai_forge.training.forge import FineTuneTrainer

    if context.run.settings.training.prompt_template != "chat":  # base and tuned model are asked in one form
        raise InputError(
            "training.prompt_template alpaca is for handbooks; questions about code go through the base's chat template.",
            "add --recipe handbook, or leave the setting out.",
        )
    teacher: dict[str, TeacherTokens] = {}
    if "natural" in context.outputs and context.run.settings.training.distillation > 0:
        teacher = read_teacher(context.outputs)
    gaps = completions(context.outputs)
    result: TrainingResult = run_training(context, FineTuneTrainer, "train", *_sides(context), None, teacher, gaps)
    return result


def _sides(context: StageContext) -> list[list[RAFTExample]]:
    """What is trained on and what is watched: the examples from structure, mixed with natural questions where there are any."""
    share, outputs = context.run.settings.synthesis.natural_share, context.outputs
    return [
        mixed_with(natural_examples(outputs, side), context.opened.examples(outputs, side), share)
        for side in ("train", "valid")
    ]


def plan_repository_training(context: StageContext) -> TrainingPlan:
    """Counts, tokens, memory and time of the training, by a few steps that train nothing."""
    from ai_forge.training.forge import FineTuneTrainer

    require(room_checks(context))
    plan: TrainingPlan = run_training(context, FineTuneTrainer, "plan", *_sides(context), completions(context.outputs))
    return plan


def _content(outputs: Outputs) -> Any:
    content: Any = outputs.summary("dataset", DatasetSummary).content
    if "natural" in outputs:
        content = [content, outputs.summary("natural", NaturalSummary).content]
    if "completions" in outputs:
        content = {"chats": content, "completions": outputs.summary("completions", CompletionsSummary).content}
    return content


def _chats(context: StageContext) -> list[list[Message]]:
    """Held-out questions, each with one document."""
    settings = context.run.settings
    index = context.opened.index(context.outputs)
    questions = [e.question for e in held_out_questions(context)[: settings.export.parity_prompts]]
    max_tokens = settings.synthesis.max_context_tokens // 2
    return [messages_for(q, documents_for(q, index, k=1, max_tokens=max_tokens)) for q in questions]


def _chats_depend_on(run: Run, outputs: Outputs) -> Any:
    judge = run.settings.judge
    judged, index = outputs.summary("dataset", DatasetSummary).judged, outputs.summary("index", IndexSummary).content
    return [judged, index, judge.seed, judge.n_questions, run.settings.synthesis.max_context_tokens]


TRAIN = training_stage(_fit, _content, needs=("dataset", "natural", "completions"))
PARITY = parity_stage(_chats, _chats_depend_on, ("dataset", "index"))
