"""Every verb of `ai-forge`: what it prints where, with which exit code."""

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ai_forge import __version__
from ai_forge.cli.options import Options, seconds_of
from ai_forge.config.models import load_models
from ai_forge.errors import InputError
from ai_forge.workspace import Workspace
from cli_runs import STAGES, TinyRun, ai_forge, copy_of, flags

VERBS = {
    *("run", "mine", "synthesize", "validate", "train", "evaluate", "export", "deploy", "plan"),
    *("ask", "chat", "search", "rollback", "doctor", "models", "runs", "clean", "config", "data", "handbook"),
    *("questions", "compare", "complete", "guardian", "agent", "mcp", "jobs", "keys", "serve", "backup", "restore", "own-tests"),
}  # fmt: skip
RECIPE = load_models().models["SmolLM2-135M-Instruct"].recipe
WITHOUT_TORCH = """
import sys
from ai_forge.cli import app as cli
try:
    cli.main()
except SystemExit as end:
    assert end.code == 0, end.code
loaded = {"torch", "transformers", "bitsandbytes", "mlx"} & set(sys.modules)
sys.exit(f"loaded {loaded}" if loaded else 0)
"""


def without_torch(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


# -- words ----------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb_with_what_it_does_and_loads_no_torch() -> None:
    done = without_torch("--help")
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  ([\w-]+)  +\S", done.stdout.partition("Make a model:")[2], re.MULTILINE)
    assert set(listed) == VERBS


@pytest.mark.parametrize("group", [(), ("data",), ("guardian",), ("questions",)])
def test_help_cuts_no_sentence_in_a_narrow_terminal(group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = " ".join(ai_forge(*group, "--help").out.replace("[ARGS]...", "").split())
    assert "..." not in words
    whole = {
        (): "Which of two models is better, in what, and how surely.",
        ("guardian",): "A git hook that sends the watch a note.",
    }
    assert whole.get(group, "") in words


def test_no_word_at_all_gets_the_help() -> None:
    outcome = ai_forge()
    assert outcome.code == 2
    assert outcome.err.startswith("Usage: ai-forge")


def test_the_version() -> None:
    assert ai_forge("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("runn", "repo"), "No such command 'runn'. Did you mean 'run'"),
        (("run", "--steps", "many"), "Invalid value for '--steps'"),
        (("ask",), "Missing argument 'QUESTION'"),
        (("run", "--colour"), "No such option: --colour"),
    ],
)
def test_wrong_words_are_one_line(words: tuple[str, ...], told: str) -> None:
    outcome = ai_forge(*words)
    assert outcome.code == 2
    assert told.lower() in outcome.complaint.lower()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("4m", 240), ("1.5h", 5400), ("45", 45), (" 2 h ", 7200), ("0.5s", 0.5)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "4 minutes", "1h30m", "nan", "1e3"])
