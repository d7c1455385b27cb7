"""Stage `completions`: code of the training files that is taken away, to be written again from what stands around it.

Left in its folder: `completions.jsonl` (`CompletionExample`), in the order in which it is read. How it is asked, in the base's own
fill-in-the-middle tokens, is the trainer's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from ai_forge.data_pipeline.gaps.examples import completion_examples, training_gaps
from ai_forge.data_pipeline.gaps.neighbours import neighbours
from ai_forge.data_pipeline.schemas.completions import CompletionExample
from ai_forge.data_pipeline.search.entries import block_entries
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.json_lines import read_jsonl, write_jsonl
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.natural import NaturalSummary, mixed_with, natural_examples
from ai_forge.workspace import stage_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_forge.data_pipeline.gaps.cutting import Gap
    from ai_forge.data_pipeline.schemas import Document
    from ai_forge.pipeline.run import Run

FILE = "completions.jsonl"


class CompletionsSummary(Summary):
    """What is taken away, and why other gaps were left out; `content` is the hash of what is trained on."""

    model_config = ConfigDict(frozen=True)

    gaps: int
    of_commits: int
    with_neighbours: int
    files: int
    by_kind: dict[str, int]
    dropped: dict[str, int]
    content: str

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.gaps} gaps in {self.files} files to complete, {self.of_commits} of past commits"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    synthesis = run.settings.synthesis
    natural = None
    if "natural" in outputs:  # how many gaps follows from how much else there is
        natural = [outputs.summary("natural", NaturalSummary).content, synthesis.natural_share]
    return {
        "dataset": outputs.key("dataset"),
        "natural": natural,
        "commit": run.commit,
        "base": run.base,
        "settings": synthesis.model_dump(include={"completion_share", "seed"}),
    }


def _build(context: StageContext) -> CompletionsSummary:
    from ai_forge.training.tokens.completions import require_fim

    require_fim(context.opened.tokenizer, context.opened.base.name)
    settings = context.run.settings
    share, seed = settings.synthesis.completion_share, settings.synthesis.seed
    chats = mixed_with(
        natural_examples(context.outputs, "train"),
        context.opened.examples(context.outputs, "train"),
        settings.synthesis.natural_share,
    )
    train = set(context.opened.split(context.outputs)["train"])
    repository = context.opened.repository
    history = None
    if context.run.commit is not None:
        history = context.run.repository
    found = training_gaps(
        {file.path: file.content for file in repository.files},
        train,
        round(len(chats) * share / (1 - share)),  # a share of all that is read
        history=history,
        placeholder=settings.miner.secret_placeholder,
        seed=seed,
    )
    blocks = [block for block in context.opened.mine().documents if block.path in train]
    index = QuestionIndex.build(block_entries(blocks))

    def find(gap: Gap) -> Sequence[Document]:
        context.cancel.check()
        return neighbours(gap.path, gap.prefix, index)

    rows, leaking = completion_examples(found.gaps, find, seed)
    write_jsonl(context.folder / FILE, rows)
    return CompletionsSummary(
        gaps=len(rows),
        of_commits=sum(row.commit is not None for row in rows),
        with_neighbours=sum(bool(row.documents) for row in rows),
        files=len({row.path for row in rows}),
        by_kind=dict(Counter(row.kind for row in rows).most_common()),
        dropped=dict((found.dropped + leaking).most_common()),
        content=stage_key(rows=[row.model_dump(mode="json") for row in rows]),
    )


def completions(outputs: Outputs) -> list[CompletionExample]:
    """What was taken away; none where the run has no such stage."""
    if "completions" not in outputs:
        return []
    return read_jsonl(outputs.folder("completions") / FILE, CompletionExample)


MADE_OF = ("ai_forge.data_pipeline.gaps.examples", "ai_forge.data_pipeline.gaps.neighbours")
COMPLETIONS = Stage(
    "completions",
    ("dataset", "natural"),
    2,
    _inputs,
    _build,
    CompletionsSummary,
    MADE_OF,
    applies=lambda run: run.settings.synthesis.completion_share > 0,
)
