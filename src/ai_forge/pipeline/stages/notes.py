"""Stage `notes`: what commits and documentation say about the blocks, for the questions that quote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.examples.project_notes import ProjectNotes, read_notes
from ai_forge.pipeline.sources import asks_for_notes
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run

FILE = "notes.json"


class NotesSummary(Summary):
    """How many blocks commits and sections speak about; `content` is the hash of what they say."""

    commits: int
    sections: int
    content: str

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.commits} blocks explained by their commit, {self.sections} by the documentation"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    return {"mine": outputs.key("mine"), "notes": run.sources["notes"]}


def _build(context: StageContext) -> NotesSummary:
    notes = read_notes(context.opened.repository, context.opened.mine().documents)
    atomic_write(context.folder / FILE, notes.model_dump_json(indent=1))
    return NotesSummary(commits=len(notes.commits), sections=len(notes.sections), content=notes.fingerprint)


def notes_of(outputs: Outputs) -> ProjectNotes:
    """What the stage found; nothing where the run has no such stage."""
    if "notes" not in outputs:
        return ProjectNotes()
    return outputs.read("notes", FILE, ProjectNotes)


MADE_OF = ("ai_forge.data_pipeline.examples.project_notes",)
NOTES = Stage(
    "notes", ("mine",), 5, _inputs, _build, NotesSummary, MADE_OF, applies=lambda run: asks_for_notes(run.settings)
)
