"""Every command and option of the command line used wrongly: one clear line each time, and nothing lost?

    python bench/wrong_uses.py --write                  (`make soak`)
    python bench/wrong_uses.py --only 'jobs' --json

The tree of commands is walked, so that a new command or option is tried by itself: an argument left out, one too many, an unknown
flag, a flag without a value, and for each argument and option the values that its kind does not take (numbers that are none, too
large, negative, NaN; files for folders and the other way round, missing, unreadable, endless, named with what is no text; empty
words and very long ones; names of models, runs, jobs and keys that there are not; settings that are none). Flags
that are listed are also given as they are meant. Each is given in a process of its own, in a place with a finished and deployed run
of a tiny base. Told of each:

    refused      a code of the documented table, nothing on stdout, one line with the value and a next step, nothing lost
    accepted     it ends with 0, or works on until it is stopped: `accepted` lists what, to be judged
    FAULT        a traceback, a signal, an unknown code, more or less than one line, no value in it, no next step, a file that was
                 changed or is gone, something half-written

Prints a JSON report; ends with 1 where there is a fault.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damage_home import complaint_of
from damage_place import AS_NOBODY, QUESTION, Ended, give_to_nobody, given_in_fork, same_again
from kill_run import import_everything
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import SETTINGS, stdlib_copy, tiny_base

LIMIT_S = 8.0
DOCUMENTED = {2, 3, 4, 5}
RECORDS = {"doctor", "guardian run", "guardian status", "own-tests"}
LONG = "x" * 5000
NO_TEXT = "no\udcfftext"  # what a byte that is no UTF-8 arrives as


# -- what there is ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """An argument (`flag` is empty) or an option of a command."""

    name: str
    flag: str
    kind: type
    required: bool
    is_many: bool


@dataclass(frozen=True)
class Command:
    """A command with the words that name it."""

    words: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @property
    def name(self) -> str:
        return " ".join(self.words)


def commands() -> list[Command]:
    """The tree of commands, flat."""
    import typer

    from ai_forge.cli import app as cli

    return list(_walked(typer.main.get_command(cli.app), ()))


def _walked(node: Any, words: tuple[str, ...]) -> Iterator[Command]:
    for name, below in sorted(getattr(node, "commands", {}).items()):
        yield from _walked(below, (*words, name))
    if not hasattr(node, "commands"):
        yield Command(words, tuple(_parameter(one) for one in node.params if one.name != "help"))


def _parameter(made: Any) -> Parameter:
    kind = made.type_descriptor.annotation
    is_option = made.param_type_name == "option"
    flag = max(made.opts, key=len) if is_option else ""
    return Parameter(made.name, flag, kind, made.required, made.multiple)


# -- a place ------------------------------------------------------------------------------------------------------------


@dataclass
class WrongPlace:
    """A folder with a finished run, and with things that are not what a command wants."""

    root: Path

    def make(self) -> None:
        """All of it, and the same beside it."""
        root = self.root
        stdlib_copy(root / "repo")
        for words in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "Begin"],
        ):
            subprocess.run(["git", "-C", str(root / "repo"), *words], check=True)
        tiny_base(root / "base")
        settings = SETTINGS | {"training.base_model": str(root / "base")}
        (root / "settings.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        row = {"instruction": "Say what stands here", "input": "", "output": "Nothing of worth stands here."}
        (root / "rows.jsonl").write_text("".join(json.dumps(row | {"input": str(n)}) + "\n" for n in range(20)))
        (root / "text").write_text("kept\n")
        (root / "bytes").write_bytes(bytes(range(256)) * 40)
        (root / "empty").write_bytes(b"")
        (root / "folder").mkdir()
        (root / "closed").write_text("{}")
        (root / "loop").symlink_to("loop")
        os.mkfifo(root / "pipe")
        for name, minor in (("zero", 5), ("full", 7)):  # root could replace the machine's own
            if os.geteuid() == 0:
                os.mknod(root / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            else:
                (root / name).symlink_to(f"/dev/{name}")
        ended = self.give(["run", "repo", "--config", "settings.yaml", "--home", "home"])
        if ended.code != 0:
            raise SystemExit(f"the run that all begins with ended with {ended.code}:\n{ended.err}")
        self.give(["keys", "add", "someone", "--home", "home"])
        self.give(["questions", "add", "Where is a heap made?", "--file", "heapq.py", "--repo", "repo"])
        self.give(["backup", "home.tar", "--home", "home"])
        self._keep()

    def _keep(self) -> None:
        for name in ("home", "repo"):
            shutil.copytree(self.root / name, self.root / "whole" / name, symlinks=True)

    def give(self, words: Sequence[str], *, as_nobody: bool = False) -> Ended:
        """Run a command in a fork, in this folder."""
        limit_s = LIMIT_S if (self.root / "whole").exists() else 120.0
        return given_in_fork(words, self.root, limit_s, AS_NOBODY if as_nobody else None)

    def restore(self) -> list[str]:
        """What is no longer as it was, or lies about half-written; then all as it was."""
        wrong = [f"{name} changed" for name in self._changed()]
        for name in ("home", "repo"):
            same_again(self.root / "whole" / name, self.root / name)
        for name in ("restored", "nowhere", "a\nb"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        (self.root / "made.jsonl").unlink(missing_ok=True)
        for path in (self.root / "folder").iterdir():
            shutil.rmtree(path, ignore_errors=True)
        return wrong

    def _changed(self) -> Iterator[str]:
        for path in sorted((self.root / "whole").rglob("*")):
            here = self.root / path.relative_to(self.root / "whole")
            if (
                path.is_symlink()
                or not path.is_file()
                or path.suffix in (".lock", ".db")
                or path.name == "events.jsonl"
            ):
                continue
            if not here.is_file() or here.read_bytes() != path.read_bytes():
                yield str(path.relative_to(self.root / "whole"))
        for path in sorted((self.root / "home").rglob("*.tmp-*")):
            yield f"{path.relative_to(self.root)} was left and"
        if (self.root / "text").read_bytes() != b"kept\n":
            yield "text"
            (self.root / "text").write_text("kept\n")


# -- wrong values -------------------------------------------------------------------------------------------------------

NUMBERS = ("", "many", "-1", "nan", "inf", "1e400", "9" * 40, "0x10", "1,5", "--")
PATHS = (
    "",
    "nowhere/at/all",
    "text",
    "folder",
    "bytes",
    "empty",
    "pipe",
    "loop",
    "zero",
    "full",
    "text/below",
)
PATHS += ("~nobody-of-this-name/x", NO_TEXT, LONG, "closed", "a\nb")
NAMES = ("", " ", "nobody-knows-this", "../../x", LONG, NO_TEXT, "a\u2028b", "\x1b[31mred", "text", "folder", "-")
SETTINGS_WRONG = (
    "",
    "=",
    "training.rank",
    "training.rank=",
    "training.rank=nan",
    "training.rank=1e400",
    "nothing.such=1",
)
SETTINGS_WRONG += ("training=3", "training.rank=[1", "training.rank=-1", "training.learning_rate=.inf", NO_TEXT + "=1")
SETTINGS_WRONG += ("training.rank={a: 1}", "runtime.num_predict=" + "9" * 40, "training.base_model=" + LONG)
VALUES: dict[type, tuple[str, ...]] = {int: NUMBERS, float: NUMBERS, Path: PATHS, str: NAMES}


NEW_HOMES = {"nowhere/at/all", "folder", "a\nb", LONG}
SHARED = {
    "home",
    "config",
    "set",
    "recipe",
    "base",
    "name",
    "time_budget",
    "teacher",
    "steps",
    "epochs",
    "nproc",
    "repo",
}
SHARED |= {"job_id", "model"}
OF_SHARED = 4  # values of a flag that many commands share: each command tries others


def _some(values: tuple[str, ...], seed: str) -> Sequence[str]:
    """All, or of what many commands share a few, drawn by the command's name."""
    return random.Random(seed).sample(values, min(OF_SHARED, len(values))) if seed else values


