"""Files mined by several processes: the same result, and what happens when one dies."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline import MiningResult, SourceFile, mine
from ai_forge.data_pipeline.mining.file_mining import MinedFile, MiningTask, mine_file
from ai_forge.data_pipeline.mining.pool import mine_files
from ai_forge.data_pipeline.source.repository import blob_id

ROOT = Path(__file__).parents[4]
PATHS = sorted((ROOT / "src" / "ai_forge" / "data_pipeline").rglob("*.py")) + sorted((ROOT / "tests").rglob("*.*"))
SOURCES = [
    SourceFile(path.relative_to(ROOT).as_posix(), path.read_bytes(), blob_id(path.read_bytes()))
    for path in PATHS
    if path.suffix in (".py", ".go", ".ts", ".js", ".rs", ".rb", ".c", ".java", ".kt")
]


def everything(result: MiningResult) -> object:
    blocks = [block.model_dump_json() for block in result.documents]
    return blocks, result.subject_ids, result.rejected, result.skipped, result.imports, result.summary()


def test_two_processes_give_what_one_gives() -> None:
    settings = MinerSettings(include_tests=True, require_docstring=False)
    alone = mine(SOURCES, settings, commit="c" * 40, own_licence="MIT", processes=1)
    pooled = mine(SOURCES, settings, commit="c" * 40, own_licence="MIT", processes=2)
    assert len(alone.documents) > 1000
    assert everything(pooled) == everything(alone)


def test_a_packed_file_opens_as_what_was_packed() -> None:
    secret = (
        b'KEY = "AKIA'
        + b'Q7RZT4XW2NLM6VPB"\n\n\ndef f(a):\n    """Doc, \xc3\xa9."""\n    if not a:\n        return None\n'
    )
    long = b"class A:\n" + b"".join(b"    def f%d(self):\n        return g(%d)\n\n" % (n, n) for n in range(200))
    task = MiningTask(MinerSettings(min_tokens=1), None, "c" * 40)
    for content in (secret, long, "x = 1\r\n".encode("utf-16"), b"def broken(:\n"):
        source = SourceFile("a.py", content, blob_id(content))
        mined = mine_file(source, task)
        again = MinedFile.unpack(mined.pack())
        assert again.open(source, task) == mined.open(source, task)
        assert again.pack() == mined.pack()
    assert "<masked>" in mine([SourceFile("a.py", secret, blob_id(secret))], task.settings).documents[0].source_code


Miner = Callable[[SourceFile, MiningTask], MinedFile]
TASK = MiningTask(MinerSettings())


def packed(sources: list[SourceFile]) -> list[bytes]:
    return [mine_file(source, TASK).pack() for source in sources]


def deadly(is_deadly: Callable[[SourceFile], bool]) -> Miner:
    """A miner that kills its process at the sight of some files; made here, so that it is sent by value."""

    def mine(source: SourceFile, task: MiningTask) -> MinedFile:
        if is_deadly(source):
            os.kill(os.getpid(), signal.SIGKILL)
        return mine_file(source, task)

    return mine


def test_a_process_that_dies_costs_no_file(tmp_path: Path) -> None:
    """The first is killed at its first file, those after it are not."""
    killed = tmp_path / "killed"

    def once(_: SourceFile) -> bool:
        if killed.exists():
            return False
        killed.touch()
        return True

    found = dict(mine_files(SOURCES[:6], TASK, processes=2, mine=deadly(once)))
    assert killed.exists()
    assert [found[n].pack() for n in range(6)] == packed(SOURCES[:6])


def test_files_that_kill_each_process_are_crashed() -> None:
    content = b"def f():\n    pass\n"
    bad = [SourceFile(f"deadly{n}.py", content, blob_id(content)) for n in range(2)]
    files = [bad[0], *SOURCES[:4], bad[1]]
    found = dict(mine_files(files, TASK, processes=2, mine=deadly(lambda source: source.path.startswith("deadly"))))
    assert sorted(found) == list(range(6))
    assert [found[0].skipped, found[5].skipped] == ["crashed", "crashed"]
    assert [found[n].pack() for n in range(1, 5)] == packed(SOURCES[:4])


def test_where_processes_cannot_live_this_one_mines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = dict(mine_files(SOURCES[:4], TASK, processes=3))
    assert [found[n].pack() for n in range(4)] == packed(SOURCES[:4])


def test_where_none_can_be_started_this_one_mines(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("loky.backend.popen_loky_posix.Popen", none_left)
    found = dict(mine_files(SOURCES[:4], TASK, processes=3))
    assert [found[n].pack() for n in range(4)] == packed(SOURCES[:4])


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the repository that is mined: `cd repository && ai-forge run`."""
    for name in ("json", "queue", "argparse", "tree_sitter", "cloudpickle", "loky"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    assert len(list(mine_files(SOURCES[:2], TASK, processes=2))) == 2
    assert not (tmp_path / "run").exists()


def test_what_a_grammar_prints_is_not_printed_by_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    def loud(source: SourceFile, task: MiningTask) -> MinedFile:
        print("noise", flush=True)
        return mine_file(source, task)

    assert len(list(mine_files(SOURCES[:2], TASK, processes=2, mine=loud))) == 2
    assert capfd.readouterr().out == ""


def test_who_stops_listening_waits_for_nothing() -> None:
    def slow(source: SourceFile, task: MiningTask) -> MinedFile:
        if source.path == "slow.py":
            time.sleep(600)
        return mine_file(source, task)

    files = [SourceFile("slow.py", b"x = 1", "0"), *SOURCES[:40]]
    results = mine_files(files, TASK, processes=2, mine=slow)
    next(results)
    before = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - before < 60


def test_an_error_in_a_process_is_raised_here() -> None:
    def broken(source: SourceFile, _: MiningTask) -> MinedFile:
        raise LookupError(source.path)

    with pytest.raises(LookupError, match=SOURCES[0].path):
        list(mine_files(SOURCES[:1], TASK, processes=2, mine=broken))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(sent: signal.Signals) -> None:
    code = """
        import time
        from ai_forge.config import MinerSettings
        from ai_forge.data_pipeline import SourceFile
        from ai_forge.data_pipeline.mining.file_mining import MiningTask
        from ai_forge.data_pipeline.mining.pool import mine_files
        files = [SourceFile(f"{n}.py", b"def f():\\n    pass\\n" * 50, str(n)) for n in range(2000)]
        for n, _ in enumerate(mine_files(files, MiningTask(MinerSettings()), processes=3)):
            if n == 0:
                print("started", flush=True)
            time.sleep(0.05)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    started = psutil.Process(parent.pid).children()
    assert len(started) >= 3  # and loky's tracker of what is to be cleaned up
    parent.send_signal(sent)
    parent.communicate(timeout=60)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
