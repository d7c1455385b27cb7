"""`ai-forge complete` and `ai-forge evaluate --completion` on a finished run of a tiny base."""

from pathlib import Path

import pytest

from ai_forge.cli.complete import split_at
from ai_forge.errors import InputError
from ai_forge.serving.completing import without_loop
from cli_runs import TinyRun, ai_forge, copy_of, flags

TEXT = "def f(x):\n    return g(x, 1)\n\n    \nend\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path := tmp_path / "a.py").write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [
        ("1", "def f(x):", "\n    return g(x, 1)\n\n    \nend\n"),
        ("2:14", "def f(x):\n    return g(", "x, 1)\n\n    \nend\n"),
        ("2:999", "def f(x):\n    return g(x, 1)", "\n\n    \nend\n"),
        ("3", "def f(x):\n    return g(x, 1)\n", "\n    \nend\n"),
        ("4", "def f(x):\n    return g(x, 1)\n\n    ", "\nend\n"),
        ("1:1", "", TEXT),
    ],
)
def test_a_place_is_between_what_stands_before_and_after(file: Path, place: str, before: str, after: str) -> None:
    assert split_at(f"{file}:{place}") == (file, before, after)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("{}", "is no place in a file"),
        ("{}:0", "0 is not one of them. Next: give 1 to 6"),
        ("{}:7", "has 6 lines; 7 is not"),
        ("{}:1:0", "Columns are counted from 1"),
        ("{}.gone:1", "cannot be read: No such file"),
    ],
)
def test_what_is_no_place_is_told(file: Path, place: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        split_at(place.format(file))
    assert told in str(caught.value)


def test_the_deployed_model_completes_and_tells_what_it_was_shown(finished: TinyRun) -> None:
    words = ("--repo", finished.repo, "--home", finished.home, *flags())
    outcome = ai_forge("complete", f"{finished.repo / 'bisect.py'}:40", *words)
    assert outcome.code == 0, outcome.err
    assert outcome.json["form"] == "chat"  # the tiny vocabulary has no tokens for filling in
    assert len(outcome.json["shown"]) == 2
    assert not any("bisect.py" in place for place in outcome.json["shown"])
    alone = ai_forge("complete", f"{finished.repo / 'bisect.py'}:40", "-k", 0, *words)
    assert alone.json["shown"] == []
    shown = ai_forge("complete", f"{finished.repo / 'bisect.py'}:40", "-k", 0, *words, on_terminal=True)
    assert shown.out == f"{alone.json['text']}\n"
    assert "no tokens for filling in the middle" in shown.err  # a terminal hears what a reader of JSON finds in `notes`
    assert [note for note in alone.json["notes"] if note not in " ".join(shown.err.split())] == []


@pytest.mark.parametrize(
    ("written", "above", "left", "repeated"),
    [
        ("    return x\n" * 8, "", "    return x", True),
        ("a = f(1)\nb = g(2)\n" * 3, "", "a = f(1)\nb = g(2)", True),
        (
            "it is the value of the it is the value of the it is the value of the it is the value of the",
            "",
            "it is the value of the",
            True,
        ),
        ("a = 1\nb = 2\nc = 3", "a = 1\nb = 2\nc = 3\n", "", True),
        ("return total + total", "", "return total + total", False),
        ("        }\n    }\n}", "", "        }\n    }\n}", False),
        ("[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "", "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]", False),
        ("# " + "=" * 60, "", "# " + "=" * 60, False),
        ("pass\npass", "", "pass\npass", False),
    ],
)
def test_a_loop_is_cut_and_code_that_repeats_itself_is_not(written: str, above: str, left: str, repeated: bool) -> None:
    assert without_loop(written, above) == (left, repeated)


def test_base_and_tuned_model_complete_the_same_held_out_code(finished: TinyRun, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    words = run.words("evaluate")
    outcome = ai_forge(*words, "--completion", "--gaps", 8, "--for", "60s")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert (told["form"], told["source"], told["n_commits"]) == ("chat", "held-out files", 0)
    assert [figures["context"] for figures in told["figures"]] == [False, True]
    assert set(told["figures"][0]["difference"]) == {"exact", "edit_similarity", "names_right", "nats_per_byte"}
    assert Path(told["file"]).is_file()
    shown = ai_forge(*words, "--completion", "--gaps", 2, on_terminal=True).out
    assert "Completing what was taken out of held-out files (no history), asked by chat:" in shown
