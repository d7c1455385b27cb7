"""The index: finds what is asked for, the same every time, saved and loaded."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline import Index, MiningResult
from ai_forge.data_pipeline.graph.symbols import overlap
from ai_forge.errors import InputError


@pytest.fixture(scope="module")
def index(mined: MiningResult) -> Index:
    return Index.build(mined.documents)


def test_a_question_that_names_a_block_finds_it(index: Index, mined: MiningResult) -> None:
    questions = [f"What does `{b.metadata.qualified_name}` do?" for b in mined.blocks]
    hits = index.search_many(questions, 5)
    first = sum(h[0].block.name == b.name for h, b in zip(hits, mined.blocks, strict=True)) / len(hits)
    among = sum(b.id in {hit.block.id for hit in h} for h, b in zip(hits, mined.blocks, strict=True)) / len(hits)
    assert first >= 0.95
    assert among >= 0.98


def test_a_question_in_other_words_finds_the_block_by_its_documentation(index: Index, mined: MiningResult) -> None:
    documented = [b for b in mined.blocks if len((b.docstring or "").split()) >= 8]
    questions = [" ".join((b.docstring or "").split()[:12]).replace("`", "") for b in documented]
    hits = index.search_many(questions, 5)
    among = sum(b.id in {hit.block.id for hit in h} for h, b in zip(hits, documented, strict=True)) / len(hits)
    assert among >= 0.9


def test_search_limits_files_and_leaves_out_nested_blocks(index: Index) -> None:
    path = "src/ai_forge/data_pipeline/search/index.py"
    query = "search the index for a query"
    assert {hit.block.path for hit in index.search(query, 5, only_paths=[path])} == {path}
    assert path not in {hit.block.path for hit in index.search(query, 20, exclude_paths={path})}
    shown = [hit.block for hit in index.search(query, 10, nested=False)]
    assert len(shown) == 10
    assert not any(overlap(a, b) for i, a in enumerate(shown) for b in shown[:i])


def test_scores_fall_and_many_equals_one_by_one(index: Index) -> None:
    queries = ["split by file", "`Index.build`", "read files through git", "zzz", ""]
    for query, hits in zip(queries, index.search_many(queries, 7), strict=True):
        assert hits == index.search(query, 7)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
    assert index.search("", 3) == []


def test_saved_and_loaded_it_answers_the_same(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    for query in ("near duplicates", "`Split.summary`", "what is a leak"):
        assert loaded.search(query, 10) == index.search(query, 10)
    assert not list((tmp_path / "index").rglob("*.pkl"))


def test_building_twice_gives_the_same_ranking(index: Index, mined: MiningResult) -> None:
    again = Index.build(mined.documents)
    assert again.search("union find of files", 20) == index.search("union find of files", 20)


def test_one_block_can_be_indexed(mined: MiningResult) -> None:
    only = mined.documents[0]
    assert [hit.block for hit in Index.build([only]).search(only.name, 3)] == [only]


def test_bad_input_is_refused(mined: MiningResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no blocks"):
        Index.build([])
    with pytest.raises(InputError, match=r"Unknown embedder 'bert'. Next: Known: none, minilm, ollama:NAME"):
        Index.build(mined.documents, embedder="bert")
    with pytest.raises(InputError, match="holds no index"):
        Index.load(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 99}')
    (tmp_path / "blocks.jsonl").write_text("")
    with pytest.raises(InputError, match="has format 99, not 3"):
        Index.load(tmp_path)
