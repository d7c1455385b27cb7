"""What was mined before is not mined again, and a cache that is damaged, stale or locked does no harm."""

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline import MiningResult, SourceFile, mine
from ai_forge.data_pipeline.mining import file_mining
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.file_cache import FileCache


def source(path: str, number: int, licence: str | None = None) -> SourceFile:
    text = f'def area(width):\n    """Area of a square in units of {number}, as a number."""\n    return width * {number}\n'
    return SourceFile(path, text.encode(), blob_id(text.encode()), licence)


FILES = [source(f"src/m{number}.py", number) for number in range(6)]


class Counting:
    """A cache that counts what is put into it."""

    def __init__(self, cache: FileCache) -> None:
        self.cache = cache
        self.n_put = 0

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self.cache.get_many(keys)

    def put_many(self, values: Mapping[bytes, bytes], in_use: Sequence[bytes]) -> None:
        self.n_put += len(values)
        self.cache.put_many(values, in_use)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "files" / "repo.db"


def mined_anew(path: Path, files: list[SourceFile], **options: object) -> tuple[MiningResult, int]:
    """The result with the cache, which must equal the one without, and how many files were mined for it."""
    cache = Counting(FileCache(path))
    result = mine(files, cache=cache, **options)  # type: ignore[arg-type]
    fresh = mine(files, **options)  # type: ignore[arg-type]
    assert result.documents == fresh.documents
    assert [block.id for block in result.blocks] == [block.id for block in fresh.blocks]
    assert (result.summary(), result.imports, result.subject_ids) == (fresh.summary(), fresh.imports, fresh.subject_ids)
    return result, cache.n_put


def test_only_changed_files_are_mined_again(path: Path) -> None:
    assert mined_anew(path, FILES)[1] == 6
    assert mined_anew(path, FILES)[1] == 0
    changed = [source("src/m0.py", 99), *FILES[1:]]
    result, n_mined = mined_anew(path, changed)
    assert n_mined == 1
    assert "units of 99" in result.documents[0].source_code


def test_a_moved_file_and_another_commit_are_told_apart(path: Path) -> None:
    mined_anew(path, FILES, commit="a" * 40)
    result, n_mined = mined_anew(path, FILES, commit="b" * 40)
    assert n_mined == 0
    assert {block.metadata.commit for block in result.documents} == {"b" * 40}
    moved = SourceFile("tests/m0.py", FILES[0].content, FILES[0].blob_id)
    result, n_mined = mined_anew(path, [moved, *FILES[1:]])
    assert n_mined == 1
    assert result.rejected["test"] == 1


def test_what_else_a_result_depends_on_is_in_its_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mined_anew(path, FILES)
    assert mined_anew(path, FILES, settings=MinerSettings(min_tokens=21))[1] == 6
    assert mined_anew(path, FILES, own_licence="MIT")[1] == 6
    copyleft = [SourceFile(f.path, f.content, f.blob_id, "GPL-3.0") for f in FILES]
    assert mined_anew(path, copyleft, own_licence="MIT")[0].skipped == {"licence": 6}
    monkeypatch.setattr(file_mining, "_version_of", lambda _: "99")
    assert mined_anew(path, FILES)[1] == 6
    monkeypatch.setattr(file_mining, "code_hash", lambda *_: "another")
    assert mined_anew(path, FILES)[1] == 6


def test_a_damaged_value_is_mined_again(path: Path) -> None:
    mined_anew(path, FILES)
    with sqlite3.connect(path) as database:
        keys = [key for (key,) in database.execute("SELECT key FROM file")]
        (value,) = database.execute("SELECT value FROM file WHERE key = ?", keys[:1]).fetchone()
        database.execute("UPDATE file SET value = ? WHERE key = ?", (value[:-3] + b"???", keys[0]))
        database.execute("UPDATE file SET value = ? WHERE key = ?", (b"", keys[1]))
    database.close()
    assert mined_anew(path, FILES)[1] == 2
    assert mined_anew(path, FILES)[1] == 0


def test_a_whole_value_of_another_form_is_mined_again(path: Path) -> None:
    mined_anew(path, FILES)
    cache = FileCache(path)
    with sqlite3.connect(path) as database:
        keys = [key for (key,) in database.execute("SELECT key FROM file")]
    database.close()
    cache.put_many({keys[0]: b"[1, 2]\n[]", keys[1]: b"{", keys[2]: b"[null, {}, 3, {}, 0]\n"}, keys)
    assert mined_anew(path, FILES)[1] == 3


def test_a_damaged_database_is_begun_anew(path: Path) -> None:
    mined_anew(path, FILES)
    path.write_bytes(b"no database" * 1000)
    assert [mined_anew(path, FILES)[1] for _ in range(2)] == [6, 0]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE file SET value = (SELECT max(value) FROM file)",  # a good value under the key of another
        "UPDATE file SET value = 'text'",
        "UPDATE file SET value = 5",
        "UPDATE file SET key = 'text' || rowid",
    ],
)
def test_a_damaged_row_counts_as_absent(path: Path, damage: str) -> None:
    values = {bytes([number]) * 16: bytes([number]) * 9 for number in range(5)}
    FileCache(path).put_many(values, list(values))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(damage)
    found = FileCache(path).get_many(list(values))
    assert len(found) < 2
    assert found.items() <= values.items()


def test_a_damaged_word_of_the_schema_is_no_crash(path: Path) -> None:
    FileCache(path).put_many({b"k": b"v"}, [b"k"])
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", b"CREATE T\xfcBLE"))
    assert FileCache(path).get_many([b"k"]) == {}
    FileCache(path).put_many({b"k": b"v"}, [b"k"])
    assert FileCache(path).get_many([b"k"]) == {b"k": b"v"}


def test_a_cache_that_cannot_be_written_is_passed_over(path: Path) -> None:
    path.parent.write_bytes(b"")  # a file where the folder should be
    assert len(mined_anew(path, FILES)[0].documents) == 6


def test_old_values_go_when_there_are_too_many(path: Path) -> None:
    for number in range(40):
        mined_anew(path, [source("src/a.py", number)])
    with sqlite3.connect(path) as database:
        (n_rows,) = database.execute("SELECT count(*) FROM file").fetchone()
    database.close()
    assert n_rows <= 6
    assert mined_anew(path, [source("src/a.py", 39)])[1] == 0
