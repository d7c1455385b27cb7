"""Next-commit completion of a run: the held-out files' newest changes, completed by its base and by its tuned model.

Kept in the run's folder as `completion.json`; the same call again reads it, unless more time or other gaps are asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ai_forge.data_pipeline.gaps.cutting import Gap, chosen
from ai_forge.data_pipeline.gaps.history import NewestCommits, files_at, gaps_of_files, newest_commits
from ai_forge.data_pipeline.gaps.neighbours import neighbours
from ai_forge.data_pipeline.miner import mine
from ai_forge.data_pipeline.search.entries import block_entries
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.errors import InputError
from ai_forge.judge.completion.measure import Completed, complete_all, form_of
from ai_forge.pipeline.stages.dataset import held_out_code
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from ai_forge.data_pipeline.schemas import CodeBlock, Document
    from ai_forge.pipeline.runner import Runner

FILE = "completion.json"
CANDIDATES_OF_A_GAP = 6  # so many are cut for each that is asked: the kinds are then chosen evenly


@dataclass(frozen=True)
class AskedGaps:
    """What is to be completed, what is shown with a gap besides, and the history that it is of."""

    gaps: Sequence[Gap]
    find: Callable[[Gap], Sequence[Document]]
    history: NewestCommits


def gaps_of_newest_commits(root: Path, held_out: Collection[str], n_gaps: int, seed: int) -> AskedGaps | None:
    """Gaps that the newest commits wrote in `held_out` files; None where they wrote nothing there.

    Shown is what stood in the repository before the first of those commits.

    Raises:
        InputError: no history.
    """
    history = newest_commits(root, held_out.__contains__, n_gaps=CANDIDATES_OF_A_GAP * n_gaps)
    if not history.gaps or history.before is None:
        return None
    documents = mine(files_at(root, history.before)).documents
    return AskedGaps(chosen(history.gaps, n_gaps, seed=seed), _finder(documents), history)


def measure_completion(runner: Runner, *, n_gaps: int, budget_s: float) -> Completed:
    """Complete gaps of the newest commits in files that the run did not train on; without history, of those files.

    Raises:
        InputError: nothing that was held out can be taken away.
    """
    with runner:
        runner.run_until("merge")
        outputs = runner.outputs()
        sides = runner.opened.split(outputs)
        held_out = {*sides["test"], *sides["valid"]}
        root, seed = runner.run.repository, runner.run.settings.judge.seed
        with runner.reporting("completion") as ending:
            asked = None
            if runner.run.commit is not None:
                asked = gaps_of_newest_commits(root, held_out, n_gaps, seed)
            from_commits = asked is not None
            if asked is None:
                gaps = chosen(gaps_of_files(held_out_code(outputs)), n_gaps, seed=seed)
                # what was held out is not shown: without history the files that were trained on are what stood before
                blocks = [block for block in runner.opened.mine().documents if block.path not in held_out]
                asked = AskedGaps(gaps, _finder(blocks), NewestCommits((), 0, None, Counter()))
            if not asked.gaps:
                raise InputError(
                    f"Nothing in the {len(held_out)} held-out files of {root} can be taken away and completed.",
                    "give a repository with more code.",
                )
            n_commits = asked.history.n_commits
            context = runner.context("evaluate", runner.folder, outputs)
            rows = complete_all(
                asked.gaps,
                partial(load_generator, context),
                runner.opened.tokenizer,
                asked.find,
                budget_s=budget_s,
                progress=context.report,
            )
            ending.counts = {"gaps": len(asked.gaps), "commits": n_commits}
            ending.text = f"{len(rows) // 4} gaps of {n_commits} commits" if from_commits else f"{len(rows) // 4} gaps"
        made = Completed(
            form=form_of(runner.opened.tokenizer),
            source="commits" if from_commits else "held-out files",
            n_commits=n_commits,
            before=asked.history.before,
            skipped=dict(asked.history.skipped),
            rows=tuple(rows),
        )
        atomic_write(runner.folder / FILE, made.model_dump_json(indent=1))
    return made


def _finder(documents: Sequence[CodeBlock]) -> Callable[[Gap], Sequence[Document]]:
    if not documents:
        return lambda gap: ()
    index = QuestionIndex.build(block_entries(documents))
    return lambda gap: neighbours(gap.path, gap.prefix, index)
