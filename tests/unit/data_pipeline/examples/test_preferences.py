"""Preference pairs from real git histories and from answers that are spoiled on purpose."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from pydantic import ValidationError

from ai_forge.data_pipeline import mine_repository, read_repository, synthesize, verify_example
from ai_forge.data_pipeline.examples.preferences import Preferences, answer_pairs, commit_kind, mine_preferences
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PairOrigin, PreferencePair
from ai_forge.errors import InputError
from ai_forge.prompting.prompt import citations_in

BEFORE = '''\
def mean(values):
    """Arithmetic mean of the values."""
    total = 0
    for value in values:
        total += value
    return total / len(values)


def label(values):
    """A line that shows the mean of the values."""
    text = f"{mean(values):.2f}"
    return "mean: " + text


class Window:
    """The last few values."""

    size = 10
    step = 1

    def push(self, value):
        """Add a value; the oldest goes."""
        self.values.append(value)
        self.values = self.values[-self.size :]
'''
FIXED = BEFORE.replace("    total = 0\n", '    if not values:\n        raise ValueError("no values")\n    total = 0\n')


class History:
    """A git repository that is written commit by commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        command = ["git", *identity, "-C", str(self.root), *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        for name, text in files.items():
            path = self.root / name.replace("__", "/").replace("_py", ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "repo")
    made.commit("Add statistics", stats_py=BEFORE)
    return made


def mined(history: History, **options: int) -> Preferences:
    return mine_preferences(history.root, **options)  # type: ignore[arg-type]


def test_a_fix_prefers_the_state_after_it(history: History) -> None:
    parent = history.git("rev-parse", "HEAD")
    message = "Fix mean of nothing\n\nIt divided by zero.\n\nSigned-off-by: T <t@example.com>\nRefs: 12"
    commit = history.commit(message, stats_py=FIXED)
    (pair,) = mined(history).pairs
    assert pair.kind == "fix"
    assert pair.chosen.startswith('def mean(values):\n    """Arithmetic mean of the values."""\n    if not values:')
    assert pair.rejected == BEFORE.partition("\n\n\n")[0]
    assert pair.chosen.endswith("return total / len(values)")
    assert pair.prompt[-1].content == (
        "Write `mean` of `stats.py`.\n\nWhat was wrong and had to be fixed:\nFix mean of nothing\nIt divided by zero."
    )
    assert pair.origin == PairOrigin(
        path="stats.py", unit="mean", first_line=1, last_line=8, commit=commit, parent=parent
    )


def test_a_revert_prefers_what_it_returns_to_and_the_newest_judgement_holds(history: History) -> None:
    history.commit("Fix mean of nothing", stats_py=FIXED)
    history.git("revert", "--no-edit", "HEAD")
    result = mined(history)
    (pair,) = result.pairs
    assert pair.kind == "revert"
    assert "raise ValueError" in pair.rejected
    assert "raise ValueError" not in pair.chosen
    assert pair.prompt[-1].content.endswith("taken back:\nFix mean of nothing")
    assert result.rejected["judged_again_later"] == 1


def test_review_fixups_are_pairs(history: History) -> None:
    history.commit("fixup! Add statistics", stats_py=FIXED)
    history.commit(
        "Address review comments", stats_py=FIXED.replace("total / len(values)", "total / float(len(values))")
    )
    pairs = mined(history).pairs
    assert [pair.kind for pair in pairs] == ["review", "review"]
    assert pairs[1].prompt[-1].content.endswith("what it was about:\nAdd statistics")


def test_a_renamed_file_is_followed(history: History) -> None:
    (history.root / "stats.py").unlink()
    history.commit("Fix mean of nothing", lib__numbers_py=FIXED)
    (pair,) = mined(history).pairs
    assert (pair.origin.path, pair.origin.path_before) == ("lib/numbers.py", "stats.py")


def test_the_innermost_changed_unit_is_taken(history: History) -> None:
    history.commit("Fix window", stats_py=BEFORE.replace("-self.size :", "-self.size - 1 :"))
    assert [pair.origin.unit for pair in mined(history).pairs] == ["Window.push"]
    history.commit(
        "Fix size", stats_py=BEFORE.replace("-self.size :", "-self.size - 1 :").replace("size = 10", "size = 12")
    )
    assert [pair.origin.unit for pair in mined(history, max_commits=1).pairs] == ["Window"]


@pytest.mark.parametrize(
    ("message", "text", "reason"),
    [
        ("Add a guard", FIXED, "commit_puts_nothing_right"),
        ("Fix typo in docs", FIXED, "commit_puts_nothing_right"),
        ("Fix mean", BEFORE.replace("    total = 0\n", "    # start\n    total  =  0\n"), None),
        ("Fix mean", BEFORE.replace("total = 0\n", "total = = 0\n"), None),
        (
            "Fix mean",
            BEFORE.replace(
                "total = 0\n", "total = 0\n" + "".join(f"    total += extra_{i}(values, {i})\n" for i in range(400))
            ),
            "too_long",
        ),
        ("Fix mean", "# Code generated by protoc. DO NOT EDIT.\n" + FIXED, "generated"),
        ("Fix mean", FIXED.replace("no values", "AKIAIOSFODNN7XQLPRTZ"), "secret"),
    ],
)
def test_what_is_no_pair_is_counted(history: History, message: str, text: str, reason: str | None) -> None:
    history.commit(message, stats_py=text)
    result = mined(history)
    assert result.pairs == ()
    if reason is not None:
        assert result.rejected[reason] == 1


def test_tests_wide_commits_and_merges_give_no_pairs(history: History) -> None:
    history.commit(
        "Fix the sum", tests__test_a_py="def test_a():\n    assert 1 + 1 == 2, 'arithmetic is broken on this machine'\n"
    )
    history.commit(
        "Fix the sum", tests__test_a_py="def test_a():\n    assert 1 + 1 == 3, 'arithmetic is broken on this machine'\n"
    )
    many = "".join(
        f"def f{n}(value):\n    '''Adds a number.'''\n    return value + {{}} + some_other_number\n\n\n"
        for n in range(9)
    )
    history.commit("Add many", many_py=many.replace("{}", "1"))
    history.commit("Fix many", many_py=many.replace("{}", "2"))
    history.git("checkout", "-q", "-b", "side")
    history.commit("On the side", other_py="x = 1\n")
    history.git("checkout", "-q", "main")
    history.git("merge", "-q", "--no-ff", "-m", "Fix by merging", "side")
    result = mined(history)
    assert result.pairs == ()
    assert result.rejected["test_file"] == 1
    assert result.rejected["commit_too_wide"] == 9


def test_the_number_of_commits_is_bounded_and_a_folder_is_a_part(history: History) -> None:
    history.commit("Fix mean of nothing", stats_py=FIXED)
    other = FIXED.replace("no values", "nothing to add up")
    history.commit("Add docs", sub__a_py=BEFORE)
    history.commit("Fix sub", sub__a_py=other)
    assert len(mined(history).pairs) == 2
    assert [pair.origin.path for pair in mined(history, max_commits=2).pairs] == ["sub/a.py"]
    assert [pair.origin.path for pair in mine_preferences(history.root / "sub").pairs] == ["a.py"]


def test_nothing_of_the_repository_is_run(history: History, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    sprung = tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\ncat\n")
    trap.chmod(0o755)
    history.commit("Fix mean of nothing", stats_py=FIXED, dot_py="")
    (history.root / ".gitattributes").write_text("*.py diff=evil filter=evil\n")
    for key, value in {
        "core.hooksPath": str(tmp_path),
        "core.fsmonitor": str(trap),
        "core.pager": str(trap),
        "diff.external": str(trap),
        "diff.evil.textconv": str(trap),
        "diff.evil.command": str(trap),
        "filter.evil.smudge": str(trap),
        "gpg.program": str(trap),
        "log.showSignature": "true",
        "format.pretty": "oneline",
        "diff.renames": "false",
        "color.ui": "always",
        "diff.orderFile": "/dev/stdin",
    }.items():
        history.git("config", key, value)
    assert [pair.origin.unit for pair in mined(history).pairs] == ["mean"]
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["a\nb.py", "ü.py", " -rf.py", "a\x1b[31m.py"])
def test_odd_names_and_messages_stop_nothing(history: History, name: str) -> None:
    path = history.root / name
    path.write_text(BEFORE)
    history.commit("Add")
    path.write_text(FIXED)
    history.commit("Fix it\x1e\x1f\n:100644 100644 abc def M\n\ncommit 0000")
    pairs = mined(history).pairs
    assert [pair.origin.path for pair in pairs] == ([name] if name.isprintable() else [])


def test_without_a_history_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no git history to read"):
        mine_preferences(tmp_path)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("fix(parser): empty input", "fix"),
        ("Parser: handle a crash on empty input", "fix"),
        ("Fixes #12", "fix"),
        ("Prefix all names", None),
        ("Fixture for the parser", None),
        ("Fix lint", None),
        ("Apply suggestions from code review", "review"),
        ("squash! Add parser", "review"),
        ("Review page", None),
        ("Undo the cache\n\nThis reverts commit 0123456789.", "revert"),
        ("Revert to the old cache", "revert"),
        ("Reverting is now possible", None),
    ],
)
def test_a_commits_kind_is_read_from_its_message(message: str, kind: str | None) -> None:
    assert commit_kind(message) == kind


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[RAFTExample]:
    """Examples about a few modules of the standard library."""
    root = tmp_path_factory.mktemp("few")
    for name in ("bisect", "heapq", "shlex", "textwrap"):
        shutil.copy(Path(sysconfig.get_path("stdlib")) / f"{name}.py", root)
    result = mine_repository(read_repository(root))
    return synthesize(result.blocks, documents=result.documents).examples


