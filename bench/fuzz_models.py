"""Model and dataset files that are broken in every way, read as a user's are: a part of `fuzz_files`.

Of a tiny model and a dataset a GGUF, a safetensors file, a `tokenizer.json`, a `tokenizer_config.json`, a `config.json` and Parquet
files of two kinds are mutated: as bytes, as numbers (any place that may be a count, a length or an offset becomes zero, one more,
or as large as it can be) and as JSON (a field gone, of another type, a number that nothing holds). Each is opened in a worker
process as the commands open it: resolved as a base (a GGUF is converted), its tensors and its tokenizer read and used, a dataset's
rows read; a GGUF is loaded by llama.cpp too, which must not end the process. Told of each:

    rejected     an error on purpose, with the file's name
    read         no error
    FAULT        any other exception, a dead worker, more than a second of CPU, more than 256 MB beyond what the worker had before

The limit on memory is one of address space: what is beyond it fails, and shows as a fault.
"""

import contextlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ai_forge.errors import AIForgeError
from damages import DAMAGES, NotPossibleError

sys.path.append(str(Path(__file__).parents[1] / "tests"))

CPU_S, WALL_S = 1.0, 30.0  # of the second a loaded machine may need many
MEMORY_BYTES = 256 << 20
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
Mutation = Callable[[bytes, random.Random], bytes]


# -- mutations ----------------------------------------------------------------------------------------------------------


def _place(content: bytes, chance: random.Random) -> int:
    """Any; half of them near the beginning or the end, where headers and footers lie."""
    near = chance.random()
    if near < 0.4:
        return chance.randrange(min(len(content), 2000))
    if near < 0.55:
        return len(content) - 1 - chance.randrange(min(len(content), 2000))
    return chance.randrange(len(content))


