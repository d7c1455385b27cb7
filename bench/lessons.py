"""What an ablation changes: the training examples of a dataset, and nothing else.

A lesson is a frozen value that is called with the training examples and gives those that are trained on. `recipe_with` is the
product's recipe with such a lesson: a stage of its own between the dataset and the training, keyed by both. Held-out examples,
questions, code and index are those of the whole dataset, so variants answer the very same questions.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.datasets.storage import read_examples, write_jsonl
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.text.words import names_in
from ai_forge.errors import InputError
from ai_forge.judge.evaluator import Contender
from ai_forge.pipeline.recipes import REPOSITORY, Recipe
from ai_forge.pipeline.run import Run
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.pipeline.stages.evaluate import evaluation_stage
from ai_forge.pipeline.stages.train import trainer_parts, training_stage
from ai_forge.training.distributed.launcher import run_trainer
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.record import TrainingResult
from ai_forge.training.tokens.packing import TokenizedExample, n_packed_tokens, step_order
from ai_forge.workspace import file_sha256, stage_key

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


# -- the stage ----------------------------------------------------------------------------------------------------------


class LessonSummary(Summary):
    """How many examples are trained on; `content` is the hash of these and of those that training stops on."""

    train: int
    content: str

    def sentence(self) -> str:
        return f"{self.train} examples to train on"


def lesson_stage(lesson: Lesson) -> Stage:
    """The training examples as `lesson` changes them."""

    def inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
        return {"data": outputs.summary("dataset", DatasetSummary).content, "lesson": repr(lesson)}

    def build(context: StageContext) -> LessonSummary:
        taught = lesson(context.opened.examples(context.outputs, "train"))
        if not taught:
            raise InputError(f"{lesson} leaves no training example.")
        write_jsonl(context.folder / "train.jsonl", taught)
        data = context.outputs.summary("dataset", DatasetSummary).content
        return LessonSummary(train=len(taught), content=stage_key(data=data, taught=[example.id for example in taught]))

    return Stage("lesson", ("dataset",), 1, inputs, build, LessonSummary, ("ai_forge.data_pipeline.datasets.storage",))


def examples_taught(outputs: Outputs) -> list[Examples]:
    """What is trained on, and what training stops on."""
    taught = outputs.folder("lesson" if "lesson" in outputs else "dataset")
    return [read_examples(taught / "train.jsonl"), read_examples(outputs.folder("dataset") / "valid.jsonl")]


def _fit(context: StageContext) -> TrainingResult:
    config, sides = context.run.settings.training, examples_taught(context.outputs)
    parts = trainer_parts(context)
    result: TrainingResult = run_trainer(FineTuneTrainer, config, "train", *sides, **parts)
    return result


def _content(outputs: Outputs) -> str:
    return outputs.summary("lesson", LessonSummary).content


def recipe_with(lesson: Lesson | None, contenders: Sequence[Contender]) -> Recipe:
    """The product's recipe as far as its evaluation, with `lesson` before the training, in which only `contenders` answer."""
    stages = {stage.name: stage for stage in REPOSITORY.stages if stage.name not in ("parity", "report")}
    stages["evaluate"] = evaluation_stage(contenders)
    if lesson is not None:
        train = training_stage(_fit, _content)
        stages |= {"train": replace(train, needs=(*train.needs, "lesson"))}
        names = list(stages)
        names.insert(names.index("train"), "lesson")
        stages["lesson"] = lesson_stage(lesson)
        stages = {name: stages[name] for name in names}
    return Recipe("repository", tuple(stages.values()), REPOSITORY.read_source)


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
