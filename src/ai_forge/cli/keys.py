"""`ai-forge keys`: who may call the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ai_forge.cli.options import AsJson, Words
from ai_forge.cli.output import is_json, print_json, show, table, warn

keys_app = typer.Typer(
    cls=Words,
    help="API keys of the service: add, list, revoke. The service demands one unless it listens on 127.0.0.1.",
    no_args_is_help=True,
)
Home = Annotated[Path | None, typer.Option("--home", help="AI_FORGE_HOME for this command.")]


@keys_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, chat, train, deploy or admin; again for more. Default: read, chat."),
    ] = None,
    days: Annotated[float | None, typer.Option("--days", help="It ends after so many days.")] = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    from ai_forge.conductor.auth import KeyStore
    from ai_forge.workspace import Workspace

    text, key = KeyStore(Workspace.open(home)).add(name, scope or ["read", "chat"], days)
    if is_json(json):
        print_json({"key": text, "id": key.id, "name": key.name, "scopes": key.scopes, "expires_at": key.expires_at})
        return
    print(text)
    ends = f", until {key.expires_at:%Y-%m-%d}" if key.expires_at else ""
    warn(f"  Key {key.id} of {key.name} ({', '.join(key.scopes)}{ends}). Keep it: it is not shown again.")


@keys_app.command("list")
def list_keys(home: Home = None, json: AsJson = False) -> None:
    """Every key with its scopes and state."""
    import datetime

    from ai_forge.conductor.auth import KeyStore
    from ai_forge.workspace import Workspace

    now = datetime.datetime.now(datetime.UTC)
    store = KeyStore(Workspace.open(home))
    keys = [(key, key.state(now)) for key in store.list()]
    values = [
        {"id": key.id, "name": key.name, "scopes": key.scopes, "state": state, "expires_at": key.expires_at}
        for key, state in keys
    ]
    rows = [
        [
            key.id,
            key.name,
            ", ".join(key.scopes),
            state,
            f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never",
        ]
        for key, state in keys
    ]
    show(values, lambda: table(("id", "name", "scopes", "state", "expires"), rows), json)
    if not keys:
        warn(
            f"  No keys: {store.path} is not there. If some were made, restore it from a backup: none is accepted now."
        )


@keys_app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `ai-forge keys list` shows it.")],
    home: Home = None,
    json: AsJson = False,
) -> None:
    """End a key at once and for good."""
    from ai_forge.conductor.auth import KeyStore
    from ai_forge.workspace import Workspace

    key = KeyStore(Workspace.open(home)).revoke(id)
    show({"id": key.id, "name": key.name, "revoked_at": key.revoked_at}, f"{key.id} ({key.name}) is revoked", json)