def wrong_values(parameter: Parameter) -> tuple[str, ...]:
    """What its kind does not take, or may not."""
    if parameter.flag == "--set":
        return SETTINGS_WRONG
    return VALUES.get(parameter.kind, ())


def good_value(command: Command, parameter: Parameter) -> str | None:
    """What belongs there, where something has to stand."""
    known = {
        "repo": "repo",
        "path": "repo",
        "question": QUESTION,
        "place": "repo/bisect.py:3",
        "job_id": "nobody-knows-this",
        "id": "nobody-knows-this",
        "name": "someone-else",
        "first": "repo",
        "second": "repo",
        "source": "rows.jsonl",
        "target": "made.jsonl",
        "file": "home.tar",
        "home": "home",
        "config": "settings.yaml",
        "to": "alpaca",
        "out": "made.jsonl",
    }
    if command.name == "restore" and parameter.name == "home":
        return "restored"
    if command.name == "questions add" and parameter.name == "file":
        return "bisect.py"
    if command.name == "data diff":
        known |= {"first": "rows.jsonl", "second": "rows.jsonl"}
    needed = parameter.required or parameter.name in ("home", "config") or (parameter.name == "repo")
    return known.get(parameter.name) if needed else None


@dataclass(frozen=True)
class Case:
    """Words that are wrong, and what of them must stand in what is said."""

    command: str
    what: str
    words: tuple[str, ...]
    value: str = ""

    @property
    def is_of_words_alone(self) -> bool:
        """Whether no file is looked at before it is refused."""
        return ": " not in self.what  # of those below with a value, and of right ones


