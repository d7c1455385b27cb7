"""Any other model as a rival of a run's: a GGUF file, a model in Ollama, an OpenAI-compatible server.

It is asked what the run's model was asked and shown the same documents in the same words; its own template is used, and it
answers greedily. Of a model that only answers there are no losses: those figures are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ai_forge.config.data import TEACHER
from ai_forge.errors import InputError
from ai_forge.events import StageProgress
from ai_forge.pipeline.stage import StageContext
from ai_forge.pipeline.stages.dataset import team_questions
from ai_forge.pipeline.stages.evaluate import held_out_questions, retrieve
from ai_forge.prompting.prompt import Message, messages_for
from ai_forge.serving.runtime import in_parts

if TYPE_CHECKING:
    from ai_forge.judge.comparison import Side
    from ai_forge.judge.evaluation import Evaluation


def is_rival(named: str) -> bool:
    """Whether a name can only be a rival's: no run and no deployed model is called so."""
    return named.endswith(".gguf") or TEACHER.fullmatch(named) is not None


def evaluate_rival(named: str, context: StageContext, asked: Evaluation) -> tuple[Side, Evaluation]:
    """What the rival answers to the questions of `asked`, scored as the run's model was.

    Args:
        named: the path of a GGUF file, `ollama:NAME`, or `URL#MODEL`.
        context: of the run whose questions are asked.
        asked: the evaluation of that run.

    Raises:
        InputError: there is no such file or model.
        AIForgeError: it cannot be asked.
    """
    from ai_forge.judge.comparison import Side
    from ai_forge.judge.evaluation import CONTENDERS, TUNED, Evaluation, Reply, scored
    from ai_forge.judge.questions.people import people_scored
    from ai_forge.judge.questions.team_questions import still_there

    index = context.opened.index(context.outputs)
    of_people = {answer.question for answer in asked.people.of(TUNED)}
    people = [one for one in still_there(team_questions(context.outputs), index)[0] if one.text in of_people]
    questions = held_out_questions(context)[: len(asked.of(TUNED))]
    texts = [*(one.text for one in people), *(question.question for question in questions)]
    shown = [tuple(retrieve(context, text)) for text in texts]
    chats = [messages_for(text, documents) for text, documents in zip(texts, shown, strict=True)]
    told = _answers(named, chats, context)
    as_tuned = CONTENDERS[-1]
    answers = [
        # no tokens and no loss: it is not known what it thought of the reference
        scored(as_tuned, question, documents, Reply(text, 0.0, 0))
        for question, documents, text in zip(questions, shown[len(people) :], told[len(people) :], strict=True)
    ]
    by_place = {place: {TUNED: text} for place, text in enumerate(told[: len(people)])}
    evaluation = Evaluation(
        answers=tuple(answers),
        code=(),
        n_worked_examples=0,
        people=people_scored(people, (), shown[: len(people)], by_place),
    )
    side = Side(
        run_id="none",
        model=named,
        created="asked now",
        commit=context.run.commit,
        base=Path(named).name if named.endswith(".gguf") else named,
        decision=None,
        headline="none: it was asked for this comparison",
        n_questions=len(texts),
        n_train=None,
        settings={},
    )
    return side, evaluation


def _answers(named: str, chats: Sequence[Sequence[Message]], context: StageContext) -> list[str]:
    if named.endswith(".gguf"):
        return _of_file(Path(named), chats, context)
    return asyncio.run(_of_server(named, chats, context))


def _of_file(file: Path, chats: Sequence[Sequence[Message]], context: StageContext) -> list[str]:
    from ai_forge.serving.llama_server import LlamaServer

    if not file.is_file():
        raise InputError(f"There is no file {file}.", "name a GGUF file, a run, or a deployed model: ai-forge models.")
    settings = context.run.settings
    with LlamaServer(file, settings.runtime.num_ctx, n_slots=settings.runtime.slots) as server:
        # as text, which llama.cpp puts the begin token before where the model wants one
        prompts = [server.render(chat) for chat in chats]
        told: list[str] = []
        for part in in_parts(server, prompts, settings.judge.max_new_tokens):
            told += [text.strip() for text in part]
            context.report(len(told), len(prompts), file.name)
    return told


async def _of_server(named: str, chats: Sequence[Sequence[Message]], context: StageContext) -> list[str]:
    from ai_forge.data_pipeline.teacher.client import TeacherClient, Unanswered, resolve_teacher

    settings = context.run.settings
    teacher = resolve_teacher(named, settings.runtime.ollama_host)
    told: list[str] = []
    async with TeacherClient(teacher, timeout_s=settings.synthesis.teacher_timeout_s) as client:
        for chat in chats:
            try:
                answer = await client.ask(chat, settings.judge.max_new_tokens, as_json=False)
            except Unanswered as error:
                raise error.error from error
            told.append(answer.text.strip())
            context.cancel.check()
            context.emit(StageProgress("compare", len(told), len(chats), teacher.model))
    return told
