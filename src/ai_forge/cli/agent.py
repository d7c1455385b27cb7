"""`ai-forge agent install|uninstall` and `ai-forge mcp`: what coding agents drive AI Forge with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ai_forge.cli.options import AsJson, Options, Repo, Words, with_options
from ai_forge.cli.output import show

agent_app = typer.Typer(cls=Words, help="Skills, workflows and MCP entries for coding agents.", no_args_is_help=True)
Scope = Annotated[
    list[str], typer.Option("--scope", help="What the agent may do: read, chat, train, deploy. May be repeated.")
]


@agent_app.command("install")
def install_agent(repo: Repo = Path(), json: AsJson = False) -> None:
    """Write skills, workflows and MCP entries for agents. And an AGENTS.md section; `uninstall` takes all of it back."""
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


@with_options("set", "config", "home")
def mcp(options: Options, scope: Scope = ["read", "chat", "train"]) -> None:  # noqa: B006 (typer's default; never changed)
    """Serve agents over MCP on standard input and output. Ask, search, status, plan, retrain, tail, cancel, deploy, …"""
    from ai_forge.antigravity_agent.job import KINDS
    from ai_forge.antigravity_agent.mcp_server import SCOPES, Forge, make_server
    from ai_forge.conductor.job_queue import JobQueue
    from ai_forge.errors import InputError

    unknown = [name for name in scope if name not in SCOPES]
    if unknown:
        raise InputError(f"There is no scope {', '.join(unknown)}.", f"there are {', '.join(SCOPES)}.")
    settings, workspace = options.settings().settings, options.workspace()
    with JobQueue(workspace, settings, config=options.config, kinds=KINDS) as queue:
        make_server(Forge(workspace, settings, queue), scope).run("stdio")
