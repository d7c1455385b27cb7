"""A run as a value: what its id depends on, what its model is called, and that it fits into a row."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from ai_forge.config import load_settings
from ai_forge.errors import InputError
from ai_forge.events import Event, Notice
from ai_forge.pipeline.identity import identity_of, known_model_of, slug
from ai_forge.pipeline.run import Run, new_run
from ai_forge.pipeline.runner import Runner
from ai_forge.workspace import Workspace
from cli_runs import STAGES, TinyRun, runner_of, stdlib_copy


def git(folder: Path, *words: str) -> None:
    person = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *person, *words], check=True, capture_output=True)


def committed(folder: Path) -> Path:
    """A small repository with a history."""
    stdlib_copy(folder, ("bisect.py", "heapq.py", "shlex.py"))
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "Lists")):
        git(folder, *words)
    return folder


def model_of(run: TinyRun, repository: Path, name: str | None = None, events: list[Event] | None = None) -> str:
    """What the model of `repository` is called in the home of `run`."""
    settings = load_settings(("flag", {"training.base_model": str(run.base)})).settings
    emit = (lambda event: None) if events is None else events.append
    return new_run(repository, settings, Workspace.open(run.home), name=name, emit=emit).model


# -- a value --------------------------------------------------------------------------------------------------------


def test_a_run_goes_through_json_and_is_driven_from_there(run: TinyRun) -> None:
    runner = runner_of(run)
    row = runner.run.model_dump_json()
    assert Run.model_validate(json.loads(row)) == runner.run
    read = Run.model_validate_json(row)
    assert hash(read.id) == hash(runner.run.id)
    with pytest.raises(ValueError, match="frozen"):
        read.model = "other"  # type: ignore[misc]
    again = Runner(read, Workspace.open(run.home))
    assert [stage.state for stage in again.plan()] == ["done"] * len(again.stages)
    assert again.run_until("report").key == runner.run_until("report").key


def test_the_run_id_depends_on_what_is_made_not_on_where_it_is_served(run: TinyRun) -> None:
    run_id = runner_of(run).run.id
    assert runner_of(run, runtime__deploy="never", runtime__keep_versions=7).run.id == run_id
    assert runner_of(run, training__nproc=2, training__gradient_checkpointing=True).run.id == run_id
    assert runner_of(run, runtime__num_predict=99).run.id != run_id, "a version never changes how it answers"
    assert runner_of(run, training__seed=1).run.id != run_id
    assert runner_of(run, judge__seed=1).run.id != run_id
    (run.repo / "bisect.py").write_text("def nothing():\n    return None\n")
    assert runner_of(run).run.id != run_id


def test_a_run_is_recorded_with_settings_and_events(run: TinyRun) -> None:
    made = runner_of(run)
    record = json.loads((made.folder / "run.json").read_text(encoding="utf-8"))
    assert record["run"]["id"] == made.run.id == made.folder.name
    assert record["run"]["settings"]["training"]["rank"] == 4
    assert record["run"]["repository_name"] == "repo"
    assert record["base"]["fingerprint"] == made.run.base
    assert "torch" in record["packages"]
    events = [json.loads(line) for line in (made.folder / "events.jsonl").read_text().splitlines()]
    deployed = [event["event"] == "StageFinished" and event["stage"] == "deploy" for event in events]
    del events[deployed.index(True) + 1 :]  # tests before this one may have gone on with the run that this is a copy of
    told = Counter(event["event"] for event in events)
    assert told["StepLogged"] == 3
    finished = Counter(event["stage"] for event in events if event["event"] == "StageFinished")
    assert finished == Counter([*STAGES, "deploy"])


def test_a_repository_that_changed_under_a_run_is_refused_and_what_is_done_stays(run: TinyRun) -> None:
    runner = runner_of(run, synthesis__seed=5)
    (run.repo / "heapq.py").unlink()
    with pytest.raises(InputError, match=r"have changed since run \w+ was made\. Next: start it anew"):
        runner.run_until("dataset")
    assert runner_of(run).run.id != runner.run.id


# -- what its model is called ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("My Repo (v2)", "my-repo-v2"), ("..", ""), ("Ünïcode", "n-code"), ("a_b.c-d", "a_b.c-d"), ("日本", "")],
)
def test_a_folder_name_becomes_one_that_every_runtime_takes(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_two_repositories_with_one_folder_name_get_two_models(finished: TinyRun, run: TinyRun, tmp_path: Path) -> None:
    for place in ("first", "second"):
        committed(tmp_path / place / "tools")
    with (tmp_path / "second" / "tools" / "bisect.py").open("a") as file:
        file.write("\n\nlate = 1\n")
    git(tmp_path / "second" / "tools", "commit", "-qam", "Late", "--amend")
    events: list[Event] = []
    first = model_of(run, tmp_path / "first" / "tools", events=events)
    assert first == "tools"
    assert not [event for event in events if isinstance(event, Notice)]
    second = model_of(run, tmp_path / "second" / "tools", events=events)
    assert second == f"tools-{identity_of(tmp_path / 'second' / 'tools')[:6]}"
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert str(tmp_path / "first" / "tools") in notice
    assert "--name" in notice
    assert model_of(run, tmp_path / "first" / "tools") == first
    assert model_of(run, tmp_path / "second" / "tools") == second


def test_a_moved_or_cloned_repository_keeps_its_model(run: TinyRun, tmp_path: Path) -> None:
    place = committed(tmp_path / "here")
    name = model_of(run, place)
    moved = place.rename(tmp_path / "elsewhere")
    assert model_of(run, moved) == name
    cloned = shutil.copytree(moved, tmp_path / "copies" / "another")
    git(cloned, "commit", "-q", "--allow-empty", "-m", "More")
    assert model_of(run, cloned) == name


def test_a_chosen_name_is_kept_and_anothers_is_refused(run: TinyRun, tmp_path: Path) -> None:
    mine, other = committed(tmp_path / "mine"), stdlib_copy(tmp_path / "other")
    assert model_of(run, mine, name="handy") == "handy"
    assert model_of(run, mine) == "handy"
    with pytest.raises(InputError, match=r"The model handy is of .*mine\. Next: .*--name handy-2"):
        model_of(run, other, name="handy")
    with pytest.raises(InputError, match=r"'Not A Name' cannot be the name of a model\. Next: .*--name not-a-name"):
        model_of(run, other, name="Not A Name")
    workspace = Workspace.open(run.home)
    assert known_model_of(mine, None, workspace) == "handy"
    with pytest.raises(InputError, match=r"No model was made of .*nowhere\. Next: make one: ai-forge run"):
        known_model_of(tmp_path / "nowhere", None, workspace)


def test_a_repository_without_a_usable_name_gets_one(run: TinyRun, tmp_path: Path) -> None:
    place = stdlib_copy(tmp_path / "日本")
    assert model_of(run, place) == f"repository-{identity_of(place)[:6]}"


@pytest.mark.parametrize("damage", ['{"torn', "{}", "[]", None])
def test_names_that_cannot_be_read_are_told_by_the_runs(run: TinyRun, tmp_path: Path, damage: str | None) -> None:
    mine = stdlib_copy(tmp_path / "mine" / "repo", ("bisect.py",))
    other = stdlib_copy(tmp_path / "other" / "repo", ("heapq.py",))
    for place, name in ((mine, "handy"), (other, None)):
        with runner_of(TinyRun(run.home, place, run.base, run.outcome), name=name) as runner:
            model = runner.run.model
    names = run.home / "repositories.json"
    names.unlink()
    if damage is not None:
        names.write_text(damage)
    # neither may take another's name, whoever comes first
    assert model_of(run, other) == model
    assert model_of(run, mine) == "handy"


def test_a_name_that_a_disk_changed_is_noticed(run: TinyRun, tmp_path: Path) -> None:
    mine = stdlib_copy(tmp_path / "mine", ("bisect.py",))
    with runner_of(TinyRun(run.home, mine, run.base, run.outcome), name="handy"):
        pass
    names = run.home / "repositories.json"
    names.write_text(names.read_text().replace('"handy"', '"dandy"'))
    assert model_of(run, mine) == "handy"


def test_two_repositories_share_a_home_and_what_is_equal(run: TinyRun, tmp_path: Path) -> None:
    other = stdlib_copy(tmp_path / "Other Repo")
    both = runner_of(TinyRun(run.home, other, run.base, run.outcome))
    assert both.run.model == "other-repo"
    assert both.run.id == runner_of(run).run.id  # the same files and settings
    assert {stage.name: stage.state for stage in both.plan()} == {
        stage.name: "done" if stage.name not in ("export", "parity", "report") else "todo" for stage in both.stages
    }