def cases_of(command: Command) -> Iterator[Case]:
    """All wrong uses of one command."""
    good: dict[str, list[str]] = {}
    for one in command.parameters:
        value = good_value(command, one)
        if value is not None:
            good[one.name] = [one.flag, value] if one.flag else [value]

    def case(what: str, value: str = "", more: Sequence[str] = (), **instead: list[str]) -> Case:
        words = [word for given in (good | instead).values() for word in given]
        return Case(command.name, what, (*command.words, *words, *more), value)

    yield case("an unknown flag", "--nonsense", ["--nonsense"])
    yield case("one argument too many", "one-too-many", ["one-too-many"])
    for one in command.parameters:
        shown = one.flag or one.name.upper()
        if one.required:
            yield case(f"no {shown}", one.flag or "Missing argument", **{one.name: []})  # of two the second is missed
        if one.flag and one.kind is not bool:
            yield case(f"{shown} without a value", one.flag, [one.flag], **{one.name: []})
        if one.flag and one.kind is bool:
            yield case(f"{shown} with a value", one.flag, [f"{one.flag}=yes"], **{one.name: []})
        for value in _some(wrong_values(one), f"{command.name} {shown}" if one.name in SHARED else ""):
            # `--flag=value` and `--` before arguments: what begins with a dash is a value, too
            given = [f"{one.flag}={value}"] if one.flag else ["--", value] if value.startswith("-") else [value]
            # a home may be any folder, made anew: then it is no model, run or job that is missed
            # and where nothing is found in the history, that is told first
            told = "" if one.name == "question" or (one.name == "home" and value in NEW_HOMES) else value
            told = "" if command.name == "data preferences" else told
            yield case(f"{shown}: {value[:30]!r}", told, **{one.name: given})


RIGHT = {"base": "base", "steps": "3", "time_budget": "1h", "set": "runtime.num_predict=16", "recipe": "repository"}
RIGHT |= {"name": "repo", "nproc": "1", "allow_licence": "MIT", "model": "repo", "k": "3", "n": "3", "keep_runs": "2"}
RIGHT |= {"older_than": "1d", "scope": "read", "days": "2", "completion": "", "asked": "", "force": "", "dry_run": ""}
IS_RIGHT = "a flag that it lists: "


def right_uses(command: Command) -> Iterator[Case]:
    """Each flag that a command lists, as it is meant: none of them may be refused for itself."""
    good: dict[str, list[str]] = {}
    for one in command.parameters:
        value = good_value(command, one)
        if value is not None:
            good[one.name] = [one.flag, value] if one.flag else [value]
    for one in command.parameters:
        if one.flag and one.name in RIGHT:
            given = good | {one.name: [one.flag, RIGHT[one.name]] if RIGHT[one.name] else [one.flag]}
            words = [word for part in given.values() for word in part]
            yield Case(command.name, f"{IS_RIGHT}{one.flag}", (*command.words, *words), one.flag)


def all_cases() -> list[Case]:
    """Of all commands, and of what is no command."""
    known = commands()
    groups = {each.words[:n] for each in known for n in range(1, len(each.words))}
    found = [Case("", "an unknown command", ("nonsense",), "nonsense"), Case("", "an empty command", ("",))]
    found += [Case(" ".join(group), "an unknown command", (*group, "nonsense"), "nonsense") for group in sorted(groups)]
    return found + [case for command in known for case in (*cases_of(command), *right_uses(command))]


# -- what is told -------------------------------------------------------------------------------------------------------


