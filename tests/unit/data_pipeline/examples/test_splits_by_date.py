"""The split by commit date, on real histories with set dates."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ai_forge.config import SplitSettings, load_settings
from ai_forge.data_pipeline import Split, mine_repository, read_repository, split_by_file
from ai_forge.data_pipeline.examples.project_notes import read_notes
from ai_forge.data_pipeline.source import file_dates, repository
from ai_forge.data_pipeline.source.file_dates import read_dates
from ai_forge.errors import InputError
from ai_forge.events import Event, Notice
from ai_forge.pipeline.run import new_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import StageResult
from ai_forge.pipeline.stages.dataset import DatasetSummary
from ai_forge.workspace import Workspace
from conftest import git

DAY = 86_400
START = 1_600_000_000


def module(name: str, n_functions: int = 2) -> str:
    """Functions that no other module has near duplicates of."""
    return "".join(
        f'def {name}_{i}(first_{name}, last_{name}):\n    """Combine both ends of {name} number {i}."""\n'
        f"    whole_{name} = join_{name}_{i}(first_{name}, last_{name})\n    check_{name}_{i}(whole_{name})\n"
        f"    for part_{name} in whole_{name}:\n        keep_{name}_{i}(part_{name}, first_{name}, {i})\n"
        f"    return whole_{name}, count_{name}(first_{name}), {i}\n\n\n"
        for i in range(n_functions)
    )


class History:
    """A repository whose commits are a day apart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.day = 0
        root.mkdir()
        git(root, "init", "-q", "-b", "main")

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text, encoding="utf-8")

    def commit(self, files: dict[str, str] | None = None, message: str = "Change it") -> None:
        self.write(files or {})
        self.day += 1
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", message, f"--date={START + self.day * DAY} +0000")

    def days(self) -> dict[str, int]:
        return {path: (time - START) // DAY for path, time in read_dates(read_repository(self.root)).items()}

    def split(self, root: Path | None = None, **settings: object) -> Split:
        read = read_repository(root or self.root)
        mined = mine_repository(read)
        chosen = SplitSettings.model_validate(settings)
        return split_by_file(mined.blocks, chosen, documents=mined.documents, dates=read_dates(read))


def paths(split: Split) -> dict[str, set[str]]:
    return {s: {p for p, side in split.side_of_file.items() if side == s} for s in ("train", "valid", "test")}


@pytest.fixture
def past(tmp_path: Path) -> History:
    return History(tmp_path / "past")


@pytest.fixture
def ten_days(past: History) -> History:
    """m1.py written on day 1, … m10.py on day 10."""
    for n in range(1, 11):
        past.commit({f"m{n}.py": module(f"m{n}")})
    return past


# -- dates ----------------------------------------------------------------------------------------------------------


def test_a_file_is_as_old_as_its_bytes(past: History) -> None:
    past.commit({"kept.py": module("kept"), "changed.py": module("old"), "moved.py": module("moved")})
    past.commit({"changed.py": module("new")})
    git(past.root, "mv", "moved.py", "elsewhere.py")
    past.commit({"reverted.py": module("first")})
    past.commit({"reverted.py": module("second")})
    past.commit({"reverted.py": module("first")}, "Back to the first")
    assert past.days() == {"kept.py": 1, "changed.py": 2, "elsewhere.py": 1, "reverted.py": 3}


def test_what_is_not_committed_has_no_date(ten_days: History) -> None:
    ten_days.write({"m3.py": module("changed"), "added.py": module("added")})
    git(ten_days.root, "add", "added.py")
    assert set(ten_days.days()) == {f"m{n}.py" for n in range(1, 11)} - {"m3.py"}


@pytest.mark.parametrize("author", ["nobody", f"a <a@b> {'9' * 5000} +0000", "a <a@b> -5 +0000"])
def test_a_broken_author_line_stops_nothing(ten_days: History, author: str) -> None:
    ten_days.write({"broken.py": module("broken")})
    git(ten_days.root, "add", ".")
    tree, head = (git(ten_days.root, *words).strip() for words in (("write-tree",), ("rev-parse", "HEAD")))
    message = "Add broken_0 because nothing else combines both ends"
    commit = f"tree {tree}\nparent {head}\nauthor {author}\ncommitter a <a@b> {START} +0000\n\n{message}\n"
    (ten_days.root / ".git" / "broken").write_text(commit)
    written = git(ten_days.root, "hash-object", "-t", "commit", "-w", "--literally", ".git/broken").strip()
    git(ten_days.root, "reset", "-q", "--hard", written)
    read = read_repository(ten_days.root)
    assert read_dates(read).keys() == {file.path for file in read.files}
    said = read_notes(read, mine_repository(read).documents).said
    assert [one.quotation for one in said if one.document.citation == f"commit:{written[:12]}"] == (
        [message] * 2 if "999" in author else []
    )


def test_a_merge_dates_only_what_it_wrote_itself(past: History) -> None:
    past.commit({"a.py": module("a"), "both.py": module("base")})
    git(past.root, "checkout", "-q", "-b", "side")
    past.commit({"side.py": module("side"), "both.py": module("theirs")})
    git(past.root, "checkout", "-q", "main")
    past.commit({"both.py": module("ours")})
    with pytest.raises(subprocess.CalledProcessError):
        git(past.root, "merge", "-q", "side")  # a conflict
    past.commit({"both.py": module("solved")}, "Merge")
    assert past.days() == {"a.py": 1, "side.py": 2, "both.py": 4}


def test_a_folder_of_a_repository_is_dated_by_its_own_commits(past: History) -> None:
    past.commit({"part/a.py": module("a"), "b.py": module("b")})
    past.commit({"part/c.py": module("c")})
    dates = read_dates(read_repository(past.root / "part"))
    assert {path: (time - START) // DAY for path, time in dates.items()} == {"a.py": 1, "c.py": 2}


def test_what_the_repository_configures_changes_no_date(ten_days: History) -> None:
    known = ten_days.days()
    (ten_days.root / "order").write_text("*.py\n")
    for name, value in {"log.showRoot": "false", "log.diffMerges": "off", "diff.orderFile": "order",
                        "diff.renames": "copies", "diff.noprefix": "true", "diff.relative": "true"}.items():  # fmt: skip
        git(ten_days.root, "config", name, value)
    assert ten_days.days() == known


@pytest.mark.parametrize("limit", [{"_MAX_COMMITS": 4}, {"_MAX_LOG_BYTES": 500}])
def test_what_no_read_commit_wrote_is_as_old_as_the_oldest(
    ten_days: History, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(file_dates, name, value)
    assert ten_days.days() == {f"m{n}.py": max(n, 7) for n in range(1, 11)}


def test_a_git_that_takes_too_long_dates_nothing(
    ten_days: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_repository(ten_days.root)
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)
    monkeypatch.setattr(repository, "_GIT_TIMEOUT_S", 0.1)
    assert read_dates(read) == {}


def test_an_impossible_date_can_still_be_told(ten_days: History) -> None:
    git(ten_days.root, "commit", "-q", "--amend", "--no-edit", "--date=@99999999999999 +0000")
    assert ten_days.split().rule == "by date: valid is from 2020-09-21 12:26 on, test from 2020-09-22 12:26 on"
    assert max(read_dates(read_repository(ten_days.root)).values()) == 253_402_300_799


# -- the cut --------------------------------------------------------------------------------------------------------


def test_the_newest_files_are_held_out(ten_days: History) -> None:
    split = ten_days.split()
    assert paths(split) == {
        "train": {f"m{n}.py" for n in range(1, 8)},
        "valid": {"m8.py"},
        "test": {"m9.py", "m10.py"},
    }
    dates = read_dates(read_repository(ten_days.root))
    assert split.cut is not None
    assert (split.ends("train"), split.ends("valid"), split.ends("test")) == (dates["m8.py"], dates["m9.py"], None)
    assert {block.path for block in split.train_documents} == paths(split)["train"]
    assert ten_days.split() == split == ten_days.split(seed=7)
    said = [f"{datetime.fromtimestamp(dates[path], UTC):%Y-%m-%d %H:%M}" for path in ("m8.py", "m9.py")]
    assert split.summary()["rule"] == f"by date: valid is from {said[0]} on, test from {said[1]} on"


def test_an_old_file_that_was_changed_last_is_held_out(ten_days: History) -> None:
    ten_days.commit({"m1.py": module("rewritten")})
    assert paths(ten_days.split())["test"] == {"m1.py", "m10.py"}
    ten_days.write({"m2.py": module("uncommitted")})
    split = ten_days.split()
    assert paths(split)["test"] == {"m1.py", "m2.py"}
    ten_days.write({"m1.py": module("uncommitted_too")})
    assert "test from what is not committed on" in ten_days.split().rule


def test_a_group_is_as_new_as_its_newest_file(ten_days: History) -> None:
    ten_days.commit({"tests/test_m1.py": module("unlike"), "copy.py": module("m2").replace("Combine", "Put")})
    split = ten_days.split()
    assert {"m1.py", "tests/test_m1.py", "m2.py", "copy.py"} <= paths(split)["test"]


def test_files_of_one_commit_are_not_parted_nor_files_without_questions_left_behind(ten_days: History) -> None:
    ten_days.commit({"pair_a.py": module("pair_a", 1), "pair_b.py": module("pair_b", 1), "data.py": "SIZE = 3\n" * 20})
    side = ten_days.split().side_of_file
    assert side["pair_a.py"] == side["pair_b.py"] == "test"
    assert side.get("data.py", "test") == "test"
    assert side["m10.py"] == "test"


def test_a_shallow_clone_holds_out_the_same(ten_days: History, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth=4", ten_days.root.as_uri(), "shallow")
    shallow = ten_days.split(tmp_path / "shallow")
    assert paths(shallow) == paths(ten_days.split())
    assert shallow.cut == ten_days.split().cut


# -- where it cannot be ---------------------------------------------------------------------------------------------


def one_commit(past: History) -> None:
    past.commit({f"m{n}.py": module(f"m{n}") for n in range(10)})


def sweep(past: History) -> None:
    for n in range(10):
        past.commit({f"m{n}.py": module(f"m{n}")})
    past.commit({f"m{n}.py": module(f"m{n}") + "# The end.\n" for n in range(6)})


def no_commit(past: History) -> None:
    past.write({f"m{n}.py": module(f"m{n}") for n in range(10)})
    git(past.root, "add", "-A")


@pytest.mark.parametrize(
    ("make", "because"),
    [
        (one_commit, "its files have 1 commit date, three are needed"),
        (sweep, "too much was written in one commit: by date 60% would be test and 10% valid"),
        (no_commit, "no file has a commit date"),
    ],
)
def test_where_the_history_cannot_say_it_is_by_file_and_says_so(past: History, make, because: str) -> None:  # type: ignore[no-untyped-def]
    make(past)
    split = past.split()
    assert split.rule == f"by file, because {because}"
    assert split.ends("train") is None
    assert split.side_of_file == past.split(by="file").side_of_file
    assert past.split(by="file").rule == "by file"
    with pytest.raises(InputError, match=f"A split by date cannot be made: {because}"):
        past.split(by="date")


def test_a_folder_without_git_and_a_clone_of_one_commit_are_dealt_by_file(ten_days: History, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth=1", ten_days.root.as_uri(), "shallow")
    assert ten_days.split(tmp_path / "shallow").because == "its files have 1 commit date, three are needed"
    (tmp_path / "shallow" / ".git").rename(tmp_path / "away")
    assert ten_days.split(tmp_path / "shallow").because == "no file has a commit date"


def test_three_files_are_enough(past: History) -> None:
    for n in range(3):
        past.commit({f"m{n}.py": module(f"m{n}")})
    assert paths(past.split()) == {"train": {"m0.py"}, "valid": {"m1.py"}, "test": {"m2.py"}}


# -- what training is told ------------------------------------------------------------------------------------------


def test_training_is_told_of_no_commit_after_the_cut(ten_days: History) -> None:
    """The revert's bytes are old, so its file is trained on; its message knows what came between."""
    ten_days.commit({"m1.py": module("something_else")})
    ten_days.commit({"m1.py": module("m1")}, "Pairs again\n\nThe new cache needs them, because it holds both.")
    read = read_repository(ten_days.root)
    documents = mine_repository(read).documents
    split = ten_days.split()
    assert split.side_of_file["m1.py"] == "train"
    words = read_notes(read, documents)
    blamed = [one for one in words.said if "cache" in one.document.text]
    assert blamed
    shown = [words.of_side("train", documents, split.side_of_file, before) for before in (split.ends("train"), None)]
    assert ["cache" in "".join(one.document.text for one in part.said) for part in shown] == [False, True]


def test_training_is_told_of_no_section_that_was_written_or_changed_after_the_cut(past: History) -> None:
    def section(n: int, more: str = "") -> str:
        return f"## Part {n}\n\nUse `m{n}_0` to put both ends of part {n} together{more}.\n\n"

    past.commit({"m1.py": module("m1"), "guide.md": section(1) + section(2)})
    for n in range(2, 11):
        past.commit({f"m{n}.py": module(f"m{n}")})
    past.commit({"guide.md": section(1) + section(2, ", as the new cache does") + section(3)})
    past.write({"notes.md": section(4)})
    read = read_repository(past.root)
    documents = mine_repository(read).documents
    words = read_notes(read, documents)
    days = {one.document.name: (one.time - START) // DAY for one in words.said if one.kind == "section"}
    assert {name: day for name, day in days.items() if day < 99} == {"Part 1": 1, "Part 2": 11, "Part 3": 11}
    split = past.split()
    assert {split.side_of_file[f"m{n}.py"] for n in (1, 2, 3)} == {"train"}
    shown = words.of_side("train", documents, split.side_of_file, split.ends("train")).said
    assert {one.document.name for one in shown if one.kind == "section"} == {"Part 1"}


def test_the_dataset_is_made_again_where_the_history_tells_more(ten_days: History, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth=1", ten_days.root.as_uri(), "shallow/past")
    told: list[Event] = []

    def dataset(root: Path, **flags: object) -> StageResult:
        workspace = Workspace.open(tmp_path / "home")
        run = new_run(root, load_settings(("flag", flags)).settings, workspace)
        return Runner(run, workspace, told.append).run_until("dataset")

    def rule(result: StageResult) -> str:
        assert isinstance(result.summary, DatasetSummary)
        return result.summary.split.rule.partition(":")[0]

    shallow, whole, drawn = (
        dataset(tmp_path / "shallow" / "past"),
        dataset(ten_days.root),
        dataset(ten_days.root, **{"split.by": "file"}),
    )
    assert [rule(result) for result in (shallow, whole, drawn)] == [
        "by file, because its files have 1 commit date, three are needed",
        "by date",
        "by file",
    ]
    assert len({shallow.key, whole.key, drawn.key}) == 3
    assert json.loads((whole.folder / "split.json").read_text())["test"] == ["m10.py", "m9.py"]
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert notices == ["Held out by file, because its files have 1 commit date, three are needed."]
    assert dataset(tmp_path / "shallow" / "past", **{"split.by": "file"}).key == drawn.key
