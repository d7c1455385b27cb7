"""The whole loop on SmolLM2: a repository in, a tuned model that answers out, then everything unchanged, then Ollama.

Three steps of rank 4 teach nothing: what is tested is that real weights go all the way, not what they learn.
"""

import json
import re
import shutil
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ai_forge.config import Settings, load_settings
from ai_forge.errors import RefusedError
from ai_forge.model_files.base import Base
from ai_forge.pipeline.actions import check_served, deployment_of
from ai_forge.pipeline.run import new_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stages.parity import chats_of
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.serving import OllamaRuntime, prompt_difference
from ai_forge.serving.deployment import Deployment
from ai_forge.serving.served_model import ServedModel
from ai_forge.workspace import Workspace
from cli_runs import Outcome, ai_forge, debris
from real_ollama import OllamaProcess

# real weights: on a slow machine twice what it takes here
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PACKAGES = ("json", "email", "http")
SETTINGS = {
    "training.rank": 4,
    "training.alpha": 4,
    "training.micro_batch_size": 2,
    "training.eval_examples": 2,
    "judge.n_questions": 4,
    "judge.n_worked_examples": 1,
    "judge.max_new_tokens": 16,
    "judge.code_bytes": 1000,
    "export.parity_prompts": 3,
    "export.parity_tokens": 8,
    "runtime.num_ctx": 2048,
    "runtime.num_predict": 24,
    "runtime.deploy": "always",
}
QUESTION = "What does `parsedate_to_datetime` return?"


def repository(folder: Path) -> Path:
    """Packages of the running Python, as they are, licences and all."""
    for name in PACKAGES:
        source = Path(sysconfig.get_path("stdlib")) / name
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return folder


