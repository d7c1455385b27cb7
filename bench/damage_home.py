"""Every kind of file under a home damaged in 25 ways: is it ever met with a traceback, a hang or a wrong answer?

    python bench/damage_home.py --seconds 1500 --write          (`make soak`)
    python bench/damage_home.py --made FOLDER --share 0.1       (a home that was made before)

A home is made once: two runs of a tiny base, deployed, asked and corrected, a job of the queue, a cycle of a guardian, keys, a
handbook, a converted base. Each command is run twice on it undamaged: what differs is no answer, and the files that it opens are
those that it reads. Then, for each kind of file and each way, a copy of the home is damaged and two of the commands that read
the file are run in processes of their own. Told for each command:

    same       the answer that it gives undamaged: it does not matter, or was made again
    told       another answer, and stderr names the file or its folder
    refused    a stable code, one line, a next step; the step is taken, and the same command given again: `helped`, or a fault
    by hand    refused, and the step is no command
    FAULT      a traceback, a signal, an internal error, a hang of over a minute, another answer without a word, a step that did not
               help

Prints a JSON report; ends with 1 where there is a fault.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai_forge.conductor.schemas import FINISHED, JobRequest, RunSource
from damages import DAMAGES, NotPossibleError
from kill_run import import_everything, killed_after
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import CODES, SETTINGS, TinyRun, flags, stdlib_copy, tiny_base
from queue_owner import queue_of, start_owner, wait_until

HANG_S = 60.0
N_READERS = 2
NOBODY = 65534
QUESTION = "where is a string decoded?"
ALWAYS = ("models", "runs", "clean")  # where no command opens the file
# of an answer: seconds, and what says how a stage came to be rather than what it is
NO_ANSWER = {
    "seconds",
    "cached",
    "stages",
    "state",
    "text",
    "changed",
    "bytes",
    "training",
    "created_at",
    "created",
} | {
    "files",  # how many a backup holds
    "written",
}
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
        return TinyRun(self.root / "home", self.root / "repo", self.root / "base", Ended(0, "", ""))  # type: ignore[arg-type]

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
            shutil.copytree(self.root / name, self.root / "whole" / name, symlinks=True)

    def restore(self) -> None:
        """The undamaged state, where the damaged one lay."""
        for name in ("home", "repo"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            shutil.copytree(self.root / "whole" / name, self.root / name, symlinks=True)
        (self.root / "backup.tar").unlink(missing_ok=True)

    # -- using it -------------------------------------------------------------------------------------------------------

    def give(self, words: Sequence[str], *, as_nobody: bool = False) -> Ended:
        """Run a command in a fork of this process."""
        folder = self.root / "told"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pid = os.fork()
        if not pid:
            _child(words, self.root, as_nobody)
        code: int | None = killed_after(pid, HANG_S)
        if code == -9:
            code = None
        out, err, opened = ((folder / name) for name in ("out", "err", "opened"))
        paths = opened.read_text().split("\n") if opened.exists() else []
        return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"), frozenset(paths))


def _child(words: Sequence[str], root: Path, as_nobody: bool) -> None:
    """The command in this process, which ends here: all that it printed and opened lies in `told`."""
    folder, code, opened = root / "told", 70, set[str]()

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "sqlite3.connect", "os.listdir", "os.scandir") and isinstance(args[0], str | os.PathLike):
            path = os.fspath(args[0])
            if isinstance(path, str) and path.startswith(str(root)):
                opened.add(path)

    try:
        with (
            (folder / "out").open("w") as out,
            (folder / "err").open("w") as err,
            (folder / "opened").open("w") as list_,
        ):
            if as_nobody:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
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


def ai_forge_here(words: Sequence[str]) -> int:
    """`ai-forge words…` printing where this process prints."""
    from ai_forge.cli import app as cli

    sys.argv = ["ai-forge", *words]
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115 (for the rest of this process)
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)


# -- answers ------------------------------------------------------------------------------------------------------------


def answer_of(ended: Ended, volatile: frozenset[str] = frozenset()) -> Any:
    """What a command says: by path in its JSON, or its lines."""
    try:
        tree = json.loads(ended.out)
    except ValueError:
        return ended.out.split("\n")
    flat = dict(_flat(tree, ""))
    return {path: value for path, value in flat.items() if path not in volatile}


def _flat(tree: Any, path: str) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield path, tree
        return
    for key, value in items:
        if key not in NO_ANSWER:
            yield from _flat(value, f"{path}.{key}")


@dataclass(frozen=True)
class Expected:
    """How a command ends undamaged, what it answers, and which kinds of files it reads."""

    code: int
    answer: Any
    volatile: frozenset[str]
    reads: frozenset[str]

    def is_met(self, ended: Ended) -> bool:
        return ended.code == self.code and answer_of(ended, self.volatile) == self.answer


def expected_of(place: Place, words: Sequence[str]) -> Expected:
    """Two runs of a command, each on an undamaged copy."""
    place.restore()
    first = place.give(words)
    place.restore()
    time.sleep(0.05)
    second = place.give(words)
    if first.code != second.code or first.code is None or "Traceback" in first.err:
        raise SystemExit(f"undamaged, {shlex.join(words)} ends with {first.code}, {second.code}:\n{first.err[-2000:]}")
    one, two = answer_of(first), answer_of(second)
    volatile = frozenset[str]()
    if isinstance(one, dict) and isinstance(two, dict):
        volatile = frozenset(path for path in one | two if one.get(path) != two.get(path))
    reads = frozenset(kind_of(Path(path), place.root) for path in first.opened if path)
    return Expected(first.code, answer_of(first, volatile), volatile, reads)


# -- files --------------------------------------------------------------------------------------------------------------


def kind_of(path: Path, root: Path) -> str:
    """A file's path without what names one run, one key or one repository.

    >>> kind_of(Path("/r/home/locks/train-0123456789abcdef.lock"), Path("/r"))
    'home/locks/train-*.lock'
    """
    relative = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    named = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,64}", "*", relative)
    named = re.sub(r"step-\d+", "step-*", named)
    named = re.sub(
        r"/(?:bm25|file|prose)/(?=[^/]+\.(?:npy|json)$)", "/bm25|file|prose/", named
    )  # three indexes of one form
    return re.sub(r"[^/]+\.png$", "*.png", named)


def kinds_in(place: Place) -> dict[str, list[Path]]:
    """The files of each kind, in the home and what AI Forge keeps in a repository."""
    found: dict[str, list[Path]] = defaultdict(list)
    files = [*(place.root / "home").rglob("*"), *(place.root / "repo").glob(".*/*")]
    for path in sorted(files):
        if path.is_file() and not path.is_symlink():
            found[kind_of(path, place.root)].append(path)
    return dict(found)


# -- one case -----------------------------------------------------------------------------------------------------------


@dataclass
class Matrix:
    """All cases of a place."""

    place: Place
    expected: dict[str, Expected]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    by_damage: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[dict[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def case(self, kind: str, files: Sequence[Path], way: str) -> bool:
        """Damage one file of the kind and give the commands that read it; False where it cannot be damaged so."""
        chance = random.Random(f"{self.seed} {kind} {way}")  # the same, whatever else is tried
        path = chance.choice(list(files))
        readers = [name for name, known in self.expected.items() if kind in known.reads] or list(ALWAYS)
        chosen = chance.sample(readers, min(N_READERS, len(readers)))
        damage_seed = chance.random()
        for name in chosen:
            self.place.restore()
            try:
                DAMAGES[way](path, random.Random(damage_seed))
            except NotPossibleError as error:
                self.skipped[f"{way}: {error}"] += 1
                return False
            as_nobody = way == "unreadable" and os.geteuid() == 0
            if as_nobody:
                _give_to_nobody(self.place.root, path)
            self._tell(kind, way, path, name, as_nobody)
        return True

    def _tell(self, kind: str, way: str, path: Path, name: str, as_nobody: bool) -> None:
        words = self.place.commands()[name]
        ended = self.place.give(words, as_nobody=as_nobody)
        what, detail = self._judged(ended, name, path)
        if what == "refused":
            what, detail = self._stepped(ended, name, path, as_nobody)
        self.counts[what] += 1
        self.by_damage[way][what] += 1
        if what.isupper():
            fault = {"fault": what, "kind": kind, "way": way, "command": name, "detail": detail}
            print(json.dumps(fault), file=sys.stderr, flush=True)
            self.faults.append(fault)

    def _judged(self, ended: Ended, name: str, path: Path) -> tuple[str, str]:
        if ended.code is None:
            return "HANG", ended.err[-300:]
        if ended.code < 0:
            return "SIGNAL", f"signal {-ended.code}: {ended.err[-300:]}"
        if "Traceback (most recent call last)" in ended.err:
            return "TRACEBACK", _last_of_ours(ended.err)
        if self.expected[name].is_met(ended):
            return "same", ""
        if ended.code == self.expected[name].code:
            if names(ended.err, path):
                return "told", ""
            return "WRONG ANSWER", difference(
                self.expected[name].answer, answer_of(ended, self.expected[name].volatile)
            )
        complaint = complaint_of(ended.err)
        if complaint is None or complaint.startswith("internal") or " Next: " not in complaint:
            return "UNCLEAR", f"{ended.code}: {ended.err[-400:]}"
        return "refused", complaint

    def _stepped(self, ended: Ended, name: str, path: Path, as_nobody: bool) -> tuple[str, str]:
        """Take the next step, as far as it is one that can be typed, and give the command again."""
        complaint = complaint_of(ended.err) or ""
        step = complaint.partition(" Next: ")[2]
        taken = False
        for move in re.finditer(r"\bmv (\S+) ([^\s;,)]+)", step):
            with contextlib.suppress(OSError):
                Path(move[1]).rename(move[2])
                taken = True
        for removed in re.finditer(r"\brm (?:-rf? )?(\S+?)(?=[\s;,.)]|$)", step):
            gone = Path(removed[1])
            taken = True
            if gone.is_dir() and not gone.is_symlink():
                shutil.rmtree(gone)
            else:
                gone.unlink(missing_ok=True)
        for given in re.finditer(r"\bchmod (\S+) ([^\s;,)]+)", step):
            with contextlib.suppress(OSError):
                Path(given[2]).chmod(0o700)
            taken = True
        for typed in re.finditer(r"ai-forge ((?:[a-z-]+ ?)+)", step):
            words = self._as_here(typed[1].split())
            if words:
                after = self.place.give(words, as_nobody=as_nobody)
                if after.code not in (0, self.expected.get(typed[1].split()[0], self.expected["run"]).code):
                    return "STEP FAILS", f"{complaint} → {complaint_of(after.err) or after.err[-300:]}"
                taken = True
        if not taken:
            return "by hand", complaint
        again = self.place.give(self.place.commands()[name], as_nobody=as_nobody)
        what, _ = self._judged(again, name, path)
        if what in ("same", "told") or self._is_new(again, name):
            return "helped", ""
        return "NO HELP", f"{complaint} → {what}: {(complaint_of(again.err) or again.err)[-300:]}"

    def _as_here(self, typed: Sequence[str]) -> list[str]:
        """The words of a next step with this place's flags."""
        known = self.place.commands()
        for n in (2, 1):
            name = " ".join(typed[:n])
            if name in known:
                return known[name]
        if list(typed[:2]) == ["keys", "add"]:
            return ["keys", "add", "again", "--home", str(self.place.root / "home")]
        return []

    def _is_new(self, ended: Ended, name: str) -> bool:
        """A list or a log that was begun anew holds less than before: it works, and the person removed it knowingly."""
        return ended.code in (0, self.expected[name].code) and "Traceback" not in ended.err


