"""`python -m ai_forge.judge.evaluator MODEL DATASET`: what the named metrics say of a model on a file of examples.

Each question is asked once, with its documents, and its answer is looked at by every metric. A metric that does not apply
is null and says why on stderr.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ai_forge.data_pipeline.datasets.storage import read_examples
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import AIForgeError, InputError
from ai_forge.json_lines import JsonObject
from ai_forge.judge.metrics.answers import compile_rates, refusal_rates
from ai_forge.judge.metrics.inventions import inventions_in
from ai_forge.judge.metrics.known_names import KnownNames
from ai_forge.judge.metrics.models import MAX_NEW_TOKENS, Answering, Scoring, Served, opened
from ai_forge.judge.metrics.perplexity import measure_perplexity
from ai_forge.judge.metrics.speed import measure_speed
from ai_forge.judge.scoring import citation_is_right, facts_are_right, rouge_l
from ai_forge.prompting.prompt import messages_for
from ai_forge.workspace import Workspace

Figures = JsonObject


def evaluate_file(
    model: str | Path,
    examples: Sequence[RAFTExample],
    *,
    repository: Path | None = None,
    workspace: Workspace | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Figures:
    """The figures of `model` on `examples`, by metric; None for one that could not be measured."""
    known = _known(repository, examples)
    with opened(model, workspace) as asked:
        answers = [asked.reply(messages_for(e.question, e.shown_documents), max_new_tokens) for e in examples]
        if isinstance(asked, Served) and repository is None:
            for document in asked.documents():
                known.add_document(document)
        perplexity, speed = _perplexity(asked, examples), _speed(asked, examples)
    pairs = list(zip(answers, examples, strict=True))
    inventions = [inventions_in(answer, e.question, e.shown_documents, known) for answer, e in pairs]
    facts = [right for answer, e in pairs if (right := facts_are_right(answer, e)) is not None]
    return {
        "model": str(model),
        "n_questions": len(examples),
        "citation_right": _share([citation_is_right(answer, e) for answer, e in pairs if e.oracle_documents]),
        "facts_right": _share(facts),
        "rouge_l": sum(rouge_l(answer, e.target) for answer, e in pairs) / len(pairs),
        "perplexity": perplexity,
        "hallucination_rate": _share([bool(found) for found in inventions]),
        "invented": [f"{one.kind}: {one.name}" for found in inventions for one in found],
        "compile_rate": {
            language: dataclasses.asdict(made) | {"rate": made.rate}
            for language, made in compile_rates(answers).items()
        },
        "refusals": dataclasses.asdict(refusal_rates(answers, examples)),
        "speed": speed,
    }


def _known(repository: Path | None, examples: Sequence[RAFTExample]) -> KnownNames:
    """What exists: what the examples show and, where the repository is given, what it holds."""
    shown = [document for example in examples for document in example.shown_documents]
    if repository is None:
        return KnownNames.of((), shown)
    from ai_forge.data_pipeline.miner import mine_repository
    from ai_forge.data_pipeline.search.entries import entries_beside_code
    from ai_forge.data_pipeline.source.repository import read_repository

    read = read_repository(repository)
    beside = [entry.document() for entry in entries_beside_code(read)]
    return KnownNames.of(mine_repository(read).documents, [*beside, *shown], roots=[repository.resolve().name])


def _perplexity(asked: Answering, examples: Sequence[RAFTExample]) -> Figures | None:
    if not isinstance(asked, Scoring):
        print(
            "perplexity: not measured, a runtime tells no log-probabilities; name the model's folder.", file=sys.stderr
        )
        return None
    return dataclasses.asdict(measure_perplexity(asked, examples))


def _speed(asked: Answering, examples: Sequence[RAFTExample]) -> Figures | None:
    if not isinstance(asked, Served):
        print("speed: not measured, only a deployed model is asked as users ask it.", file=sys.stderr)
        return None
    chats = [messages_for(e.question, e.shown_documents) for e in examples[:10]]
    return dataclasses.asdict(measure_speed(asked.model.runtime, asked.model.deployment.model, chats))


def _share(values: Sequence[bool]) -> float | None:
    if not values:
        return None
    return sum(values) / len(values)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line, evaluate, print JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m ai_forge.judge.evaluator",
        description="Ask a model the questions of a dataset and print what the metrics say of its answers, as JSON.",
    )
    parser.add_argument(
        "model", help="a deployed model's name, a GGUF file, a folder of weights, or the name of a base"
    )
    parser.add_argument("dataset", type=Path, help="RAFT examples, JSON Lines")
    parser.add_argument(
        "--repository",
        type=Path,
        help="where the code lies: its names exist (default: a deployed model's index)",
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="ask the first N questions only")
    parser.add_argument(
        "--max-tokens", type=int, default=MAX_NEW_TOKENS, help="tokens of an answer (default: %(default)s)"
    )
    given = parser.parse_args(argv)
    try:
        examples = read_examples(given.dataset)[: given.limit or None]
        if not examples:
            raise InputError(f"{given.dataset} holds no question.", "name a file of RAFT examples (JSON Lines).")
        figures = evaluate_file(given.model, examples, repository=given.repository, max_new_tokens=given.max_tokens)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(figures, indent=2))
    return 0
