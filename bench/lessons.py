"""What an ablation changes: the training examples of a dataset, and nothing else.

A lesson is a frozen value that is called with the training examples and gives those that are trained on. `TaughtPipeline` is
the product's pipeline with such a dataset: a stage of its own behind the usual one, keyed by it and the lesson. Held-out
examples, questions, code and index are those of the whole dataset, so variants answer the very same questions.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ai_forge.pipeline.repository import Pipeline

from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.dataset import SIDES
from ai_forge.data_pipeline.datasets.storage import read_examples, write_dataset
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.text.words import names_in
from ai_forge.errors import InputError
from ai_forge.pipeline.stages import Stage
from ai_forge.training.tokens.packing import TokenizedExample, n_packed_tokens, step_order
from ai_forge.workspace import file_sha256

Examples = list[RAFTExample]
Lesson = Callable[[Sequence[RAFTExample]], Examples]
N_DRAWN = 8
"""Documents among which the one nearest in length replaces a distractor."""


@dataclass(frozen=True)
class WithoutFamilies:
    """Questions of some families are left out."""

    families: tuple[str, ...]

    def __call__(self, examples: Sequence[RAFTExample]) -> Examples:
        return [example for example in examples if example.family not in self.families]


@dataclass(frozen=True)
class Distractors:
    """Which documents stand beside the oracle.

    hard: those of the dataset, the retriever's hits and the oracle's siblings; random: as many others of about their length,
    from other files, none of which names an oracle; none: the oracle stands alone. Examples without an oracle are left out of
    all three: they cannot do without distractors, and would make two differences of one.
    """

    kind: Literal["hard", "random", "none"]

    def __call__(self, examples: Sequence[RAFTExample]) -> Examples:
        answerable = [example for example in examples if example.oracle_documents]
        if self.kind == "hard":
            return answerable
        if self.kind == "none":
            return [example.model_copy(update=_beside(())) for example in answerable]
        pool = {d.block_id: d for example in examples for d in example.distractor_documents}
        documents = [pool[key] for key in sorted(pool)]
        return [example.model_copy(update=_beside(dealt(example, documents))) for example in answerable]


@dataclass(frozen=True)
class Instead:
    """The examples of a file (JSON Lines) in place of the dataset's, those that show no file which the dataset held out."""

    path: Path = field(repr=False)  # a dataset is keyed by the repr
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Instead":
        """The file as it is now."""
        return cls(path, file_sha256(path))

    def __call__(self, examples: Sequence[RAFTExample]) -> Examples:
        trained_on = {d.path for example in examples for d in _shown(example)} | {e.subject_path for e in examples}
        return [e for e in read_examples(self.path) if trained_on.issuperset(d.path for d in _shown(e))]


def _shown(example: RAFTExample) -> tuple[Document, ...]:
    return (*example.oracle_documents, *example.distractor_documents)


def _beside(distractors: tuple[Document, ...]) -> dict[str, Any]:
    return {"distractor_documents": distractors, "wrong_facts": ()}


def dealt(example: RAFTExample, pool: Sequence[Document]) -> tuple[Document, ...]:
    """Random distractors for an example, the same for all that show the same oracles and distractors."""
    names = {document.name.rpartition(".")[2] for document in example.oracle_documents}
    paths = {document.path for document in example.oracle_documents}
    allowed = [d for d in pool if d.path not in paths and not names & names_in(d.text)]
    draw = random.Random(f"{example.context_id}/{'/'.join(d.block_id for d in example.oracle_documents)}")
    chosen: list[Document] = []
    for replaced in example.distractor_documents:
        left = [document for document in allowed if document not in chosen]
        drawn = draw.sample(left, min(N_DRAWN, len(left)))
        chosen += sorted(drawn, key=lambda d: abs(len(d.text) - len(replaced.text)))[:1]
    return tuple(chosen)


class TaughtPipeline(Pipeline):
    """The product's pipeline, with `lesson` between its dataset and its training."""

    def __init__(self, *given: Any, lesson: Lesson | None = None) -> None:
        super().__init__(*given)
        self.lesson = lesson

    @cached_property
    def dataset(self) -> Stage:
        """The whole dataset, its training examples changed by the lesson."""
        whole, lesson = super().dataset, self.lesson
        if lesson is None:
            return whole

        def build(folder: Path) -> dict[str, Any]:
            parts = {side: read_examples(whole.folder / f"{side}.jsonl") for side in SIDES}
            parts["train"] = lesson(parts["train"])
            if not parts["train"]:
                raise InputError(f"{lesson} leaves no training example.")
            shutil.copyfile(whole.folder / "split.json", folder / "split.json")
            write_dataset(
                folder, parts, RAFTExample, provenance={"dataset": whole.key}, settings={"lesson": repr(lesson)}
            )
            return whole.counts | {side: len(parts[side]) for side in SIDES}

        return self._stage("dataset", build, whole=whole.key, lesson=repr(lesson))


def step_tokens(budget: int, examples: Sequence[TokenizedExample], config: FineTuneConfig) -> list[int]:
    """The computed tokens of each optimizer step, for as many steps as come nearest to `budget` in sum; at least one.

    Exact, a shared prompt counts once: the trainer reads the same examples in the same order.
    """
    contexts = [example.context for example in examples]
    per_step = config.micro_batch_size * config.grad_accum_steps
    steps: list[int] = []
    while sum(steps) < budget:
        chosen = step_order(contexts, per_step, len(steps), config.seed)
        steps.append(n_packed_tokens([examples[i] for i in chosen], config.micro_batch_size))
    over = sum(steps) - budget
    return steps[:-1] if len(steps) > 1 and over > steps[-1] - over else steps
