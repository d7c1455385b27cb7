"""`ai-forge compare`: two real runs, and what is said where there is nothing to compare."""

import re
from pathlib import Path

import pytest

from ai_forge.pipeline.stages.export import gguf_of
from ai_forge.serving.llama_server import LlamaServer
from cli_runs import TinyRun, ai_forge, copy_of, runner_of


@pytest.mark.slow
def test_two_runs_are_compared_on_what_both_were_asked(
    finished: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(finished, tmp_path)
    assert ai_forge(*run.words("run", training__learning_rate=0.01, runtime__deploy="never")).code == 0
    second, *earlier = ai_forge("runs", "--home", run.home).json
    # other tests may have run in this home as well: the oldest is the one that was deployed
    first, second, model = earlier[-1]["run_id"], second["run_id"], second["model"]
    page = tmp_path / "page.html"
    told = ai_forge("compare", first, second, "--home", run.home, "--page", page)
    assert told.code == 0, told.err
    assert told.json["n_common"] > 0
    assert told.json["differing_settings"]["training.learning_rate"][1] == "0.01"
    assert told.json["headline"] in page.read_text(encoding="utf-8")
    # a deployed model by its name is the run that made its active version
    by_name = ai_forge("compare", model, f"{model}:{second}", "--home", run.home)
    assert by_name.json["rows"] == told.json["rows"]
    # the deployed file itself as a rival: the same answers, so no difference in anything that is answered
    file = gguf_of(runner_of(run).run, runner_of(run).outputs())
    rival = ai_forge("compare", first, file, "--home", run.home)
    assert rival.code == 0, rival.err
    answered = {row["figure"]: row for row in rival.json["rows"]}
    assert "answer loss per byte" not in answered
    assert answered["right citations"]["difference"]["n"] == rival.json["n_common"] > 0
    with LlamaServer(file, 4096, name="tiny") as server:  # speaks OpenAI's protocol, as other servers do
        monkeypatch.setenv("AI_FORGE_TEACHER_API_KEY", server.headers["Authorization"].removeprefix("Bearer "))
        asked = ai_forge("compare", first, f"{server.address}/v1#tiny", "--home", run.home)
    assert asked.code == 0, asked.err
    assert asked.json["rows"] == rival.json["rows"]
    # one that is damaged is asked anew, through its file: the step that is named works
    damaged = run.home / "runs" / second / "evaluation" / "evaluation.json"
    whole = damaged.read_bytes()
    damaged.write_text("null")
    complaint = ai_forge("compare", first, second, "--home", run.home).complaint
    step = re.search(r"ai-forge (compare \S+ \S+\.gguf)", complaint)
    assert step is not None, complaint
    assert ai_forge(*step[1].split(), "--home", run.home).json["n_common"] > 0
    damaged.write_bytes(whole)
    # what an evaluation was made of may be damaged: it is whole itself
    for folder in (run.home / "cache" / "dataset").iterdir():
        (folder / "dataset.json").write_text("null")
    still = ai_forge("compare", first, second, "--home", run.home)
    assert still.code == 0, still.err
    assert still.json == told.json
    text = ai_forge("compare", first, second, "--home", run.home, on_terminal=True).out
    assert told.json["headline"].split()[0] in text
    assert "second − first" in text


def test_what_cannot_be_compared_is_said(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    one = ai_forge("runs", "--home", run.home).json[-1]
    same = ai_forge("compare", one["run_id"], one["run_id"], "--home", run.home)
    assert "are the same run" in same.complaint
    unknown = ai_forge("compare", one["run_id"], "nothing", "--home", run.home)
    assert "There is no run and no deployed model 'nothing'" in unknown.complaint
    missing = ai_forge("compare", one["run_id"], tmp_path / "none.gguf", "--home", run.home)
    assert "none.gguf" in missing.complaint
    turned = ai_forge("compare", "http://127.0.0.1:9/v1#x", one["run_id"], "--home", run.home)
    assert "name it second" in turned.complaint
    ending = ai_forge("compare", "a", "b", "--page", "x.pdf", "--home", run.home)
    assert "'.pdf'" in ending.complaint
    for folder in (run.home / "cache" / "evaluate").iterdir():
        (folder / "manifest.json").unlink()
    assert ai_forge(*run.words("train", training__learning_rate=0.01)).code == 0
    other = next(row["run_id"] for row in ai_forge("runs", "--home", run.home).json if row["run_id"] != one["run_id"])
    assert "is not evaluated" in ai_forge("compare", one["run_id"], other, "--home", run.home).complaint
    (run.home / "runs" / other / "run.json").write_text("null")
    told = ai_forge("compare", one["run_id"], other, "--home", run.home).complaint
    assert f"What {other} is cannot be told" in ai_forge("compare", other, one["run_id"], "--home", run.home).complaint
    assert "Next: " in told
