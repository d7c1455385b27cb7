"""A thousand secrets of forty kinds planted in all places that are read: is one kept or shown anywhere?

    python bench/plant_secrets.py --write                (`make soak`)
    python bench/plant_secrets.py --each 3               (three of each kind instead of twenty-five)

A git repository is made whose code, comments, docstrings, configuration, documents, notebooks, tests, file names, commit messages,
rules of agents and own questions hold one secret each, beside a word that marks the place; and a file of conversations. A tiny
model is trained on both by `ai-forge run`, then asked and searched. Then everything that lies in the home (databases and Parquet
read as what they are) and everything that was printed is searched for the secrets, and for the marks: a place whose mark is
nowhere was not kept, and proves nothing. Told, for each kind and each place:

    planted, kept (its mark is in the home), masked (the search finds it in its file, alone), survived (in the home or printed)

Ends with 1 where fewer than 98 % are found.
"""
# ruff: noqa: E501 (a place is a line)

import argparse
import contextlib
import json
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from ai_forge.data_pipeline.secrets.masking import scrub
from measure import record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import Outcome, ai_forge, flags, tiny_base
from planted_secrets import GENERIC, KNOWN, Planted, planted

GOAL = 0.98
FIRST = ("blau", "kalt", "wind", "sonnen", "eisen", "hasel", "winter", "silber", "dorf", "mond", "tannen", "regen")
SECOND = ("baum", "blume", "falke", "wiese", "brunnen", "garten", "kessel", "muehle", "hirsch", "stein", "fenster")
WEIGHTS = (".gguf", ".safetensors", ".npy", ".png")


def _word(rng: random.Random) -> str:
    """A password of letters only, as people choose one."""
    ending = "".join(rng.choice("bdfglmnrst") + rng.choice("aeiou") for _ in range(2))  # no two are alike
    return rng.choice(FIRST) + rng.choice(SECOND) + ending


def _word_with_digit(rng: random.Random) -> str:
    return _word(rng).capitalize() + str(rng.randrange(1, 100))


# Passwords that are known by nothing but where they stand: the whole line is the kind.
CHOSEN: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "word in quotes": lambda r: ((v := _word(r)), f'password = "{v}"'),
    "word as a default": lambda r: ((v := _word(r)), f'def connect(host, password="{v}"): pass'),
    "word in prose": lambda r: ((v := _word(r)), f"the password is `{v}`."),
    "word in XML": lambda r: ((v := _word(r)), f"<password>{v}</password>"),
    "word behind an environment": lambda r: ((v := _word(r)), f'password = os.environ.get("DB_PASSWORD", "{v}")'),
    "word of an option": lambda r: ((v := _word(r)), f'parser.add_argument("--password", default="{v}")'),
    "word defined": lambda r: ((v := _word(r)), f'#define DB_PASSWORD "{v}"'),
    "word in a shell": lambda r: ((v := _word_with_digit(r)), f"mysqldump --password {v} shop"),
    "word in SQL": lambda r: ((v := _word(r)), f"ALTER USER app WITH PASSWORD '{v}';"),
    "word assigned": lambda r: ((v := _word_with_digit(r)), f"DB_PASS={v}"),
}


@dataclass(frozen=True)
class Place:
    """Where a secret stands: a name, a file's name with `{}` for a number, and the text around line and mark.

    `named`: the line has a form of its own (`name = "value"`), else the secret's line is put as it is.
    """

    name: str
    path: str
    around: Callable[[str, str], str]
    line: Callable[[str, str], str] = lambda name, value: f'{name} = "{value}"'


def _quoted(text: str) -> str:
    return json.dumps(text)


def _function(mark: str, body: str) -> str:
    steps = "".join(f"    total += step_{n}(total, {n})\n" for n in range(3))
    return (
        f'def {mark}_total(total: int) -> int:\n    """Add three steps to a total."""\n{body}{steps}    return total\n'
    )


def _indent(text: str, by: str) -> str:
    return "".join(f"{by}{line}\n" for line in text.split("\n"))


