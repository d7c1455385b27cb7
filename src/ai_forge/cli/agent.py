"""`ai-forge agent install|uninstall`: what coding agents drive AI Forge with."""

from __future__ import annotations

from pathlib import Path

import typer

from ai_forge.cli.options import AsJson, Repo
from ai_forge.cli.output import show

agent_app = typer.Typer(help="Skills, workflows and MCP entries for coding agents.", no_args_is_help=True)


@agent_app.command("install")
def install_agent(repo: Repo = Path(), json: AsJson = False) -> None:
    """Write skills, workflows, an AGENTS.md section and MCP entries into the repository; `uninstall` takes all of it back."""
    from ai_forge.antigravity_agent.install import install

    _tell(install(repo), "wrote", "everything was there already", json)


@agent_app.command("uninstall")
def uninstall_agent(repo: Repo = Path(), json: AsJson = False) -> None:
    """Put the repository back as it was before `install`."""
    from ai_forge.antigravity_agent.install import uninstall

    _tell(uninstall(repo), "took back", "nothing was installed", json)


def _tell(paths: list[str], what: str, nothing: str, json: bool) -> None:
    def text() -> None:
        for path in paths:
            print(f"{what} {path}")
        if not paths:
            print(nothing)

    show(paths, text, json)
