"""Stages run once and again only where something that goes into them changed."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ai_forge.pipeline.repository import Pipeline, slug
from ai_forge.pipeline.serving import Reply

from ai_forge.config import load_settings
from ai_forge.data_pipeline.datasets.storage import write_jsonl
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PairOrigin, PreferencePair
from ai_forge.errors import InputError, PrerequisiteError, TransientError
from ai_forge.events import Event, Notice, StageFinished, StageStarted
from ai_forge.judge.held_out import spread
from ai_forge.pipeline import serving
from ai_forge.prompting.prompt import Message
from ai_forge.workspace import Workspace
from cli_runs import SETTINGS, TinyRun, stdlib_copy, tiny_base
from tiny_training import document, raft_examples

ALL = ("base", "mine", "words", "dataset", "train", "merge", "index", "evaluate", "export", "parity", "report")


@pytest.fixture
def run(finished: TinyRun, tmp_path: Path) -> TinyRun:
    """A copy of the finished run that a test may change."""
    home = shutil.copytree(finished.home, tmp_path / "home", symlinks=True)
    repo = shutil.copytree(finished.repo, tmp_path / "repo")
    return TinyRun(home, repo, finished.base, finished.outcome)


def pipeline(run: TinyRun, events: list[Event], **changes: object) -> Pipeline:
    chosen = SETTINGS | {key.replace("__", ".", 1): value for key, value in changes.items()}
    loaded = load_settings(("flag", chosen | {"training.base_model": str(run.base)}))
    return Pipeline(run.repo, loaded, Workspace.open(run.home), events.append)


def redone(run: TinyRun, **changes: object) -> set[str]:
    """The stages that were not taken from the cache, without those that never are."""
    events: list[Event] = []
    assert pipeline(run, events, **changes).report.is_file()
    finished = [event for event in events if isinstance(event, StageFinished)]
    assert sorted(event.stage for event in finished) == sorted(ALL)  # each exactly once
    return {event.stage for event in finished if not event.cached} - {"base", "report"}


# -- caching --------------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing(run: TinyRun) -> None:
    assert redone(run) == set()


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"judge__max_new_tokens": 9}, {"evaluate"}),
        ({"judge__confidence": 0.9}, set()),
        ({"judge__forgetting_budget": 0.2}, set()),
        ({"judge__batch_tokens": 512}, set()),
        ({"runtime__num_predict": 8}, set()),
        ({"export__parity_tokens": 1}, {"parity"}),
        ({"export__quantization": "q6_k"}, {"export", "parity"}),
    ],
)
def test_a_setting_redoes_only_what_it_goes_into(run: TinyRun, change: dict[str, object], stages: set[str]) -> None:
    assert redone(run, **change) == stages


def test_a_changed_file_is_mined_again_and_all_that_follows(run: TinyRun) -> None:
    file = run.repo / "bisect.py"
    text = file.read_text(encoding="utf-8").replace("Insert item x in list a", "Put the item x into the list a")
    file.write_text(text, encoding="utf-8")
    assert redone(run) == {"mine", "words", "dataset", "train", "merge", "index", "evaluate", "export", "parity"}
    assert redone(run) == set()


def test_a_file_that_is_no_code_changes_nothing(run: TinyRun) -> None:
    (run.repo / "notes.txt").write_text("to do")
    assert redone(run) == set()


def test_what_people_wrote_is_read_again_only_where_it_changed(run: TinyRun) -> None:
    def said() -> tuple[set[str], bool]:
        events: list[Event] = []
        words = pipeline(run, events).words
        (stage,) = [e for e in events if isinstance(e, StageFinished) and e.stage == "words"]
        return {one.quotation for one in words.said}, stage.cached

    assert said() == (set(), True)
    readme = run.repo / "README.md"
    for sentence in ("`insort_left` keeps a list in order.", "A list stays in order with `insort_left`."):
        readme.write_text(f"# Lists\n\n{sentence}\n")
        assert said() == ({sentence}, False)
        assert said() == ({sentence}, True)
    git = ["git", "-C", str(run.repo), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Lists are kept in order by bisection"]):
        subprocess.run([*git, *command], check=True)
    assert said()[1] is False
    assert said()[1] is True


def test_what_lost_a_file_is_made_again(run: TinyRun) -> None:
    (export,) = (run.home / "cache" / "export").iterdir()
    made = (export / "model.f16.gguf").read_bytes()
    (export / "model.f16.gguf").write_bytes(made[:-1])
    assert redone(run) == {"export"}
    assert (export / "model.f16.gguf").read_bytes() == made


def test_the_same_inputs_make_the_same_bytes_in_another_home(run: TinyRun, tmp_path: Path) -> None:
    (adapter,) = (run.home / "cache" / "train").glob("*/adapter_model.safetensors")
    (gguf,) = (run.home / "cache" / "export").glob("*/model.f16.gguf")
    other = TinyRun(tmp_path / "other", run.repo, run.base, run.outcome)
    assert redone(other) == set(ALL) - {"base", "report"}
    for path in (adapter, gguf):
        assert (other.home / path.relative_to(run.home)).read_bytes() == path.read_bytes()


def test_preference_pairs_train_the_adapter_further_and_never_on_held_out_files(run: TinyRun, tmp_path: Path) -> None:
    first = pipeline(run, [])
    sides = json.loads((first.dataset.folder / "split.json").read_text(encoding="utf-8"))
    places = [sides["train"][0]] * 4 + [sides["test"][0]]
    pairs = [
        PreferencePair(
            prompt=(ChatMessage(role="user", content=f"What is number {i}?"),),
            chosen=f"It is {i}, as the code says.",
            rejected="Nobody knows what it is.",
            kind="fix",
            origin=PairOrigin(path=path),
        )
        for i, path in enumerate(places)
    ]
    file = tmp_path / "pairs.jsonl"
    write_jsonl(file, pairs)
    events: list[Event] = []
    second = pipeline(run, events, training__preferences=str(file), training__dpo_learning_rate=1e-2)
    report = second.report.read_text(encoding="utf-8")
    assert "4 preference pairs (sigmoid), held-out loss 0.693" in report
    assert "1 of 5 preference pairs are about held-out files and left out." in [
        event.message for event in events if isinstance(event, Notice)
    ]
    told = [event for event in events if isinstance(event, StageFinished)]
    assert {event.stage for event in told if not event.cached} == {
        *("base", "prefer", "merge", "evaluate", "export", "parity", "report")
    }
    weights = [(stage.folder / "adapter_model.safetensors").read_bytes() for stage in (first.train, second.adapter)]
    assert weights[0] != weights[1]
    assert second.run_id != first.run_id
    again: list[Event] = []
    assert (
        pipeline(run, again, training__preferences=str(file), training__dpo_learning_rate=1e-2).merge.key
        == second.merge.key
    )
    assert all(event.cached for event in again if isinstance(event, StageFinished) and event.stage != "base")


def test_preference_pairs_that_are_missing_or_too_few_are_told_before_training(run: TinyRun, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    prompt = (ChatMessage(role="user", content="What is it?"),)
    origin = PairOrigin(path="elsewhere.py")
    write_jsonl(file, [PreferencePair(prompt=prompt, chosen="One.", rejected="Two.", kind="fix", origin=origin)])
    for path, told in ((tmp_path / "gone.jsonl", r"gone\.jsonl"), (file, "1 preference pairs are too few")):
        events: list[Event] = []
        with pytest.raises(InputError, match=told):
            pipeline(run, events, training__preferences=str(path), training__seed=7).report  # noqa: B018
        assert "train" not in {event.stage for event in events if isinstance(event, StageStarted)}


# -- the run's record -----------------------------------------------------------------------------------------------


def test_a_run_is_recorded_with_settings_and_events(run: TinyRun) -> None:
    made = pipeline(run, [])
    record = json.loads((made.run_folder / "run.json").read_text(encoding="utf-8"))
    assert record["run_id"] == made.run_id == made.run_folder.name
    assert record["settings"]["training"]["rank"] == 4
    assert record["base"]["fingerprint"] == made.base.fingerprint
    events = [json.loads(line) for line in (made.run_folder / "events.jsonl").read_text().splitlines()]
    told = Counter(event["event"] for event in events)
    assert told["StepLogged"] == 3
    assert {*ALL, "deploy"} <= {e["stage"] for e in events if e["event"] == "StageFinished"}


def test_the_run_id_depends_on_what_is_made_not_on_where_it_is_served(run: TinyRun) -> None:
    run_id = pipeline(run, []).run_id
    assert pipeline(run, [], runtime__deploy="never", runtime__keep_versions=7).run_id == run_id
    assert pipeline(run, [], runtime__num_predict=99).run_id != run_id, "a version never changes how it answers"
    assert pipeline(run, [], training__seed=1).run_id != run_id
    assert pipeline(run, [], judge__seed=1).run_id != run_id


def test_a_second_process_on_the_same_repository_is_told_to_wait(run: TinyRun) -> None:
    with Workspace.open(run.home).lock("run-repo"):
        command = [sys.executable, "-m", "ai_forge", *run.words("mine")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "is already working on run-repo. Next: wait for it" in done.stderr
    assert done.stdout == ""


# -- before training ------------------------------------------------------------------------------------------------


def test_a_context_longer_than_the_base_is_told_before_training(run: TinyRun, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "short", max_position_embeddings=512)
    short = TinyRun(run.home, run.repo, base, run.outcome)
    with pytest.raises(InputError, match=r"num_ctx is 4096; short was made for at most 512.*--set runtime.num_ctx=512"):
        serving.require_runtime(pipeline(short, []))
    serving.require_runtime(pipeline(short, [], runtime__num_ctx=512))


def test_a_runtime_that_is_not_there_is_told_before_training(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = pipeline(run, [], runtime__kind="ollama", runtime__ollama_host="http://127.0.0.1:9")
    with pytest.raises(PrerequisiteError, match="the program ollama is not on PATH"):
        serving.require_runtime(asked)


def test_a_base_that_cannot_be_exported_is_told_before_training(run: TinyRun, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "odd")
    path = base / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": {"type": "Whitespace"}}))
    events: list[Event] = []
    begun = set(run.home.glob("cache/*/*.work"))
    with pytest.raises(InputError, match=r"way of splitting text is not one llama\.cpp knows"):
        _ = pipeline(TinyRun(run.home, run.repo, base, run.outcome), events).train
    assert "dataset" in {event.stage for event in events if isinstance(event, StageFinished)}
    assert set(run.home.glob("cache/*/*.work")) == begun


# -- small parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Repo (v2)", "my-repo-v2"),
        ("..", "repository"),
        ("Ünïcode", "n-code"),
        ("a_b.c-d", "a_b.c-d"),
        ("日本", "repository"),
    ],
)
def test_a_repository_gets_a_name_that_every_runtime_takes(name: str, expected: str) -> None:
    assert slug(name) == expected


def spread_over(examples: list[RAFTExample], n: int, seed: int = 0) -> Counter[str]:
    return Counter(example.subject_path for example in spread(examples, n, seed))


def test_a_large_file_does_not_drown_the_others() -> None:
    small = raft_examples(3)
    large = [
        e.model_copy(update={"subject_path": "big.py", "question": f"What is {i}?"})
        for i, e in enumerate(raft_examples(40))
    ]
    assert spread_over([*large, *small], 4) == Counter({"big.py": 1} | {e.subject_path: 1 for e in small})
    assert spread_over([*large, *small], 8)["big.py"] == 5


def test_the_spread_is_a_seeded_choice_without_repetition() -> None:
    examples = raft_examples(8)
    chosen = spread(examples, 5, seed=1)
    assert spread(list(reversed(examples)), 5, seed=1) == chosen
    assert len({e.id for e in chosen}) == 5
    assert {e.id for e in spread(examples, 5, seed=2)} != {e.id for e in chosen}
    assert {e.id for e in spread(examples, 99, seed=1)} == {e.id for e in examples}
    assert spread(examples, 0, seed=1) == []
    assert spread([], 3, seed=1) == []


class Spoken:
    """A runtime that says what it was given, and may break off."""

    def __init__(self, *pieces: str, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.is_open = True

    def chat(self, model: str, messages: Sequence[Message]) -> Iterator[str]:
        assert (model, messages[0]["content"]) == ("repo:1", "What?")
        yield from self.pieces
        if self.error:
            raise self.error

    def close(self) -> None:
        self.is_open = False


def reply(runtime: Spoken) -> Reply:
    shown = (document("load"), document("parse"))
    return Reply("repo:1", "embedded", shown, runtime, [{"role": "user", "content": "What?"}])  # type: ignore[arg-type]


def test_a_reply_tells_what_it_cites_and_what_it_invented() -> None:
    runtime = Spoken("See [src/lo", "ad.py:1-2], not [src/load.py:1-3] nor [src/other.py:7-9]", "; [src/load.py:1-2].")
    answer = reply(runtime)
    assert "".join(answer) == answer.text
    assert [d.citation for d in answer.cited] == ["src/load.py:1-2"]
    assert answer.invented == ["src/load.py:1-3", "src/other.py:7-9"]
    assert not runtime.is_open


def test_a_reply_that_cites_nothing() -> None:
    answer = reply(Spoken("I do not know."))
    assert list(answer) == ["I do not know."]
    assert (answer.cited, answer.invented) == ([], [])


def test_a_broken_reply_keeps_its_text_and_frees_the_runtime() -> None:
    runtime = Spoken("See [src/load.py:1-2]", error=TransientError("gone"))
    answer = reply(runtime)
    with pytest.raises(TransientError):
        list(answer)
    assert answer.text == "See [src/load.py:1-2]"
    assert not runtime.is_open


def test_two_repositories_share_a_home(run: TinyRun, tmp_path: Path) -> None:
    other = stdlib_copy(tmp_path / "Other Repo")
    both = TinyRun(run.home, other, run.base, run.outcome)
    made = pipeline(both, [])
    assert made.model_name == "other-repo"
    assert made.mine.key == pipeline(run, []).mine.key  # the same files: mined once
    with pytest.raises(InputError, match="No model other-repo is deployed"):
        serving.ask(made, "What?")
