"""What survives a crash: killed writers leave the old or the new, never a part; locks die with their process."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ai_forge.errors import InputError, PrerequisiteError, TransientError
from ai_forge.events import read_events
from ai_forge.workspace import (
    MANIFEST,
    Workspace,
    atomic_file,
    atomic_folder,
    atomic_write,
    file_sha256,
    read_json,
    remove_debris,
    require_disk,
    stage_key,
)

WRITER = """
import sys
from pathlib import Path
from ai_forge.workspace import Workspace, atomic_folder, atomic_write
root, kind = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
while True:
    for letter in b"AB":
        if kind == "file":
            atomic_write(root / "file", bytes([letter]) * 3_000_000)
        else:
            with atomic_folder(root / "folder") as folder:
                for name in "xyz":
                    (folder / name).write_bytes(bytes([letter]) * 300_000)
"""
HOLDER = """
import sys, time
from pathlib import Path
from ai_forge.workspace import Workspace
with Workspace.open(Path(sys.argv[1])).lock("train"):
    print("held", flush=True)
    time.sleep(60)
"""


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def await_line(process: "subprocess.Popen[str]", expected: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == expected


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def dead_pid() -> int:
    return int(
        subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True).stdout
    )


def assert_whole(root: Path) -> None:
    """The file, or the folder, is all of one letter."""
    with contextlib.suppress(FileNotFoundError):
        raw = (root / "file").read_bytes()
        assert raw in (b"A" * 3_000_000, b"B" * 3_000_000), f"{len(raw)} bytes, {set(raw)}"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path: Path, kind: str) -> None:
    for n_reads in (20, 50, 90):
        process = python(WRITER, tmp_path, kind)
        await_line(process, "ready")
        for _ in range(n_reads):  # while it writes
            assert_whole(tmp_path)
            time.sleep(0.001)
        end(process)
        assert_whole(tmp_path)
        if (tmp_path / "folder").exists():
            contents = {(tmp_path / "folder" / name).read_bytes() for name in "xyz"}
            assert len(contents) == 1
            assert len(contents.pop()) == 300_000
        remove_debris(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} <= {"file", "folder"}


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "file", "old")
    with pytest.raises(TypeError), atomic_file(tmp_path / "a" / "file") as file:
        file.writelines([b"half", 3])  # type: ignore[list-item]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["file"]
    assert (tmp_path / "a" / "file").read_text() == "old"
    atomic_write(tmp_path / "a" / "file", b"new")
    assert (tmp_path / "a" / "file").read_bytes() == b"new"


def test_a_file_that_was_copied_is_whole_by_its_hash(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with workspace.building("mine", "k") as (folder, _):
        (folder / "blocks").write_text("12345")
    path = workspace.stage_folder("mine", "k") / "blocks"
    path.unlink()
    path.write_text("12345")  # another inode, another time, the same bytes: as after a restored backup
    assert workspace.finished("mine", "k") is not None


def test_a_lock_is_waited_for_and_the_waiting_can_be_ended(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with workspace.lock("model"):
        with pytest.raises(TransientError), workspace.lock("model", wait_s=0.1):
            pass
        with pytest.raises(KeyboardInterrupt), workspace.lock("model", wait_s=60, check=check):
            pass
    with workspace.lock("model", wait_s=1):
        pass


def test_nothing_is_seen_before_the_block_ends(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "file") as file:
        file.write(b"x")
        assert not (tmp_path / "file").exists()
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").touch()
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "sub" / "x").exists()


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / content).touch()
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "folder") as folder:
        [(folder / "half").mkdir() for _ in range(2)]
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_stage_is_finished_when_all_its_files_are_whole(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    assert workspace.finished("mine", "k") is None
    with workspace.building("mine", "k") as (folder, counts):
        (folder / "sub").mkdir()
        (folder / "sub" / "blocks").write_text("12345")
        counts["n"] = 5
        assert workspace.finished("mine", "k") is None
    manifest = workspace.finished("mine", "k")
    assert manifest is not None
    assert (manifest["counts"], list(manifest["files"])) == ({"n": 5}, ["sub/blocks"])


@pytest.mark.parametrize(
    "damage", ["missing", "shortened", "changed", "no manifest", "torn manifest", "odd manifest", "folder"]
)
def test_a_stage_that_is_not_whole_is_not_finished(tmp_path: Path, damage: str) -> None:
    workspace = Workspace.open(tmp_path)
    with workspace.building("mine", "k") as (folder, _):
        (folder / "blocks").write_text("12345")
    folder = workspace.stage_folder("mine", "k")
    match damage:
        case "missing":
            (folder / "blocks").unlink()
        case "shortened":
            os.truncate(folder / "blocks", 4)
        case "changed":
            (folder / "blocks").write_text("12346")
        case "odd manifest":
            (folder / MANIFEST).write_text('{"counts": {}, "files": {"blocks": 5}}')
        case "no manifest":
            (folder / MANIFEST).unlink()
        case "torn manifest":
            os.truncate(folder / MANIFEST, 20)
        case _:
            (folder / "blocks").unlink()
            (folder / "blocks").mkdir()
    assert workspace.finished("mine", "k") is None
    with workspace.building("mine", "k") as (work, _):
        (work / "blocks").write_text("again")
    assert workspace.finished("mine", "k") is not None


def test_a_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with pytest.raises(FileExistsError), workspace.building("mine", "k") as (folder, _):
        [(folder / "half").mkdir() for _ in range(2)]
    assert list((tmp_path / "cache" / "mine").iterdir()) == []


def test_debris_of_the_dead_is_removed_and_of_the_living_kept(tmp_path: Path, dead_pid: int) -> None:
    workspace = Workspace.open(tmp_path)
    places = [workspace.cache_dir / "mine", workspace.work_folder("train", "k"), workspace.runs_dir / "r"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / f".x.tmp-{dead_pid}").mkdir()
        (place / f".x.tmp-{dead_pid}" / "half").touch()
        (place / f".y.tmp-{dead_pid}").touch()
        (place / f".x.tmp-{os.getppid()}").mkdir()
        (place / "kept").touch()
    Workspace.open(tmp_path)
    for place in places:
        assert {p.name for p in place.iterdir()} == {f".x.tmp-{os.getppid()}", "kept"}


def test_a_lock_keeps_a_second_process_out_and_dies_with_the_first(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    process = python(HOLDER, tmp_path)
    try:
        await_line(process, "held")
        with pytest.raises(TransientError) as caught, workspace.lock("train"):
            pass
        assert str(caught.value) == (
            f"Process {process.pid} is already working on train. "
            "Next: wait for it, or stop it and run the same command again."
        )
        with workspace.lock("other"):
            pass
    finally:
        end(process)
    with workspace.lock("train"):
        assert (tmp_path / "locks" / "train.lock").read_text() == str(os.getpid())
    with workspace.lock("train"):
        pass


def test_a_lock_keeps_another_thread_out_too(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    refused: list[bool] = []

    def attempt() -> None:
        try:
            with workspace.lock("train"):
                refused.append(False)
        except TransientError:
            refused.append(True)

    with workspace.lock("train"):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert refused == [True]


@pytest.mark.parametrize("inside", [False, True])
def test_a_home_that_cannot_be_written_is_told(tmp_path: Path, inside: bool) -> None:
    """A file where the folder should be: refused for root as well, whom permissions do not stop."""
    blocked = tmp_path / "home"
    if inside:
        blocked.mkdir()
        (blocked / "cache").touch()
    else:
        blocked.touch()
    with pytest.raises(PrerequisiteError) as caught:
        Workspace.open(blocked)
    assert caught.value.message.startswith(f"The workspace {blocked} cannot be written: ")
    assert caught.value.next_step == "set AI_FORGE_HOME to a folder you can write."


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which nobody can write")
def test_a_read_only_home_is_told() -> None:
    with pytest.raises(PrerequisiteError, match=r"^The workspace /proc/ai-forge cannot be written: "):
        Workspace.open(Path("/proc/ai-forge"))


def test_the_home_is_the_argument_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(tmp_path / "environment"))
    assert Workspace.open().root == tmp_path / "environment"
    assert Workspace.open(tmp_path / "given").root == tmp_path / "given"
    monkeypatch.delenv("AI_FORGE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in Workspace.open().root.parents


def test_too_little_disk_is_told_before_work_starts(tmp_path: Path) -> None:
    require_disk(tmp_path, 1, "Nothing")
    with pytest.raises(PrerequisiteError) as caught:
        require_disk(tmp_path, 10**18, "Merging")
    assert caught.value.message.startswith(f"Merging needs 1000000000.0 GB of disk in {tmp_path}; ")
    assert caught.value.next_step == "free some space, or set AI_FORGE_HOME to a larger disk."


def test_keys_and_hashes(tmp_path: Path) -> None:
    assert stage_key(a=1, b={"y": 2, "x": 1}) == stage_key(b={"x": 1, "y": 2}, a=1)
    assert stage_key(a=1) != stage_key(a=2) != stage_key(b=2)
    assert len(stage_key()) == 16
    assert stage_key(root=os.fsdecode(b"/od\xffd")) != stage_key(root=os.fsdecode(b"/od\xfed"))  # no UTF-8
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "3", "\xff"])
def test_json_that_is_missing_or_torn_is_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    assert read_json(path) is None
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path) == {"a": 1}


def test_what_is_no_file_is_not_read_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    for name in ("run.json", "folder.json", "gone.json"):
        assert read_json(tmp_path / name) is None
        assert list(read_events(tmp_path / name)) == []


def test_a_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a device, not a place for a file"):
        atomic_write(Path("/proc/self/fd/1"), "x")  # what /dev/stdout is
    if os.geteuid() != 0:
        return
    os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with pytest.raises(InputError, match="null is a device, not a place for a file"):
        atomic_write(tmp_path / "null", "x")
    assert (tmp_path / "null").is_char_device()
