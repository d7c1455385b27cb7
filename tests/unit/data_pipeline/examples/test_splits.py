"""The split by file, and the leak check on planted leaks."""

from collections import Counter

import pytest

from ai_forge.config import SplitSettings
from ai_forge.data_pipeline import (
    MiningResult,
    SourceFile,
    Split,
    SymbolGraph,
    check_no_leak,
    generate_qa_pairs,
    mine,
    split_by_file,
)
from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.errors import InputError


def function(name: str, words: str) -> str:
    body = "".join(f"    {name}_{word} = compute_{word}({word}, '{name}')\n" for word in words.split())
    head = f'def {name}({", ".join(words.split())}):\n    """Combine {words} into one {name} value."""\n'
    return f"{head}{body}    return {name}\n\n"


def blocks_of(files: dict[str, str]) -> MiningResult:
    return mine([SourceFile(path, text.encode(), blob_id(text.encode())) for path, text in files.items()])


def distinct_files(n: int) -> dict[str, str]:
    return {
        f"pkg/m{i}.py": "".join(function(f"f{i}_{j}", f"alpha{i}{j} beta{i}{j} gamma{i}{j}") for j in range(3))
        for i in range(n)
    }


def test_sides_are_whole_files_near_the_wanted_shares_and_reproducible() -> None:
    mined = blocks_of(distinct_files(20))
    split = split_by_file(mined.blocks, documents=mined.documents)
    sizes = {side: counts["subjects"] for side, counts in split.summary().items() if side != "rule"}
    assert sizes == {"train": 42, "valid": 6, "test": 12}
    paths = [{b.path for b in side} for side in (split.train, split.valid, split.test)]
    assert sum(map(len, paths)) == len(set().union(*paths)) == 20
    assert split_by_file(mined.blocks, documents=mined.documents) == split
    assert split_by_file(mined.blocks, SplitSettings(seed=1)).side_of_file != split.side_of_file


@pytest.mark.parametrize("n", [3, 4, 5])
def test_few_files_give_each_side_at_least_one(n: int) -> None:
    counts = Counter(split_by_file(blocks_of(distinct_files(n)).blocks).side_of_file.values())
    assert min(counts["train"], counts["valid"], counts["test"]) >= 1


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_files_are_refused(n: int) -> None:
    with pytest.raises(InputError, match=f"at least 3 files with blocks to ask about, found {n}"):
        split_by_file(blocks_of(distinct_files(n)).blocks)


def test_near_copies_of_one_file_are_refused_and_a_higher_threshold_helps() -> None:
    text = function("same", "one two three four five six")
    files = {f"m{i}.py": text.replace("into one", f"into {i}") for i in range(4)}
    with pytest.raises(InputError, match=r"the 4 files with blocks to ask about make 1; .* or raise split.near_dup"):
        split_by_file(blocks_of(files).blocks)
    assert split_by_file(blocks_of(files).blocks, SplitSettings(near_duplicate=1)).train


@pytest.mark.parametrize(
    ("built", "found"), [("all.py", "with blocks to ask about, found 1"), ("z/all.py", "6 files with blocks .* make 1")]
)
def test_a_file_built_of_all_others_is_named_as_what_ties_them(built: str, found: str) -> None:
    """Of two copies the first is the subject: a build that is read first leaves the others without any."""
    files = distinct_files(6)
    mined = blocks_of(files | {built: "".join(files.values())})
    with pytest.raises(InputError, match=f"{found}; {built} shares code with 6 of the others. Next") as refused:
        split_by_file(mined.blocks, documents=mined.documents)
    assert f"name a folder without {built} if that file is built from others" in str(refused.value)
    assert "near_duplicate" not in str(refused.value), "copied word for word: no threshold parts them"
    assert split_by_file(blocks_of(files).blocks).train, "what is advised helps"


def test_near_duplicates_and_a_test_with_its_subject_stay_on_one_side() -> None:
    files = distinct_files(12)
    copied = function("copied", "one two three four five six seven eight nine ten")
    files["a/original.py"] = copied
    files["b/fork.py"] = copied.replace("into one", "into a")
    files["tests/test_m3.py"] = function("test_m3", "something other entirely")
    for seed in range(10):
        mined = blocks_of(files)
        side = split_by_file(mined.blocks, SplitSettings(seed=seed), documents=mined.documents).side_of_file
        assert side["a/original.py"] == side["b/fork.py"]
        assert side["tests/test_m3.py"] == side["pkg/m3.py"]


def own_split(mined: MiningResult) -> Split:
    return split_by_file(mined.blocks, documents=mined.documents)


def test_training_examples_of_this_project_do_not_leak(mined: MiningResult) -> None:
    split = own_split(mined)
    examples = generate_qa_pairs(
        split.train, documents=split.train_documents, graph=SymbolGraph(split.train_documents, mined.imports)
    )
    assert len(examples) > 200
    assert check_no_leak(examples, split) == []


def test_planted_leaks_are_found(mined: MiningResult) -> None:
    split = own_split(mined)
    (example, *_) = generate_qa_pairs(split.train, documents=split.train_documents)
    held_out = max(split.test, key=lambda block: block.metadata.n_tokens)
    shown = Document.from_block(held_out)
    as_distractor = example.model_copy(update={"distractor_documents": (shown,)})
    as_oracle = example.model_copy(update={"oracle_documents": (shown,)})
    about = example.model_copy(update={"subject_path": held_out.path})
    copy = {"path": split.train[0].path, "block_id": "f" * 16, "text": shown.text.replace("    ", "\t")}
    moved = shown.model_copy(update=copy)
    copied = example.model_copy(update={"distractor_documents": (moved,)})
    reasons = [[leak.reason for leak in check_no_leak([e], split)] for e in (as_distractor, as_oracle, about, copied)]
    assert reasons == [["held-out file"], ["held-out file"], ["held-out file"], ["copy of a held-out block"]]
    assert check_no_leak([as_distractor], split)[0].citation == held_out.citation


def test_settings_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 1, got 1\.2"):
        SplitSettings(train=0.9)