@pytest.fixture(scope="module")
def answers(examples: list[RAFTExample]) -> Preferences:
    return answer_pairs(examples)


def test_a_wrong_citation_is_a_shown_documents_and_the_rest_is_the_same(
    examples: list[RAFTExample], answers: Preferences
) -> None:
    targets = {example.id: example.target for example in examples}
    pairs = [pair for pair in answers.pairs if pair.kind == "wrong_citation"]
    assert len(pairs) > 50
    for pair in pairs:
        right, wrong = citations_in(pair.chosen)[0], citations_in(pair.rejected)[0]
        assert right != wrong
        assert f"[{wrong}]" in pair.prompt[-1].content  # it was shown, as a distractor
        assert pair.rejected.replace(wrong, right) == pair.chosen
        assert pair.chosen == targets[pair.origin.example_id or ""]


def test_an_invented_symbol_is_none_of_the_answer(answers: Preferences) -> None:
    pairs = [pair for pair in answers.pairs if pair.kind == "invented_symbol"]
    assert len(pairs) > 10
    for pair in pairs:
        assert citations_in(pair.rejected) == citations_in(pair.chosen)
        assert pair.rejected != pair.chosen


def test_answers_that_fail_their_own_check_and_those_without_oracle_are_passed_over(
    examples: list[RAFTExample],
) -> None:
    example = next(e for e in examples if e.oracle_documents and e.distractor_documents and e.facts)
    bad = example.model_copy(update={"final_answer": "It calls `nothing_of_the_kind`."})
    assert verify_example(bad)
    without = next(e for e in examples if not e.oracle_documents)
    result = answer_pairs([bad, without])
    assert result.pairs == ()
    assert result.rejected == {"answer_not_verified": 1, "no_oracle": 1}
    assert [pair.id for pair in answer_pairs(examples).pairs] == [pair.id for pair in answer_pairs(examples).pairs]


@pytest.mark.parametrize(
    ("role", "rejected", "told"), [("assistant", "b", "the last turn"), ("user", " a ", "the same text")]
)
def test_a_pair_that_is_no_choice_is_refused(role: str, rejected: str, told: str) -> None:
    prompt = (ChatMessage(role=role, content="x"),)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=told):
        PreferencePair(prompt=prompt, chosen="a", rejected=rejected, kind="fix", origin=PairOrigin(path="a.py"))
