"""`Artifact`: what a task leaves for people and agents to read, as Markdown and as HTML, in the run's folder."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.antigravity_agent.markdown import as_page, render
from ai_forge.pipeline.run import Run
from ai_forge.workspace import Workspace, atomic_write

__all__ = ["Artifact", "ArtifactWriter", "Status"]

Status = Literal["running", "passed", "refused", "held back", "deployed", "done", "failed", "cancelled"]
FOLDER = "artifacts"
AGENT_FOLDERS = (".agents", ".agent")
TITLES = {
    "training_dashboard": "Training dashboard",
    "data_quality": "Data quality report",
    "validation_report": "Validation report",
    "deployment_checklist": "Deployment checklist",
    "cycle_summary": "Summary of the cycle",
}


class Artifact(BaseModel):
    """A page that a task wrote. `text` says in a sentence what stands in it; `passed` is False where the cycle must not go on."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    run_id: str
    status: Status
    text: str
    created: datetime.datetime
    markdown: Path
    html: Path

    @property
    def passed(self) -> bool:
        """Whether the next task may follow."""
        return self.status in ("passed", "deployed", "done")


class ArtifactWriter:
    """Writes the artifacts of one run: into its folder, and where agents look if `agents_repository` is given."""

    def __init__(self, run: Run, workspace: Workspace, agents_repository: Path | None = None) -> None:
        self._run = run
        self._folder = workspace.runs_dir / run.id / FOLDER
        self._repository = agents_repository

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._folder

    def write(
        self,
        name: str,
        status: Status,
        text: str,
        data: BaseModel,
        *,
        picture: bytes | None = None,
        refresh_s: int | None = None,
    ) -> Artifact:
        """Fill the template `name` with `data`; each file is whole at every moment, so a page that is read while it is
        written anew is the one before or the one after."""
        markdown = render(name, data=data, run=self._run)
        page = as_page(markdown, f"{TITLES[name]} · {self._run.model}", picture=picture, refresh_s=refresh_s)
        paths = self._folder / f"{name}.md", self._folder / f"{name}.html"
        for path, content in zip(paths, (markdown, page), strict=True):
            atomic_write(path, content)
        self._for_agents(name, markdown)
        now = datetime.datetime.now(datetime.UTC)
        return Artifact(
            name=name,
            title=TITLES[name],
            run_id=self._run.id,
            status=status,
            text=text,
            created=now,
            markdown=paths[0],
            html=paths[1],
        )

    def _for_agents(self, name: str, markdown: str) -> None:
        """A copy in the agent folder that the repository has; never through a link, which may lead out of it."""
        if self._repository is None:
            return
        present = [folder for folder in AGENT_FOLDERS if (self._repository / folder).is_dir()]
        agent = self._repository / (present[0] if present else AGENT_FOLDERS[0])
        folder = agent / FOLDER
        if agent.is_symlink() or folder.is_symlink():
            return
        atomic_write(folder / f"ai-forge-{name.replace('_', '-')}.md", markdown)
