"""Frozen pydantic values as Parquet and back. Columns and types come from the model, so every file of a kind has the same.

Nested models become structs, tuples become lists, literals strings.
"""

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ai_forge.errors import InputError, InternalError
from ai_forge.json_lines import JsonObject

__all__ = ["read_rows", "write_rows_as"]


def write_rows_as(file: BinaryIO, rows: Sequence[JsonObject], kind: type[BaseModel] | None) -> None:
    """Write rows with the columns of `kind`, or with those that the rows have."""
    # Loaded on first use: most commands neither read nor write Parquet.
    import pyarrow
    import pyarrow.parquet

    schema = None
    if kind is not None:  # from the model: rows whose every value is None, or none at all, would tell no type
        schema = pyarrow.schema(_columns(kind))
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    pyarrow.parquet.write_table(table, file, compression="zstd")


def read_rows(path: Path) -> list[JsonObject]:
    """The rows of a Parquet file. Raises InputError: it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[JsonObject] = pyarrow.parquet.read_table(path).to_pylist()
    except (
        OSError,
        ValueError,
        ArithmeticError,
        pyarrow.ArrowException,
    ) as error:  # texts and dates that are none, too
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as Parquet: {reason}", "Give a file that ends with .parquet and is one."
        ) from error
    return rows


def _columns(kind: type[BaseModel]) -> list[tuple[str, Any]]:
    return [(name, _type_of(field.annotation)) for name, field in kind.model_fields.items()]


def _type_of(annotation: Any) -> Any:
    """The Arrow type of a field's annotation."""
    import pyarrow

    origin, arguments = get_origin(annotation), [a for a in get_args(annotation) if a is not NoneType]
    if origin in (Union, UnionType) and len(arguments) == 1:
        return _type_of(arguments[0])
    if origin is Literal or annotation is str:
        return pyarrow.string()
    if origin is tuple:
        return pyarrow.list_(_type_of(arguments[0]))
    if annotation in (bool, int, float):
        return {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pyarrow.struct(_columns(annotation))
    raise InternalError(
        f"A field of type {annotation} has no Parquet type.", "add one in data_pipeline/datasets/parquet.py."
    )
