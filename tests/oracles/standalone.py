"""Whether each mined Python block is Python on its own."""

import ast
import warnings
from collections.abc import Iterable
from pathlib import Path

from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline import SourceFile, mine
from ai_forge.data_pipeline.source.repository import blob_id


def blocks_that_do_not_parse(paths: Iterable[Path]) -> tuple[int, list[str]]:
    """How many blocks the files give, and the citations of those that `ast` refuses when dedented.

    Only files that `ast` parses whole are mined. An indented block is put below `if True:`, which dedents it without
    touching the text of its multi-line strings.
    """
    n_blocks, broken = 0, []
    for path in paths:
        content = path.read_bytes()
        if not _parses(content):
            continue
        for block in mine([SourceFile(path.name, content, blob_id(content))], MinerSettings()).documents:
            n_blocks += 1
            nested = block.source_code[:1] in (" ", "\t")
            if not _parses(("if True:\n" if nested else "") + block.source_code):
                broken.append(f"{path}: {block.citation}")
    return n_blocks, broken


def _parses(source: str | bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(source)
        except (SyntaxError, ValueError):
            return False
    return True
