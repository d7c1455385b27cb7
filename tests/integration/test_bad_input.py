"""What a user can get wrong, through the real command line: one clear line, a stable exit code, nothing half-written."""

import hashlib
import http.server
import json
import re
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_forge.events import read_events
from ai_forge.model_files.architectures import expected_shapes
from cli_runs import TinyRun, ai_forge, copy_of, debris, flags, process, stdlib_copy, tiny_base

CODE = "def area(width, height):\n    '''The area of a rectangle with these sides.'''\n    return width * height\n"
BROKEN = "def broken(:\n    '''Never closed.\n    x = (((\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stdlib_copy(tmp_path_factory.mktemp("sources") / "repo")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("bases") / "base")


def nothing_half_written(home: Path) -> None:
    assert debris(home) == []
    assert not list(home.glob("cache/train/*"))
    assert not (home / "registry.db").exists()


# -- the repository -------------------------------------------------------------------------------------------------


def files(**content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name.replace("__", ".")).write_text(text)

    return write


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, r"\S+ does not exist. Next: Give the folder"),
        (lambda folder: folder.write_text(CODE), r"\S+ is not a folder. Next: Give the folder"),
        (lambda folder: folder.mkdir(), r"\S+ holds no files to read. Next: Give a folder with code"),
        (files(notes__txt="to do"), r"None of the 1 files in \S+ can be mined. Known languages: python.*unknown_language 1"),
        (files(a__py="x = 1\n"), r"Nothing in \S+ can be asked about: .* none passes the filters \(short_module: 1\)"),
        (files(a__py=CODE), r"A split needs at least 3 files with blocks to ask about, found 1. Next: Give a larger"),
        (files(a__py=BROKEN, b__py=BROKEN), r"Nothing in \S+ can be asked about: .*syntax_error: 2\). Next: name a repo"),
        (
            files(a__py=re.sub("'''.*'''", "width = int(width) + len(str(height)) + max(1, 2, 3)", CODE)),
            r"Nothing in \S+ can be asked about: .*no_docstring: 1\). Next: add --set miner.require_docstring=false",
        ),
    ],
    ids=["absent", "a file", "empty", "no code", "nothing minable", "one file", "only broken files", "undocumented"],
)  # fmt: skip
def test_a_repository_that_cannot_be_mined(
    make: Callable[[Path], None], told: str, home: Path, base: Path, tmp_path: Path
) -> None:
    make(tmp_path / "repo")
    outcome = ai_forge("run", tmp_path / "repo", "--base", base, "--home", home, *flags())
    assert outcome.code == 2
    assert re.search(f"^bad_input: {told}", outcome.complaint), outcome.complaint
    assert str(tmp_path / "repo") in outcome.complaint or "A split" in told
    nothing_half_written(home)


# -- the base -------------------------------------------------------------------------------------------------------


def damaged(change: Callable[[Path], object]) -> Callable[[Path, Path, Path], Path]:
    def make(folder: Path, base: Path, _gguf: Path) -> Path:
        shutil.copytree(base, folder)
        change(folder)
        return folder

    return make


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path, _base: Path, gguf: Path) -> Path:
    with gguf.open("rb") as whole:
        folder.with_suffix(".gguf").write_bytes(whole.read(5_000_000))
    return folder.with_suffix(".gguf")