def fault_in(case: Case, ended: Ended) -> str:
    """What is wrong in how it ended; empty where it was refused as it should be."""
    if "Traceback (most recent call last)" in ended.err:
        where = [line.strip() for line in ended.err.splitlines() if "ai_forge" in line and "line " in line]
        return f"traceback: {ended.err.strip().splitlines()[-1][:200]} | {''.join(where[-1:])[-120:]}"
    assert ended.code is not None
    if ended.code < 0:
        return f"signal {-ended.code}"
    if ended.code not in DOCUMENTED:
        return f"code {ended.code}: {ended.err[-200:]}"
    if case.command in RECORDS and ended.out.startswith(("{", "[")):
        return ""  # what became of it is a record, with the error in it
    complaint = complaint_of(ended.err)
    if complaint is None:
        return f"no line: {ended.out[-100:]!r} {ended.err[-200:]!r}"
    if ended.out:
        return f"on stdout: {ended.out[:100]!r}"
    if " Next: " not in complaint:
        return f"no next step: {complaint[:200]}"
    if len(complaint) > 1500:
        return f"{len(complaint)} characters: {complaint[:200]}"
    return "" if names_value(complaint, case.value) else f"no value: {complaint[:300]}"


def names_value(complaint: str, value: str) -> bool:
    """Whether a line says what was given: as it stands, or its beginning, or as Python writes it."""
    begun = value.strip().partition("=")[0] or value.strip()
    spoken: tuple[str, ...] = (begun[:12], repr(begun)[1:-1][:12], begun.encode("utf-8", "replace").decode()[:12])
    if "=" in value:  # of a setting its name or its value
        spoken += (value.partition("=")[2][:12] or begun[:12],)
    with contextlib.suppress(ValueError):
        spoken += (f"{float(begun):g}",)
    flat = " ".join(complaint.split())
    return not begun or any(" ".join(form.split()) in flat or form.lower() in flat.lower() for form in spoken)


def measured(place: WrongPlace, *, only: str = "", share: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """The report."""
    cases = [case for case in all_cases() if case.command.startswith(only)]
    cases = random.Random(seed).sample(cases, round(share * len(cases)))
    counts, accepted, faults = Counter[str](), dict[str, list[str]](), list[dict[str, str]]()
    began = time.monotonic()
    for n, case in enumerate(cases):
        if n % 100 == 0:
            print(f"{n} of {len(cases)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        as_nobody = case.value == "closed" and os.geteuid() == 0
        if as_nobody:
            give_to_nobody(place.root, place.root / "closed")
        ended = place.give(case.words, as_nobody=as_nobody)
        lost = place.restore()
        works = ended.code is None or ended.code == 0
        fault = "" if works and "Traceback" not in ended.err else fault_in(case, ended)
        if case.what.startswith(IS_RIGHT):
            complaint = complaint_of(ended.err) or ""
            fault = complaint[:300] if ended.code == 2 and case.value in complaint else ""
        if lost and not works:
            fault = f"{fault} {'; '.join(lost[:3])}".strip()
        counts["FAULT" if fault else "accepted" if works else "refused"] += 1
        if fault:
            told = {"command": case.command, "what": case.what, "fault": fault}
            print(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace").decode(), file=sys.stderr, flush=True)
            faults.append(told)
        elif works:
            accepted.setdefault(case.what, []).append(case.command + ("" if ended.code == 0 else " (works on)"))
    return {
        "commands": len(commands()),
        "cases": len(cases),
        "counts": dict(counts.most_common()),
        "accepted": dict(sorted(accepted.items())),
        "faults": faults,
        "wall_s": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Make a place, use every command wrongly, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--made", type=Path, help="a folder whose place is used, or made there and kept")
    parser.add_argument("--only", default="", help="commands that begin so")
    parser.add_argument("--share", type=float, default=1.0, help="of all cases, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/wrong_uses.json")
    chosen = parser.parse_args()
    import_everything()
    with contextlib.ExitStack() as stack:
        root = chosen.made or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wrong-")))
        place = WrongPlace(root.resolve())
        if not (place.root / "whole").exists():
            place.root.mkdir(parents=True, exist_ok=True)
            place.make()
        made = measured(place, only=chosen.only, share=chosen.share, seed=chosen.seed)
    if chosen.write:
        record("wrong_uses", made)
    else:
        print(json.dumps(made, indent=1))
    return 1 if made["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
