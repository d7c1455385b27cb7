"""What is trained on: gaps of training files, those of past commits first, nothing that is held out in any way."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from test_gap_history import commit, git

from ai_forge.data_pipeline.gaps.cutting import Gap
from ai_forge.data_pipeline.gaps.examples import completion_examples, training_gaps
from ai_forge.data_pipeline.gaps.history import as_before
from tiny_training import document


def function(name: str) -> str:
    """A function of its own words, with a body long enough to be asked for."""
    return (
        f"def {name}(path, options):\n    {name}_found = [{name}_of(entry) for entry in path.iterdir() if options.{name}]\n"
        f"    return {name}_sorted({name}_found, key=options.{name}_order, reverse=True)\n\n\n"
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """`a` and `b` may be trained on, `held` not. The second commit wrote into `a`, the third into `b` and `held`."""
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "start", a=function("first"), b=function("second"), held=function("third"))
    commit(tmp_path, "more of a", a=function("first") + function("fourth"))
    commit(tmp_path, "judged", b=function("second") + function("fifth"), held=function("third") + function("sixth"))
    return tmp_path


def files_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.py"))}


def gaps_of(root: Path, files: Mapping[str, bytes] | None = None, n: int = 100, seed: int = 0) -> list[Gap]:
    """Of `a.py` and `b.py`."""
    state = files or files_of(root)
    return list(training_gaps(state, {"a.py", "b.py"}, n, history=root, placeholder="masked", seed=seed).gaps)


def test_the_gap_put_back_gives_the_file(repo: Path) -> None:
    gaps = gaps_of(repo)
    rows, _ = completion_examples(gaps, lambda gap: (), seed=0)
    whole = {gap.text: gap.prefix + gap.text + gap.suffix for gap in gaps}
    now = {**files_of(repo), **as_before(repo, {git(repo, "rev-parse", "HEAD")})}
    assert len(rows) == len(gaps) > 4
    for row in rows:
        assert row.prefix + row.text + row.suffix == whole[row.text] == now[row.path].decode()
        assert 50 <= len(row.text.encode()) <= 1000


def test_nothing_that_is_held_out_is_asked_for(repo: Path) -> None:
    gaps = gaps_of(repo)
    assert {gap.path for gap in gaps} == {"a.py", "b.py"}
    words = " ".join(gap.text for gap in gaps)
    assert "fourth_sorted" in words
    assert "second_sorted" in words
    assert "fifth" not in words  # written by a commit that the judge takes apart
    assert "third" not in words
    assert "sixth" not in words


def test_what_past_commits_wrote_comes_first(repo: Path) -> None:
    gaps = gaps_of(repo)
    of_commits = [gap.commit is not None for gap in gaps]
    assert of_commits == sorted(of_commits, reverse=True)
    assert all("fourth" in gap.text for gap in gaps if gap.commit)
    assert [gap.commit for gap in gaps_of(repo, n=1)] == [git(repo, "rev-parse", "HEAD~1")]


def test_the_seed_decides(repo: Path) -> None:
    assert gaps_of(repo, n=4) == gaps_of(repo, n=4)
    one, other = (completion_examples(gaps_of(repo), lambda gap: [document("load")], seed=s)[0] for s in (0, 1))
    assert one == completion_examples(gaps_of(repo), lambda gap: [document("load")], seed=0)[0]
    assert [row.text for row in one] != [row.text for row in other]


def test_copies_of_held_out_code_and_secrets_are_left_out(repo: Path) -> None:
    secret = 'def login(session):\n    session.password = "hJ7kq9Zt3vLw2xPd"; session.open(at=session.address)\n'
    (repo / "a.py").write_text(function("third") + function("own") + secret)
    found = training_gaps(files_of(repo), {"a.py", "b.py"}, 100, history=None, placeholder="masked", seed=0)
    words = " ".join(gap.text for gap in found.gaps)
    assert "own_sorted" in words
    assert "third_sorted" not in words
    assert "hJ7kq9Zt3vLw2xPd" not in words
    assert "masked" not in words
    assert found.dropped["in_held_out_file"] > 0
    assert found.dropped["secret"] > 0


def test_files_that_a_commit_brought_or_renamed_are_as_before(repo: Path) -> None:
    git(repo, "mv", "b.py", "c.py")
    made = commit(repo, "new", new=function("seventh"), a=function("eighth"))
    before = as_before(repo, {made, git(repo, "rev-parse", "HEAD~1")})
    assert before["new.py"] == b""
    assert before["a.py"].decode() == function("first") + function("fourth")
    assert before["c.py"].decode() == function("second")
    assert as_before(repo, ()) == {}
