"""Whether each mined block is of its language on its own: `python tests/oracles/standalone.py FOLDER…` counts in all languages.

What does not parse alone is printed with whether its brackets close. Half a definition would be among them; whole ones
are, too, where the grammar has a gap that is mended only beside what stands around it (macros, conditionals).
"""

import argparse
import ast
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline import SourceFile, mine, mine_repository
from ai_forge.data_pipeline.examples.block_tree import tree_of_block
from ai_forge.data_pipeline.mining.parsing import parse
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.source.repository import blob_id, read_repository


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


def _stands_alone(block: CodeBlock) -> bool:
    """Whether a block has a tree of its own, or its repaired text one without an error."""
    if tree_of_block(block) is not None:
        return True
    parsed = parse(block.source_code.encode(), block.language)
    return parsed is not None and not parsed.has_error


def _closes(text: str) -> bool:
    return all(text.count(pair[0]) == text.count(pair[1]) for pair in ("()", "[]", "{}"))


def main() -> int:
    """Count the units of each folder by language; print those that do not stand alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    total: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for folder in parser.parse_args().folders:
        for block in mine_repository(read_repository(folder)).documents:
            if block.metadata.part or block.block_type == "module":
                continue
            total[block.language] += 1
            if not _stands_alone(block):
                broken[block.language] += 1
                print(f"{folder.name} {block.citation} {'closes' if _closes(block.source_code) else 'OPEN'}")
    for language, n in total.most_common():
        print(f"{language}: {n} units, {broken[language]} do not parse on their own")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
