"""What a repository's model is called, and that no other repository's model is called so.

A repository is known by what stays when it is moved or cloned: its first commit and its remote, or its path where it has no
history. The name is for people. `repositories.json` in the workspace remembers which repository has which name, so a
moved repository finds its model again, and a second one of the same folder name is told to take another.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ai_forge.data_pipeline.source.repository import git_output
from ai_forge.errors import InputError
from ai_forge.events import Notice, Sink, ignore
from ai_forge.pipeline.run import RECORD, read_run
from ai_forge.places import SEAL, expanded, sealed
from ai_forge.workspace import Workspace, atomic_write, read_json

NAMES = "repositories.json"
MAX_NAME = 100  # files are called by it, with more behind it, and none may be longer than 255
UPLOADS = "jobs"  # in the workspace: what was sent to a service lies in the folder of its job
_CREDENTIALS = re.compile(rb"(?<=://)[^/@\s]*@")


def slug(name: str) -> str:
    """A repository's name as a model name that every runtime accepts; empty where nothing of it can stay.

    >>> slug("My Repo (v2)")
    'my-repo-v2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")


def identity_of(root: Path) -> str:
    """Twelve hex digits that stay when the repository is moved, cloned again or grows.

    >>> identity_of(Path("/no/such/folder")) == identity_of(Path("/no/such/folder"))
    True
    """
    top = git_output(root, "rev-parse", "--show-toplevel") if root.is_dir() else None
    # a folder inside another repository has that one's history, which would make all its folders one
    is_top = top is not None and Path(top.decode(errors="surrogateescape").strip()) == root.resolve()
    first = git_output(root, "rev-list", "--max-parents=0", "HEAD") if is_top else None
    if first:
        remote = git_output(root, "config", "--get", "remote.origin.url") or b""
        # a repository of joined histories has several first commits, in no certain order; a token in the remote's address
        # changes from clone to clone
        known_by = min(first.split()) + b"\0" + _CREDENTIALS.sub(b"", remote.strip())
    else:
        known_by = str(root.resolve()).encode("utf-8", "surrogateescape")
    return hashlib.sha256(known_by).hexdigest()[:12]


def model_name_for(
    root: Path, name: str, suffix: str, workspace: Workspace, *, wanted: str | None = None, emit: Sink = ignore
) -> str:
    """The model name of the repository at `root`, remembered. `wanted` is what its owner chose; without it the folder's
    name is taken, with a few digits of the identity behind it where another repository has that name.

    Raises:
        InputError: the chosen name is another repository's, or cannot be a name.
    """
    identity = identity_of(root) + suffix  # a handbook's model is another than that of the code beside it
    if wanted is not None and (slug(wanted) != wanted or len(wanted) > MAX_NAME):
        raise InputError(
            f"{wanted!r} cannot be the name of a model.",
            f"use up to {MAX_NAME} lower-case letters, digits, dots, dashes and underscores: "
            f"--name {slug(wanted)[:MAX_NAME] or 'my-model'}.",
        )
    with workspace.lock("repositories", wait_s=10):  # two runs that start at once must not take one name
        known = _read(workspace, identity)
        taken = {
            record["model"]: record["path"]
            for other, record in known.items()
            # an upload has no place of its own: what is sent under a name is the next state of what was sent under it
            if other != identity and not (_is_upload(root, workspace) and _is_upload(Path(record["path"]), workspace))
        }
        # a name of no Latin letter or digit leaves nothing: then the identity's first digits make one
        own = (slug(name)[:MAX_NAME] or f"repository-{identity[:6]}") + suffix
        model = wanted or known.get(identity, {}).get("model") or own
        if model in taken and wanted is not None:
            raise InputError(
                f"The model {model} is of {taken[model]}.", f"give this one a name of its own: --name {model}-2."
            )
        if model in taken:
            owner, model = taken[model], f"{model}-{identity[:6]}"
            text = f"The model of {owner} has that name already: this one is called {model} (--name changes it)."
            emit(Notice("warning", text))
        entry = _row(model, root.resolve())
        if known.get(identity) != entry:
            atomic_write(workspace.root / NAMES, json.dumps(known | {identity: entry}, indent=1))
    return model


def _is_upload(root: Path, workspace: Workspace) -> bool:
    return root.resolve().is_relative_to((workspace.root / UPLOADS).resolve())


def model_suffix(recipe: str | None) -> str:
    """What keeps the models of a recipe apart from the others of the same repository.

    >>> model_suffix("handbook"), model_suffix("repository"), model_suffix(None)
    ('-handbook', '', '')
    """
    if recipe in (None, "repository", "dataset"):  # a file of examples has a name of its own already
        return ""
    return f"-{recipe}"


def known_model_of(root: Path, recipe: str | None, workspace: Workspace) -> str:
    """The name of the model of the repository at `root`, wherever it lay when it was trained; it may be gone.

    Raises:
        InputError: no run was ever made of it.
    """
    suffix = model_suffix(recipe)
    identity = identity_of(expanded(root)) + suffix
    path, known = str(expanded(root).resolve()), _read(workspace, identity)
    record = known.get(identity)
    if record is None:  # a repository that is gone, or that had no history when it was trained
        by_path = (row for key, row in known.items() if row["path"] == path and key.endswith(suffix or key))
        record = next(by_path, None)
    if record is None:
        of_recipe = f" --recipe {recipe}" if suffix else ""
        raise InputError(f"No model was made of {path}.", f"make one: ai-forge run {root}{of_recipe}.")
    return record["model"]


def _read(workspace: Workspace, identity: str) -> dict[str, dict[str, str]]:
    """By identity what is remembered. Where this one is not, or the file is damaged, the runs tell whose model has which
    name as well: a name that was forgotten could be given to another repository."""
    content = read_json(workspace.root / NAMES) or {}
    sound = {key: row for key, row in content.items() if _is_sound(row)}
    if identity in sound and len(sound) == len(content):
        return sound
    return _told_by_runs(workspace) | sound


def _row(model: str, path: Path) -> dict[str, str]:
    # sealed is the name alone: a repository that moves is given its new path
    return {"model": model, "path": str(path), SEAL: sealed({"model": model})[SEAL]}


def _is_sound(row: Any) -> bool:
    if not isinstance(row, dict) or not (isinstance(row.get("model"), str) and isinstance(row.get("path"), str)):
        return False
    return SEAL not in row or row[SEAL] == sealed({"model": row["model"]})[SEAL]


def _told_by_runs(workspace: Workspace) -> dict[str, dict[str, str]]:
    known = {}
    records = [path for path in workspace.runs_dir.glob(f"*/{RECORD}") if path.is_file()]
    for record in sorted(records, key=lambda path: path.stat().st_mtime):  # the newest name counts
        run = read_run(record.parent)
        if run is not None:
            known[identity_of(run.repository) + model_suffix(run.recipe)] = _row(run.model, run.repository)
    return known