def _give_to_nobody(root: Path, path: Path) -> None:
    for each in (root, *root.rglob("*")):
        if "whole" not in each.parts:
            os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
    if path.exists():
        path.chmod(0)


def names(text: str, path: Path) -> bool:
    """Whether a text names the file, or the folder that it is a part of."""
    flat = " ".join(text.split())
    return any(str(each) in flat for each in (path, *list(path.parents)[:3])) or path.name in flat


def difference(expected: Any, found: Any) -> str:
    """The first thing in which two answers differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        other = [key for key in expected | found if expected.get(key) != found.get(key)]
        return "; ".join(f"{key}: {expected.get(key)!r} → {found.get(key)!r}" for key in other[:3])[:400]
    return f"{str(expected)[:200]} → {str(found)[:200]}"


def complaint_of(err: str) -> str | None:
    """The line that says what went wrong."""
    lines = [line for line in err.splitlines() if line.partition(":")[0] in CODES]
    return lines[-1] if lines else None


def _last_of_ours(err: str) -> str:
    """The innermost line of ours in a traceback, and its error."""
    lines = [line.strip() for line in err.splitlines() if "ai_forge" in line and "line " in line]
    where = lines[-1].rpartition("ai_forge/")[2] if lines else ""
    return f"{where}: {err.strip().splitlines()[-1][:200]}"


# -- all of them ----------------------------------------------------------------------------------------------------------


def measured(
    place: Place, *, seed: int, share: float, seconds: float, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """The report of as many cases as the share and the time allow."""
    expected = {name: expected_of(place, words) for name, words in place.commands().items()}
    place.restore()
    kinds = kinds_in(place)
    chance = random.Random(seed)
    cases = [(kind, way) for kind in sorted(kinds) for way in DAMAGES]
    chance.shuffle(cases)
    cases = cases[: round(share * len(cases))]
    matrix = Matrix(place, expected, seed)
    began, n = time.monotonic(), 0
    tell(f"{len(kinds)} kinds of files, {len(cases)} cases to try")
    for kind, way in cases:
        if time.monotonic() - began > seconds:
            break
        n += matrix.case(kind, kinds[kind], way)
    place.restore()
    return {
        "seed": seed,
        "kinds": len(kinds),
        "ways": len(DAMAGES),
        "cases": n,
        "of": len(cases),
        "kinds_tried": sorted(kinds),
        "not_possible": dict(matrix.skipped.most_common()),
        "commands": dict(matrix.counts.most_common()),
        "by_way": {way: dict(counts.most_common()) for way, counts in sorted(matrix.by_damage.items())},
        "faults": matrix.faults,
        "wall_s": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Make a home, damage it, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--made", type=Path, help="a folder whose home is used, or made there and kept")
    parser.add_argument("--share", type=float, default=1.0, help="of all cases")
    parser.add_argument("--seconds", type=float, default=1500.0, help="no case is begun after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/damage.json")
    chosen = parser.parse_args()
    import_everything()
    with contextlib.ExitStack() as stack:
        root = chosen.made or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="damage-")))
        root = root.resolve()
        place = Place(root)
        if (root / "job").exists():
            place.job = (root / "job").read_text()
        else:
            root.mkdir(parents=True, exist_ok=True)
            place.make()
            place.keep()
        made = measured(
            place,
            seed=chosen.seed,
            share=chosen.share,
            seconds=chosen.seconds,
            tell=lambda text: print(text, file=sys.stderr),
        )
    if chosen.write:
        record("damage", made)
    else:
        print(json.dumps(made, indent=1))
    return 1 if made["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
