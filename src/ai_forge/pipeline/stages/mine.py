"""Stage `mine`: the repository's files to code blocks. The blocks are kept by file, so only what changed is mined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ai_forge.code_hash import code_hash
from ai_forge.errors import InputError
from ai_forge.events import Notice
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary

if TYPE_CHECKING:
    from ai_forge.data_pipeline.miner import MiningResult
    from ai_forge.pipeline.run import Run

MINER = "ai_forge.data_pipeline.miner"


class MineSummary(Summary):
    """What was found. `documents` are all blocks, `subjects` those that may be asked about."""

    files: int
    documents: int
    subjects: int
    by_language: dict[str, int]
    by_type: dict[str, int]
    rejected: dict[str, int]
    skipped: dict[str, int]
    masked: int
    advice: str | None

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.documents} blocks in {self.files} files, {self.subjects} to ask about"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    # the miner's code itself, not a version of it: the blocks are kept by file under that hash too, so both go together
    return {"files": run.sources["files"], "settings": run.settings.miner.model_dump(), "code": code_hash(MINER)}


def _build(context: StageContext) -> MineSummary:
    mined = context.opened.mine(context.report)
    if not mined.blocks:
        raise _nothing_to_ask(context, mined)
    if mined.advice:
        context.emit(Notice("warning", mined.advice))
    return MineSummary.model_validate(mined.summary())


def _nothing_to_ask(context: StageContext, mined: MiningResult) -> InputError:
    reasons = ", ".join(f"{reason}: {n}" for reason, n in (mined.rejected + mined.skipped).most_common(5))
    next_step = "name a repository with more code."
    if mined.rejected["no_docstring"]:
        next_step = f"add --set miner.require_docstring=false, or {next_step}"
    return InputError(
        f"Nothing in {context.run.repository} can be asked about: {len(mined.documents)} blocks were found in "
        f"{mined.n_files} files, none passes the filters ({reasons or 'no definitions'}).",
        next_step,
    )


MINE = Stage("mine", (), 13, _inputs, _build, MineSummary, (MINER,))