def pickle_file(folder: Path, _base: Path, _gguf: Path) -> Path:
    folder.with_suffix(".bin").write_bytes(b"\x80\x02.")
    return folder.with_suffix(".bin")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (damaged(lambda f: (f / "config.json").unlink()), "has no config.json"),
        (damaged(lambda f: (f / "model.safetensors").unlink()), "has no weights: neither model.safetensors nor"),
        (damaged(lambda f: (f / "tokenizer.json").unlink()), "has no tokenizer.json. Next: save the tokenizer there"),
        (
            damaged(lambda f: (f / "tokenizer_config.json").unlink()),
            "has no tokenizer_config.json: nothing says how a chat is written. Next: download it",
        ),
        (damaged(pickled), r"has only pickle weights \(pytorch_model.bin\); loading them would run code"),
        (pickle_file, "is a pickle file; loading it would run code from the file. Next: use a .safetensors or .gguf"),
        (cut_off, r"is cut off: tensor \S+ ends at byte \d+, the file has 5000000. Next: download the file again"),
    ],
    ids=["no config", "no weights", "no tokenizer", "no tokenizer config", "pickle", "pickle file", "cut-off GGUF"],
)
def test_a_base_that_cannot_be_trained(
    make: Callable[[Path, Path, Path], Path], told: str, home: Path, repo: Path, base: Path, base_gguf: Path, tmp_path: Path
) -> None:  # fmt: skip
    chosen = make(tmp_path / "chosen", base, base_gguf)
    outcome = ai_forge("run", repo, "--base", chosen, "--home", home, *flags())
    assert outcome.code == 2
    assert str(tmp_path / "chosen") in outcome.complaint
    assert re.search(told, outcome.complaint), outcome.complaint
    assert not list(home.glob("cache/bases/*"))
    nothing_half_written(home)


def test_an_unknown_base_is_told_with_near_matches(home: Path, repo: Path) -> None:
    outcome = ai_forge("run", repo, "--base", "SmolLM2-135M-Instuct", "--home", home)
    assert outcome.code == 2
    assert "No model is called 'SmolLM2-135M-Instuct'. Did you mean SmolLM2-135M-Instruct or" in outcome.complaint
    assert "a .gguf file, ollama:NAME." in outcome.complaint
    nothing_half_written(home)


# -- the machine ----------------------------------------------------------------------------------------------------


def test_too_little_memory_is_found_before_training(home: Path, repo: Path, base: Path) -> None:
    sizes = flags(training__max_seq_len=131_072, training__micro_batch_size=1024)
    outcome = ai_forge("run", repo, "--base", base, "--home", home, *sizes)
    assert outcome.code == 3
    told = r"^missing_prerequisite: Training needs about \d+\.\d GB of memory \(activations \d+\.\d, .* are free\. Next: this would"
    assert re.search(told, outcome.complaint), outcome.complaint
    nothing_half_written(home)


MOST_WIDE = 1 << 23  # of a feed-forward layer; a configuration beyond 1 << 24 is refused as such


