"""Datasets of other tools, read and written: what each holds, and what is lost on the way to another.

    raft         this project's `RAFTExample`                          jsonl, json, parquet
    preference   this project's `PreferencePair`                       jsonl, json, parquet
    alpaca       {"instruction", "input", "output"}                    jsonl, json, parquet
    sharegpt     {"conversations": [{"from": "human", "value": …}]}    jsonl, json, parquet
    messages     {"messages": [{"role": "user", "content": …}]}        jsonl, json, parquet   (OpenAI)
    text         {"text"}, or plain text, pages divided by form feeds  jsonl, json, parquet, txt

The format is recognised by the first record's keys, the container by the file's ending. A record that is not what the
first one promised is an error that names its line (or row).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError

from ai_forge.data_pipeline.datasets.rows import ENDINGS, numbered_rows, write_rows
from ai_forge.data_pipeline.datasets.storage import DATASET_MANIFEST, read_manifest
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.chats import ChatExample, TextExample
from ai_forge.data_pipeline.schemas.instructions import ALPACA_FIELDS, AlpacaPair
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PreferencePair
from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.prompting.prompt import messages_for

__all__ = ["FORMATS", "Dataset", "Format", "Record", "convert", "read_dataset", "write_records"]

Format = Literal["raft", "preference", "alpaca", "sharegpt", "messages", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)
Record = RAFTExample | PreferencePair | AlpacaPair | ChatExample | TextExample
KINDS: dict[Format, type[BaseModel]] = {
    "raft": RAFTExample,
    "preference": PreferencePair,
    "alpaca": AlpacaPair,
    "sharegpt": ChatExample,
    "messages": ChatExample,
    "text": TextExample,
}
_KEYS: dict[Format, tuple[str, ...]] = {
    "raft": ("question", "oracle_documents"),
    "preference": ("prompt", "chosen", "rejected"),
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
    "messages": ("messages",),
    "text": ("text",),
}
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}
_LOST: dict[str, tuple[str, ...]] = {
    "raft": ("which documents are oracles", "facts", "family", "difficulty", "provenance"),
    "preference": ("the rejected answers", "kind", "provenance"),
    "alpaca": ("the border between instruction and input",),
}


@dataclass(frozen=True)
class Dataset:
    """Records of one format. `losses` says what is not in them that was where they came from."""

    format: Format
    records: tuple[Record, ...]
    losses: tuple[str, ...] = ()
    manifest: JsonObject = field(default_factory=dict)


def read_dataset(path: Path, format: Format | None = None) -> Dataset:
    """The records of a file, or of all parts of a dataset folder. `format` is recognised unless given.

    Raises InputError: it cannot be read, is empty, or a record is not of the format; the message names the line.
    """
    if path.is_dir():
        manifest = read_manifest(path)
        parts = [read_dataset(path / f"{name}.jsonl", format) for name, n in manifest["counts"].items() if n]
        if not parts:
            raise InputError(f"{path} holds no records.", f"See its {DATASET_MANIFEST}.")
        return Dataset(parts[0].format, tuple(record for part in parts for record in part.records), manifest=manifest)
    repairs: Counter[str] = Counter()
    rows = numbered_rows(path, repairs)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path} holds no records.", "Give a file with at least one.")
    found = format or _recognised(first[1], path)
    dropped: Counter[str] = Counter()
    records = tuple(_record(found, row, where, path, dropped) for where, row in chain([first], rows))
    losses = [f"the field {name!r} of {n} records" for name, n in dropped.items()]
    losses += [f"{what} in {n} records" for what, n in (+repairs).items()]
    return Dataset(found, records, tuple(losses))


def _recognised(row: Any, path: Path) -> Format:
    keys = row.keys() if isinstance(row, dict) else set[str]()
    for name in FORMATS:  # `text` last: many an Alpaca file holds the whole prompt as `text` besides
        if keys >= set(_KEYS[name]):
            return name
    known = "; ".join(f"{name}: {', '.join(needed)}" for name, needed in _KEYS.items())
    seen = ", ".join(sorted(map(str, keys))[:8]) or type(row).__name__
    raise InputError(f"The first record of {path} is of no known format; it has: {seen}.", f"Known are {known}.")


def _record(format: Format, row: Any, where: str, path: Path, dropped: Counter[str]) -> Record:
    try:
        if not isinstance(row, dict):
            raise ValueError(f"a record is an object, not a {type(row).__name__}")
        return _READERS[format](row, dropped)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    except KeyError as error:
        reason = f"{error.args[0]!r} is missing"
    except (ValueError, TypeError, AttributeError) as error:  # a turn that is no object, a list that is none
        reason = str(error)
    raise InputError(
        f"{where} of {path} is no {format} record: {reason}.", "Mend that record, or name its format with --from."
    )


def _only(row: JsonObject, names: Sequence[str], dropped: Counter[str]) -> JsonObject:
    dropped.update(name for name in row if name not in names)
    return {name: row[name] for name in names if row.get(name) is not None}


def _read_sharegpt(row: JsonObject, dropped: Counter[str]) -> ChatExample:
    turns = _only(row, ("conversations", "system"), dropped)
    messages: list[JsonObject] = []
    if turns.get("system"):  # in some files it stands beside the turns, in others it is the first of them
        messages.append({"role": "system", "content": turns["system"]})
    for turn in turns["conversations"]:
        if turn["from"] not in _ROLES:
            raise ValueError(f"a turn is from {turn['from']!r}; known are {', '.join(_ROLES)}")
        messages.append({"role": _ROLES[turn["from"]], "content": turn["value"]})
    return ChatExample.model_validate({"messages": messages})


def _read_messages(row: JsonObject, dropped: Counter[str]) -> ChatExample:
    messages = _only(row, ("messages",), dropped)["messages"]
    return ChatExample.model_validate({"messages": [_only(turn, ("role", "content"), dropped) for turn in messages]})


_READERS: dict[Format, Callable[[JsonObject, Counter[str]], Record]] = {
    "raft": lambda row, _: RAFTExample.model_validate(row),
    "preference": lambda row, _: PreferencePair.model_validate(row),
    "alpaca": lambda row, dropped: AlpacaPair.model_validate(_only(row, ALPACA_FIELDS, dropped)),
    "sharegpt": _read_sharegpt,
    "messages": _read_messages,
    "text": lambda row, dropped: TextExample.model_validate(_only(row, ("text",), dropped)),
}


# -- from one to another --------------------------------------------------------------------------------------------


def chat_of(record: Record) -> ChatExample | None:
    """A record as a conversation; None for text, which has no roles."""
    if isinstance(record, ChatExample):
        return record
    if isinstance(record, RAFTExample):
        turns = [dict(m) for m in messages_for(record.question, record.shown_documents)]
        return ChatExample.model_validate({"messages": [*turns, {"role": "assistant", "content": record.target}]})
    if isinstance(record, PreferencePair):
        return ChatExample(messages=(*record.prompt, ChatMessage(role="assistant", content=record.chosen)))
    if isinstance(record, AlpacaPair):
        turns = [{"role": "user", "content": record.user_turn}, {"role": "assistant", "content": record.output}]
        return ChatExample.model_validate({"messages": turns})
    return None


def convert(dataset: Dataset, to: Format) -> Dataset:
    """The dataset in another format, with what is lost on the way.

    Raises InputError: the other format needs what this one does not have.
    """
    source = dataset.format
    if KINDS[source] is KINDS[to]:  # ShareGPT and OpenAI's messages differ only in how they are written
        return Dataset(to, dataset.records, dataset.losses, dataset.manifest)
    needs = {"raft": "documents and facts", "preference": "a rejected answer"}
    if to in needs or source == "text":
        lacking = needs.get(to, "roles: a question and an answer")
        raise InputError(
            f"{source} cannot become {to}: {to} needs {lacking}.", f"Convert from {to} instead, or choose another --to."
        )
    losses: Counter[str] = Counter()
    records: list[Record] = []
    for record in dataset.records:
        chat = chat_of(record)
        assert chat is not None, "text was refused above"
        made = _from_chat(chat, to, losses)
        if made is not None:
            records.append(made)
    if not records:
        raise InputError(
            f"None of the {len(dataset.records)} records can become {to}: {'; '.join(losses)}.", "Choose another --to."
        )
    always = [f"{what} (all records)" for what in _LOST.get(source, ())]
    if to == "text":
        always.append("roles (all records)")
    counted = [f"{what} ({n} records)" for what, n in losses.items()]
    return Dataset(to, tuple(records), (*dataset.losses, *always, *counted), dataset.manifest)


def _from_chat(chat: ChatExample, to: Format, losses: Counter[str]) -> Record | None:
    if to == "text":
        return TextExample(text="\n\n".join(turn.content for turn in chat.messages))
    if to != "alpaca":
        return chat
    turns = [turn for turn in chat.messages if turn.role != "system"]
    if len(turns) > 2:
        losses["whole conversations of more than one exchange"] += 1
        return None
    if not turns[0].content or not turns[1].content:
        losses["whole conversations with an empty turn"] += 1
        return None
    if len(turns) < len(chat.messages):
        losses["the system message"] += 1
    return AlpacaPair(instruction=turns[0].content, output=turns[1].content)


def rows_of(dataset: Dataset) -> list[JsonObject]:
    """The records as their format writes them."""
    rows: list[JsonObject] = []
    for record in dataset.records:
        if isinstance(record, AlpacaPair):  # a handbook's pair without its place: other tools know the three fields
            rows.append(dict(record.alpaca()))
        elif isinstance(record, ChatExample) and dataset.format == "sharegpt":
            turns = [{"from": _SHAREGPT_ROLES[turn.role], "value": turn.content} for turn in record.messages]
            rows.append({"conversations": turns})
        else:
            rows.append(record.model_dump(mode="json"))
    return rows


def write_records(path: Path, dataset: Dataset) -> None:
    """Write a dataset to a file; its ending says how. The file appears whole or not at all.

    Raises InputError: the ending is unknown, or `.txt` for what is not text.
    """
    endings = ENDINGS if dataset.format == "text" else ENDINGS[:-1]
    if path.suffix.lower() not in endings:
        raise InputError(f"{path} cannot hold {dataset.format}.", f"Give a name that ends with {', '.join(endings)}.")
    # ShareGPT's rows are not as `ChatExample` has them: Parquet takes its columns from the rows then.
    write_rows(path, rows_of(dataset), None if dataset.format == "sharegpt" else KINDS[dataset.format])
