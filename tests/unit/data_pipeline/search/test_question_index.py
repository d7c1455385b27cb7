"""People's questions find the right place, by words, by kind, by name; the index survives its folder."""

from pathlib import Path

import numpy as np
import pytest

from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.data_pipeline.search.embedders.embedding import Matrix, Texts, unit_rows
from ai_forge.data_pipeline.search.embedders.kept import embedded
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.excerpt import GAP, excerpt
from ai_forge.data_pipeline.search.question_index import WEIGHTS, QuestionIndex, search
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.errors import InputError


def entry(path: str, name: str, text: str, kind: str = "function", summary: str = "", first: int = 1) -> Entry:
    return Entry(path, first, first + text.count("\n"), name, kind, "python", text, summary)


LONG = "def report(rows):\n" + "\n".join(f"    step_{n} = rows[{n}] + {n}" for n in range(300))
ENTRIES = [
    entry("src/pool.py", "Pool", "class Pool:\n    def close(self):\n        self.sockets.clear()", "class"),
    entry("src/pool.py", "Pool.close", "def close(self):\n    self.sockets.clear()", "method", "Close all.", first=2),
    entry(
        "src/retry.py", "retry", "def retry(f, n):\n    ...", summary="Try a failed call again, with a growing pause."
    ),
    entry(
        "docs/clock.md", "Clock", "How the clock is set and how it is wound, at the start of a day.", "documentation"
    ),
    entry("src/clock.py", "Clock.wind", "def wind(self):\n    self.clock += 1", "method", "Set and wind the clock."),
    entry("src/report.py", "report", LONG + "\n    return total_of_taxes(rows)"),
    entry("tests/test_retry.py", "test_retry", "def test_retry():\n    assert retry(fails, 2)", "test"),
    entry("docs/retry.md", "Retrying", "Set the number of retries in the settings.", "documentation"),
    entry("CHANGELOG.md", "1.2", "- retry pauses longer after each failed call\n- close is safe", "documentation"),
    entry("pyproject.toml", "pyproject.toml", 'requires-python = ">=3.11"', "configuration", "dependencies package"),
    entry("commit:0123456789ab", "Fix the pause", "Fix the pause\n\nIt was shorter after each failure.", "commit"),
    entry("tests/certificates/README.md", "Certificates", "How the certificates were made.", "documentation"),
    entry("src/tls.py", "trust", "def trust(certificates):\n    ...", summary="Which certificates are trusted."),
    entry("src/sink.py", "rinse", "def rinse(cup):\n    cup.dirt = 0", summary="How a cup is washed."),
    entry("bench/cups.py", "wash_cups", "def wash_cups():\n    wash(cup)", summary="Wash each cup."),
    entry("examples/retry.py", "main", "def main():\n    retry(call, 3)  # a failed call, again"),
]


@pytest.fixture(scope="module")
def index() -> QuestionIndex:
    return QuestionIndex.build(ENTRIES)


@pytest.mark.parametrize(
    ("question", "path"),
    [
        ("How are failed calls tried again?", "src/retry.py"),
        ("what closes the sockets of the pool", "src/pool.py"),
        ("Which Python does the package require?", "pyproject.toml"),
        ("What do tests of retry check?", "tests/test_retry.py"),
        ("Which changes to pauses did 1.2 bring?", "CHANGELOG.md"),
        ("Why was the shorter pause fixed?", "commit:0123456789ab"),
        ("How many retries are set in the settings?", "docs/retry.md"),
        ("What is `Pool.close` for?", "src/pool.py"),
        ("where are the certificates", "src/tls.py"),
        ("Where is the clock set?", "src/clock.py"),
        ("What sets the clock?", "docs/clock.md"),
        ("how is a cup washed", "src/sink.py"),
        ("how fast is a cup washed", "bench/cups.py"),
    ],
)
def test_a_question_finds_its_place(index: QuestionIndex, question: str, path: str) -> None:
    assert search(index, question, 1)[0].path == path


def test_tests_are_shown_only_when_they_are_asked_for(index: QuestionIndex) -> None:
    assert "test" not in {found.kind for found in search(index, "retry a failed call", 10)}
    assert "test" in {found.kind for found in search(index, "is retry tested?", 10)}
    assert "examples/retry.py" not in {found.path for found in search(index, "retry a failed call", 10)}
    assert search(index, "Is there an example of a failed call?", 1)[0].path == "examples/retry.py"


def test_results_fall_do_not_overlap_and_say_why(index: QuestionIndex) -> None:
    found = search(index, "close the sockets of the pool", 10)
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    assert sum(f.path == "src/pool.py" for f in found) == 1
    assert set(found[0].why) <= set(WEIGHTS)
    assert sum(found[0].why.values()) == pytest.approx(found[0].score, abs=1e-3)
    assert list(found[0].row()) == ["path", "first_line", "last_line", "name", "kind", "score"]
    assert search(index, "", 5) == search(index, "zzz qqq", 5) == []


class Fixed:
    """Vectors that are given: of a question its first axis, of a text what stands in `near` of its name."""

    name, weight = "fixed", 1.0

    def __init__(self, near: dict[str, float]) -> None:
        self.near = near

    def embed(self, texts: Texts) -> Matrix:
        cosines = [self.near.get(text.split(" ")[0], 1.0) for text in texts.written]
        return np.array([[c, (1 - c * c) ** 0.5] for c in cosines], dtype=np.float32)


