"""Datasets in every format and container: read, written, turned into one another, looked at, compared."""

import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from ai_forge.data_pipeline import mine_repository, read_repository, synthesize
from ai_forge.data_pipeline.datasets.formats import Dataset, Format, convert, read_dataset, write_records
from ai_forge.data_pipeline.datasets.parquet import read_rows
from ai_forge.data_pipeline.datasets.storage import read_manifest, write_dataset
from ai_forge.data_pipeline.datasets.views import compare, figures, readable, select
from ai_forge.data_pipeline.examples.preferences import answer_pairs
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import InputError

SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Größe?"},
        {"from": "gpt", "value": "Ten.\nOr more."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
}
ALPACA = [
    {"instruction": "Add the numbers.", "input": "1 2", "output": "3"},
    {"instruction": "Say hi.", "input": "", "output": "Hi — “you”."},
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[RAFTExample, ...]:
    root = tmp_path_factory.mktemp("few")
    for name in ("bisect", "heapq", "shlex", "textwrap"):
        shutil.copy(Path(sysconfig.get_path("stdlib")) / f"{name}.py", root)
    result = mine_repository(read_repository(root))
    return tuple(synthesize(result.blocks, documents=result.documents).examples)


@pytest.fixture(scope="module")
def raft(examples: tuple[RAFTExample, ...]) -> Dataset:
    return Dataset("raft", examples)


def put(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else "".join(f"{json.dumps(v)}\n" for v in value), encoding="utf-8")
    return path


# -- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("format", ["raft", "preference", "alpaca", "sharegpt", "messages", "text"])
def test_what_is_written_is_read_again(tmp_path: Path, raft: Dataset, format: Format, ending: str) -> None:
    made = Dataset("preference", answer_pairs(raft.records).pairs) if format == "preference" else convert(raft, format)  # type: ignore[arg-type]
    path = tmp_path / f"data.{ending}"
    write_records(path, made)
    again = read_dataset(path)
    assert (again.format, again.records, again.losses) == (format, made.records, ())
    assert [record.id for record in again.records] == [record.id for record in made.records]


def test_plain_text_pages_are_read_again(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "One\n\nstill one\n\f\nTwo\n")
    dataset = read_dataset(path)
    assert [record.text for record in dataset.records] == ["One\n\nstill one", "Two"]  # type: ignore[union-attr]
    write_records(tmp_path / "b.txt", dataset)
    assert (tmp_path / "b.txt").read_text() == path.read_text()


def test_sharegpt_and_messages_lose_nothing(tmp_path: Path) -> None:
    dataset = read_dataset(put(tmp_path / "a.jsonl", [SHAREGPT]))
    messages = convert(dataset, "messages")
    assert messages.losses == ()
    write_records(tmp_path / "b.jsonl", messages)
    roles = [m["role"] for m in json.loads((tmp_path / "b.jsonl").read_text())["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    write_records(tmp_path / "c.jsonl", convert(read_dataset(tmp_path / "b.jsonl"), "sharegpt"))
    assert json.loads((tmp_path / "c.jsonl").read_text(encoding="utf-8")) == SHAREGPT


def test_what_alpaca_cannot_hold_is_said(tmp_path: Path) -> None:
    short = {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "A"},
        ]
    }
    path = put(tmp_path / "a.jsonl", [short, {"messages": short["messages"] + short["messages"][1:]}])
    made = convert(read_dataset(path), "alpaca")
    assert [r.alpaca() for r in made.records] == [{"instruction": "Q", "input": "", "output": "A"}]  # type: ignore[union-attr]
    assert set(made.losses) == {
        "whole conversations of more than one exchange (1 records)",
        "the system message (1 records)",
    }


def test_instruction_and_input_become_one_turn_and_that_is_said(tmp_path: Path) -> None:
    dataset = read_dataset(put(tmp_path / "a.json", json.dumps(ALPACA)))
    made = convert(dataset, "messages")
    assert [m.content for m in made.records[0].messages] == ["Add the numbers.\n\n1 2", "3"]  # type: ignore[union-attr]
    assert made.losses == ("the border between instruction and input (all records)",)
    back = convert(made, "alpaca").records[0]
    assert back.alpaca() == {"instruction": "Add the numbers.\n\n1 2", "input": "", "output": "3"}  # type: ignore[union-attr]


def test_a_raft_example_is_the_prompt_that_is_trained_on(raft: Dataset) -> None:
    made = convert(raft, "messages")
    example, chat = raft.records[0], made.records[0]
    assert chat.messages[-1].content == example.target  # type: ignore[union-attr]
    assert chat.messages[1].content.endswith(f"Question: {example.question}")  # type: ignore[union-attr]
    assert "facts (all records)" in made.losses


def test_fields_that_no_format_knows_are_counted_as_lost(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", [{**ALPACA[0], "text": "x"}, {**ALPACA[1], "text": "y", "id": 3}])
    assert read_dataset(path).losses == ("the field 'text' of 2 records", "the field 'id' of 1 records")


@pytest.mark.parametrize(
    ("source", "to"), [("alpaca", "raft"), ("messages", "preference"), ("text", "alpaca"), ("raft", "preference")]
)
def test_what_would_have_to_be_invented_is_refused(raft: Dataset, source: Format, to: Format) -> None:
    with pytest.raises(InputError, match=f"{source} cannot become {to}: {to} needs "):
        convert(convert(raft, source), to)


# -- bad input ------------------------------------------------------------------------------------------------------

GOOD = json.dumps(ALPACA[0])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", f"{GOOD}\n\n{{bad\n", r"Line 3 of .*a\.jsonl is no JSON: Expecting property name"),
        ("a.jsonl", f'{GOOD}\n{{"instruction": "x"}}\n', r"Line 2 of .* is no alpaca record: output: Field required"),
        (
            "a.jsonl",
            f'{GOOD}\n{{"instruction": "x", "output": 3}}\n',
            r"Line 2 of .*: output: Input should be a valid string",
        ),
        ("a.jsonl", f"{GOOD}\n[1]\n", r"Line 2 of .*: a record is an object, not a list"),
        ("a.json", f"[\n{GOOD},\n\n{{}}\n]", r"Line 4 of .* is no alpaca record: instruction: Field required"),
        ("a.json", f"[\n{GOOD}\n{GOOD}]", r"Line 3 of .* is no JSON: a comma or \] is missing"),
        ("a.json", f"[\n{GOOD},\n{{'a': 1}}]", r"Line 3 of .* is no JSON"),
        ("a.json", f"[\n{GOOD},\n", r"Line 3 of .* is no JSON"),
        ("a.json", "[]", "holds no records"),
        ("a.jsonl", "\n\n", "holds no records"),
        (
            "a.jsonl",
            '{"prompt": "x"}\n',
            "first record of .* is of no known format; it has: prompt. Next: Known are raft: ",
        ),
        ("a.jsonl", "3\n", "is of no known format; it has: int"),
        ("a.jsonl", '{"conversations": [{"from": "bot", "value": "x"}]}', "a turn is from 'bot'; known are human, gpt"),
        ("a.jsonl", '{"conversations": [{"from": "human"}]}', "Line 1 of .*: 'value' is missing"),
        ("a.jsonl", '{"messages": [{"role": "tool", "content": "x"}]}', "Line 1 of .*messages.0.role: Input should be"),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "x"}]}',
            "turns must go user, assistant",
        ),
        ("a.jsonl", '{"messages": 3}', "Line 1 of .* is no messages record"),
        ("a.jsonl", "[" * 100_000, "is no JSON"),
        ("a.csv", "a,b", r"ends with \.csv. Next: Give a file that ends with .jsonl, .json, .parquet, .txt"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
    ],
)
def test_bad_input_is_named_with_its_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_dataset(put(tmp_path / name, text))


