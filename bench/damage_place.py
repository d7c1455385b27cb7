"""A home with everything in it, for `damage_home`: made once, used by commands in forks, and made whole again after each.

Two runs of a tiny base, deployed, asked and corrected, a job of the queue, a cycle of a guardian, keys, a handbook, a converted base.
"""

import contextlib
import encodings.idna  # these three are imported where a command needs them: as nobody it could not
import encodings.utf_16_le  # noqa: F401
import http.cookies  # noqa: F401
import os
import resource
import shlex
import shutil
import signal
import stat
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_forge.conductor.schemas import FINISHED, JobRequest, RunSource
from kill_run import killed_after

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import SETTINGS, TinyRun, flags, stdlib_copy, tiny_base
from queue_owner import queue_of, start_owner, wait_until

HANG_S = 60.0
MEMORY_BYTES = 8 << 30  # address space that a command may take beyond that of the process it is forked from
NOBODY = 65534
QUESTION = "where is a string decoded?"
RULE = """---
trigger: always_on
---
# Rules
- Always write a docstring for each public function.
- Never call `eval`.
- Use `pathlib` instead of `os.path`.
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended; `code` is negative for a signal, None where it hung. `opened` are files under the folder."""

    code: int | None
    out: str
    err: str
    opened: frozenset[str] = frozenset()


@dataclass
class Place:
    """A folder with a home, a repository and a base, and the same undamaged beside it: all paths stay what they were."""

    root: Path
    job: str = ""

    @property
    def run(self) -> TinyRun:
        base = (self.root / "base").resolve()  # a link, where the home was made elsewhere
        return TinyRun(self.root / "home", self.root / "repo", base, Ended(0, "", ""))  # type: ignore[arg-type]

    def commands(self) -> dict[str, list[str]]:
        """Each command as a person gives it, by name."""
        run, at = self.run, ["--home", str(self.root / "home")]
        asked = ["--repo", str(run.repo), *at, "--set", "runtime.embedder=none"]
        made = flags(training__base_model=run.base)
        runs = sorted(path.parent.name for path in (self.root / "whole").glob("home/runs/*/report.json"))
        return {
            "run": run.words("run"),
            "plan": run.words("plan"),
            "plan of a file": ["plan", str(run.repo), "--base", str(self.root / "base.gguf"), *run.words("plan")[4:]],
            "deploy": run.words("deploy"),
            "export": run.words("export"),
            "evaluate": run.words("evaluate"),
            "validate": run.words("validate"),
            "ask": ["ask", QUESTION, *asked],
            "search": ["search", QUESTION, *asked, *made],
            "search deployed": ["search", QUESTION, *asked, "--model", "repo"],
            "rollback": ["rollback", str(run.repo), *at],
            "models": ["models", *at],
            "runs": ["runs", *at],
            "compare": ["compare", *runs, *at],
            "clean": ["clean", "--keep-runs", "1", "--older-than", "0d", *at],
            "doctor": ["doctor", *at],
            "jobs list": ["jobs", "list", *at],
            "jobs show": ["jobs", "show", self.job, *at],
            "jobs events": ["jobs", "events", self.job, *at],
            "jobs log": ["jobs", "log", self.job, *at],
            "keys list": ["keys", "list", *at],
            "guardian status": ["guardian", "status", *run.words("status")[1:]],
            "questions suggest": ["questions", "suggest", str(run.repo), *at, *made],
            "questions check": ["questions", "check", str(run.repo), *at, *made],
            "handbook": ["handbook", str(run.repo)],
            "backup": ["backup", str(self.root / "backup.tar"), *at],
        }

    # -- making it ------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """The home, in processes of their own: this one must stay without threads, for it forks."""
        repo = stdlib_copy(self.root / "repo")
        (repo / ".agents" / "rules").mkdir(parents=True)
        (repo / ".agents" / "rules" / "style.md").write_text(RULE)
        tiny_base(self.root / "base")
        made = self.commands()
        self._must(made["run"])
        self._must(["questions", "add", "Where is a string decoded?", "--repo", str(repo), "--file", "json/decoder.py"])
        with (repo / "bisect.py").open("a") as file:
            file.write('\n\ndef added(value: int) -> int:\n    """Add one to the value."""\n    return value + 1\n')
        self._must(made["run"])
        (exported,) = (self.root / "home").glob("cache/base-export/*/base.gguf")
        shutil.copyfile(exported, self.root / "base.gguf")
        self._must([*made["ask"], "--wrong", "It is decoded in json/decoder.py, by `scanstring`."])
        self._must(["keys", "add", "someone", "--home", str(self.root / "home")])
        self._must(made["handbook"])
        self._must(["guardian", *made["run"]])
        self.job = self._with_a_job()
        self._must(self.commands()["plan of a file"])

    def _must(self, words: Sequence[str]) -> None:
        ended = self.give(words)
        if ended.code != 0:
            raise SystemExit(f"{shlex.join(words)} ended with {ended.code}:\n{ended.err}")

    def _with_a_job(self) -> str:
        owner = start_owner(self.root / "home")
        try:
            with queue_of(self.root / "home") as queue:
                settings = SETTINGS | {"training.base_model": str(self.run.base)}
                source = RunSource(path=self.run.repo, settings=settings)
                job = queue.submit(JobRequest(run=source, deploy=True)).job_id
                wait_until(lambda: queue.get(job).status in FINISHED, 300.0)
        finally:
            owner.terminate()
            owner.wait()
        return job

    def keep(self) -> None:
        """What there is now is the undamaged state."""
        (self.root / "job").write_text(self.job)
        shutil.rmtree(self.root / "whole", ignore_errors=True)
        for name in ("home", "repo"):
            shutil.copytree(self.root / name, self.root / "whole" / name, symlinks=True)  # with their times

    def restore(self) -> None:
        """The undamaged state, where the damaged one lay."""
        for name in ("home", "repo"):
            same_again(self.root / "whole" / name, self.root / name)
        (self.root / "backup.tar").unlink(missing_ok=True)

    # -- using it -------------------------------------------------------------------------------------------------------

    def give(self, words: Sequence[str], *, as_nobody: bool = False) -> Ended:
        """Run a command in a fork of this process."""
        return given_in_fork(words, self.root, HANG_S, AS_NOBODY if as_nobody else None)


