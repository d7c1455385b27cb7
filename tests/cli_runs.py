"""The command line as its user meets it: in this process, or as a real one; small repositories and settings for it."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.cli import app as cli
from ai_forge.config import load_settings
from ai_forge.events import Sink, ignore
from ai_forge.pipeline.cleaning import SHARED
from ai_forge.pipeline.identity import identity_of
from ai_forge.pipeline.run import new_run
from ai_forge.pipeline.runner import Runner
from ai_forge.workspace import Workspace
from tiny_models import make_tiny

MODULES = ("json/decoder.py", "json/encoder.py", "json/scanner.py", "bisect.py", "heapq.py", "textwrap.py", "shlex.py")
SETTINGS = {
    "training.backend": "torch",
    "training.rank": 4,
    "training.max_steps": 3,
    "training.max_seq_len": 2048,
    "training.micro_batch_size": 2,
    "training.grad_accum_steps": 1,
    "training.eval_examples": 2,
    "synthesis.max_context_tokens": 200,
    "judge.n_questions": 4,
    "judge.n_worked_examples": 1,
    "judge.max_new_tokens": 8,
    "judge.code_bytes": 1000,
    "export.quantization": "f16",
    "export.parity_prompts": 2,
    "export.parity_tokens": 2,
    "runtime.kind": "embedded",
    "runtime.embedder": "none",
    "runtime.num_predict": 16,
    "runtime.deploy": "always",
}
"""A run of a few seconds. Random weights leave near ties everywhere, so parity looks at two greedy tokens."""

STAGES = (
    "base",
    "mine",
    "notes",
    "dataset",
    "index",
    "train",
    "merge",
    "export",
    "base-export",
    "evaluate",
    "parity",
    "report",
)
"""What a run of the code itself does, in order: its base, then the stages that apply to the tiny one."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says what went wrong; stdout is empty and there is no traceback."""
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.partition(":")[0] in CODES]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0]
        assert " Next: " in lines[0], lines[0]
        return lines[0]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


CODES = ("bad_input", "missing_prerequisite", "try_again", "refused", "internal")


class Terminal(io.StringIO):
    """Something that a person reads: results are printed there as tables and sentences."""

    def isatty(self) -> bool:
        return True


def ai_forge(*words: object, typed: str = "", on_terminal: bool = False) -> Outcome:
    """`ai-forge words…` in this process; what it prints goes into a pipe, or on a plain terminal of 80 columns."""
    out, err = Terminal() if on_terminal else io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "dumb")
        patch.setattr(sys, "argv", ["ai-forge", *map(str, words)])
        patch.setattr(sys, "stdin", io.StringIO(typed))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.main()
    assert isinstance(end.value.code, int)
    return Outcome(end.value.code, out.getvalue(), err.getvalue())


def process(*words: object, **environment: str) -> "subprocess.Popen[str]":
    """`python -m ai_forge words…` as a process of its own; every warning is an error there as well."""
    command = [sys.executable, "-W", "error", "-m", "ai_forge", *map(str, words)]
    chosen = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(command, env=chosen, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def flags(**changes: object) -> list[str]:
    """`--set` words of `SETTINGS`, with changes written as `judge__n_questions=5`."""
    chosen = SETTINGS | {key.replace("__", ".", 1): value for key, value in changes.items()}
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def stdlib_copy(folder: Path, modules: tuple[str, ...] = MODULES) -> Path:
    """A small real repository: modules of the running Python, as they are."""
    for name in modules:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(sysconfig.get_path("stdlib")) / name, folder / name)
    return folder


def tiny_base(folder: Path, **changes: object) -> Path:
    """A random base that takes prompts of 4096 tokens."""
    make_tiny(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 4096} | changes))
    return folder


def debris(home: Path) -> list[str]:
    """Temporary files and folders, and stages whose folder has no manifest: what a failed command must not leave."""
    left = [path for path in home.rglob("*") if ".tmp-" in path.name]
    stages = [path for path in home.glob("cache/*/*") if path.is_dir() and path.parent.name not in SHARED]
    left += [path for path in stages if path.suffix != ".work" and not (path / "manifest.json").exists()]
    return sorted(str(path.relative_to(home)) for path in left)


@dataclass(frozen=True)
class TinyRun:
    """A finished and deployed run of a tiny random base; whoever changes it works on a copy of its home."""

    home: Path
    repo: Path
    base: Path
    outcome: Outcome

    def words(self, command: str, **changes: object) -> list[str]:
        """The command with this run's flags."""
        return [command, str(self.repo), "--base", str(self.base), "--home", str(self.home), *flags(**changes)]


def tiny_run(folder: Path) -> TinyRun:
    """Make one in `folder`; what it prints is what a person sees."""
    made = TinyRun(folder / "home", stdlib_copy(folder / "repo"), tiny_base(folder / "base"), Outcome(0, "", ""))
    return TinyRun(made.home, made.repo, made.base, ai_forge(*made.words("run"), on_terminal=True))


def copy_of(run: TinyRun, folder: Path) -> TinyRun:
    """The run in `folder`, where a test may change it; its repository keeps its model, as one that is moved does."""
    home = shutil.copytree(run.home, folder / "home", symlinks=True)
    repo = shutil.copytree(run.repo, folder / "repo")
    names = home / "repositories.json"
    rows = {identity_of(repo): {**row, "path": str(repo)} for row in json.loads(names.read_text()).values()}
    names.write_text(json.dumps(rows))
    return TinyRun(home, repo, run.base, run.outcome)


def runner_of(
    run: TinyRun, emit: Sink = ignore, cancel: CancelToken = NEVER, *, name: str | None = None, **changes: object
) -> Runner:
    """A runner on a run's repository as it is now."""
    chosen = SETTINGS | {key.replace("__", ".", 1): value for key, value in changes.items()}
    settings = load_settings(("flag", chosen | {"training.base_model": str(run.base)})).settings
    workspace = Workspace.open(run.home)
    return Runner(new_run(run.repo, settings, workspace, name=name), workspace, emit, cancel)