def test_missing_and_undecodable_files_are_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(InputError, match="does not exist"):
            read_dataset(tmp_path / name)
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        read_dataset(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a"])
def test_a_file_that_cannot_hold_the_format_is_refused(tmp_path: Path, raft: Dataset, name: str) -> None:
    with pytest.raises(InputError, match="cannot hold raft"):
        write_records(tmp_path / name, raft)
    assert list(tmp_path.iterdir()) == []


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_dataset_folder_has_a_manifest_that_its_files_must_match(
    tmp_path: Path, examples: tuple[RAFTExample, ...]
) -> None:
    parts = {"train": examples[:20], "valid": examples[20:25], "test": ()}
    made = write_dataset(tmp_path, parts, RAFTExample, provenance={"commit": "abc"}, settings={"seed": 0})
    assert made["counts"] == {"train": 20, "valid": 5, "test": 0}
    assert (made["kind"], made["schema_version"], made["provenance"], made["settings"]) == (
        "RAFTExample", 1, {"commit": "abc"}, {"seed": 0},
    )  # fmt: skip
    assert tuple(map(RAFTExample.model_validate, read_rows(tmp_path / "train.parquet"))) == examples[:20]
    assert read_rows(tmp_path / "test.parquet") == []
    dataset = read_dataset(tmp_path)
    assert dataset.records == examples[:25]
    assert figures(dataset)["parts"] == made["counts"]
    again = write_dataset(tmp_path, parts, RAFTExample, provenance={}, settings={})
    other = write_dataset(tmp_path, {**parts, "valid": examples[20:24]}, RAFTExample, provenance={}, settings={})
    assert again["hash"] == made["hash"] != other["hash"]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"train\.jsonl is not the file that dataset\.json lists"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"), [("{}", "no readable dataset.json"), ('{"schema_version": 99, "files": {}}', "schema version 99")]
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, text: str, told: str) -> None:
    put(tmp_path / "dataset.json", text)
    with pytest.raises(InputError, match=told):
        read_manifest(tmp_path)