def _flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 60))):
        changed[_place(content, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _number(content: bytes, chance: random.Random) -> bytes:
    """Eight or four bytes are another number."""
    at, form = _place(content, chance), chance.choice(("<Q", "<I"))
    mask = 2 ** (8 * struct.calcsize(form)) - 1
    return content[:at] + struct.pack(form, chance.choice(NUMBERS) & mask) + content[at + struct.calcsize(form) :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: _place(content, chance)]


def _spliced(content: bytes, chance: random.Random) -> bytes:
    at, piece = _place(content, chance), _place(content, chance)
    return content[:at] + content[piece : piece + chance.randrange(400)] + content[at:]


def _missing(content: bytes, chance: random.Random) -> bytes:
    at = _place(content, chance)
    return content[:at] + content[at + chance.randrange(1, 64) :]


def _nested(content: bytes, chance: random.Random) -> bytes:
    at, depth = _place(content, chance), chance.choice((100, 5000, 100_000))
    return content[:at] + chance.choice((b"[", b'{"a":', b"(")) * depth + content[at:]


def _digits(content: bytes, chance: random.Random) -> bytes:
    """A digit of the text becomes a number that is far larger."""
    places = [at for at in range(len(content)) if 48 <= content[at] <= 57][:5000]
    if not places:
        return _number(content, chance)
    at = chance.choice(places)
    return content[:at] + str(chance.choice(NUMBERS)).encode() + content[at + 1 :]


def _setting(content: bytes, chance: random.Random) -> bytes:
    """Of a GGUF: a setting has another value or another type."""
    places = [found.end() for found in re.finditer(rb"(?:llama|general|tokenizer)\.[a-z_.]+", content[:200_000])]
    if not places:
        return _number(content, chance)
    at, form = chance.choice(places) + 4 * (chance.random() < 0.8), chance.choice(("<I", "<Q"))
    mask = 2 ** (8 * struct.calcsize(form)) - 1
    value = chance.choice((*NUMBERS, *range(2, 14)))
    return content[:at] + struct.pack(form, value & mask) + content[at + struct.calcsize(form) :]


BYTES: dict[str, Mutation] = {
    "flipped": _flipped,
    "a number": _number,
    "cut": _cut,
    "spliced": _spliced,
    "bytes missing": _missing,
    "digits": _digits,
    "a setting": _setting,
}
FIELDS = ("wrong type", "huge number", "field gone")  # of `damages`: JSON stays JSON


def mutated(path: Path, chance: random.Random) -> str:
    """Mutate a file in place; returns how."""
    ways = [*BYTES][:-1]
    if path.suffix == ".gguf":
        ways += ["a setting"] * 4
    if path.suffix == ".json":
        ways += [*FIELDS * 3, "nested"]
    for _ in range(20):
        how = chance.choice(ways)
        with contextlib.suppress(NotPossibleError):
            if how in FIELDS:
                for _ in range(chance.choice((1, 1, 3))):
                    DAMAGES[how](path, chance)
            else:
                path.write_bytes((_nested if how == "nested" else BYTES[how])(path.read_bytes(), chance))
            return how
    return "none"


# -- reading ------------------------------------------------------------------------------------------------------------


def read_base(path: Path, cache: Path) -> None:
    """As `--base` and training do: resolve it, read each tensor, use its tokenizer."""
    from ai_forge.model_files.tensors import Weights
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.bases.resolve import resolve_base

    base = resolve_base(str(path), cache_dir=cache)
    weights = Weights(base.folder)
    for name in weights.specs:
        weights.load(name)
    tokenizer = ChatTokenizer(base.folder)
    tokenizer.decode(tokenizer.encode_prompt([{"role": "user", "content": "def f(a): return a + 1  # é"}]))
    tokenizer.encode_target("a [a.py:1-2].")


def read_records(path: Path, _: Path) -> None:
    """As `data stats` and `--recipe dataset` do."""
    from ai_forge.data_pipeline.datasets.formats import chat_of, read_dataset

    for record in read_dataset(path).records:
        chat_of(record)


def load_in_llama_cpp(path: Path) -> None:
    """As a rival of `compare` is: a file that our reader takes must not end the process that loads it."""
    from ai_forge.serving.llama_server import LlamaServer

    with contextlib.suppress(AIForgeError), LlamaServer(path, 256, 1) as server:
        server.render([{"role": "user", "content": "a"}])


def read(kind: str, path: Path, cache: Path) -> None:
    """Open what was mutated; of a folder one file was."""
    reader = read_records if kind.startswith("Parquet") else read_base
    reader(path, cache)


# -- a worker -----------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A process that reads one file after another, and tells how each ended."""

    pid: int
    asked: Any
    told: Any

    @classmethod
    def start(cls) -> "Worker":
        """A fork of this process, which has imported what is needed."""
        (ask_out, ask_in), (tell_out, tell_in) = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ask_in)
            os.close(tell_out)
            _work(os.fdopen(ask_out), os.fdopen(tell_in, "w"))
        os.close(ask_out)
        os.close(tell_in)
        return cls(pid, os.fdopen(ask_in, "w"), os.fdopen(tell_out))

    def read(self, kind: str, path: Path, cache: Path) -> dict[str, Any] | None:
        """What became of it; None where the worker died or hung, and is gone."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([kind, str(path), str(cache)]), file=self.asked, flush=True)
        line = ""
        if select.select([self.told], [], [], WALL_S)[0]:
            line = self.told.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        return None

    def stop(self) -> str:
        """End it; how it had ended."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        how = f"ended with {os.waitstatus_to_exitcode(status)}" if ended else f"hung for {WALL_S:.0f} s"
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for pipe in (self.asked, self.told):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return how


def _work(asked: Any, told: Any) -> NoReturn:
    with Path(os.devnull).open("w") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    for line in asked:
        kind, path, cache = json.loads(line)
        _peak(reset=True)
        before, began = _peak(), time.process_time()
        limit = _address_space() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        outcome, detail = "read", ""
        try:
            read(kind, Path(path), Path(cache))
        except AIForgeError as error:
            outcome, detail = "rejected", str(error)
        except BaseException as error:  # noqa: BLE001 (what is looked for)
            where = [frame for frame in traceback.extract_tb(error.__traceback__) if "ai_forge" in frame.filename]
            place = f"{Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
            outcome, detail = "FAULT", f"{type(error).__name__} at {place}: {error}"[:300]
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        cpu_s = time.process_time() - began
        found = {"outcome": outcome, "detail": detail, "cpu_s": cpu_s, "bytes": max(0, _peak() - before)}
        if kind == "GGUF":
            load_in_llama_cpp(Path(path))
        print(json.dumps(found), file=told, flush=True)
    os._exit(0)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak(*, reset: bool = False) -> int:
    """The most memory since the last `reset`, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
        return 0
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


# -- all of them --------------------------------------------------------------------------------------------------------


def originals(folder: Path) -> dict[str, tuple[Path, str]]:
    """By kind: what is opened, and the file of it that is mutated."""
    from ai_forge.config.models import load_models
    from ai_forge.data_pipeline.datasets.formats import convert, read_dataset, write_records
    from ai_forge.model_files.gguf.writer import write_gguf
    from cli_runs import tiny_base

    load_models()
    base = tiny_base(folder / "base")
    write_gguf(base, folder / "tiny.gguf", "f16")
    rows = [{"instruction": f"Say {n}", "input": "", "output": f"It is {n}, as the module says."} for n in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    alpaca = read_dataset(folder / "rows.jsonl")
    write_records(folder / "alpaca.parquet", alpaca)
    write_records(folder / "messages.parquet", convert(alpaca, "messages"))
    found = {
        "GGUF": (folder / "tiny.gguf", ""),
        "Parquet, flat": (folder / "alpaca.parquet", ""),
        "Parquet, nested": (folder / "messages.parquet", ""),
    }
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
        found[name] = (base, name)
    return found


SHARES = {"GGUF": 25, "model.safetensors": 20, "config.json": 20, "tokenizer.json": 12, "tokenizer_config.json": 8}
SHARES |= {"Parquet, flat": 8, "Parquet, nested": 7}


def measured(*, n_files: int, seed: int, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The report."""
    import pyarrow.parquet  # noqa: F401

    import ai_forge.prompting.chat
    import ai_forge.serving.llama_server
    import ai_forge.training.bases.resolve  # noqa: F401

    chance, counts, faults = random.Random(seed), {kind: Counter[str]() for kind in SHARES}, []
    slowest, largest, unnamed = 0.0, 0, Counter[str]()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-models-") as name:
        folder = Path(name)
        known = originals(folder)
        worker = Worker.start()
        for kind, (whole, _) in known.items():  # what is whole is read; the first one pays for what is loaded once
            found = worker.read(kind, whole, folder / "cache")
            if found is None or found["outcome"] != "read":
                raise SystemExit(f"the whole {kind} is not read: {found}")
        for number in range(n_files):
            kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
            whole, inside = known[kind]
            place = folder / f"case{number}{whole.suffix}"
            if inside:
                shutil.copytree(whole, place)
            else:
                shutil.copyfile(whole, place)
            how = mutated(place / inside if inside else place, chance)
            found = worker.read(kind, place, folder / f"cache{number}")
            if found is None:
                found = {"outcome": "FAULT", "detail": f"the worker {worker.stop()}", "cpu_s": 0.0, "bytes": 0}
                worker = Worker.start()
                worker.read("GGUF", known["GGUF"][0], folder / "cache")
            slowest, largest = max(slowest, found["cpu_s"]), max(largest, found["bytes"])
            if found["cpu_s"] > CPU_S:
                found |= {"outcome": "FAULT", "detail": f"{found['cpu_s']:.1f} s of CPU; {found['detail']}"}
            if found["bytes"] > MEMORY_BYTES:
                found |= {"outcome": "FAULT", "detail": f"{found['bytes'] >> 20} MB; {found['detail']}"}
            if found["outcome"] == "rejected" and place.stem not in found["detail"]:
                unnamed[f"{kind}: {found['detail'][:160]}"] += 1
            counts[kind][found["outcome"]] += 1
            if found["outcome"] == "FAULT":
                faults.append({"kind": kind, "how": how, "number": str(number), "fault": found["detail"]})
                tell(json.dumps(faults[-1]))
            for made in (place, folder / f"cache{number}"):
                if made.is_dir():
                    shutil.rmtree(made)
                else:
                    made.unlink(missing_ok=True)
        worker.asked.close()
        os.waitpid(worker.pid, 0)
        worker.told.close()
    return {
        "seed": seed,
        "files": n_files,
        "by_kind": {kind: dict(count) for kind, count in counts.items()},
        "slowest_cpu_s": round(slowest, 3),
        "most_memory_mb": round(largest / 1e6, 1),
        "rejected_without_the_files_name": dict(unnamed.most_common(12)),
        "wall_s": round(time.monotonic() - began, 1),
        "faults": faults,
    }
