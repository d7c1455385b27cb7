"""People's questions, answered by a base and by an adapter on it, with torch, outside of any run: on a GPU where there is one.

    python bench/answers.py REPO --base FOLDER --adapter FOLDER --questions bench/questions/gin.json --out FILE

The first questions of a set, each with the documents that retrieval finds, greedily: the base as a user asks it, the base with the
worked examples and the instruction of `NaturalWriter`, and the tuned model as a user asks it. FILE holds every answer, to be read, and
by contender: answers that cite, citations of shown documents and of a file that the set calls right, names in backticks that stand
nowhere in the repository, words, answers with code, and what general texts cost (nats per byte).
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.examples.verification import code_spans
from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.data_pipeline.teacher.natural import answer_messages
from ai_forge.data_pipeline.text.words import identifiers
from ai_forge.judge.questions.general_texts import general_nats, general_texts
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import CITATION, FENCE, Message, citations_in, messages_for
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_model import TorchGenerator
from ai_forge.workspace import atomic_write
from bench_questions import index_of

DOCUMENTS, DOCUMENT_TOKENS, ANSWER_TOKENS = 3, 1200, 320
AT_A_TIME = 10
MOST_BYTES = 500_000
Build = Callable[[str, Sequence[Document]], list[Message]]


def names_in(repo: Path) -> set[str]:
    """All that stands in a repository's text files and could be a name."""
    names: set[str] = set()
    for path in repo.rglob("*"):
        if path.is_file() and ".git" not in path.relative_to(repo).parts and path.stat().st_size < MOST_BYTES:
            names |= set(identifiers(path.read_text(encoding="utf-8", errors="replace")))
    return names


def answered(
    model: TorchGenerator, tokenizer: ChatTokenizer, asked: Sequence[tuple[str, Sequence[Document]]], build: Build
) -> list[str]:
    """Greedy answers, in the order of `asked`; those of like length go together."""
    prompts = [tokenizer.encode_prompt(build(question, documents)) for question, documents in asked]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts: dict[int, str] = {}
    for first in range(0, len(order), AT_A_TIME):
        now = order[first : first + AT_A_TIME]
        for i, ids in zip(now, model.generate([prompts[i] for i in now], ANSWER_TOKENS), strict=True):
            texts[i] = tokenizer.decode(ids).strip()
    return [texts[i] for i in range(len(prompts))]


def figures(
    answers: Sequence[str], shown: Sequence[Sequence[Document]], right: Sequence[Sequence[str]], known: set[str]
) -> dict[str, int]:
    """Counts over the answers; `right` are the files that answer each question, `known` the names that exist."""
    told: Counter[str] = Counter(n=len(answers))
    for answer, documents, files in zip(answers, shown, right, strict=True):
        cited, place = citations_in(answer), {document.citation: document.path for document in documents}
        prose = FENCE.sub("", CITATION.sub("", answer))
        names = [name for span in code_spans(prose) for name in identifiers(span)]
        told.update(
            cite=bool(cited),
            citations=len(cited),
            of_shown_documents=sum(one in place for one in cited),
            of_a_file_that_answers=any(place.get(one) in files for one in cited),
            names=len(names),
            names_nowhere_in_the_project=sum(name not in known for name in names),
            words=len(answer.split()),
            with_code="```" in answer,
        )
    return dict(told)


def general(model: TorchGenerator, tokenizer: ChatTokenizer) -> dict[str, float]:
    """Nats per byte of the fixed texts, by kind."""
    left = iter(general_nats(model, tokenizer))
    costs = {}
    for kind, texts in general_texts().items():
        nats = sum(next(left) for _ in texts)
        costs[kind] = round(nats / sum(len(text.text.encode()) for text in texts), 4)
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="folder with config.json, tokenizer.json, weights")
    parser.add_argument("--adapter", type=Path, help="folder that training left; the base alone where it is left out")
    parser.add_argument("--questions", type=Path, required=True, help="a set as in bench/questions")
    parser.add_argument("--first", type=int, default=20, help="how many of the set")
    parser.add_argument("--embedder", default="minilm", help="none: found by words alone")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    held = json.loads(given.questions.read_text(encoding="utf-8"))
    rows = (held if isinstance(held, list) else held["questions"])[: given.first]
    index, _ = index_of(given.repo, given.embedder, None)
    asked = [
        (row["question"], documents_for(row["question"], index, k=DOCUMENTS, max_tokens=DOCUMENT_TOKENS))
        for row in rows
    ]
    shown, right, known = [documents for _, documents in asked], [row["files"] for row in rows], names_in(given.repo)
    tokenizer = ChatTokenizer(given.base)
    result: dict[str, Any] = {"questions": rows, "shown": [[d.citation for d in documents] for documents in shown]}

    def tell(label: str, model: TorchGenerator, build: Build) -> None:
        answers = answered(model, tokenizer, asked, build)
        result[label] = {"figures": figures(answers, shown, right, known), "answers": answers}
        print(label, result[label]["figures"], file=sys.stderr, flush=True)

    base = TorchGenerator.load(given.base, tokenizer.end_of_turn_id)
    tell("base", base, messages_for)
    tell("base + worked examples and instruction", base, answer_messages)
    result["base"]["general"] = general(base, tokenizer)
    if given.adapter:
        del base
        torch.cuda.empty_cache()  # two may not fit; nothing where there is no GPU
        trainee = TorchTrainee.from_adapter(given.base, given.adapter, FineTuneConfig())
        tuned = TorchGenerator(trainee.model, tokenizer.end_of_turn_id)
        tell("tuned", tuned, messages_for)
        result["tuned"]["general"] = general(tuned, tokenizer)
    atomic_write(given.out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
