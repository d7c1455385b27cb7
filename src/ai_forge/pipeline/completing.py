"""Next-commit completion of a run: the held-out files' newest changes, completed by its base and by its tuned model.

Kept in the run's folder as `completion.json`; the same call again reads it, unless more time or other gaps are asked for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ai_forge.data_pipeline.miner import mine
from ai_forge.data_pipeline.search.entries import block_entries
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.errors import InputError
from ai_forge.judge.completion.gaps import Gap, chosen
from ai_forge.judge.completion.history import files_at, gaps_of_files, newest_commits
from ai_forge.judge.completion.measure import Completed, complete_all, context_for, form_of
from ai_forge.pipeline.stages.dataset import held_out_code
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_forge.data_pipeline.schemas import Document
    from ai_forge.pipeline.runner import Runner

FILE = "completion.json"
CANDIDATES_OF_A_GAP = 6  # so many are cut for each that is asked: the kinds are then chosen evenly


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
        root, settings = runner.run.repository, runner.run.settings
        with runner.reporting("completion") as ending:
            before = None
            n_commits, skipped = 0, {}
            gaps: Sequence[Gap] = ()
            if runner.run.commit is not None:
                history = newest_commits(root, held_out.__contains__, n_gaps=CANDIDATES_OF_A_GAP * n_gaps)
                gaps, before = history.gaps, history.before
                n_commits, skipped = history.n_commits, dict(history.skipped)
            from_commits = bool(gaps)
            if not from_commits:
                gaps = gaps_of_files(held_out_code(outputs))
            picked = chosen(gaps, n_gaps, seed=settings.judge.seed)
            if not picked:
                raise InputError(
                    f"Nothing in the {len(held_out)} held-out files of {root} can be taken away and completed.",
                    "give a repository with more code.",
                )
            # what was held out is not shown: without history the files that were trained on are what stood before
            if from_commits and before is not None:
                documents = mine(files_at(root, before)).documents
            else:
                documents = tuple(block for block in runner.opened.mine().documents if block.path not in held_out)
            context = runner.context("evaluate", runner.folder, outputs)
            rows = complete_all(
                picked,
                partial(load_generator, context),
                runner.opened.tokenizer,
                _finder(QuestionIndex.build(block_entries(documents)) if documents else None),
                budget_s=budget_s,
                progress=context.report,
            )
            ending.counts = {"gaps": len(picked), "commits": n_commits}
            ending.text = f"{len(rows) // 4} gaps of {n_commits} commits" if from_commits else f"{len(rows) // 4} gaps"
        made = Completed(
            form=form_of(runner.opened.tokenizer),
            source="commits" if from_commits else "held-out files",
            n_commits=n_commits,
            before=before,
            skipped=skipped,
            rows=tuple(rows),
        )
        atomic_write(runner.folder / FILE, made.model_dump_json(indent=1))
    return made


def _finder(index: QuestionIndex | None) -> Finder:
    def find(gap: Gap) -> Sequence[Document]:
        return context_for(gap, index) if index is not None else ()

    return find


if TYPE_CHECKING:
    from collections.abc import Callable

    Finder = Callable[[Gap], Sequence[Document]]
