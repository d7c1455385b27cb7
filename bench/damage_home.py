"""Every kind of file under a home damaged in 25 ways: is it ever met with a traceback, a hang or a wrong answer?

    python bench/damage_home.py --seconds 3600 --write          (`make soak`)
    python bench/damage_home.py --made FOLDER --cases 30 --commands ask,models  (a home that was made before; CI)

A home is made once: two runs of a tiny base, deployed, asked and corrected, a job of the queue, a cycle of a guardian, keys, a
handbook, a converted base. Each command is run twice on it undamaged: what differs is no answer, and the files that it opens are
those that it reads. Then, for each kind of file and each way, the home is damaged and one of the commands that read the file
(`--readers`) is run in a process of its own. Told for each command:

    same         the answer that it gives undamaged: it does not matter, or was made again
    cautious     `clean` removes less than it would
    as it lies   another answer: the file is one that a person writes, or a log
    told         another answer, and stderr names the file, or the run, stage or version that it is part of
    refused      a stable code, one line, a next step; the step is taken and the same command given again, up to three times:
      helped       the answer that it gives undamaged
      begun anew   a part of it, without what the user was told to move away
      helped, told another one, and the file is named
      by hand      the step is nothing that can be typed: `by_hand` lists what is said
    FAULT        a traceback, a signal, an internal error, a hang of over a minute, another answer without a word, a step that did not
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
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from damage_place import Ended, Place, give_to_nobody
from damages import DAMAGES, NotPossibleError
from kill_run import import_everything
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import CODES

SLOW = {"plan", "plan of a file"}  # they measure the machine, for many seconds: where nothing else reads the file
ALWAYS = ("models", "runs", "clean")  # where no command opens the file
NEW_KEY = "made-again"
MAX_STEPS = 3  # what is told next may lead to what is told next: move it away, then make it anew
# what a person writes, and what a job's process printed: another one is another input, or is shown as it lies
PEOPLES = {"repo/.ai-forge/questions.yaml", "repo/.agents/fine-tuning-file.json", "home/jobs/*/log.txt"}
# what lists say: all of it is the answer. Of the others' answers not how long they took, and how a stage came to be
LISTS = {"models", "runs", "compare", "jobs list", "jobs show", "jobs events", "keys list", "guardian status"}
CLOCK = {"age_days"}  # of any command
NO_ANSWER = {"seconds", "cached", "stages", "state", "text", "changed", "bytes", "training", "created_at", "created"}
NO_ANSWER |= {"files", "written"}  # how many a backup holds


# -- answers ------------------------------------------------------------------------------------------------------------


def answer_of(ended: Ended, unsaid: set[str], volatile: frozenset[str] = frozenset()) -> Any:
    """What a command says: by path in its JSON, or its lines. Left out are fields of a name in `unsaid`, and the volatile paths."""
    try:
        tree = json.loads(ended.out)
    except ValueError:
        return ended.out.split("\n")
    return {path: value for path, value in _flat(tree, "", unsaid) if path not in volatile}


def _flat(tree: Any, path: str, unsaid: set[str]) -> Iterator[tuple[str, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield path, tree
        return
    for key, value in items:
        if key not in unsaid:
            yield from _flat(value, f"{path}.{key}", unsaid)


def is_part(found: Any, whole: Any, unsaid: set[str]) -> bool:
    """Whether an answer says nothing that the whole one does not: fewer rows, smaller counts, fields that are empty.

    >>> is_part([{"a": 1}], [{"a": 2, "b": 3}, {"a": 5}], set()), is_part([{"a": "x"}], [{"a": "y"}], set())
    (True, False)
    """
    if found is None or found in ("", [], {}):
        return True
    if isinstance(found, dict):
        if not isinstance(whole, dict):
            return False
        return all(key in unsaid or (key in whole and is_part(found[key], whole[key], unsaid)) for key in found)
    if isinstance(found, list):
        return isinstance(whole, list) and all(any(is_part(one, each, unsaid) for each in whole) for one in found)
    if isinstance(found, int | float) and isinstance(whole, int | float) and not isinstance(found, bool):
        return found <= whole
    return bool(found == whole)


@dataclass(frozen=True)
class Expected:
    """How a command ends undamaged, what it answers, and which kinds of files it reads."""

    ended: Ended
    unsaid: set[str]
    volatile: frozenset[str]
    reads: frozenset[str]

    @property
    def code(self) -> int | None:
        return self.ended.code

    def is_met(self, ended: Ended) -> bool:
        return ended.code == self.code and self.answer(ended) == self.answer(self.ended)

    def is_begun_anew(self, ended: Ended) -> bool:
        """A list or a log that the user moved away holds less than before, and nothing else."""
        unsaid = self.unsaid | {path.rpartition(".")[2] for path in self.volatile}
        try:
            found, whole = json.loads(ended.out), json.loads(self.ended.out)
            if isinstance(found, list):  # a key that was made because the step said so
                found = [row for row in found if not isinstance(row, dict) or row.get("name") != NEW_KEY]
        except ValueError:
            return ended.code == self.code and set(ended.out.split("\n")) <= {*self.ended.out.split("\n"), ""}
        return ended.code == self.code and is_part(found, whole, unsaid)

    def answer(self, ended: Ended) -> Any:
        return answer_of(ended, self.unsaid, self.volatile)

    def difference(self, ended: Ended) -> str:
        """The first things in which an answer differs."""
        expected, found = self.answer(self.ended), self.answer(ended)
        if isinstance(expected, dict) and isinstance(found, dict):
            other = [key for key in expected | found if expected.get(key) != found.get(key)]
            return "; ".join(f"{key}: {expected.get(key)!r} → {found.get(key)!r}" for key in other[:3])[:400]
        return f"{str(expected)[:200]} → {str(found)[:200]}"


def expected_of(place: Place, name: str, words: Sequence[str]) -> Expected:
    """Two runs of a command, each on the undamaged place."""
    place.restore()
    first = place.give(words)
    place.restore()
    time.sleep(0.05)
    second = place.give(words)
    if first.code != second.code or first.code is None or "Traceback" in first.err:
        raise SystemExit(f"undamaged, {shlex.join(words)} ends with {first.code}, {second.code}:\n{first.err[-2000:]}")
    unsaid = CLOCK if name in LISTS else NO_ANSWER | CLOCK
    one, two = answer_of(first, unsaid), answer_of(second, unsaid)
    volatile = frozenset[str]()
    if isinstance(one, dict) and isinstance(two, dict):
        volatile = frozenset(path for path in one | two if one.get(path) != two.get(path))
    reads = frozenset(kind_of(Path(path), place.root) for path in first.opened if path)
    return Expected(first, unsaid, volatile, reads)


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
    kinds: dict[str, list[Path]]
    seed: int
    n_readers: int
    counts: Counter[str] = field(default_factory=Counter)
    by_damage: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_hand: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def case(self, kind: str, way: str) -> bool:
        """Damage one file of the kind and give commands that read it; False where it cannot be damaged so."""
        chance = random.Random(f"{self.seed} {kind} {way}")  # the same, whatever else is tried
        path = chance.choice(self.kinds[kind])
        always = [name for name in ALWAYS if name in self.expected]
        readers = [name for name, known in self.expected.items() if kind in known.reads] or always
        readers = [name for name in readers if name not in SLOW] or readers
        chosen = chance.sample(readers, min(self.n_readers, len(readers)))
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
                give_to_nobody(self.place.root, path)
            self._tell(kind, way, path, name, as_nobody)
        return True

    def _tell(self, kind: str, way: str, path: Path, name: str, as_nobody: bool) -> None:
        ended = self.place.give(self.place.commands()[name], as_nobody=as_nobody)
        what, detail = self._judged(ended, name, path)
        if what == "WRONG ANSWER" and kind in PEOPLES:
            what, detail = "as it lies", ""
        if what == "refused":
            what, detail = self._stepped(detail, name, path, as_nobody)
        self.counts[what] += 1
        self.by_damage[way][what] += 1
        if what == "by hand":
            self.by_hand[re.sub(r"[0-9a-f]{12,64}", "*", detail.replace(str(self.place.root), ""))[:400]] += 1
        if what.isupper():
            fault = {"fault": what, "kind": kind, "way": way, "command": name, "detail": detail}
            print(json.dumps(fault), file=sys.stderr, flush=True)
            self.faults.append(fault)

    def _judged(self, ended: Ended, name: str, path: Path) -> tuple[str, str]:
        known = self.expected[name]
        if ended.code is None:
            return "HANG", ended.err[-300:]
        if ended.code < 0:
            return "SIGNAL", f"signal {-ended.code}: {ended.err[-300:]}"
        if "Traceback (most recent call last)" in ended.err:
            return "TRACEBACK", _last_of_ours(ended.err)
        if known.is_met(ended):
            return "same", ""
        if ended.code == known.code:
            if self._names(ended.err, path):
                return "told", ""
            if name == "clean" and known.is_begun_anew(ended):  # it cannot tell what is needed, and removes less
                return "cautious", ""
            return "WRONG ANSWER", f"{known.difference(ended)} | {ended.err[-200:]}"
        complaint = complaint_of(ended.err)
        if complaint is None or complaint.startswith("internal") or " Next: " not in complaint:
            return "UNCLEAR", f"{ended.code}: {ended.err[-400:]}"
        return "refused", complaint

    def _names(self, text: str, path: Path) -> bool:
        """Whether a text names the file, a folder of a run, a stage or a version that it is part of, or that by its id."""
        flat, home = " ".join(text.split()), self.place.root / "home"
        within = [each for each in path.parents if each.is_relative_to(home) and len(each.relative_to(home).parts) > 1]
        if any(re.search(re.escape(str(each)) + r"(?![\w/-])", flat) for each in (path, *within)):
            return True
        if any(part in flat for part in re.findall(r"[0-9a-f]{12,64}", str(path.relative_to(self.place.root)))):
            return True
        if path.suffix == ".db":  # "the registry's row of …"
            return path.stem in flat
        alike = [each for files in self.kinds.values() for each in files if each.name == path.name and each != path]
        return not alike and path.name in flat

    def _stepped(self, complaint: str, name: str, path: Path, as_nobody: bool) -> tuple[str, str]:
        """Take the next step, as far as it can be typed, and give the command again; so again where another thing is told."""
        told = [complaint]
        for _ in range(MAX_STEPS):
            instead, taken, failed = self._take(complaint.partition(" Next: ")[2], name, as_nobody)
            if failed:
                return "STEP FAILS", f"{' → '.join(told)} → {failed}"
            if not taken:
                return "by hand", " → ".join(told)
            again = instead or self.place.give(self.place.commands()[name], as_nobody=as_nobody)
            what, complaint = self._judged(again, name, path)
            if what == "same":
                return "helped", ""
            if instead is not None and instead.code == 0:
                return "helped otherwise", ""
            if self.expected[name].is_begun_anew(again):
                return "begun anew", ""
            if what == "told":
                return "helped, told", ""
            if what == "refused" and "There is no job" in complaint:  # it was in the queue that was given up
                return "begun anew", ""
            if what == "WRONG ANSWER" and path.name == "registry.db" and name in ("models", "clean"):
                return "begun anew", ""  # of what was deployed the newest alone is known again
            told.append(f"{what}: {complaint}")
            if what != "refused" or told[-1].endswith(told[-2]):
                break
        return "NO HELP", " → ".join(told)

    def _take(self, step: str, name: str, as_nobody: bool) -> tuple[Ended | None, bool, str]:
        """(how the command ended that is to be given instead, whether anything was done, what failed)."""
        taken, instead = False, None
        for move in re.finditer(r"\bmv (\S+) ([^\s;,)]+)", step):
            with contextlib.suppress(OSError):
                Path(move[1]).rename(move[2])
                taken = True
        for removed in re.finditer(r"\brm (?:-rf? )?(\S+?)(?=[\s;,.)]|$)", step):
            gone = Path(removed[1])
            taken = taken or os.path.lexists(gone)
            if gone.is_dir() and not gone.is_symlink():
                shutil.rmtree(gone)
            else:
                gone.unlink(missing_ok=True)
        for given in re.finditer(r"\bchmod (?:-R )?(\S+) ([^\s;,)]+)", step):
            with contextlib.suppress(OSError):
                Path(given[2]).chmod(0o700)  # as its owner, who is the user
                taken = True
        for typed in re.finditer(r"ai-forge ((?:[a-z-]+ ?)+)((?:[\w:./-]*[\w/])?(?: [\w:./-]*[\w/])*)", step):
            verb = typed[1].split()
            if verb[0] == "compare":
                given = [*verb, *typed[2].split(), "--home", str(self.place.root / "home")]
                instead = self.place.give(given, as_nobody=as_nobody)
                taken = True
                continue
            known, words = self._as_here(verb)
            if words:
                after = self.place.give(words, as_nobody=as_nobody)
                taken = True
                if after.code not in (0, *(one.code for name, one in self.expected.items() if name == known)):
                    return None, True, complaint_of(after.err) or after.err[-300:]
        return instead, taken, ""

    def _as_here(self, typed: Sequence[str]) -> tuple[str, list[str]]:
        """A command's name, and the words of a next step with this place's flags."""
        known = self.place.commands()
        for n in (2, 1):
            name = " ".join(typed[:n])
            if name in known:
                return name, known[name]
        if list(typed[:2]) == ["keys", "add"]:
            return "", ["keys", "add", NEW_KEY, "--home", str(self.place.root / "home")]
        return "", []


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
    place: Place,
    *,
    seed: int,
    n_cases: int | None,
    seconds: float,
    n_readers: int = 1,
    commands: Collection[str] = (),
    kinds_with: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The report of as many cases as are asked for and the time allows; of all commands where none is named."""
    known = place.commands()
    expected = {name: expected_of(place, name, known[name]) for name in commands or known}
    place.restore()
    kinds = {kind: files for kind, files in kinds_in(place).items() if kinds_with in kind}
    cases = in_rounds(sorted(kinds), seed)
    cases = cases[:n_cases]
    matrix = Matrix(place, expected, kinds, seed, n_readers)
    began, n, tried = time.monotonic(), 0, Counter[str]()
    tell(f"{len(kinds)} kinds of files, {len(cases)} cases to try")
    for place_in_line, (kind, way) in enumerate(cases):
        if place_in_line % 100 == 0:
            tell(f"{place_in_line} of {len(cases)} after {time.monotonic() - began:.0f} s")
        if time.monotonic() - began > seconds:
            break
        possible = matrix.case(kind, way)
        n += possible
        tried[kind] += possible
    place.restore()
    return {
        "seed": seed,
        "kinds": len(kinds),
        "ways": len(DAMAGES),
        "of": len(kinds) * len(DAMAGES),
        "cases": n,
        "not_possible": dict(matrix.skipped.most_common()),
        "cases_of_a_kind": dict(sorted(tried.items())),
        "commands": dict(matrix.counts.most_common()),
        "by_way": {way: dict(counts.most_common()) for way, counts in sorted(matrix.by_damage.items())},
        "by_hand": dict(matrix.by_hand.most_common()),
        "faults": matrix.faults,
        "wall_s": round(time.monotonic() - began, 1),
    }


def in_rounds(kinds: Sequence[str], seed: int) -> list[tuple[str, str]]:
    """All cases, each kind once before any comes twice: whatever time there is, no kind is left out."""
    chance = random.Random(seed)
    ways = {kind: chance.sample(list(DAMAGES), len(DAMAGES)) for kind in kinds}
    return [(kind, ways[kind][turn]) for turn in range(len(DAMAGES)) for kind in chance.sample(list(kinds), len(kinds))]


def main() -> int:
    """Make a home, damage it, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--made", type=Path, help="a folder whose home is used, or made there and kept")
    parser.add_argument("--cases", type=int, help="at the most; each kind once before any comes twice")
    parser.add_argument("--kinds", default="", help="only files whose kind holds these words")
    parser.add_argument("--commands", default="", help="with a comma between; all otherwise")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no case is begun after these")
    parser.add_argument("--readers", type=int, default=1, help="commands that are given for each case")
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
            n_cases=chosen.cases,
            kinds_with=chosen.kinds,
            commands=[name for name in chosen.commands.split(",") if name],
            seconds=chosen.seconds,
            n_readers=chosen.readers,
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )
    if chosen.write:
        record("damage", made)
    else:
        print(json.dumps(made, indent=1))
    return 1 if made["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