def test_what_is_no_duration_is_told_with_the_value(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{text!r} is not a duration. Next: write 90s, 4m or 2h.")):
        seconds_of(text)


# -- settings -------------------------------------------------------------------------------------------------------


def test_config_show_tells_each_value_and_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "forge.yaml"
    file.write_text("training: {rank: 8, seed: 7}\njudge: {n_questions: 12}\n")
    monkeypatch.setenv("AI_FORGE_TRAINING__SEED", "9")
    outcome = ai_forge(
        "config", "show", "--config", file, "--set", "judge.seed=3", "--base", "smollm2-135m-instruct", "--json"
    )
    rows = {row["key"]: (row["value"], row["source"]) for row in outcome.json}
    assert outcome.err == ""
    assert rows["training.rank"] == (8, f"file {file}")
    assert rows["training.seed"] == (9, "environment")
    assert rows["judge.seed"] == (3, "flag")
    assert rows["judge.n_questions"] == (12, f"file {file}")
    assert rows["training.alpha"] == (RECIPE["training.alpha"], "recipe of smollm2-135m-instruct")
    assert rows["export.quantization"] == ("q4_k_m", "default")
    table = ai_forge("config", "show", "--config", file, on_terminal=True).out
    assert re.search(r"^setting +value +from *$", table, re.MULTILINE)
    assert re.search(r"^training\.rank +8 +file", table, re.MULTILINE)


def test_who_counts_steps_is_not_cut_off_by_the_clock() -> None:
    def budget(*words: str) -> object:
        (row,) = (r for r in ai_forge("config", "show", "--json", *words).json if r["key"] == "training.time_budget_s")
        return row["value"]

    assert budget("--base", "SmolLM2-135M-Instruct") == RECIPE["training.time_budget_s"] > 0
    assert Options(steps=5).settings().settings.training.time_budget_s is None
    assert Options(epochs=1).settings().settings.training.time_budget_s is None
    both = Options(steps=5, time_budget="2m").settings().settings.training
    assert (both.max_steps, both.time_budget_s) == (5, 120.0)


# -- the main job ---------------------------------------------------------------------------------------------------


def test_run_ends_with_table_verdict_report_and_an_answer(finished: TinyRun) -> None:
    outcome = finished.outcome
    assert outcome.code == 0, outcome.err
    assert "Not shown to be better than the base" in outcome.out
    for stage in STAGES:
        assert len(re.findall(rf"^{stage} +[\d.]+  \S", outcome.out, re.MULTILINE)) == 1, stage
        assert len(re.findall(rf"^✓ {stage} ", outcome.err, re.MULTILINE)) == 1, stage
    assert re.search(r"^deployed  repo:[0-9a-f]{12}; ", outcome.out, re.MULTILINE)
    assert re.search(r"^> \S.*\n.", outcome.out, re.MULTILINE)
    report = Path(re.findall(r"^report +(/.*html)$", outcome.out, re.MULTILINE)[0])
    assert "Not shown to be better than the base" in report.read_text(encoding="utf-8")
    assert report.with_suffix(".md").is_file()
    run = report.parent
    assert {p.name for p in run.iterdir() if p.is_symlink()} == {
        "dataset",
        "adapter",
        "model",
        "gguf",
        "evaluation",
        "report",
    }
    assert (run / "pictures" / "loss_curve.png").is_file()
    assert (run / "gguf" / "model.f16.gguf").stat().st_size > 100_000
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


def test_the_same_command_again_does_nothing_loads_no_torch_and_prints_json_alone(finished: TinyRun) -> None:
    done = without_torch(*finished.words("run"), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    again = {row["stage"]: row["cached"] for row in result["stages"]}
    assert list(again) == [*STAGES, "deploy"]
    assert len(result["stages"]) == len(again)
    assert [stage for stage, cached in again.items() if not cached] == ["base"]
    assert result["better"] is False
    assert result["verdict"].startswith("Not shown")
    assert result["deployed"] == f"repo:{result['run_id']}"
    assert result["answer"]["question"]
    assert Path(result["report"]).is_file()
    assert Path(result["gguf"]).is_file()
    assert {check["name"] for check in result["checks"]} == {
        *("answer loss", "citations", "facts", "forgetting", "general code", "general chat")
    }


@pytest.mark.parametrize(
    ("deploy", "told"),
    [
        ("if-better", "not deployed: it was not shown to be better. To deploy it all the same: "),
        ("never", "not deployed, as asked. To deploy it: "),
    ],
)
def test_what_is_not_better_is_not_deployed(finished: TinyRun, deploy: str, told: str) -> None:
    outcome = ai_forge(*finished.words("run", runtime__deploy=deploy), on_terminal=True)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"{told}the same words with `deploy` in place of `run`."
    assert "\n> " not in outcome.out


# -- one stage at a time --------------------------------------------------------------------------------------------


def test_the_weights_and_the_adapter_are_exported_for_other_tools(finished: TinyRun) -> None:
    outcome = ai_forge(*finished.words("export"), "--also", "safetensors, adapter")
    assert outcome.code == 0, outcome.err
    merged, adapter = Path(outcome.json["safetensors"]), Path(outcome.json["adapter"])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in merged.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in adapter.iterdir()}
    wrong = ai_forge(*finished.words("export"), "--also", "onnx")
    assert (
        wrong.complaint
        == "bad_input: 'onnx' is not exported. Next: name one of safetensors, adapter, with commas between."
    )


@pytest.mark.parametrize(
    ("verb", "keys"),
    [
        ("mine", {"stage", "folder", "files", "documents", "subjects"}),
        ("synthesize", {"stage", "folder", "train", "valid", "test", "rejected"}),
        ("validate", {"report", "train", "valid", "test"}),
        ("train", {"stage", "folder", "best_step", "n_steps", "first_loss", "last_loss"}),
        ("evaluate", {"verdict", "better", "report"}),
        ("export", {"stage", "folder", "bytes"}),
        ("deploy", {"model", "runtime", "changed"}),
    ],
)
def test_each_stage_prints_json_in_a_pipe_and_text_on_a_terminal(finished: TinyRun, verb: str, keys: set[str]) -> None:
    outcome = ai_forge(*finished.words(verb))
    assert outcome.code == 0, outcome.err
    assert keys <= set(outcome.json)
    if verb == "deploy":
        assert outcome.json["changed"] is False
    assert ai_forge(*finished.words(verb), "--json", on_terminal=True).json == outcome.json
    text = ai_forge(*finished.words(verb), on_terminal=True)
    assert (text.code, text.err) == (0, outcome.err)
    assert not text.out.startswith("{")
    assert re.search(TEXTS[verb], text.out, re.MULTILINE), text.out


TEXTS = {
    "mine": r"^89 blocks in 7 files, \d+ to ask about\n/.*/cache/mine/\w+$",
    "synthesize": r"^\d+ examples to train on, \d+ to stop on, \d+ held out\n/",
    "validate": r"^# .*[Qq]uality",
    "train": r"^held-out loss .* in 3 steps\n/",
    "evaluate": r"^Not shown to be better(.|\n)*^report    /.*report\.html$",
    "export": r"^f16 \d+ MB\n/.*\n/.*Modelfile$",
    "deploy": r"^repo:\w{12} is active \(embedded\), as it was before$",
}


def test_a_plan_tells_states_costs_and_memory(finished: TinyRun) -> None:
    values = ai_forge(*finished.words("plan")).json
    assert [(row["name"], row["state"]) for row in values["stages"]] == [(name, "done") for name in STAGES[1:]]
    training = values["training"]
    assert {"n_steps", "n_examples", "tokens_per_s", "train_tokens", "supervised_tokens"} <= set(training)
    assert (training["n_steps"], training["memory_bytes"]["program"] > 0) == (3, True)
    text = ai_forge(*finished.words("plan", training__seed=3), on_terminal=True).out
    assert re.search(r"^stage +state +time  made", text, re.MULTILINE)
    assert re.search(r"^dataset +done +[\d.]+ (s|min.*)  \d+ examples", text, re.MULTILINE)
    assert re.search(r"^train +(todo|resumable) +about ", text, re.MULTILINE)
    assert re.search(r"^Training: 3 steps on \d+ of \d+ examples, about .* tokens/s", text, re.MULTILINE)
    assert re.search(r"^Memory: \d+\.\d GB \(", text, re.MULTILINE)


# -- the deployed model ---------------------------------------------------------------------------------------------


def at(run: TinyRun) -> list[object]:
    return ["--repo", run.repo, "--home", run.home, *flags()]


def test_ask_prints_the_answer_as_json_or_as_text(finished: TinyRun) -> None:
    outcome = ai_forge("ask", "What does `insort_right` do?", "--json", *at(finished))
    assert outcome.code == 0, outcome.err
    answer = outcome.json
    keys = {"question", "answer", "cited", "invented", "found", "repeated", "model", "changed_since"}
    assert set(answer) == keys
    assert answer["model"].startswith("repo:")
    assert any("bisect.py" in place for place in answer["found"])
    assert answer["changed_since"] is None
    text = ai_forge("ask", "What does `insort_right` do?", *at(finished), on_terminal=True)
    assert text.out.strip().startswith(answer["answer"].strip())  # what repeats itself is shown until it is noticed
    found, *more = text.err.splitlines()
    assert found == f"found {', '.join(answer['found'])}"
    assert ("The model began to repeat itself and was stopped." in text.err) == answer["repeated"]
    assert more[-1].strip() == "The answer cites nothing."
    named = ai_forge("ask", "What does `insort_right` do?", "--model", "repo", "--home", finished.home)
    assert named.json == answer


def test_chat_answers_until_an_empty_line(finished: TinyRun) -> None:
    outcome = ai_forge("chat", *at(finished), typed="What is `heapify` for?\n\nnot asked\n")
    assert outcome.code == 0
    assert re.match(r"repo:\w{12} \(embedded\); an empty line ends$", outcome.err.splitlines()[0])
    assert outcome.out.count("> ") == 2
    assert outcome.err.count("The answer cites nothing.") == 1
    assert ai_forge("chat", *at(finished)).code == 0


def test_rollback_without_an_earlier_version_says_so_and_changes_nothing(finished: TinyRun) -> None:
    before = (finished.home / "registry.db").read_bytes()
    outcome = ai_forge("rollback", finished.repo, "--home", finished.home)
    assert outcome.code == 5
    assert "is the oldest version of repo that is kept; nothing lies before it." in outcome.complaint
    assert (finished.home / "registry.db").read_bytes() == before


def test_rollback_returns_to_the_version_before(finished: TinyRun, tmp_path: Path) -> None:
    home = shutil.copytree(finished.home, tmp_path / "home", symlinks=True)
    copy = TinyRun(home, finished.repo, finished.base, finished.outcome)
    (first,) = ai_forge("models", "--home", home, "--json").json["made"]
    second = ai_forge(*copy.words("deploy", judge__n_questions=5))
    assert second.json["changed"] is True
    assert second.json["model"] != first["model"]
    with Workspace.open(home).lock("model-other"):  # another repository's deployment keeps nobody waiting
        back = ai_forge("rollback", copy.repo, "--home", home)
    assert back.code == 0, back.err
    assert back.json == {"model": first["model"], "runtime": "embedded"}
    made = ai_forge("models", "--home", home, "--json").json["made"]
    assert {row["model"]: row["active"] for row in made} == {first["model"]: True, second.json["model"]: False}


@pytest.mark.parametrize("words", [("ask", "What?", "--repo"), ("chat", "--repo"), ("rollback",)])
def test_nothing_made_or_deployed_is_told_with_what_to_do(
    finished: TinyRun, tmp_path: Path, words: tuple[str, ...]
) -> None:
    outcome = ai_forge(*words, finished.repo, "--home", tmp_path / "home", typed="What?\n")
    assert outcome.code == 2
    assert f"No model was made of {finished.repo}. Next: make one: ai-forge run" in outcome.complaint
    (tmp_path / "home" / "repositories.json").write_bytes((finished.home / "repositories.json").read_bytes())
    outcome = ai_forge(*words, finished.repo, "--home", tmp_path / "home", typed="What?\n")
    assert outcome.code == 2
    assert "No model repo is deployed" in outcome.complaint or "No version of 'repo' is active" in outcome.complaint


# -- looking around -------------------------------------------------------------------------------------------------


def test_models_lists_the_named_bases_and_what_was_made(finished: TinyRun) -> None:
    listed = ai_forge("models", "--home", finished.home, "--json").json
    assert "SmolLM2-135M-Instruct" in {row["name"] for row in listed["bases"]}
    assert all(row["licence"] and row["parameters"] > 0 for row in listed["bases"])
    (made,) = listed["made"]
    assert (made["base"], made["active"]) == ("base", True)
    table = ai_forge("models", "--home", finished.home, on_terminal=True).out
    assert re.search(r"^SmolLM2-135M-Instruct +0\.1\d B  apache-2\.0 *$", table, re.MULTILINE | re.IGNORECASE)
    assert re.search(rf"^{made['model']} +base +\d{{4}}-\d\d-\d\d \d\d:\d\d  active *$", table, re.MULTILINE)


def test_runs_lists_the_newest_first_with_how_far_each_came(finished: TinyRun, tmp_path: Path) -> None:
    assert ai_forge("runs", "--home", tmp_path / "new", on_terminal=True).out == (
        "no runs yet: ai-forge run REPO makes one\n"
    )
    assert ai_forge("runs", "--home", tmp_path / "new").json == []
    copy = copy_of(finished, tmp_path)
    assert ai_forge(*copy.words("mine", training__seed=8)).code == 0
    (copy.home / "runs" / "torn").mkdir()
    (copy.home / "runs" / "torn" / "run.json").write_text('{"run": ')
    rows = ai_forge("runs", "--home", copy.home).json
    assert {row["model"] for row in rows} == {"repo"}
    assert [row["created"] for row in rows] == sorted((row["created"] for row in rows), reverse=True)
    states = {row["run_id"]: (row["state"], row["verdict"]) for row in rows}
    assert len(states) >= 2
    assert ("mine done", None) in states.values()
    assert ("deployed", "Not shown to be better than the base: answer loss, citations, facts.") in states.values()
    deployed = next(row for row in rows if row["state"] == "deployed")
    assert Path(deployed["report"]).is_file()
    assert (deployed["recipe"], deployed["base"]) == ("repository", "base")
    heading, *lines = ai_forge("runs", "--home", copy.home, on_terminal=True).out.splitlines()
    assert heading.split() == ["run", "began", "model", "base", "state", "verdict"]
    assert [line.split()[0] for line in lines if line[0] != " "] == [row["run_id"] for row in rows]


def test_on_a_real_terminal_people_read_text_and_in_a_pipe_programs_read_json(finished: TinyRun) -> None:
    words = [sys.executable, "-m", "ai_forge", "runs", "--home", str(finished.home)]
    piped = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, stdout=theirs, env=os.environ | {"TERM": "dumb"}) as running:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
    assert running.returncode == 0
    assert [row["run_id"] for row in json.loads(piped.stdout)][-1] in shown.decode()
    assert shown.decode().split()[:3] == ["run", "began", "model"]


def test_doctor_ends_with_3_where_something_is_missing(finished: TinyRun) -> None:
    base = ("--set", f"training.base_model={finished.base}")
    fine = ai_forge("doctor", "--home", finished.home, *base, on_terminal=True)
    assert fine.code == 0, fine.out
    assert "✓ base         base: " in fine.out
    bad = ai_forge("doctor", "--home", finished.home, "--set", "training.base_model=nothing-like-it", "--json")
    assert bad.code == 3
    states = {row["name"]: row["state"] for row in bad.json}
    assert states["base"] == "missing"
    assert states["workspace"] == "ok"
