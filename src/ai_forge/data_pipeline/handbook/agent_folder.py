"""The files of an agent's handbook: `.agent/` or `.agents/` with rules, memory, workflows and skills.

    rules/**/*.md   memory/corrections.md   memory/logs.md   workflows/**/*.md   skills/**/SKILL.md

The folder is not trusted: links are not followed, only regular files of at most 1 MB that are text are read. What is
left out is counted by reason, values of secrets are masked; a missing kind of file is no error, a folder with none at all is.
"""

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from ai_forge.data_pipeline.secrets.masking import scrub_text
from ai_forge.data_pipeline.text.markdown import Section, decode, sections, split_front_matter
from ai_forge.errors import InputError
from ai_forge.places import expanded

__all__ = ["AGENT_FOLDERS", "AgentFolder", "HandbookFile", "find_agent_folder", "parse_file", "read_agent_folder"]

Role = Literal["rule", "correction", "log", "workflow", "skill"]
AGENT_FOLDERS = (".agent", ".agents")
_FOLDERS: dict[str, Role] = {"rules": "rule", "workflows": "workflow"}
_MEMORY: dict[str, Role] = {"corrections.md": "correction", "logs.md": "log"}
_MAX_BYTES = 1_000_000
# What the handbook's files are called that are made of the others
_MADE_HERE = "fine-tuning-"


@dataclass(frozen=True)
class HandbookFile:
    """One file of the handbook, read. `path` is relative to the agent folder; `text` is repaired, without front matter."""

    path: str
    role: Role
    title: str
    meta: dict[str, str]
    text: str
    sections: tuple[Section, ...]
    repairs: tuple[str, ...]


@dataclass(frozen=True)
class AgentFolder:
    """The handbook's files by path, and why others were left out."""

    root: Path
    files: tuple[HandbookFile, ...]
    skipped: Counter[str] = field(default_factory=Counter)


def find_agent_folder(path: Path) -> Path:
    """The agent folder that `path` is or holds.

    Raises InputError: there is none, there are two, or it is a link.
    """
    path = expanded(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder.", "Give a repository with an .agent folder, or that folder itself.")
    named = path.resolve().name in AGENT_FOLDERS
    found = [path / name for name in AGENT_FOLDERS if (path / name).is_dir()]
    if named:
        found = [path]
    if not found:
        raise InputError(f"{path} has no {' or '.join(AGENT_FOLDERS)} folder.", "Give the repository that holds it.")
    if len(found) > 1:
        raise InputError(f"{path} has both {' and '.join(AGENT_FOLDERS)}.", f"Name the one: {found[0]}.")
    if not named and found[0].is_symlink():
        raise InputError(f"{found[0]} is a link, and links are not followed.", "Name the folder that it points to.")
    return found[0].resolve()


def read_agent_folder(path: Path) -> AgentFolder:
    """Read the handbook at or below `path`.

    Raises InputError: no such folder, or nothing in it can be read.
    """
    root = find_agent_folder(path)
    files: list[HandbookFile] = []
    skipped: Counter[str] = Counter()
    for folder, subfolders, names in os.walk(root, followlinks=False):
        here = Path(folder)
        links = [name for name in subfolders if (here / name).is_symlink()]
        skipped["link"] += len(links)
        # In place: `os.walk` goes on with what is left in the list, in its order.
        subfolders[:] = sorted(name for name in subfolders if name not in links and not name.startswith("."))
        for name in sorted(names):
            relative = (here / name).relative_to(root).as_posix()
            role = _role_of(relative)
            if relative.startswith(_MADE_HERE):
                continue
            if role is None:
                skipped["other_file"] += 1
                continue
            content = _content(here / name, skipped)
            if content is None:
                continue
            try:
                files.append(parse_file(relative, role, content))
            except (ValueError, RecursionError):  # YAML in the front matter may nest as deep as it likes
                skipped["not_text"] += 1
    skipped = +skipped
    if not any(section.text for file in files for section in file.sections):
        left_out = ", ".join(f"{reason} {n}" for reason, n in skipped.most_common()) or "nothing"
        raise InputError(
            f"{root} holds no handbook text (left out: {left_out}).",
            "Put rules into rules/*.md, corrections into memory/corrections.md, workflows into workflows/*.md.",
        )
    return AgentFolder(root, tuple(sorted(files, key=lambda file: file.path)), skipped)


def parse_file(path: str, role: Role, content: bytes) -> HandbookFile:
    """A file's bytes as a handbook file. Raises ValueError where they are no text."""
    text, repairs = decode(content)
    clean = scrub_text(text)
    if clean != text:
        text, repairs = clean, [*repairs, "secret_masked"]
    meta, body, offset = split_front_matter(text)
    found = sections(body, offset)
    pure = PurePosixPath(path)
    stem = pure.parent.name if role == "skill" else pure.stem
    top = next((section.heading for section in found if section.level == 1 and section.heading), None)
    from_path = re.sub(r"^\d+[-_. ]+", "", stem).replace("-", " ").replace("_", " ")
    title = meta.get("title") or top or meta.get("name") or from_path
    return HandbookFile(path, role, title.strip() or stem, meta, body, tuple(found), tuple(repairs))


def _role_of(path: str) -> Role | None:
    parts = PurePosixPath(path.lower()).parts
    if len(parts) < 2 or not parts[-1].endswith(".md"):
        return None
    if parts[0] == "skills":
        return "skill" if parts[-1] == "skill.md" else None
    if parts[0] == "memory":
        return _MEMORY.get("/".join(parts[1:]))
    return _FOLDERS.get(parts[0])


def _content(path: Path, skipped: Counter[str]) -> bytes | None:
    try:
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            skipped["link"] += 1
        elif not stat.S_ISREG(state.st_mode):
            skipped["not_a_file"] += 1
        elif state.st_size > _MAX_BYTES:
            skipped["too_large"] += 1
        else:
            # Opened without following links and without waiting: what was looked at may be a link or a pipe by now.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
                return stream.read(_MAX_BYTES)
    except OSError:
        skipped["unreadable"] += 1
    return None