@dataclass(frozen=True)
class User:
    """Who gives a command: what he may and what others may do with what he makes. Only root can be another."""

    uid: int
    gid: int
    umask: int = 0o022


AS_NOBODY = User(NOBODY, NOBODY)


def given_in_fork(words: Sequence[str], root: Path, limit_s: float, user: User | None = None) -> Ended:
    """How a command ends in a fork of this process, in the folder `root`; nothing that it started outlives it."""
    folder = root / "told"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pid = os.fork()
    if not pid:
        _child(words, root, user)
    code: int | None = killed_after(pid, limit_s)
    if code == -signal.SIGKILL:
        code = None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    out, err, opened = ((folder / name) for name in ("out", "err", "opened"))
    paths = opened.read_text().split("\n") if opened.exists() else []
    return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"), frozenset(paths))


def _child(words: Sequence[str], root: Path, user: User | None) -> None:
    """The command in this process, which ends here: all that it printed and opened lies in `told`."""
    folder, code, opened = root / "told", 70, set[str]()

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "sqlite3.connect", "os.listdir", "os.scandir") and isinstance(args[0], str | os.PathLike):
            path = os.fspath(args[0])
            if isinstance(path, str) and path.startswith(str(root)):
                opened.add(path)

    try:
        os.setsid()
        _bound_memory()
        with (
            (folder / "out").open("w") as out,
            (folder / "err").open("w") as err,
            (folder / "opened").open("w") as list_,
        ):
            if user is not None:
                os.umask(user.umask)
            if user is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(user.gid)
                os.setuid(user.uid)
            os.chdir(root)
            sys.addaudithook(note)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = ai_forge_here(words)
                except BaseException:  # noqa: BLE001 (a traceback is what is looked for)
                    traceback.print_exc()
            list_.write("\n".join(sorted(opened)))
    finally:
        os._exit(code)


def _bound_memory() -> None:
    """No more than a tiny run needs: what reads without end fails, and the machine lives on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def ai_forge_here(words: Sequence[str]) -> int:
    """`ai-forge words…` printing where this process prints."""
    from ai_forge.cli import app as cli

    sys.argv = ["ai-forge", *words]
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115 (for the rest of this process)
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)


def same_again(whole: Path, place: Path) -> None:
    """Make a folder what the whole one is. What was not touched stays the very file: manifests know files by their inodes, too."""
    here, there = _below(place), _below(whole)
    for name in sorted(here - there, reverse=True):
        _remove(place / name)
    for name in sorted(there):
        source, target = whole / name, place / name
        was = source.lstat()
        if not _is_same(was, target):
            _remove(target)
            if stat.S_ISDIR(was.st_mode):
                target.mkdir()
            else:
                shutil.copy2(source, target, follow_symlinks=False)
        now = target.lstat()
        if (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid):
            os.chown(target, was.st_uid, was.st_gid, follow_symlinks=False)
        if now.st_mode != was.st_mode and not stat.S_ISLNK(was.st_mode):
            target.chmod(stat.S_IMODE(was.st_mode))


def _below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _is_same(was: os.stat_result, target: Path) -> bool:
    try:
        now = target.lstat()
    except FileNotFoundError:
        return False
    if stat.S_IFMT(now.st_mode) != stat.S_IFMT(was.st_mode):
        return False
    if not stat.S_ISREG(was.st_mode):
        return True
    return (now.st_size, now.st_mtime_ns) == (was.st_size, was.st_mtime_ns)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def give_to_nobody(root: Path, path: Path) -> None:
    """All of a place to a user whom permissions stop, and to him not to be read: one file of it."""
    for each in (root, *root.rglob("*")):
        if "whole" not in each.parts:
            os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
    if path.exists():
        path.chmod(0)
