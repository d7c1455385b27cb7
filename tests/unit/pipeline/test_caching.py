"""Stages run once and again only where something that goes into them changed."""

import json
import subprocess
from pathlib import Path

import pytest

from ai_forge.data_pipeline.datasets.storage import write_jsonl
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PairOrigin, PreferencePair
from ai_forge.errors import InputError
from ai_forge.events import Event, Notice, StageFinished, StageStarted
from ai_forge.pipeline.stage import Outputs
from ai_forge.pipeline.stages.notes import notes_of
from cli_runs import TinyRun, runner_of

ALL = ("mine", "notes", "dataset", "index", "train", "merge", "export", "base-export", "evaluate", "parity", "report")


def finished_stages(events: list[Event]) -> list[StageFinished]:
    return [event for event in events if isinstance(event, StageFinished)]


def redone(run: TinyRun, **changes: object) -> set[str]:
    """The stages that were not taken from the cache when a runner made everything."""
    events: list[Event] = []
    result = runner_of(run, events.append, **changes).run_until("report")
    assert (result.folder / "report.html").is_file()
    assert [event.stage for event in finished_stages(events)] == list(ALL)  # each exactly once
    return {event.stage for event in finished_stages(events) if not event.cached}


def test_a_second_run_does_nothing(run: TinyRun) -> None:
    assert redone(run) == set()


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"judge__max_new_tokens": 9}, {"evaluate", "report"}),
        ({"judge__confidence": 0.9}, {"evaluate", "report"}),  # how many questions are enough
        ({"judge__forgetting_budget": 0.2}, {"report"}),
        ({"runtime__num_predict": 8}, {"report"}),
        ({"runtime__deploy": "never"}, set()),
        ({"export__parity_tokens": 1}, {"parity", "report"}),
        ({"export__quantization": "q6_k"}, {"export", "base-export", "evaluate", "parity", "report"}),
    ],
)
def test_a_setting_redoes_only_what_it_goes_into(run: TinyRun, change: dict[str, object], stages: set[str]) -> None:
    assert redone(run, **change) == stages


def test_a_changed_file_is_mined_again_and_all_that_follows(run: TinyRun) -> None:
    file = run.repo / "bisect.py"
    text = file.read_text(encoding="utf-8").replace("Insert item x in list a", "Put the item x into the list a")
    file.write_text(text, encoding="utf-8")
    assert redone(run) == set(ALL) - {"base-export"}
    assert redone(run) == set()


def test_a_file_that_is_no_code_changes_nothing(run: TinyRun) -> None:
    (run.repo / "notes.txt").write_text("to do")
    assert redone(run) == set()


def trained_on(outputs: Outputs, *names: str) -> str:
    """One of the files `names` that is trained on."""
    sides = json.loads((outputs.folder("dataset") / "split.json").read_text(encoding="utf-8"))
    return next(name for name in sides["train"] if Path(name).name in names)


def test_a_comment_that_changes_no_example_trains_nothing_anew(run: TinyRun) -> None:
    outputs = runner_of(run).outputs()
    with (run.repo / trained_on(outputs, "bisect.py", "heapq.py", "shlex.py", "textwrap.py")).open("a") as file:
        file.write("\n# Nothing follows.\n")
    again = redone(run)
    assert {"mine", "dataset"} <= again
    assert again.isdisjoint({"train", "merge", "export"})


def test_what_people_wrote_is_read_again_only_where_it_changed(run: TinyRun) -> None:
    def said() -> tuple[set[str], bool]:
        events: list[Event] = []
        runner = runner_of(run, events.append)
        runner.run_until("notes")
        (stage,) = [event for event in finished_stages(events) if event.stage == "notes"]
        return {one.quotation for one in notes_of(runner.outputs()).said}, stage.cached

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


def test_without_questions_that_quote_people_there_are_no_notes(run: TinyRun) -> None:
    runner = runner_of(run, synthesis__families=["purpose", "parameters", "location"])
    assert "notes" not in {stage.name for stage in runner.stages}
    assert runner.run_until("dataset").summary.sentence()


def test_what_lost_a_file_is_made_again(run: TinyRun) -> None:
    (export,) = (run.home / "cache" / "export").iterdir()
    made = (export / "model.f16.gguf").read_bytes()
    (export / "model.f16.gguf").write_bytes(made[:-1])
    assert redone(run) == {"export"}
    assert (export / "model.f16.gguf").read_bytes() == made


def test_a_manifest_of_another_time_is_made_again(run: TinyRun) -> None:
    (manifest,) = (run.home / "cache" / "merge").glob("*/manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"counts": {"said": "otherwise"}}))
    assert redone(run) == {"merge"}


def test_the_same_inputs_make_the_same_bytes_in_another_home(run: TinyRun, tmp_path: Path) -> None:
    (adapter,) = (run.home / "cache" / "train").glob("*/adapter_model.safetensors")
    (gguf,) = (run.home / "cache" / "export").glob("*/model.f16.gguf")
    other = TinyRun(tmp_path / "other", run.repo, run.base, run.outcome)
    assert redone(other) == set(ALL)
    for path in (adapter, gguf):
        assert (other.home / path.relative_to(run.home)).read_bytes() == path.read_bytes()


# -- preference pairs -----------------------------------------------------------------------------------------------


def pairs_about(*places: str) -> list[PreferencePair]:
    return [
        PreferencePair(
            prompt=(ChatMessage(role="user", content=f"What is number {i}?"),),
            chosen=f"It is {i}, as the code says.",
            rejected="Nobody knows what it is.",
            kind="fix",
            origin=PairOrigin(path=path),
        )
        for i, path in enumerate(places)
    ]


def test_preference_pairs_train_the_adapter_further_and_never_on_held_out_files(run: TinyRun, tmp_path: Path) -> None:
    first = runner_of(run)
    before = first.outputs()
    sides = json.loads((before.folder("dataset") / "split.json").read_text(encoding="utf-8"))
    file = tmp_path / "pairs.jsonl"
    write_jsonl(file, pairs_about(*[sides["train"][0]] * 4, sides["test"][0]))
    chosen = {"training__preferences": str(file), "training__dpo_learning_rate": 1e-2}
    events: list[Event] = []
    second = runner_of(run, events.append, **chosen)
    report = (second.run_until("report").folder / "report.html").read_text(encoding="utf-8")
    assert "preference pairs (sigmoid), held-out loss 0.693" in report
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert "1 of 5 preference pairs are about held-out files and are left out." in notices
    assert {event.stage for event in finished_stages(events) if not event.cached} == {
        *("prefer", "merge", "export", "evaluate", "parity", "report")
    }
    folders = (before.folder("train"), second.outputs().folder("prefer"))
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert weights[0] != weights[1]
    assert second.run.id != first.run.id
    again: list[Event] = []
    third = runner_of(run, again.append, **chosen)
    assert third.run_until("report").key == second.outputs().key("report")
    assert all(event.cached for event in finished_stages(again))


def test_preference_pairs_that_are_missing_or_too_few_are_told_before_training(run: TinyRun, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    write_jsonl(file, pairs_about("elsewhere.py"))
    for path, told in ((tmp_path / "gone.jsonl", r"gone\.jsonl"), (file, "1 preference pairs are too few")):
        events: list[Event] = []
        runner = runner_of(run, events.append, training__preferences=str(path), training__seed=7)
        with pytest.raises(InputError, match=told):
            runner.run_until("report")
        started = [event.stage for event in events if isinstance(event, StageStarted)]
        assert started[-1] == "train"
        assert not list(run.home.glob("cache/train/*.work"))