def huge_base(folder: Path, n_parameters: int) -> Path:
    """A base whose weights are a hole in a file: nothing on the disk, but as long as it says.

    It is the feed-forward layers that are wide: all that stands in the way is looked at, so a vocabulary would be built.
    """
    tiny_base(folder)
    config = json.loads((folder / "config.json").read_text())
    rows_of_all = n_parameters // (3 * config["hidden_size"])
    # a larger disk asks for more layers, not for wider ones
    n_layers = rows_of_all // MOST_WIDE + config["num_hidden_layers"]
    deep = {"intermediate_size": rows_of_all // n_layers, "num_hidden_layers": n_layers}
    (folder / "config.json").write_text(json.dumps(config | deep))
    shapes = expected_shapes(json.loads((folder / "config.json").read_text()))
    rows, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        rows[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(rows).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    return folder


def remember_hash(path: Path, home: Path) -> None:
    """As an earlier run would have left it: reading gigabytes of zeros is nothing to test."""
    stamp = {"path": str(path), "size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
    memo = home / "cache" / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    memo.parent.mkdir(parents=True)
    memo.write_text(json.dumps(stamp | {"sha256": "0" * 64}))


def test_too_little_disk_is_found_before_training(home: Path, repo: Path, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    chosen = huge_base(tmp_path / "huge", free // 8)
    remember_hash(chosen / "model.safetensors", home)
    outcome = ai_forge("run", repo, "--base", chosen, "--home", home, *flags())
    assert outcome.code == 3
    needs, has = re.findall(r"needs ([\d.]+) GB of disk in \S+; ([\d.]+) GB are free", outcome.complaint)[0]
    assert float(needs) == pytest.approx(free * 10 / 8 / 1e9, rel=0.01)
    assert float(has) < float(needs)
    assert "set AI_FORGE_HOME to a larger disk" in outcome.complaint
    nothing_half_written(home)


@pytest.mark.parametrize("inside", ["", "deeper/home"])
def test_a_home_that_cannot_be_written(inside: str, repo: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    outcome = ai_forge("run", repo, "--base", base, "--home", tmp_path / "file" / inside, *flags())
    assert outcome.code == 3
    assert f"The workspace {tmp_path / 'file' / inside} cannot be written: Not a directory." in outcome.complaint
    assert "set AI_FORGE_HOME to a folder you can write" in outcome.complaint
    assert (tmp_path / "file").read_text() == "kept"


# -- the settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ("--set", "training.rank=0", "--set", "training.ranks=3", "--set", "judge.n_questions=many"),
            (
                "training.ranks (flag) is not a setting; did you mean training.rank?",
                "training.rank (flag) is 0: Input should be greater than or equal to 1",
                "judge.n_questions (flag) is 'many': Input should be a valid integer",
                "`ai-forge config show` lists every setting.",
            ),
        ),
        (("--set", "training.rank"), ("--set training.rank has no value.", "write --set training.rank=16.")),
        (("--set", "training.rank=[1"), ("--set training.rank=[1 is no value.",)),
        (("--set", "training=3"), ("training (flag) is not a setting",)),
        (("--config", "nowhere.yaml"), ("The settings file nowhere.yaml cannot be read",)),
        (("--steps", "0"), ("training.max_steps (flag) is 0",)),
        (("--steps", "few"), ("Invalid value for '--steps'",)),
        (("--time-budget", "soon"), ("'soon' is not a duration.", "write 90s, 4m or 2h.")),
        (("--time-budget", "-5"), ("'-5' is not a duration.",)),
        (("--time-budget", "0s"), ("training.time_budget_s (flag) is 0.0: Input should be greater than 0.",)),
    ],
)
def test_bad_settings_are_told_all_at_once_with_their_values(
    words: tuple[str, ...], parts: tuple[str, ...], home: Path, repo: Path
) -> None:
    outcome = ai_forge("run", repo, "--home", home, *words)
    assert outcome.code == 2
    for part in parts:
        assert part in outcome.complaint
    nothing_half_written(home)


def test_a_time_budget_too_short_for_a_step(finished: TinyRun) -> None:
    before = sorted((finished.home / "cache" / "train").iterdir())
    outcome = ai_forge(*finished.words("train", training__max_steps="null"), "--time-budget", "0.001s")
    assert outcome.code == 2
    assert re.search(r"A time budget of 0 s is too short: one step takes .* s here. Next: .*give at", outcome.complaint)
    kept = [path for path in (finished.home / "cache" / "train").iterdir() if path not in before]
    assert all(path.suffix == ".work" for path in kept)
    assert debris(finished.home) == []


# -- the runtime ----------------------------------------------------------------------------------------------------


class _Ollama(http.server.BaseHTTPRequestHandler):
    """Says that it is Ollama and hangs up when it is asked to do something; or is another program's port."""

    is_ollama = True
    n_hung_up = 0

    def do_GET(self) -> None:
        if self.path != "/api/version":
            return self.do_POST()
        answer = b'{"version": "0.13.0"}' if self.is_ollama else b"<html>hello</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        return None

    def do_POST(self) -> None:
        type(self).n_hung_up += 1
        self.close_connection = True

    do_HEAD = do_DELETE = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Ollama]]]:
    handler = type("Handler", (_Ollama,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_port_that_another_program_took(
    server: tuple[str, type[_Ollama]], home: Path, repo: Path, base: Path
) -> None:
    host, handler = server
    handler.is_ollama = False
    asked = flags(runtime__kind="ollama", runtime__ollama_host=host)
    outcome = ai_forge("run", repo, "--base", base, "--home", home, *asked)
    assert outcome.code == 3
    assert f"Ollama cannot be used: something that is not Ollama answers at {host}" in outcome.complaint
    assert "stop what uses that port" in outcome.complaint
    nothing_half_written(home)


def test_an_ollama_that_is_not_there(
    home: Path, repo: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    asked = flags(runtime__kind="ollama", runtime__ollama_host=host)
    outcome = ai_forge("run", repo, "--base", base, "--home", home, *asked)
    assert outcome.code == 3
    assert f"Nothing answers at {host} and the program ollama is not on PATH." in outcome.complaint
    assert "install Ollama" in outcome.complaint
    nothing_half_written(home)


def test_an_ollama_that_goes_away_in_mid_deployment(server: tuple[str, type[_Ollama]], finished: TinyRun) -> None:
    host, handler = server
    registry = (finished.home / "registry.db").read_bytes()
    outcome = ai_forge(*finished.words("deploy", runtime__kind="ollama", runtime__ollama_host=host))
    assert outcome.code == 4
    assert host in outcome.complaint
    assert handler.n_hung_up > 0
    assert (finished.home / "registry.db").read_bytes() == registry
    assert debris(finished.home) == []


# -- Ctrl-C ---------------------------------------------------------------------------------------------------------


def steps_of(home: Path) -> list[int]:
    lines = [line for path in home.glob("runs/*/events.jsonl") for line in path.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    return [event["step"] for event in events if event["event"] == "StepLogged"]


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_continues(home: Path, repo: Path, base: Path) -> None:
    n_steps = 100  # fewer than the epochs would give
    words = ["run", repo, "--base", base, "--home", home, *flags(training__max_steps=n_steps, runtime__deploy="never")]
    running = process(*words)
    deadline = time.monotonic() + 240
    while not (home.exists() and steps_of(home)):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "Interrupted. What was done is kept: the same command continues."
    assert ended_of(home)["train"][-1] == "StageCancelled"
    done = steps_of(home)
    assert done == list(range(1, len(done) + 1))
    assert len(done) < n_steps
    (work,) = home.glob("cache/train/*.work")
    assert (work / f"step-{len(done):06d}").is_dir()
    assert debris(home) == []

    again = ai_forge(*words)
    assert again.code == 0, again.err
    assert f"continuing after step {len(done)} of {n_steps}." in again.err
    assert steps_of(home)[len(done)] == len(done) + 1
    assert Path(again.json["report"]).is_file()


def ended_of(home: Path) -> dict[str, list[str]]:
    """By stage how it began and ended, each time, the run that was at work last at the end."""
    found: dict[str, list[str]] = {}
    for path in sorted(home.glob("runs/*/events.jsonl"), key=lambda events: events.stat().st_mtime):
        for event in read_events(path):
            if event["event"] in ("StageStarted", "StageFinished", "StageFailed", "StageCancelled"):
                found.setdefault(event["stage"], []).append(event["event"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "change"),
    [("dataset", {"synthesis__seed": 5}), ("evaluate", {"judge__max_new_tokens": 64})],
)
def test_ctrl_c_in_a_stage_leaves_nothing_half_made_and_the_same_command_continues(
    finished: TinyRun, tmp_path: Path, stage: str, change: dict[str, object]
) -> None:
    copy = copy_of(finished, tmp_path)
    known = set((copy.home / "runs").iterdir())
    verb = {"dataset": "synthesize", "evaluate": "evaluate"}[stage]
    running = process(*copy.words(verb, **change))
    deadline = time.monotonic() + 240
    while not (new := set((copy.home / "runs").iterdir()) - known) or not at_work(new.pop(), stage):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert (out, "Traceback" in err) == ("", False)
    assert err.splitlines()[-1] == "Interrupted. What was done is kept: the same command continues."
    assert debris(copy.home) == []
    assert ended_of(copy.home)[stage][-1] == "StageCancelled"
    again = ai_forge(*copy.words(verb, **change))
    assert again.code == 0, again.err
    assert ended_of(copy.home)[stage][-2:] == ["StageStarted", "StageFinished"]


def at_work(run: Path, stage: str) -> bool:
    """Whether the last that a run says is of this stage, begun and not ended."""
    events = list(read_events(run / "events.jsonl"))
    return (
        bool(events) and events[-1].get("stage") == stage and events[-1]["event"] in ("StageStarted", "StageProgress")
    )
