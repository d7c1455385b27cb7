"""Two judges of one run: answers of what is served, as the judge asks them, or of the trainer's own weights, as it once did.

    python bench/judges.py RUN [RUN ...] [--home FOLDER]

Each RUN (an id of `ai-forge runs`, evaluated, its repository as it was then) is asked anew by both, on the questions, documents and
instruction of its evaluation: the exported files of base and tuned model in llama.cpp, several at once; and the trainer's models,
with the backend's greedy answers. Losses are those that were measured, the trainer's for both. Told are both decisions with what
they rest on, in how many answers the same citation is right, and the seconds that each took to answer.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ai_forge.events import ignore
from ai_forge.judge.evaluation import CONTENDERS, TUNED, Contender, Evaluation, Reply, scored
from ai_forge.judge.questions.held_out import worked_examples_of
from ai_forge.judge.verdict import judge
from ai_forge.pipeline.run import Run, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import StageContext
from ai_forge.pipeline.stages.evaluate import FILE, held_out_questions, retrieve, serve
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import messages_for
from ai_forge.serving.runtime import Completes, Completion, in_parts
from ai_forge.training.backends.base import Generator
from ai_forge.workspace import Workspace
from measure import record

Opens = Callable[[bool, int], "contextmanager[Completes]"]


class Trained:
    """The trainer's model, asked as a file is: greedy answers to prompts of token ids."""

    def __init__(self, model: Generator, tokenizer: ChatTokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    def completions(self, prompts: Sequence[str | Sequence[int]], max_tokens: int) -> Sequence[Completion]:
        """The answers, several at once."""
        given = [[int(token) for token in prompt] for prompt in prompts]
        answers = self._model.generate(given, max_tokens)
        return [
            Completion(self._tokenizer.decode(ids), len(prompt), len(ids), tuple(ids))
            for prompt, ids in zip(given, answers, strict=True)
        ]


@contextmanager
def trained(context: StageContext, tuned: bool, _num_ctx: int) -> Iterator[Trained]:
    """The trainer's base or tuned model."""
    yield Trained(load_generator(context, tuned), context.opened.tokenizer)


def asked_of(context: StageContext, evaluation: Evaluation) -> dict[str, list[list[int]]]:
    """The prompts of each contender, as the evaluation put them."""
    settings, tokenizer = context.run.settings.judge, context.opened.tokenizer
    questions = held_out_questions(context)[: len(evaluation.of(TUNED))]
    worked = worked_examples_of(context.opened.examples(context.outputs, "train"), settings)

    def prompt(contender: Contender, question: str) -> list[int]:
        documents = retrieve(context, question) if contender.retrieval else ()
        examples = worked if contender.worked_examples else ()
        return tokenizer.encode_prompt(messages_for(question, documents, examples))

    return {contender.name: [prompt(contender, q.question) for q in questions] for contender in CONTENDERS}


def told_by(
    opens: Callable[..., object], prompts: dict[str, list[list[int]]], run: Run
) -> tuple[dict[str, list[str]], float]:
    """Every contender's answers, and the seconds that they took; opening the models is in them."""
    began, told = time.monotonic(), {}
    most = run.settings.judge.max_new_tokens
    longest = max(len(prompt) for each in prompts.values() for prompt in each) + most
    for tuned in (False, True):
        with opens(tuned, longest) as model:
            for contender in CONTENDERS:
                if contender.is_tuned == tuned:
                    parts = in_parts(model, prompts[contender.name], most)
                    told[contender.name] = [text for part in parts for text in part]
    return told, time.monotonic() - began


def with_answers(context: StageContext, evaluation: Evaluation, told: dict[str, list[str]]) -> Evaluation:
    """The evaluation, had these been the answers."""
    questions = held_out_questions(context)
    answers = [
        scored(contender, question, retrieve(context, question.question), Reply(text, before.loss, before.n_tokens))
        for contender in CONTENDERS
        for question, text, before in zip(questions, told[contender.name], evaluation.of(contender.name), strict=False)
    ]
    return evaluation.model_copy(update={"answers": tuple(answers)})


def both_judges(run_id: str, workspace: Workspace) -> dict[str, object]:
    """What both say of a run."""
    run = read_run(workspace.runs_dir / run_id)
    if run is None:
        raise SystemExit(f"There is no run {run_id} in {workspace.root}: ai-forge runs lists them.")
    runner = Runner(run, workspace, ignore)
    context = runner.context("judges", runner.folder)
    evaluation = context.outputs.read("evaluate", FILE, Evaluation)
    prompts = asked_of(context, evaluation)
    figures: dict[str, object] = {"model": run.model, "questions": len(prompts[TUNED])}
    right: list[list[bool]] = []
    for name, opens in (("served", partial(serve, context)), ("trainer", partial(trained, context))):
        told, seconds = told_by(opens, prompts, run)
        judged = with_answers(context, evaluation, told)
        verdict = judge(judged, run.settings.judge)
        right.append([answer.citation_right for answer in judged.answers])
        figures[name] = {
            "decision": verdict.decision,
            "headline": verdict.headline,
            "citations_right": {c.name: sum(a.citation_right for a in judged.of(c.name)) for c in CONTENDERS},
            "seconds": round(seconds, 1),
        }
    same = sum(one == other for one, other in zip(*right, strict=True))
    return figures | {"answers": len(right[0]), "same_citation_verdict": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--home", type=Path, default=Path.home() / ".ai-forge")
    given = parser.parse_args()
    workspace = Workspace(given.home)
    record("judges", {run_id: both_judges(run_id, workspace) for run_id in given.runs})


if __name__ == "__main__":
    main()
