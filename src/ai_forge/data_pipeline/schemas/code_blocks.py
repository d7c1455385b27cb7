"""`CodeBlock`: one whole syntactic unit of a repository, with where it came from."""

import hashlib
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Value = TypeVar("Value", bound=BaseModel)
BlockType = Literal["function", "method", "class", "interface", "type", "module"]


def content_id(*parts: str) -> str:
    """Sixteen hex digits of the SHA-256 over `parts`: the id of a value made of them.

    >>> content_id("a", "b") == content_id("a", "b"), content_id("a", "b") == content_id("ab")
    (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")  # a path that is no UTF-8 holds lone surrogates
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:16]


@cache
def _fields_of(kind: type[BaseModel]) -> set[str]:
    return set(kind.model_fields)


def trusted(kind: type[Value], values: dict[str, Any]) -> Value:
    """A model of `values`, which hold every field in order and are valid: made without validation, in a quarter of its time.

    For values that this program made itself; `values` becomes the model's own.
    """
    # The miner makes every block so, and again when it reads one out of its cache. On 267 blocks one with its metadata
    # took 1.5 µs, validated 6 to 9 µs, and 9 µs by pydantic's own `model_construct`, which goes through all fields.
    # It is safe because the values are what the miner's code computed (its cache is kept under the hash of that code),
    # these kinds have no validators, private attributes or extra fields, and the four slots below are all that a model
    # has. A test compares the result with a validated model, should pydantic change.
    made = kind.__new__(kind)
    object.__setattr__(made, "__dict__", values)
    object.__setattr__(made, "__pydantic_fields_set__", _fields_of(kind))
    object.__setattr__(made, "__pydantic_extra__", None)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


class Import(NamedTuple):
    """A name that a file's import binds: `local` is `original` (or, if None, the module itself) of `module`."""

    local: str
    module: str
    original: str | None


class Guard(BaseModel):
    """A condition that ends the block early: `if condition:` with nothing but a raise or a return in its body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    condition: str = Field(description="as written, on one line")
    action: Literal["raise", "return"]
    outcome: str = Field(description="the statement as written, on one line; empty where it is long")
    line: int = Field(ge=1)


class BlockMetadata(BaseModel):
    """Where a block stands and what its syntax says about it.

    Lines count from 1 and both ends belong to the block. `raises` holds the exception names that the block's own body
    raises (or throws), in order of appearance; `parameters` the declared names without `self`, `cls` or a receiver.
    `calls` holds the called names as written (`a.b.c`), `imports` the local names bound by imports that the block uses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_line: int = Field(ge=1)
    last_line: int = Field(ge=1)
    qualified_name: str
    signature: str = ""
    parameters: tuple[str, ...] = ()
    returns: str | None = None
    raises: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    method_names: tuple[str, ...] = ()
    is_async: bool = False
    is_generator: bool = False
    guards: tuple[Guard, ...] = ()
    return_values: tuple[str, ...] = Field(default=(), description="short returned expressions, as written")
    complexity: int = Field(default=1, ge=1, description="McCabe: one plus the number of branches")
    n_tokens: int = Field(default=0, ge=0, description="approximate, see `approximate_tokens`")
    score: float = Field(default=0.0, ge=0.0, le=1.0)
    part: int = Field(
        default=0, ge=0, description="which part of a unit that was too long, from 1; 0 is the whole unit"
    )
    n_parts: int = Field(default=0, ge=0, description="parts of the unit, 0 where it is whole")
    head_lines: int = Field(
        default=0, ge=0, description="lines of a part above its own: the unit's signature and docstring"
    )
    tail_lines: int = Field(default=0, ge=0, description="lines of a part below its own: what closes the unit")
    commit: str | None = None
    blob_id: str = Field(description="git's blob id of the file the block was read from")
    licence: str | None = Field(default=None, description="SPDX expression of the file, or of its nearest licence file")
    n_masked: int = Field(
        default=0, ge=0, description="lines on which a secret's value was replaced by the placeholder"
    )


class CodeBlock(BaseModel):
    """One function, method, class or head of a module, whole, as it stands in its file, or a part of a long one.

    `path` is relative to the repository with forward slashes; a module is named by its file. `source_code` is the text of
    lines `first_line` to `last_line` with the common indentation kept; in a part these lines stand between `head_lines`
    and `tail_lines` lines repeated from elsewhere in the unit. `dependencies` are the names that the block refers to and
    that are defined outside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    language: str
    block_type: BlockType
    name: str
    docstring: str | None
    source_code: str
    dependencies: tuple[str, ...] = ()
    metadata: BlockMetadata

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without the id of the original."""
        copied = super().model_copy(update=update, deep=deep)
        # A cached property lies among the fields and is copied with them; it would be the id of other content.
        copied.__dict__.pop("id", None)
        return copied

    @cached_property
    def id(self) -> str:
        """Content hash over place and text: equal for equal blocks in every run."""
        return content_id(self.path, str(self.metadata.first_line), self.block_type, self.source_code)

    @property
    def citation(self) -> str:
        """How an answer names this block: `path:first-last`."""
        return f"{self.path}:{self.metadata.first_line}-{self.metadata.last_line}"
