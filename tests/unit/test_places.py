"""What lies where a file of ours belongs."""

import os
import sys
from pathlib import Path

import pytest

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.places import expanded, holds_what_was_written, make_room, regular_bytes, sealed


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


def test_a_path_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    if sys.version_info < (3, 13):  # since then a path resolves to itself
        with pytest.raises(InputError, match="is a link that leads to itself"):
            expanded(tmp_path / "loop")
    with pytest.raises(InputError, match="names a user who is not here"):
        expanded(Path("~nobody-of-this-name/x"))
    assert expanded(tmp_path / "not-there") == tmp_path / "not-there"