class Forge:
    """A workspace with one repository."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.repo = repository(folder / "standard")
        self.result = None

    def flags(self, **changes: object) -> list[str]:
        chosen = {"runtime.kind": "embedded"} | SETTINGS | {k.replace("__", "."): v for k, v in changes.items()}
        return ["--home", str(self.home), *(word for k, v in chosen.items() for word in ("--set", f"{k}={v}"))]

    def run(self, *words: str, **changes: object) -> Outcome:
        return ai_forge("run", self.repo, "--steps", "3", *words, *self.flags(**changes))

    def ask(self, **changes: object) -> Outcome:
        return ai_forge("ask", QUESTION, "--repo", self.repo, "--json", *self.flags(**changes))

    def runner(self) -> Runner:
        flags = {"runtime.kind": "embedded"} | SETTINGS | {"training.max_steps": 3, "training.time_budget_s": None}
        workspace = Workspace.open(self.home)
        return Runner(new_run(self.repo, load_settings(("flag", flags)).settings, workspace), workspace)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory, smollm2: Base) -> Forge:
    """After the first run. The base that other tests have converted is not converted again."""
    made = Forge(tmp_path_factory.mktemp("end-to-end"))
    bases = made.home / "cache" / "bases"
    bases.mkdir(parents=True)
    (bases / smollm2.folder.name).symlink_to(smollm2.folder)
    outcome = made.run("--json")
    assert outcome.code == 0, outcome.err
    made.result = outcome.json
    return made


def test_a_run_ends_with_a_verdict_a_report_and_an_answer(forge: Forge) -> None:
    result = forge.result
    assert {row["stage"]: row["cached"] for row in result["stages"]} == dict.fromkeys(
        (
            "base",
            "mine",
            "dataset",
            "index",
            "train",
            "merge",
            "export",
            "base-export",
            "evaluate",
            "parity",
            "report",
            "deploy",
        ),
        False,
    )
    counts = {row["stage"]: row["counts"] for row in result["stages"]}
    assert counts["dataset"]["train"] > 200
    assert counts["train"]["n_steps"] == 3
    assert counts["train"]["last_loss"] < counts["train"]["first_loss"]
    assert list(counts["parity"]["rows"].values())[:2] == ["3 of 3", "3 of 3"]
    html = Path(result["report"]).read_text(encoding="utf-8")
    assert result["verdict"].split(":")[0] in html
    assert html.index(result["verdict"].split(":")[0]) < html.index("SmolLM2-135M-Instruct") + 4000
    gguf = Path(result["gguf"])
    assert gguf.name == "model.q4_k_m.gguf"
    assert 90e6 < gguf.stat().st_size < 120e6
    assert result["deployed"] == f"standard:{result['run_id']}"
    assert result["answer"]["answer"].strip()
    assert debris(forge.home) == []


def test_the_answer_comes_from_the_embedded_runtime(forge: Forge) -> None:
    outcome = forge.ask()
    assert outcome.code == 0, outcome.err
    assert outcome.json["model"] == forge.result["deployed"]
    assert outcome.json["answer"].strip()
    with ServedModel.open("standard", Workspace.open(forge.home), Settings().runtime) as model:
        assert model.activation.runtime == "embedded"
        reply = model.ask(QUESTION)
        assert "email/utils.py" in " ".join(document.citation for document in reply.documents)
        assert "".join(reply).startswith(outcome.json["answer"])  # greedy: the same again
        assert reply.text == outcome.json["answer"]


def test_a_second_run_finds_everything_unchanged(forge: Forge) -> None:
    began = time.monotonic()
    outcome = forge.run("--json")
    assert outcome.code == 0, outcome.err
    again = {row["stage"] for row in outcome.json["stages"] if not row["cached"]}
    assert again == {"base"}
    assert outcome.json["run_id"] == forge.result["run_id"]
    assert outcome.json["answer"] == forge.result["answer"]
    assert time.monotonic() - began < 0.5 * sum(row["seconds"] for row in forge.result["stages"])


def test_nothing_lies_before_the_first_version(forge: Forge) -> None:
    outcome = ai_forge("rollback", forge.repo, "--home", forge.home)
    assert outcome.code == 5
    assert re.search(r"standard:\w{12} is the oldest version .* nothing lies before it", outcome.complaint)
    assert forge.ask().code == 0


def planted_in(runtime: OllamaRuntime, deployment: Deployment, **faults: object) -> Deployment:
    """Make the model with `faults` and return the deployment without them."""
    runtime.delete(deployment.model)
    runtime.create(replace(deployment, **faults))  # type: ignore[arg-type]
    return deployment


def with_template(runtime: OllamaRuntime, deployment: Deployment, template: str) -> Deployment:
    """Give the model another template and return the deployment, which does not know of it."""
    body = {"model": deployment.model, "from": deployment.model, "template": template}
    assert list(runtime.server.stream("/api/create", body))[-1] == {"status": "success"}
    return deployment


@pytest.mark.ollama
def test_the_same_version_answers_through_ollama(forge: Forge, ollama_server: OllamaProcess, smollm2: Base) -> None:
    ollama = {"runtime__kind": "ollama", "runtime__ollama_host": ollama_server.host}
    outcome = forge.run("--json", **ollama)
    assert outcome.code == 0, outcome.err
    assert {row["stage"] for row in outcome.json["stages"] if not row["cached"]} == {"base", "deploy"}
    model = outcome.json["deployed"]
    assert model == forge.result["deployed"]
    assert outcome.json["answer"]["answer"].strip()
    answer = forge.ask(**ollama)
    assert answer.code == 0, answer.err
    assert answer.json["answer"].strip()

    tokenizer = ChatTokenizer(smollm2.folder)
    runtime = OllamaRuntime(ollama_server.host)
    try:
        assert {model, f"{model.partition(':')[0]}:latest"} <= {served.model for served in runtime.models()}
        for chat in chats_of(forge.runner().outputs()):
            text = tokenizer.render(chat)
            assert prompt_difference(runtime.render(model, chat), text, len(tokenizer.encode(text))) is None
        runner = forge.runner()
        deployment = replace(deployment_of(runner), name="planted")
        check_served(runner, runtime, planted_in(runtime, deployment))
        with pytest.raises(RefusedError, match=r"planted:\w+ would not stop at '<\|im_end\|>'"):
            check_served(runner, runtime, planted_in(runtime, deployment, stop=("<|over|>",)))
        with pytest.raises(RefusedError, match="is asked in another form than it was trained in"):
            check_served(runner, runtime, with_template(runtime, planted_in(runtime, deployment), "{{ .Prompt }}"))
    finally:
        runtime.close()
    listed = json.loads(ai_forge("models", "--home", forge.home, "--json").out)["made"]
    assert [row["active"] for row in listed] == [True]
