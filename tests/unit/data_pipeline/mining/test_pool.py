"""Files mined by several processes: the same result, and what happens when a helper dies."""

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline import MiningResult, SourceFile, mine
from ai_forge.data_pipeline.mining.file_mining import MinedFile, MiningTask, mine_file
from ai_forge.data_pipeline.mining.pool import _apart, _Work, mine_files
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


def test_a_helper_that_dies_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first helper is killed at its first file, those after it are not."""
    deadly = f"""
        import os, pathlib
        from ai_forge.data_pipeline.mining import pool as mining_pool
        mine_file, killed = mining_pool.mine_file, pathlib.Path({str(tmp_path / "killed")!r})
        def deadly(source, task):
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), 9)
            return mine_file(source, task)
        mining_pool.mine_file = deadly
    """
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._SERVE", f"{textwrap.dedent(deadly)}\nmining_pool.serve()")
    work = _Work(SOURCES[:6], 2)
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._Work", lambda *_: _OnlyForHelpers(work))
    task = MiningTask(MinerSettings())
    found = dict(mine_files(SOURCES[:6], task, processes=2))
    assert (tmp_path / "killed").exists()
    assert [found[n].pack() for n in range(6)] == [mine_file(file, task).pack() for file in SOURCES[:6]]


def test_a_file_that_kills_each_process_is_skipped_as_crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helpers find a miner that kills its process at the sight of one file."""
    deadly = """
        import os
        from ai_forge.data_pipeline.mining import pool as mining_pool
        mine_file = mining_pool.mine_file
        def deadly(source, task):
            if source.path == "deadly.py":
                os.kill(os.getpid(), 9)
            return mine_file(source, task)
        mining_pool.mine_file = deadly
    """
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._SERVE", f"{textwrap.dedent(deadly)}\nmining_pool.serve()")
    content = b"def f():\n    pass\n"
    files = [*SOURCES[:4], SourceFile("deadly.py", content, blob_id(content))]
    task = MiningTask(MinerSettings())
    work = _Work(files, 2)
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._Work", lambda *_: _OnlyForHelpers(work))
    found = dict(mine_files(files, task, processes=2))
    assert found[4].skipped == "crashed"
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert [found[index].skipped for index in range(4)] == [mine_file(file, task).skipped for file in files[:4]]


class _OnlyForHelpers:
    """Work of which the process that asks for single files gets none."""

    def __init__(self, work: _Work) -> None:
        self.work = work

    def take(self, n_files: int | None = None) -> list[tuple[int, SourceFile]]:
        return [] if n_files else self.work.take()


def test_helpers_that_cannot_start_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._SERVE", "raise SystemExit(3)")
    task = MiningTask(MinerSettings())
    found = dict(mine_files(SOURCES[:4], task, processes=3))
    assert [found[n].skipped for n in range(4)] == [mine_file(file, task).skipped for file in SOURCES[:4]]
    (answer,) = _apart((0, SOURCES[0]), task)
    assert answer == (0, mine_file(SOURCES[0], task).pack())


def test_where_no_process_can_be_started_this_one_mines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool.subprocess.Popen", none_left)
    task = MiningTask(MinerSettings())
    found = dict(mine_files(SOURCES[:4], task, processes=3))
    assert [found[n].pack() for n in range(4)] == [mine_file(file, task).pack() for file in SOURCES[:4]]
    assert _apart((0, SOURCES[0]), task) == [(0, mine_file(SOURCES[0], task).pack())]


def test_helpers_import_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the repository that is mined: `cd repository && ai-forge run`."""
    for name in ("json", "queue", "argparse", "tree_sitter"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    work = _Work(SOURCES[:2], 2)
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._Work", lambda *_: _OnlyForHelpers(work))
    assert len(list(mine_files(SOURCES[:2], MiningTask(MinerSettings()), processes=2))) == 2
    assert not (tmp_path / "run").exists()


def test_once_nobody_waits_no_more_helpers_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = """
        import time
        from ai_forge.data_pipeline.mining import pool as mining_pool
        mining_pool.mine_file = lambda *_: time.sleep(600)
        mining_pool.serve()
    """
    given, apart, before = threading.Event(), [], set(threading.enumerate())

    class Noted(_Work):
        def take(self, n_files: int = sys.maxsize) -> list[tuple[int, SourceFile]]:
            batch = super().take(n_files)
            if batch and n_files > 1:
                given.set()
            return batch

    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._SERVE", textwrap.dedent(endless))
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._Work", Noted)
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._apart", lambda item, _: apart.append(item) or [])
    results = mine_files(SOURCES, MiningTask(MinerSettings()), processes=2)
    next(results)
    assert given.wait(60)
    results.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert apart == []


def test_an_error_in_a_helper_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = """
        from ai_forge.data_pipeline.mining import pool as mining_pool
        def mine_file(source, task):
            raise LookupError(source.path)
        mining_pool.mine_file = mine_file
    """
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._SERVE", f"{textwrap.dedent(broken)}\nmining_pool.serve()")
    work = _Work(SOURCES[:1], 2)
    monkeypatch.setattr("ai_forge.data_pipeline.mining.pool._Work", lambda *_: _OnlyForHelpers(work))
    with pytest.raises(LookupError, match=SOURCES[0].path):
        list(mine_files(SOURCES[:1], MiningTask(MinerSettings()), processes=2))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_helpers_end_with_the_process_that_started_them(sent: signal.Signals) -> None:
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
    helpers = psutil.Process(parent.pid).children()
    assert len(helpers) == 2
    parent.send_signal(sent)
    parent.communicate(timeout=60)
    _, alive = psutil.wait_procs(helpers, timeout=60)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
