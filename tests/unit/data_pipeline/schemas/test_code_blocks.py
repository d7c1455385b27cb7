"""A block made without validation is the one that validation makes."""

import pickle

import pytest
from pydantic import ValidationError

from ai_forge.data_pipeline.schemas import BlockMetadata, CodeBlock, Guard
from ai_forge.data_pipeline.schemas.code_blocks import trusted

GUARD = {"condition": "not rows", "action": "return", "outcome": "return []", "line": 4}


def test_trusted_block_is_as_validated() -> None:
    validated = CodeBlock(
        path="a.py",
        language="python",
        block_type="function",
        name="read",
        docstring=None,
        source_code="def read(): ...",
        metadata=BlockMetadata(
            first_line=3, last_line=4, qualified_name="read", blob_id="0" * 40, guards=(Guard.model_validate(GUARD),)
        ),
    )
    values, meta = dict(validated.__dict__), dict(validated.metadata.__dict__)
    meta["guards"] = (trusted(Guard, dict(GUARD)),)
    values["metadata"] = trusted(BlockMetadata, meta)
    made = trusted(CodeBlock, values)
    assert made == validated
    assert made.id == validated.id
    assert made.model_dump_json() == validated.model_dump_json()
    assert pickle.loads(pickle.dumps(made)) == validated
    assert made.model_copy(update={"name": "load"}) == validated.model_copy(update={"name": "load"})
    with pytest.raises(ValidationError, match="frozen"):
        made.name = "load"  # type: ignore[misc]
