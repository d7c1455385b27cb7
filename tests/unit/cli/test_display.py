"""What a person sees on stderr, without and with a terminal."""

import io

import pytest
from rich.console import Console

from ai_forge.cli.display import Display
from ai_forge.cli.output import table
from ai_forge.events import (
    AdapterInitialised,
    EvalFinished,
    Event,
    Notice,
    PlanMade,
    StageCancelled,
    StageFailed,
    StageFinished,
    StageProgress,
    StageStarted,
    StepLogged,
    TrainingStopped,
)
from ai_forge.wording import duration

EVENTS: list[Event] = [
    StageStarted("mine"),
    StageProgress("mine", 3, 10, "a.py"),
    StageFinished("mine", 1.25, False, {"files": 7}, "40 blocks in 7 files, 20 to ask about"),
    StageStarted("train"),
    AdapterInitialised("QPiSSA", "nf4", 32, 210, 1000, 0.1, 2e-3, 4e-3, 9.0),
    PlanMade(12, 48, 320.4, 95.0, "time budget 120 s"),
    StepLogged(1, 12, 1.5, 0.25, 1e-4, 1.5, 300.0, 10, 3.0),
    EvalFinished(1, 1.234, 0.5, 100),
    Notice("warning", "memory is short"),
    TrainingStopped(9, "held-out loss has not fallen"),
    StageFinished("train", 75.0, False, {"n_steps": 9}, "held-out loss 2.500 → 0.125 in 9 steps"),
    StageStarted("index"),
    StageFinished("index", 0.01, True, {"blocks": 12}, "12 blocks"),
    StageStarted("export"),
    StageFailed("export", 2.0, "missing_prerequisite", "The disk is full.", "free some space."),
    StageStarted("parity"),
    StageCancelled("parity", 61.0, "Ctrl-C"),
]


def shown(terminal: bool, events: list[Event] = EVENTS) -> str:
    stream = io.StringIO()
    with Display(Console(file=stream, force_terminal=terminal, width=200, highlight=False)) as display:
        for event in events:
            display(event)
        assert display.finished == [e for e in events if isinstance(e, StageFinished)]
    return stream.getvalue()


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    text = shown(terminal=False)
    assert "\x1b" not in text
    for line in (
        "✓ mine              1.2 s  40 blocks in 7 files, 20 to ask about",
        "QPiSSA rank 32 on 210 matrices: logits 2.0e-03 nats from the base's (plain NF4: 4.0e-03)",
        "12 steps on 48 examples (time budget 120 s), about 1 min 35 s at 320 tokens/s",
        "step 1: held-out loss 1.234, accuracy 50.0%",
        "memory is short",
        "stopped after step 9: held-out loss has not fallen",
        "✓ train        1 min 15 s  held-out loss 2.500 → 0.125 in 9 steps",
        "✓ index         unchanged  12 blocks",
        "✗ export            2.0 s",
        "‖ parity        1 min 1 s",
    ):
        assert line in text, line
    assert "a.py" not in text


def test_with_a_terminal_the_step_stands_in_the_bar() -> None:
    text = shown(terminal=True)
    assert "✓" in text
    assert "\x1b[" in text
    assert "step 1: held-out loss" not in text  # the bar tells it


def test_a_finished_training_needs_no_reason() -> None:
    assert shown(False, [TrainingStopped(12, "all steps done")]) == ""


def test_markup_in_messages_is_text() -> None:
    assert "use [bold] in src/a[1].py" in shown(False, [Notice("info", "use [bold] in src/a[1].py")])
    events = [StageStarted("mine"), StageProgress("mine", 1, 2, "[/no] such [tag]"), Notice("warning", "[/no]")]
    assert "[/no]" in shown(True, events)
    assert "[/no]" in shown(False, [StageFinished("x", 1.0, False, {}, "[/no]"), TrainingStopped(1, "[/no]")])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599.9, "59 min 59 s"),
        (3600, "1 h 0 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


WHOLE = "run     verdict                       n\n4265d0  Better than the base: cites  20\n"
FOLDED = "run     verdict                n\n4265d0  Better than the       20\n        base: cites\n"
RECORD = "run      4265d0\nverdict  Better than\n         the base:\n         cites\nn        20\n"


@pytest.mark.parametrize(("columns", "expected"), [(80, WHOLE), (32, FOLDED), (23, RECORD)])
def test_a_table_that_does_not_fit_is_written_row_by_row(
    columns: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table(("run", "verdict", "n"), [("4265d0", "Better than the base: cites", "20")], right=("n",))
    shown = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    assert shown == expected
