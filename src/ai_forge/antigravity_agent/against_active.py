"""Is a new model surely worse than the one that is deployed? The gate compares with the base, which both may beat.

The active version's file answers the questions that the new model was judged on, with the same documents and greedy decoding, and
both are compared question by question. It costs as much as one contender of the judge, so it is asked only where a deployment
hangs on it. Losses are not compared: llama.cpp's server tells no probabilities of a text that it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_forge.antigravity_agent.artifact_data import CheckRow
from ai_forge.errors import AIForgeError, CancelledError
from ai_forge.events import StageProgress
from ai_forge.serving.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_forge.config.settings import JudgeSettings
    from ai_forge.judge.evaluation import Answer
    from ai_forge.pipeline.runner import Runner
    from ai_forge.serving.deployment import Deployment

__all__ = ["Right", "compared", "rows_against_active"]

RIGHT_CITATIONS, RIGHT_FACTS = "citations against the active version", "facts against the active version"
Right = tuple[bool, bool | None]
"""Whether an answer's citations are right, and its facts where the question asks for any."""


def rows_against_active(runner: Runner) -> tuple[CheckRow, ...]:
    """A check each of citations and facts, failed where the new model is surely worse; nothing where none is active, where it
    is this very version, and for recipes whose models are not asked with documents.

    Raises:
        CancelledError: it was stopped; nothing is lost.
    """
    from ai_forge.judge.evaluation import TUNED, Evaluation
    from ai_forge.pipeline.stages.evaluate import FILE

    run = runner.run
    with Registry(runner.workspace.registry_path) as registry:
        active = registry.active(run.model)
        version = None if active is None else registry.find(run.model, active.version)
    if run.recipe != "repository" or version is None or version.deployment.version == run.id:
        return ()
    ours = runner.outputs().read("evaluate", FILE, Evaluation).of(TUNED)
    try:
        theirs = _answered(runner, version.deployment, ours)
    except CancelledError:
        raise
    except AIForgeError as error:  # its file is gone or damaged: nothing to lose
        return (CheckRow.of(RIGHT_CITATIONS, None, f"{version.deployment.model} could not be asked: {error.message}"),)
    return compared(ours, theirs, run.settings.judge)


def compared(ours: Sequence[Answer], theirs: Sequence[Right], settings: JudgeSettings) -> tuple[CheckRow, ...]:
    """A check each of citations and facts: `ours` are the new model's answers, `theirs` how right the active one's are, in the same
    order. Undecided where no question asks for any."""
    return tuple(_row(name, place, ours, theirs, settings) for place, name in enumerate((RIGHT_CITATIONS, RIGHT_FACTS)))


def _answered(runner: Runner, deployment: Deployment, ours: Sequence[Answer]) -> list[Right]:
    """How the active version's file answers the questions of `ours`."""
    from ai_forge.judge.scoring import citation_is_right, facts_are_right
    from ai_forge.pipeline.stages.evaluate import held_out_questions, retrieve
    from ai_forge.prompting.prompt import messages_for
    from ai_forge.serving.llama_server import LlamaServer
    from ai_forge.serving.runtime import in_parts

    run = runner.run
    context = runner.context("evaluate", runner.folder)
    by_text = {example.question: example for example in held_out_questions(context)}
    questions = [by_text[answer.question] for answer in ours]
    chats = [messages_for(example.question, retrieve(context, example.question)) for example in questions]
    longest, slots = run.settings.judge.max_new_tokens, run.settings.runtime.slots
    texts: list[str] = []
    deployment.check_file()
    # by its own tokenizer: it may have been trained on another base
    with LlamaServer(deployment.gguf_path, run.settings.runtime.num_ctx, n_slots=slots) as server:
        for part in in_parts(server, [server.render(chat) for chat in chats], longest):
            runner.cancel.check()
            texts += part
            runner.emit(StageProgress("deploy", len(texts), len(chats), f"asking {deployment.model} the same"))
    return [
        (citation_is_right(text, example), facts_are_right(text, example))
        for text, example in zip(texts, questions, strict=True)
    ]


def _row(name: str, place: int, ours: Sequence[Answer], theirs: Sequence[Right], settings: JudgeSettings) -> CheckRow:
    from ai_forge.judge.statistics import not_surely_below_zero, paired_difference
    from ai_forge.judge.verdict import in_points

    pairs = [
        (own, right[place], answer.subject_path)
        for answer, right in zip(ours, theirs, strict=True)
        if (own := (answer.citation_right, answer.facts_right)[place]) is not None and right[place] is not None
    ]
    difference = paired_difference(
        [float(own) for own, _, _ in pairs],
        [float(their) for _, their, _ in pairs if their is not None],
        groups=[path for _, _, path in pairs],
        confidence=settings.confidence,
        seed=settings.seed,
    )
    text = f"{in_points(difference)} on {len(pairs)} questions; must not be surely below 0"
    return CheckRow.of(name, not_surely_below_zero(difference), text)
