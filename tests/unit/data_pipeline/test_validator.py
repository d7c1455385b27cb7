"""Checks, scores, filter and report of a dataset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ai_forge.config import ValidatorSettings
from ai_forge.data_pipeline import MiningResult, SymbolGraph, synthesize
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.validator import (
    assess,
    filter_dataset,
    generate_quality_report,
    read_dataset,
    score_data_quality,
    score_histogram,
    validate_code_block,
    validate_raft_example,
)
from ai_forge.errors import InputError


@pytest.fixture(scope="module")
def dataset(mined: MiningResult) -> list[RAFTExample]:
    graph = SymbolGraph(mined.documents, mined.imports)
    return synthesize(mined.blocks, documents=mined.documents, graph=graph).examples


def test_subjects_validate_and_spoiled_blocks_do_not(mined: MiningResult) -> None:
    assert [validate_code_block(block)[1] for block in mined.blocks if not validate_code_block(block)[0]] == []
    block = mined.blocks[0]
    spoiled = block.model_copy(update={"path": "../x.py", "language": "cobol", "name": "zzz", "docstring": None})
    _, problems = validate_code_block(spoiled)
    assert [p for p in problems if "cobol" in p or "relative" in p or "'zzz'" in p or p == "no_docstring"] == problems
    assert len(problems) == 4
    cut = block.model_copy(update={"source_code": block.source_code.partition("\n")[0]})
    assert any("lines of source" in problem for problem in validate_code_block(cut)[1])


def test_generated_examples_validate(dataset: list[RAFTExample]) -> None:
    assert [validate_raft_example(e)[1] for e in dataset if not validate_raft_example(e)[0]] == []


def test_each_spoiled_example_is_told_why(dataset: list[RAFTExample]) -> None:
    wanted = (e for e in dataset if e.family == "parameters" and e.difficulty == "medium")
    example = next(e for e in wanted if e.facts)
    oracle = example.oracle_documents[0]
    disguised = Document(block_id="0" * 16, name="b", citation="b.py:1-2", language="python", text=oracle.text)
    for change, message in [
        ({"difficulty": "easy"}, "is called easy, its documents make it medium"),
        ({"distractor_documents": (disguised,)}, "of the answer"),
        ({"distractor_documents": (oracle,)}, "shows a document twice"),
        ({"question": " "}, "question or the answer is empty"),
    ]:
        ok, problems = validate_raft_example(example.model_copy(update=change))
        assert not ok
        assert any(message in problem for problem in problems)


def test_good_data_scores_well_and_questions_put_to_wrong_documents_do_not(dataset: list[RAFTExample]) -> None:
    good = score_data_quality(dataset)
    assert good["passes"] == {"quality": True, "oracle_relevance": True, "distractor_relevance": True}
    scores = [s.quality for s in assess(dataset).scores]
    assert sum(0.7 <= score <= 0.97 for score in scores) > 0.7 * len(scores)
    questions = [e.question for e in dataset]
    shuffled = [
        e.model_copy(update={"question": questions[(i + len(dataset) // 2) % len(dataset)]})
        for i, e in enumerate(dataset)
    ]
    bad = assess(shuffled)
    assert bad.metrics.relevance is not None
    assert bad.metrics.relevance < 0.4
    assert score_data_quality(shuffled)["passes"]["oracle_relevance"] is False  # type: ignore[index]


def test_filter_drops_duplicates_and_broken_examples_with_reasons(dataset: list[RAFTExample]) -> None:
    some = [e for e in dataset if e.oracle_documents][:40]
    clean, _ = filter_dataset(some)
    broken = clean[0].model_copy(update={"reasoning": "No citation here."})
    near = clean[1].model_copy(update={"question": clean[1].question + " "})
    kept, rejected = filter_dataset([*clean, clean[2], broken, near])
    assert kept == clean
    assert rejected == {"duplicate": 1, "not_valid": 1, "near_duplicate": 1}
    assert score_data_quality([*clean, clean[2], near])["n_duplicates"] == 1


def test_thresholds_are_settable(dataset: list[RAFTExample]) -> None:
    kept, rejected = filter_dataset(dataset, ValidatorSettings(min_quality=0.85))
    assert rejected["low_quality"] > 0
    assert len(kept) < len(dataset)


def test_an_empty_dataset_is_unscored_not_zero() -> None:
    scores = score_data_quality([])
    assert scores["overall"] is None
    assert scores["passes"] == {"quality": None, "oracle_relevance": None, "distractor_relevance": None}
    assert "nothing to score" in generate_quality_report([])


def test_the_report_shows_size_distribution_histogram_and_the_worst(dataset: list[RAFTExample]) -> None:
    kept, rejected = filter_dataset([*dataset, dataset[0]])
    report = generate_quality_report(kept, before=len(dataset) + 1, rejected=rejected)
    for part in ("# Data quality", "meets ≥ 0.6", "before the filter", "| duplicate | −1 |", "| Family |", "█",
                 "## Failure modes", "## The worst examples", "- oracle: `"):  # fmt: skip
        assert part in report
    worst = min(zip(assess(kept).scores, kept, strict=True), key=lambda pair: (pair[0].quality, pair[1].id))[1]
    assert worst.question in report


def test_the_histogram_is_a_png(dataset: list[RAFTExample]) -> None:
    assert score_histogram(assess(dataset[:50]).scores).startswith(b"\x89PNG")


def test_read_dataset_names_the_bad_line(tmp_path: Path, dataset: list[RAFTExample]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(dataset[0].model_dump_json() + "\n\n" + dataset[1].model_dump_json() + "\n")
    assert read_dataset(path) == dataset[:2]
    path.write_text(dataset[0].model_dump_json() + "\n{}\n")
    with pytest.raises(InputError, match=r"Line 2 of .* is not a RAFTExample: question: Field required"):
        read_dataset(path)
    with pytest.raises(InputError, match="is not a file"):
        read_dataset(tmp_path / "no")


def test_the_module_runs_as_a_command(tmp_path: Path, dataset: list[RAFTExample]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(e.model_dump_json() + "\n" for e in dataset[:20]))
    command = [sys.executable, "-W", "error", "-m", "ai_forge.data_pipeline.validator", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["n_examples"] == 20
    report = subprocess.run([*command, "--report"], capture_output=True, text=True, check=True)
    assert report.stdout.startswith("# Data quality")
