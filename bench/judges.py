"""Two judges of one run: answers of what is served, as the judge asks them, or of the trainer's own weights, as it once did.

    python bench/judges.py RUN [RUN ...] [--home FOLDER]

Each RUN (an id of `ai-forge runs`, evaluated, its repository as it was then) is asked anew by both, on the questions, documents and
instruction of its evaluation: the exported files of base and tuned model in llama.cpp, several at once; and the trainer's models,
with the backend's greedy answers. Losses are those that were measured, the trainer's for both; what people asked is left out of both.
Told are both decisions, in how many answers the citation is right or wrong alike, and the seconds that each took to answer.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from ai_forge.errors import InputError
from ai_forge.judge.evaluation import CONTENDERS, TUNED, Evaluation, Reply, prompts_of, scored
from ai_forge.judge.questions.held_out import worked_examples_of
from ai_forge.judge.questions.people import PeopleEvaluation
from ai_forge.judge.verdict import judge
from ai_forge.pipeline.run import Run, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import NotMadeError, StageContext
from ai_forge.pipeline.stages.evaluate import FILE, held_out_questions, retrieve, serve
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.serving.runtime import Completes, Completion, in_parts
from ai_forge.training.backends.base import Generator
from ai_forge.workspace import Workspace
from measure import record

Opens = Callable[[bool, int], AbstractContextManager[Completes]]
"""Opens the base (False) or the tuned model (True) for so many tokens of context."""


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


def answers_of(opens: Opens, prompts: Mapping[str, Sequence[Sequence[int]]], run: Run) -> dict[str, list[str]]:
    """Every contender's answers to its prompts."""
    most = run.settings.judge.max_new_tokens
    longest = max(len(prompt) for each in prompts.values() for prompt in each) + most
    told = {}
    for tuned in (False, True):
        with opens(tuned, longest) as model:
            for contender in CONTENDERS:
                if contender.is_tuned == tuned:
                    told[contender.name] = list(chain.from_iterable(in_parts(model, prompts[contender.name], most)))
    return told


def both_judges(run_id: str, workspace: Workspace) -> dict[str, object]:
    """What both say of a run."""
    run = read_run(workspace.runs_dir / run_id)
    if run is None:
        raise InputError(f"There is no run {run_id} in {workspace.root}.", "ai-forge runs lists them.")
    runner = Runner(run, workspace)
    context = runner.context("judges", runner.folder)
    try:
        evaluation = context.outputs.read("evaluate", FILE, Evaluation)
    except NotMadeError as error:
        raise InputError(
            f"{run_id} is not evaluated by this version.", f"ai-forge evaluate {run.repository}"
        ) from error
    questions = held_out_questions(context)[: len(evaluation.of(TUNED))]
    shown = [retrieve(context, q.question) for q in questions]
    worked = worked_examples_of(context.opened.examples(context.outputs, "train"), run.settings.judge)
    prompts = {c.name: prompts_of(c, questions, shown, worked, context.opened.tokenizer) for c in CONTENDERS}

    def judged(told: Mapping[str, Sequence[str]]) -> Evaluation:
        """The evaluation, had these been the answers."""
        answers = [
            scored(c, question, documents, Reply(text, before.loss, before.n_tokens))
            for c in CONTENDERS
            for question, documents, text, before in zip(
                questions, shown, told[c.name], evaluation.of(c.name), strict=True
            )
        ]
        return evaluation.model_copy(update={"answers": tuple(answers), "people": PeopleEvaluation()})

    figures: dict[str, object] = {"model": run.model, "questions": len(questions)}
    right: list[list[bool]] = []
    for name, opens in (("served", partial(serve, context)), ("trainer", partial(trained, context))):
        began = time.monotonic()
        told = answers_of(opens, prompts, run)
        seconds = time.monotonic() - began
        anew = judged(told)
        verdict = judge(anew, run.settings.judge)
        right.append([answer.citation_right for answer in anew.answers])
        figures[name] = {
            "decision": verdict.decision,
            "headline": verdict.headline,
            "citations_right": {c.name: sum(answer.citation_right for answer in anew.of(c.name)) for c in CONTENDERS},
            "seconds": round(seconds, 1),
        }
    same = sum(one == other for one, other in zip(*right, strict=True))
    return figures | {"answers": len(right[0]), "same_citation_verdict": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--home", type=Path, help="the workspace; AI_FORGE_HOME otherwise")
    given = parser.parse_args()
    workspace = Workspace.open(given.home)
    record("judges", {run_id: both_judges(run_id, workspace) for run_id in given.runs})


if __name__ == "__main__":
    main()
