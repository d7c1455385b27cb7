"""What would end a run late is found out early."""

import json
from pathlib import Path

import pytest

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.events import Event, StageFailed, StageFinished
from ai_forge.pipeline import actions
from cli_runs import TinyRun, runner_of, tiny_base


def test_a_context_longer_than_the_base_is_told(run: TinyRun, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "short", max_position_embeddings=512)
    short = TinyRun(run.home, run.repo, base, run.outcome)
    with pytest.raises(InputError, match=r"num_ctx is 4096; short was made for at most 512.*--set runtime.num_ctx=512"):
        actions.require_runtime(runner_of(short))
    actions.require_runtime(runner_of(short, runtime__num_ctx=512))


def test_a_runtime_that_is_not_there_is_told(run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = runner_of(run, runtime__kind="ollama", runtime__ollama_host="http://127.0.0.1:9")
    with pytest.raises(PrerequisiteError, match="the program ollama is not on PATH"):
        actions.require_runtime(asked)


def test_a_base_that_cannot_be_exported_is_told(run: TinyRun, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "odd")
    path = base / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": {"type": "Whitespace"}}))
    events: list[Event] = []
    begun = set(run.home.glob("cache/*/*.work"))
    with pytest.raises(InputError, match=r"way of splitting text is not one llama\.cpp knows"):
        runner_of(TinyRun(run.home, run.repo, base, run.outcome), events.append).run_until("train")
    assert "dataset" in {event.stage for event in events if isinstance(event, StageFinished)}
    assert [event.stage for event in events if isinstance(event, StageFailed)] == ["train"]
    assert set(run.home.glob("cache/*/*.work")) == begun


def test_a_base_that_changed_under_a_run_is_told(run: TinyRun, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "mine")
    runner = runner_of(TinyRun(run.home, run.repo, base, run.outcome))
    weights = base / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"The base mine has changed since run \w+ was made\. Next: start it anew"):
        runner.run_until("train")