# -- views ----------------------------------------------------------------------------------------------------------


def test_figures_are_counted(raft: Dataset, examples: tuple[RAFTExample, ...]) -> None:
    found = figures(Dataset("raft", (*examples, examples[0])))
    assert (found["records"], found["duplicates"]) == (len(examples) + 1, 1)
    assert sum(found["by_family"].values()) == sum(found["by_difficulty"].values()) == len(examples) + 1
    assert found["citation_share"] == 1.0
    without = sum(not e.oracle_documents for e in (*examples, examples[0]))
    assert found["without_oracle_share"] == pytest.approx(without / (len(examples) + 1))
    assert found["tokens"]["prompt"]["sum"] > found["tokens"]["answer"]["sum"] > 0
    assert found["tokens"]["prompt"]["median"] <= found["tokens"]["prompt"]["p95"] <= found["tokens"]["prompt"]["max"]
    alone = tuple(e for e in examples if not e.oracle_documents)
    assert figures(Dataset("raft", alone))["citation_share"] is None


def test_selection_and_reading(raft: Dataset) -> None:
    chosen = select(raft, family="purpose", difficulty="easy")
    assert chosen
    assert all((e.family, e.difficulty) == ("purpose", "easy") for e in chosen)  # type: ignore[union-attr]
    text = readable(chosen[0])
    assert chosen[0].question in text  # type: ignore[union-attr]
    assert f"* {chosen[0].oracle_documents[0].citation}" in text  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"No record has the family 'nothing'. Next: There are: .*purpose"):
        select(raft, family="nothing")
    with pytest.raises(InputError, match="none, alpaca has no difficulty"):
        select(convert(raft, "alpaca"), difficulty="easy")


def test_a_difference_tells_added_removed_and_changed(raft: Dataset, examples: tuple[RAFTExample, ...]) -> None:
    changed = examples[2].model_copy(update={"final_answer": "Another answer."})
    found = compare(
        Dataset("raft", examples[:5]), Dataset("raft", (examples[0], examples[1], changed, examples[4], examples[5]))
    )
    assert found.added == (examples[5],)
    assert found.removed == (examples[3],)
    assert found.changed == ((examples[2], changed),)
    assert found.n_same == 3
    with pytest.raises(InputError, match="One dataset is raft, the other alpaca"):
        compare(raft, convert(raft, "alpaca"))