def test_a_file_whose_entries_are_near_together_is_before_one_that_is_near_once() -> None:
    near = {"a": 0.80, "b": 0.78, "c": 0.78, "once": 0.82, "far": 0.1, "further": 0.0, "away": 0.05, "off": 0.02}
    ours = [entry("src/all.py", name, name, first=number) for number, name in enumerate("abc", start=1)]
    others = [entry(f"src/{name}.py", name, name) for name in near if len(name) > 1]
    index = QuestionIndex.build([*ours, *others], Fixed(near))
    assert index.search("xyz", 1, parts=("dense",))[0].path == "src/once.py"
    assert index.search("xyz", 1)[0].path == "src/all.py"


def test_tests_are_asked_for_by_their_words_since_they_have_no_vectors() -> None:
    near = {"guide": 0.9, "test_door": 0.1, "far": 0.1, "away": 0.0}
    tests = entry("tests/test_door.py", "test_door", "def test_door(): open it", "test")
    docs = entry("docs/door.md", "guide", "Tests for people who open a door, and for others.", "documentation")
    index = QuestionIndex.build([tests, docs, *(entry(f"src/{n}.py", n, n) for n in ("far", "away"))], Fixed(near))
    assert set(index.search("which tests open a door?", 1)[0].why) <= {"bm25", "prose", "file", "names"}
    assert index.search("which tests open a door?", 1)[0].path == "tests/test_door.py"
    assert "dense" in index.search("how do I open a door?", 1)[0].why


def test_one_file_does_not_fill_the_list() -> None:
    many = [entry("src/one.py", f"open_{n}", f"def open_{n}(door): ...", first=5 * n + 1) for n in range(8)]
    index = QuestionIndex.build([*many, entry("src/two.py", "door", "def door(): open it slowly, and with some care")])
    assert {found.path for found in search(index, "open the door", 3)} == {"src/one.py", "src/two.py"}


def test_saved_and_loaded_it_answers_the_same(index: QuestionIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    loaded = QuestionIndex.load(tmp_path)
    for question in ("failed calls", "`retry`", "what was new in 1.2"):
        assert loaded.search(question) == index.search(question)
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize("name", ["index.json", "entries.jsonl", "bm25/params.index.json"])
def test_a_damaged_index_is_refused_with_what_to_do(index: QuestionIndex, tmp_path: Path, name: str) -> None:
    index.save(tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(InputError, match=r"holds no index .* Next: Build it again"):
        QuestionIndex.load(tmp_path)


def test_nothing_to_index_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to index"):
        QuestionIndex.build([])


class Counting:
    """Letters counted; remembers what it was asked."""

    name, weight = "counting", 1.0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Texts) -> Matrix:
        self.asked.extend(texts.written)
        rows = [[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts.written]
        return unit_rows(np.array(rows, dtype=np.float32))


def test_vectors_are_made_only_for_what_is_new(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    before = embedded(Texts(["one", "two", "two"], []), first, tmp_path)
    after = embedded(Texts(["two", "three"], []), second, tmp_path)
    assert first.asked == ["one", "two"]
    assert second.asked == ["three"]
    assert np.array_equal(before[1], after[0])
    for damage in (b"", b"PK\x03\x04rubbish", b"\x93NUMPY"):
        (file,) = tmp_path.glob("*.npz")
        file.write_bytes(damage)
        again = Counting()
        assert np.array_equal(embedded(Texts(["two", "three"], []), again, tmp_path), after)
        assert again.asked == ["two", "three"]


def test_vectors_that_were_made_before_a_stop_are_kept(tmp_path: Path) -> None:
    texts = Texts([f"text {number}" for number in range(600)], [])

    def stop_in_the_middle(done: int, total: int) -> None:
        assert total == 600
        if done >= 512:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded(texts, Counting(), tmp_path, stop_in_the_middle)
    second = Counting()
    embedded(texts, second, tmp_path)
    assert second.asked == texts.written[512:]


def test_tests_are_not_embedded(tmp_path: Path) -> None:
    embedder = Counting()
    index = QuestionIndex.build(ENTRIES, embedder, vectors_folder=tmp_path)
    assert len(embedder.asked) == len([e for e in ENTRIES if e.kind != "test"])
    assert any("dense" in found.why for found in search(index, "again and again", 10))


def test_of_a_long_block_head_and_relevant_part_are_shown(index: QuestionIndex) -> None:
    (shown,) = documents_for("Which taxes does the report total?", index, k=1, max_tokens=200)
    lines = shown.text.split("\n")
    assert lines[0] == "def report(rows):"
    assert lines[-1] == "    return total_of_taxes(rows)"
    assert GAP in lines
    assert approximate_tokens(shown.text) <= 200


@pytest.mark.parametrize("max_tokens", [20, 60, 150, 400, 1000])
def test_an_excerpt_fits_and_holds_only_lines_of_the_text(max_tokens: int) -> None:
    for question in ("step 200", "taxes", "", "def report"):
        shown = excerpt(LONG, question, max_tokens)
        assert approximate_tokens(shown) <= max_tokens
        assert set(shown.split("\n")) - {GAP} <= set(LONG.split("\n"))
        assert shown.startswith("def report(rows):")