PLACES: tuple[Place, ...] = (
    Place("code, in a function", "pkg/calc_{}.py", lambda mark, line: _function(mark, _indent(line, "    "))),
    Place(
        "code, a constant",
        "pkg/constants_{}.py",
        lambda mark, line: f"{line}\n\n\n{_function(mark, '')}",
        lambda name, value: f"{name.upper()} = {value!r}" if "\n" not in value else f'{name.upper()} = """{value}"""',
    ),
    Place(
        "a comment", "pkg/noted_{}.py", lambda mark, line: _function(mark, _indent(line, "    # ")), lambda n, v: f"{n}: {v}"
    ),
    Place(
        "a docstring",
        "pkg/told_{}.py",
        lambda mark, line: f'def {mark}_told(a: int) -> int:\n    """Tell it.\n\n{_indent(line, "    ")}    """\n    return a + 1\n',
        lambda name, value: f"Use {name}={value} for it.",
    ),
    Place(
        "a test", "tests/test_{}.py", lambda mark, line: f"def test_{mark}():\n{_indent(line, '    ')}    assert total(1) == 2\n"
    ),
    Place(
        "TypeScript",
        "web/call_{}.ts",
        lambda mark, line: f"export function {mark}Call(a: number): number {{\n{_indent(line, '  ')}  return a + 1;\n}}\n",
        lambda name, value: f"const {name} = `{value}`;",
    ),
    Place(
        "Go",
        "srv/call_{}.go",
        lambda mark, line: f"package srv\n\n// {mark} calls it.\nfunc Call{mark}(a int) int {{\n{_indent(line, chr(9))}\treturn a + 1\n}}\n",
        lambda name, value: f"{name} := `{value}`",
    ),
    Place(
        "Java",
        "srv/C{}.java",
        lambda mark, line: f"class C {{\n  int {mark}(int a) {{\n{_indent(line, '    ')}    return a + 1;\n  }}\n}}\n",
        lambda name, value: f"String {name} = {_quoted(value)};",
    ),
    Place(
        "YAML",
        "conf/app_{}.yaml",
        lambda mark, line: f"{mark}:\n  port: 80\n{_indent(line, '  ')}",
        lambda name, value: f"{name}: {value}" if "\n" not in value else f"{name}: |\n  " + value.replace("\n", "\n  "),
    ),
    Place("TOML", "conf/app_{}.toml", lambda mark, line: f"[{mark}]\nport = 80\n{line}\n", lambda n, v: f'{n} = """{v}"""'),
    Place(
        "JSON", "conf/app_{}.json", lambda mark, line: json.dumps({mark: {"port": 80, "note": line}}, indent=1), lambda n, v: f"{n}={v}"
    ),
    Place("a shell script", "bin/go_{}.sh", lambda mark, line: f"#!/bin/sh\n# {mark}\n{line}\nexec ./serve\n", lambda n, v: f"export {n.upper()}={v!r}"),
    Place("Dockerfile", "img_{}/Dockerfile", lambda mark, line: f"FROM alpine\n# {mark}\n{line}\n", lambda n, v: f"ENV {n.upper()}={v!r}"),
    Place("Markdown prose", "docs/page_{}.md", lambda mark, line: f"# About {mark}\n\nTo sign in take this: {line}\n", lambda n, v: f"the {n} is `{v}`"),
    Place(
        "Markdown code",
        "docs/code_{}.md",
        lambda mark, line: f"# Calling {mark}\n\nLike this:\n\n```sh\n{line}\n```\n",
        lambda name, value: f'curl -H "{name}: {value}" https://a.example/v1',
    ),
    Place("reStructuredText", "docs/page_{}.rst", lambda mark, line: f"About {mark}\n==============\n\n{line}\n", lambda n, v: f"The {n} is ``{v}``."),
    Place(
        "a notebook",
        "nb/look_{}.ipynb",
        lambda mark, line: json.dumps(
            {"cells": [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": 1, "source": [f"def {mark}(a):\n", f"    {line}\n", "    return a + 1\n"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        ),
        lambda name, value: f"{name} = {value!r}",
    ),
    Place("a commit message", "", lambda mark, line: f"Rotate what {mark} takes\n\n{line}", lambda n, v: f"{n}: {v}"),
    Place("a file's name", "keys/{}/{}.py", lambda mark, line: _function(mark, ""), lambda name, value: value),
    Place("an agent's rule", ".agents/rules/rule_{}.md", lambda mark, line: f"# {mark}\n\n- Always sign in first. {line}\n", lambda n, v: f"Its {n} is {v}."),
    Place("a question of the team", "", lambda mark, line: f"Why does {mark} fail with {line}?", lambda n, v: f"{n}={v}"),
    Place("a conversation, asked", "", lambda mark, line: f"What is {mark} for? I have {line}", lambda n, v: f"{n}: {v}"),
    Place("a conversation, answered", "", lambda mark, line: f"{mark} is called with {line} and then waits.", lambda n, v: f"{n}={v}"),
)  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """One secret where it stands; `text` is all that its file (message, row) holds."""

    kind: str
    place: str
    mark: str
    path: str
    text: str
    values: tuple[str, ...]


def spots(each: int, seed: int) -> Iterator[Spot]:
    """`each` secrets of every kind, over the places in turn."""
    rng = random.Random(seed)
    found: list[tuple[Planted, str]] = [*planted(KNOWN, each, seed), *planted(GENERIC, each, seed + 1)]
    for kind, make in CHOSEN.items():
        for _ in range(each):
            value, line = make(rng)
            found.append((Planted(kind, line, (value,)), ""))
    turn = {kind: rng.randrange(len(PLACES)) for kind in dict.fromkeys(secret.kind for secret, _ in found)}
    for number, (secret, name) in enumerate(found):
        place = PLACES[turn[secret.kind] % len(PLACES)]
        turn[secret.kind] += 1
        # no file's name says what it holds, so only what is known by its form is found there; and a name is short and has no "/"
        if place.name == "a file's name" and (secret.kind not in KNOWN or re.search(r"[\n/]|.{120}", secret.text)):
            place = PLACES[turn[secret.kind] % len(PLACES)]
            turn[secret.kind] += 1
        mark = f"mk{number:04d}q{rng.choice('abcdefgh')}"
        line = place.line(name, secret.text) if name else secret.text
        path = place.path.format(number, line) if place.name == "a file's name" else place.path.format(number)
        yield Spot(secret.kind, place.name, mark, path, place.around(mark, line), secret.values)


# -- making it ------------------------------------------------------------------------------------------------------------


def make_repository(folder: Path, chosen: Sequence[Spot]) -> None:
    """All spots but the conversations, in a git repository."""
    folder.mkdir()

    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)

    git("init", "-q")
    messages, questions = [], []
    for spot in chosen:
        if spot.place == "a commit message":
            messages.append(spot.text)
        elif spot.place == "a question of the team":
            questions.append({"question": spot.text, "files": ["pkg/plain.py"]})
        elif spot.path:
            path = folder / spot.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(spot.text, encoding="utf-8")
    (folder / "pkg").mkdir(exist_ok=True)
    (folder / "pkg" / "plain.py").write_text("".join(_function(f"plain{n}", "") + "\n\n" for n in range(8)))
    (folder / ".ai-forge").mkdir()
    (folder / ".ai-forge" / "questions.yaml").write_text(json.dumps({"questions": questions}))
    git("add", "-A")
    git("commit", "-q", "-m", "All of it")
    for number, message in enumerate(messages):
        with (folder / "pkg" / "plain.py").open("a") as file:
            file.write("\n\n" + _function(f"later{number}", ""))
        git("add", "-A")
        git("commit", "-q", "-m", message)


def conversations(chosen: Sequence[Spot]) -> Iterator[str]:
    """The rows of a file of examples, and as many without a secret: rows that hold one may be dropped."""
    for number, spot in enumerate(chosen):
        asked, answered = f"What does part {number} do?", f"Part {number} adds its first argument to the second."
        plain = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        yield json.dumps({"messages": plain})
        if spot.place == "a conversation, asked":
            yield json.dumps({"messages": [{"role": "user", "content": spot.text}, plain[1]]})
        elif spot.place == "a conversation, answered":
            yield json.dumps({"messages": [plain[0], {"role": "assistant", "content": spot.text}]})


# -- looking for it -------------------------------------------------------------------------------------------------------


def texts_in(home: Path) -> Iterator[tuple[str, str]]:
    """(file, text) of everything in a home that text can be in."""
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.suffix in WEIGHTS:
            continue
        name = str(path.relative_to(home))
        if path.suffix == ".parquet":
            yield name, json.dumps(pyarrow.parquet.read_table(path).to_pylist(), ensure_ascii=False, default=str)
        elif path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as database:
                tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for table in tables:
                    for row in database.execute(f'SELECT * FROM "{table}"'):
                        cells = (c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in row)
                        yield f"{name}:{table}", "\n".join(cells)
        else:
            yield name, path.read_bytes().decode("utf-8", "replace")


def survivors(chosen: Sequence[Spot], texts: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Which secrets are in a text, by their number, and where first. A value may be written with JSON's escapes."""
    joined = "\x00".join(text for _, text in texts)
    found: dict[int, str] = {}
    for number, spot in enumerate(chosen):
        for value in spot.values:
            forms = {value, json.dumps(value)[1:-1], value.replace("&", "&amp;").replace("<", "&lt;")}
            hit = next((form for form in sorted(forms) if form in joined), None)
            if hit is not None:
                found[number] = next(name for name, text in texts if hit in text)
    return found


def measured(folder: Path, *, each: int, seed: int, trained: bool = True) -> dict[str, Any]:
    """The report; without `trained` of what is made before a training, and searched."""
    chosen = list(spots(each, seed))
    make_repository(folder / "repo", chosen)
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(conversations(chosen)) + "\n", encoding="utf-8")
    base, home = tiny_base(folder / "base"), folder / "home"
    at = ["--home", str(home), *flags(training__base_model=base)]
    told: list[Outcome] = []
    commands = [
        ["synthesize", folder / "repo", *at],
        ["search", "which password is used to sign in?", "--repo", folder / "repo", *at, "-k", "40"],
    ]
    whole = [
        ["run", folder / "repo", *at],
        ["run", rows, "--recipe", "dataset", *at],
        ["ask", "which password is used to sign in?", "--repo", folder / "repo", "--home", home, *flags()[-8:]],
        ["handbook", folder / "repo"],
    ]
    for words in [*commands, *(whole if trained else [])]:
        told.append(ai_forge(*words))
        print(
            f"{words[0]}: {told[-1].code} {told[-1].err[-200:] if told[-1].code else ''}", file=sys.stderr, flush=True
        )
    texts = list(texts_in(home))
    texts += [(f"printed {n}", outcome.out + outcome.err) for n, outcome in enumerate(told)]
    texts += [(f".agents/{path.name}", path.read_text()) for path in (folder / "repo" / ".agents").glob("*.json*")]
    alive = survivors(chosen, texts)
    joined = "\x00".join(text for _, text in texts)
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    by_place: dict[str, Counter[str]] = defaultdict(Counter)
    for number, spot in enumerate(chosen):
        clean = scrub(f"{spot.path}\n{spot.text}".encode()).content.decode()
        facts = {
            "planted": 1,
            "kept": spot.mark in joined or spot.mark.capitalize() in joined,
            "masked": not any(value in clean for value in spot.values),
            "survived": number in alive,
        }
        for counts in (by_kind[spot.kind], by_place[spot.place]):
            counts.update({name: int(value) for name, value in facts.items()})
    n, masked = len(chosen), sum(counts["masked"] for counts in by_kind.values())
    return {
        "seed": seed,
        "kinds": len(by_kind),
        "places": len(by_place),
        "planted": n,
        "marks_kept": sum(counts["kept"] for counts in by_kind.values()),
        "masked_in_their_text": masked,
        "masked_share": round(masked / n, 4),
        "survived": len(alive),
        "found_share": round(1 - len(alive) / n, 4),
        "commands": {f"{i} {o.code}": o.err[-160:] if o.code else "" for i, o in enumerate(told)},
        "by_kind": {kind: dict(counts) for kind, counts in sorted(by_kind.items())},
        "by_place": {place: dict(counts) for place, counts in sorted(by_place.items())},
        "survivors": [
            {"kind": chosen[number].kind, "place": chosen[number].place, "in": re.sub(r"[0-9a-f]{12,64}", "*", where)}
            for number, where in sorted(alive.items())
        ],
        "not_masked": dict(
            Counter(
                f"{spot.kind}, {spot.place}"
                for spot in chosen
                if any(v in scrub(f"{spot.path}\n{spot.text}".encode()).content.decode() for v in spot.values)
            ).most_common()
        ),
    }


def main() -> int:
    """Plant, run, look, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=25, help="secrets of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/secrets.json")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secrets-")))
        folder.mkdir(parents=True, exist_ok=True)
        made = measured(folder.resolve(), each=chosen.each, seed=chosen.seed)
    if chosen.write:
        record("secrets", made)
    else:
        print(json.dumps(made, indent=1, ensure_ascii=False))
    return int(min(made["found_share"], made["masked_share"]) < GOAL)


if __name__ == "__main__":
    sys.exit(main())
