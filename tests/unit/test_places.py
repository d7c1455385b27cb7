"""What lies where a file of ours belongs."""

import os
from pathlib import Path

import pytest

from ai_forge.errors import PrerequisiteError
from ai_forge.places import holds_what_was_written, make_room, regular_bytes, sealed


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "nothing"])
def test_what_is_no_file_is_not_waited_for_and_makes_room(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "record.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match=str(path)):
        regular_bytes(path)
    make_room(path)
    assert not os.path.lexists(path)


def test_a_folder_with_something_in_it_is_anyones(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    (tmp_path / "record.json" / "mine").touch()
    with pytest.raises(PrerequisiteError, match=r"Next: move it away: mv .*record\.json"):
        make_room(tmp_path / "record.json")


def test_a_file_stays_and_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    make_room(tmp_path / "a")
    assert regular_bytes(tmp_path / "a") == b"a"


def test_every_change_of_a_sealed_value_is_noticed() -> None:
    values = sealed({"name": "a\u2028b", "n": 1.5, "more": {"deep": [1, None]}})
    assert holds_what_was_written(values)
    for key in ("name", "n", "more"):
        assert not holds_what_was_written(values | {key: None})
        assert not holds_what_was_written({other: value for other, value in values.items() if other != key})
    assert holds_what_was_written({"name": "of a version without seals"})
