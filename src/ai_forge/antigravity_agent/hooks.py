"""Git hooks that send a note to the watch, and nothing else: they write one small file, in the background, and never fail.

A hook that is there already is kept: it is moved aside, our hook runs it after the note with the same words, input and exit code,
and `remove` puts it back byte for byte.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from ai_forge.data_pipeline.source.repository import git_output
from ai_forge.errors import InputError
from ai_forge.workspace import atomic_write

__all__ = ["HOOKS", "git_folder", "install_hooks", "remove_hooks"]

HOOKS = ("post-commit", "post-merge", "post-rewrite", "post-checkout")
MARK = "# AI Forge guardian: sends a note to `ai-forge guardian watch`; `ai-forge guardian install-hook --remove` removes it."
KEPT = ".before-ai-forge"


def git_folder(root: Path) -> Path | None:
    """The folder that git keeps refs in, also of a linked work tree; None where `root` is not in git."""
    found = git_output(root, "rev-parse", "--git-common-dir") if root.is_dir() else None
    if not found:
        return None
    return (root / found.decode("utf-8", "surrogateescape").rstrip("\n")).resolve()


def _hooks_folder(root: Path) -> Path:
    """Where git looks for the repository's hooks.

    Raises:
        InputError: there is no git repository, or a setting puts its hooks where other repositories' are, too.
    """
    git = git_folder(root)
    if git is None:
        raise InputError(f"{root} is no git repository.", "name one, or use `ai-forge guardian watch` alone.")
    # asked without `git_output`, which overrides this very setting; it only reads configuration
    asked = subprocess.run(
        ["git", "-C", str(root), "config", "--get", "core.hooksPath"], capture_output=True, text=True, check=False
    )
    path = asked.stdout.strip()
    if asked.returncode == 0 and path:
        raise InputError(
            f"core.hooksPath is {path!r}: the hooks of this repository are kept elsewhere, by another tool or for all of yours.",
            "add the lines that --print shows to its post-commit hook.",
        )
    return git / "hooks"


def note_script(note: Path, kept: Path | None = None) -> str:
    """The hook: a note, then the hook that was there before, if there was one."""
    # `( … ) &` and no output: a commit waits for nothing and is told of nothing
    lines = [
        "#!/bin/sh",
        MARK,
        f"( mkdir -p {shlex.quote(str(note.parent))} && : > {shlex.quote(str(note))} ) >/dev/null 2>&1 &",
    ]
    if kept is not None:
        lines.append(f'exec {shlex.quote(str(kept))} "$@"')
    return "\n".join([*lines, ""])


def _is_ours(path: Path) -> bool:
    try:
        return MARK.encode() in path.read_bytes()
    except OSError:
        return False


def install_hooks(root: Path, note: Path) -> list[Path]:
    """Put the hooks in place; returns those that were written. Again it changes nothing.

    Raises:
        InputError: see `_hooks_folder`.
    """
    folder = _hooks_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in HOOKS:
        path, aside = folder / name, folder / f"{name}{KEPT}"
        if path.is_symlink() or (path.exists() and not _is_ours(path)):
            path.rename(aside)  # a link stays a link
        # git runs a hook only if it may be executed: one that may not be is kept, and not run by us either
        runs = aside.exists() and bool(aside.stat().st_mode & 0o111)
        script = note_script(note, aside if runs else None)
        if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != script:
            atomic_write(path, script)
            path.chmod(0o755)
            written.append(path)
    return written


def remove_hooks(root: Path) -> list[Path]:
    """Take our hooks away and put back those that were there before; returns what was changed."""
    folder = _hooks_folder(root)
    changed = []
    for name in HOOKS:
        path, aside = folder / name, folder / f"{name}{KEPT}"
        if not _is_ours(path):
            continue
        path.unlink()
        if aside.exists() or aside.is_symlink():
            aside.rename(path)
        changed.append(path)
    return changed
