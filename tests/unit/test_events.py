"""The stream of events: every listener hears all, the file survives torn lines."""

import json
import re
from pathlib import Path

from ai_forge.events import (
    Event,
    EventStream,
    Notice,
    StageFinished,
    StageProgress,
    StageStarted,
    StepLogged,
    ignore,
    n_damaged_events,
    read_events,
)

STEP = StepLogged(1, 2, 0.5, 0.25, 1e-4, 1.5, 300.0, 10, 3.0)


def test_events_are_written_as_lines_and_handed_to_all_listeners(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    heard: tuple[list[Event], list[Event]] = ([], [])
    stream = EventStream(path, heard[0].append, heard[1].append, clock=lambda: 12.3456)
    events = [StageStarted("mine"), STEP, StageFinished("mine", 1.5, False, {"blocks": 3}), Notice("info", "zwölf\n")]
    for event in events:
        stream(event)
    assert heard == (events, events)
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    records = [{key: value for key, value in json.loads(line).items() if key != "seal"} for line in lines]
    assert records[1] == {"time": 12.346, "event": "StepLogged", **vars(STEP)}
    assert list(read_events(path)) == records


def test_a_byte_that_flipped_in_an_event_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    stream = EventStream(path)
    for event in (StageStarted("mine"), StageFinished("mine", 1.5, False, {"blocks": 3}, "3 blocks \ud83d"), STEP):
        stream(event)
    assert n_damaged_events(path) == 0
    written = path.read_text()
    path.write_text(written.replace("3 blocks", "8 blocks") + '{"event": "Noti')  # the last is being written
    assert [record["event"] for record in read_events(path)] == ["StageStarted", "StepLogged"]
    assert n_damaged_events(path) == 1
    path.write_bytes(bytes(len(written)))  # what a power cut leaves
    assert n_damaged_events(path) == 1


def test_each_changed_byte_is_damage_and_no_cut_in_the_last_line_is(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    stream = EventStream(path)
    stream(StageStarted("mine"))
    n_first = path.stat().st_size
    stream(Notice("info", "zwölf"))
    whole = path.read_bytes()
    # without its seal's name a record is as an older version wrote it
    names = {at for found in re.finditer(b"seal", whole) for at in range(*found.span())}
    for at in set(range(len(whole))) - names:
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        assert n_damaged_events(path) > 0, at
    for end in range(n_first, len(whole)):
        path.write_bytes(whole[:end])
        assert n_damaged_events(path) == 0, end


def test_progress_is_written_once_a_second_and_heard_always(tmp_path: Path) -> None:
    now = 100.0
    heard: list[Event] = []
    stream = EventStream(tmp_path / "events.jsonl", heard.append, clock=lambda: now)
    for second in (0.0, 0.4, 0.9, 1.0, 1.9, 2.1):
        now = 100.0 + second
        stream(StageProgress("mine", int(second * 10), 21))
    assert len(heard) == 6
    assert [record["done"] for record in read_events(tmp_path / "events.jsonl")] == [0, 10, 21]


def test_a_run_appends_and_torn_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventStream(path)(Notice("info", "one"))
    with path.open("a") as file:
        file.write('{"time": 1, "event": "Noti\n')
    EventStream(path)(Notice("info", "two"))
    assert [record["message"] for record in read_events(path)] == ["one", "two"]


def test_without_a_file_there_is_nothing_to_read(tmp_path: Path) -> None:
    EventStream(None, ignore)(STEP)
    assert list(read_events(tmp_path / "none.jsonl")) == []
