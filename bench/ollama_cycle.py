"""A guardian left alone with a real Ollama and a real base: a change is trained on, judged, deployed, rolled back.

    PATH=OLLAMAS_FOLDER:$PATH python bench/ollama_cycle.py --write      (20 to 40 minutes on 2 cores)

`ai-forge guardian watch` is a process of its own that nobody speaks to: it finds a repository that was never trained on, then one in
which enough files changed for the default trigger. Ollama is one of this script's, with a port and a folder of models of its own.
The answers of a version are asked of Ollama itself and of `ServedModel`; `ai-forge rollback` is the command. Told on stderr, a JSON
report on stdout; ends with 1 where a cycle is not deployed, the answers of the two versions are the same, or those after the
rollback are not byte for byte those before. With `--keep FOLDER` the home stays there.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from ai_forge.antigravity_agent.cycle import CycleRecord, CycleStore
from ai_forge.config import load_settings
from ai_forge.pipeline.recipes import REPOSITORY
from ai_forge.pipeline.run import read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stages.report import ReportSummary
from ai_forge.pipeline.stages.train import TrainSummary
from ai_forge.serving.registry import Registry
from ai_forge.serving.served_model import ServedModel
from ai_forge.workspace import Workspace
from measure import RESULTS

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import stdlib_copy
from guardian_repos import FIRST_DAY, commit, git
from real_ollama import OllamaProcess

NAME = "unattended"
BEGINS_WITH = (  # of the running Python, a commit a row
    ("argparse.py", "bisect.py", "calendar.py", "configparser.py", "contextlib.py", "copy.py"),
    ("csv.py", "dataclasses.py", "difflib.py", "fractions.py", "functools.py", "gettext.py"),
    ("glob.py", "gzip.py", "heapq.py", "inspect.py", "ipaddress.py", "mailbox.py"),
    ("json/decoder.py", "json/encoder.py", "logging/__init__.py", "logging/handlers.py"),
    ("textwrap.py", "tokenize.py", "zipfile.py", "tarfile.py", "shlex.py"),
    ("sched.py", "queue.py", "threading.py"),
)
THEN = (
    ("ast.py", "base64.py", "bdb.py", "bz2.py", "cmd.py", "code.py", "codecs.py", "colorsys.py"),
    ("filecmp.py", "fileinput.py", "fnmatch.py", "ftplib.py", "getpass.py", "imaplib.py", "linecache.py", "lzma.py"),
    ("optparse.py", "pprint.py", "random.py", "shutil.py", "smtplib.py", "statistics.py", "timeit.py", "uuid.py"),
)
QUESTIONS = ("What does `heappush` do?", "Which parameters does `fill` take?", "Where is `bisect_left`?")
SETTINGS: dict[str, Any] = {
    "training.max_steps": 24,
    "training.time_budget_s": 3000,  # the steps bound it, on a busy machine as well
    "training.eval_steps": 12,
    "judge.n_questions": 16,
    "runtime.kind": "ollama",
    "runtime.embedder": "none",
    "guardian.debounce_s": 2,
    "guardian.desktop": False,
}
LONGEST_S = 3600.0


def told(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Place:
    """A home, a repository, an Ollama and the settings of all that asks."""

    def __init__(self, folder: Path, host: str, changes: dict[str, Any]) -> None:
        self.home, self.repo, self.host = folder / "home", folder / "repo", host
        self.settings = SETTINGS | {"runtime.ollama_host": host} | changes
        self.repo.mkdir(parents=True)
        git(self.repo, "init", "-q")
        self._day = FIRST_DAY
        self.add(BEGINS_WITH)
        self.workspace = Workspace.open(self.home)

    def add(self, commits: tuple[tuple[str, ...], ...]) -> None:
        """New modules, a commit a row and a day."""
        for modules in commits:
            self._day += timedelta(days=1)
            stdlib_copy(self.repo, modules)
            commit(self.repo, f"Add {modules[0]} and others", at=self._day)

    def words(self, *command: object) -> list[str]:
        """A command of the product on this repository."""
        chosen = [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        words = [sys.executable, "-m", "ai_forge", *map(str, command), str(self.repo), "--home", str(self.home)]
        return [*words, "--name", NAME, *chosen]

    def cycles(self) -> list[CycleRecord]:
        return CycleStore(self.workspace, self.repo, "repository").history()

    def active(self) -> str | None:
        with Registry(self.workspace.registry_path) as registry:
            found = registry.active(NAME)
        return found.version if found else None

    def answers(self) -> dict[str, list[str]]:
        """What the active version says: asked as the product asks, and Ollama itself without documents."""
        runtime = load_settings(("flag", self.settings)).settings.runtime
        with ServedModel.open(NAME, self.workspace, runtime) as model:
            found = ["".join(model.ask(question)) for question in QUESTIONS]
        bare = []
        for question in QUESTIONS:
            turns = [{"role": "user", "content": question}]
            body = {"model": NAME, "messages": turns, "stream": False, "options": {"temperature": 0, "seed": 1}}
            answer = httpx.post(f"{self.host}/api/chat", json=body, timeout=300, trust_env=False)
            bare.append(answer.raise_for_status().json()["message"]["content"])
        return {"served": found, "ollama": bare}

    def listed(self) -> list[str]:
        """The models that Ollama has, with their digests: two of one digest are one model."""
        models = httpx.get(f"{self.host}/api/tags", timeout=30, trust_env=False).json()["models"]
        return sorted(f"{model['name']} {model['digest'][:12]}" for model in models)

    def figures(self, record: CycleRecord) -> dict[str, Any]:
        """Of a cycle: how it ended, what each task took, what training and gate measured."""
        run = read_run(self.workspace.runs_dir / record.run_id)
        assert run is not None
        outputs = Runner(run, self.workspace, recipe=REPOSITORY).outputs()
        report, trained = outputs.summary("report", ReportSummary), outputs.summary("train", TrainSummary)
        return {
            "run": record.run_id,
            "reason": record.reason,
            "state": record.state,
            "told": record.text,
            "seconds": {task.name: round(task.seconds, 1) for task in record.tasks},
            "training": trained.sentence(),
            "verdict": report.headline,
            "checks": {check.name: f"{check.passed}: {check.text}" for check in report.checks},
        }


def ended(place: Place, n: int, watch: "subprocess.Popen[bytes]") -> CycleRecord:
    """The `n`th cycle, when it has ended.

    Raises:
        RuntimeError: the watch ended, or it took too long.
    """
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until and watch.poll() is None:
        if len(done := place.cycles()) >= n:
            return done[n - 1]
        time.sleep(2)
    raise RuntimeError(f"no cycle {n}: the watch ended with {watch.poll()}, or {LONGEST_S:g} s passed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="leave the home, the repository and the models in this new folder")
    parser.add_argument("--set", action="append", default=[], help="another setting, KEY=VALUE; several times")
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/results/ollama_cycle.json")
    chosen = parser.parse_args()
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="ollama-cycle-"))
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    (folder / "ollama").mkdir()
    ollama = OllamaProcess(host, folder / "ollama" / "models")
    ollama.start()
    place = Place(folder, host, dict(text.split("=", 1) for text in chosen.set))
    log = (folder / "watch.log").open("ab")
    watch = subprocess.Popen(
        place.words("guardian", "watch"), stdout=log, stderr=log, env=os.environ | {"TERM": "dumb"}
    )
    try:
        first = ended(place, 1, watch)
        told(f"first cycle: {first.state}: {first.text}")
        old, said = place.active(), place.answers()
        place.add(THEN)
        second = ended(place, 2, watch)
        told(f"second cycle: {second.state}: {second.text}")
        new, said_new = place.active(), place.answers()
        listed = place.listed()
        rolled_back = subprocess.run(place.words("rollback"), capture_output=True, check=False)
        told(rolled_back.stderr.decode()[-300:])
        back, said_back = place.active(), place.answers()
        listed_back = place.listed()
        time.sleep(5)  # a guardian that deployed what was rolled back would do so now
        n_cycles = len(place.cycles())
    finally:
        watch.send_signal(signal.SIGINT)
        watch.wait(120)
        ollama.kill()
        log.close()
    figures = {
        "what": "ai-forge guardian watch left alone with Ollama as the runtime (bench/ollama_cycle.py)",
        "cores": os.cpu_count(),
        "cycles": [place.figures(first), place.figures(second)],
        "n_cycles": n_cycles,
        "versions": {"first": old, "second": new, "after_rollback": back},
        "answers_differ_between": said != said_new,
        "rollback_code": rolled_back.returncode,
        "same_bytes_after_rollback": said == said_back,
        "n_answers": sum(map(len, said.values())),
        "answers": {"first": said, "second": said_new},
        "ollama_lists": {"second": listed, "after_rollback": listed_back},
    }
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    if chosen.write:
        text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
        (RESULTS / "ollama_cycle.json").write_text(text, encoding="utf-8")
    if chosen.keep is None:
        shutil.rmtree(folder)
    deployed = first.state == second.state == "deployed" and old != new
    sound = deployed and said != said_new and back == old and said == said_back and n_cycles == 2
    return int(not sound)


if __name__ == "__main__":
    sys.exit(main())
