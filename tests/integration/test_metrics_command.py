"""`python -m ai_forge.judge.evaluator` and the speed of a deployed model, on real and on tiny models."""

import json
from pathlib import Path

import pytest

from ai_forge.config.settings import RuntimeSettings
from ai_forge.judge.metrics.command import main
from ai_forge.judge.metrics.speed import measure_speed
from ai_forge.prompting.prompt import messages_for
from ai_forge.serving import EmbeddedRuntime, deployment_from_gguf
from cli_runs import TinyRun
from tiny_training import raft_examples


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(example.model_dump_json() + "\n" for example in raft_examples(2)), encoding="utf-8")
    return path


def test_a_folder_is_evaluated_with_its_perplexity(finished: TinyRun, dataset: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(finished.home))
    assert main([str(finished.base), str(dataset), "--repository", str(finished.repo), "--max-tokens", "8"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["n_questions"] == 2
    assert figures["perplexity"]["per_token"] > 1
    assert figures["perplexity"]["per_byte"] > 1
    assert 0 <= figures["hallucination_rate"] <= 1
    assert figures["refusals"]["n_with_answer"] == 2
    assert figures["speed"] is None
    assert "speed: not measured" in err


def test_a_deployed_model_is_asked_through_its_runtime(finished: TinyRun, dataset: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(finished.home))
    assert main(["repo", str(dataset), "--limit", "1", "--max-tokens", "8"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["n_questions"] == 1
    assert figures["speed"]["n_answers"] == 1
    assert figures["perplexity"] is None
    assert "perplexity: not measured" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody-knows-this", "{dataset}"], "nobody-knows-this"),
        (["no/such.gguf", "{dataset}"], "There is no file no/such.gguf"),
        (["repo", "{empty}"], "holds no question"),
    ],
)
def test_what_is_missing_is_named(
    words: list[str], says: str, finished: TinyRun, dataset: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(finished.home))
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    given = [word.format(dataset=dataset, empty=tmp_path / "empty.jsonl") for word in words]
    assert main(given) != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_speed_counts_tokens_from_the_first_piece_on(base_gguf: Path, tmp_path: Path) -> None:
    runtime = EmbeddedRuntime(tmp_path / "models", n_threads=1)
    settings = RuntimeSettings(num_ctx=1024, num_predict=24)
    deployment = deployment_from_gguf("demo", "r1", base_gguf, system_prompt="", settings=settings, base="SmolLM2")
    try:
        runtime.create(deployment)
        chats = [messages_for("What does `retry` do?", []), messages_for("What is a list?", [])]
        speed = measure_speed(runtime, "demo:r1", chats, max_tokens=12)
    finally:
        runtime.close()
    assert speed.n_answers == 2
    assert 0 < speed.n_tokens <= 22
    assert speed.counted_by == "tokens"
    assert speed.tokens_per_s == pytest.approx(1000 / speed.ms_per_token)
    assert 0 < speed.first_piece_s < speed.answer_s <= speed.slowest_answer_s
    with pytest.raises(ValueError, match="at least one chat"):
        measure_speed(runtime, "demo:r1", [])
