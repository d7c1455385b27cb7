"""From mined blocks to train, valid and test examples: split first, then written, validated and freed of secrets.

blocks → without near-duplicates → split → synthesise each side from what it may show → validate → [teacher] → no leak
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ai_forge.config import Settings
from ai_forge.data_pipeline.examples.asked import without_asked
from ai_forge.data_pipeline.examples.project_notes import ProjectNotes
from ai_forge.data_pipeline.examples.splits import Split, check_no_leak, split_by_file
from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import MiningResult
from ai_forge.data_pipeline.mining.filters import without_near_duplicates
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.schemas import CodeBlock, RAFTExample
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.search.index import Index
from ai_forge.data_pipeline.secrets.masking import without_secrets
from ai_forge.data_pipeline.teacher.client import Teacher
from ai_forge.data_pipeline.teacher.rewording import AnswerCache, estimate, teach
from ai_forge.data_pipeline.validator import filter_dataset
from ai_forge.errors import RefusedError
from ai_forge.events import Progress

SIDES = ("train", "valid", "test")
Sides = dict[str, list[RAFTExample]]


@dataclass(frozen=True)
class Dataset:
    """Examples by side, how the files were dealt, and what was left out, by reason."""

    sides: Sides
    split: Split
    rejected: Counter[str]

    def summary(self) -> dict[str, object]:
        """Examples of each side, `rejected` and `split`."""
        counts = {side: len(examples) for side, examples in self.sides.items()}
        return {**counts, "rejected": dict(self.rejected), "split": self.split.summary()}

    def without(self, dropped: Collection[str]) -> "Dataset":
        """The dataset without the examples of these ids on the sides that are trained and stopped on.

        What is judged stays whole: a verdict without the questions that someone did not like would be no verdict.
        """
        kept = {side: [e for e in self.sides[side] if side == "test" or e.id not in dropped] for side in SIDES}
        n_dropped = sum(len(self.sides[side]) - len(kept[side]) for side in SIDES)
        if n_dropped == 0:
            return self
        return Dataset(kept, self.split, self.rejected + Counter(dropped_by_hand=n_dropped))


def make_dataset(
    mined: MiningResult,
    settings: Settings,
    *,
    dates: Mapping[str, int],
    notes: ProjectNotes,
    embedder: str,
    graph_of: Callable[[Sequence[CodeBlock]], SymbolGraph],
    progress: Callable[[str], None],
) -> Dataset:
    """The examples of a mined repository.

    Args:
        mined: its blocks.
        settings: those of mining, split, synthesis and validation are read.
        dates: when each file was written, s since 1970; empty for a split by file.
        notes: what people wrote about the blocks.
        embedder: by which distractors are found.
        graph_of: the symbol graph of the blocks that a side may show.
        progress: hears the side that is begun.
    """
    # Subjects only: a copy may still be shown, and the split puts its file on the side of the other's.
    subjects, rejected = without_near_duplicates(mined.blocks, settings.miner.near_duplicate)
    split = split_by_file(subjects, settings.split, documents=mined.documents, dates=dates)
    sides: Sides = {}
    for side in SIDES:
        progress(side)
        shown = getattr(split, f"{side}_documents")
        graph = graph_of(shown)
        made = synthesize(
            getattr(split, side),
            documents=shown,
            settings=settings.synthesis,
            index=Index.build(shown, embedder, graph),
            graph=graph,
            notes=notes.of_side(side, mined.documents, split.side_of_file, split.ends(side)),
        )
        sides[side], dropped = _passed(made.examples, settings)
        rejected += made.rejected + dropped
    return Dataset(sides, split, rejected)


def taught(
    dataset: Dataset,
    teacher: Teacher,
    cache: AnswerCache,
    settings: Settings,
    progress: Progress,
    say: Callable[[str], None],
) -> tuple[Dataset, dict[str, object]]:
    """The dataset in the teacher's words, and what that cost; `say` hears it before and after.

    All sides alike: a verdict on questions that are worded otherwise than the training's would measure the wording.
    """
    examples = [example for side in SIDES for example in dataset.sides[side]]
    say(f"{teacher.name}: {estimate(examples, settings.synthesis, cache)}")
    teaching = teach(examples, teacher, settings.synthesis, cache, validator=settings.validator, progress=progress)
    say(f"{teacher.name}: {teaching}")
    said = iter(teaching.examples)
    sides: Sides = {}
    rejected = dataset.rejected.copy()
    for side in SIDES:
        sides[side], dropped = _passed([next(said) for _ in dataset.sides[side]], settings)
        rejected += dropped
    return Dataset(sides, dataset.split, rejected), {"name": teacher.name, **teaching.summary()}


def without_team_questions(dataset: Dataset, questions: Sequence[TeamQuestion]) -> Dataset:
    """The dataset without examples that ask what the team's own questions ask: those are judged on and never trained on.

    The files that answer them may be trained on: that the model knows them is what the team wants.
    """
    sides: Sides = {}
    rejected = dataset.rejected.copy()
    for side, examples in dataset.sides.items():
        sides[side], dropped = without_asked(examples, questions)
        rejected += dropped
    return Dataset(sides, dataset.split, rejected)


def require_no_leak(dataset: Dataset) -> None:
    """Find out whether a training example shows what is held out.

    Raises:
        RefusedError: one does.
    """
    leaks = check_no_leak(dataset.sides["train"], dataset.split)
    if leaks:
        raise RefusedError(
            f"{len(leaks)} training examples show held-out code, the first {leaks[0].citation} ({leaks[0].reason}).",
            "this is a bug of the split; please report it with the repository's structure.",
        )


def _passed(examples: Sequence[RAFTExample], settings: Settings) -> tuple[list[RAFTExample], Counter[str]]:
    good, dropped = filter_dataset(examples, settings.validator)
    clean, leaking = without_secrets(good)
    return clean, dropped + leaking
