"""`python tests/oracles/known_names.py FOLDER…`: the names of checked-out repositories, for `tests/labelled_answers.py`.

Writes `tests/fixtures/known_names/NAME.json.gz`: words, definitions (not those of tests), files and imports, none of the text.
"""

import gzip
import json
import sys
from pathlib import Path

from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.entries import entries_beside_code
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.judge.metrics.known_names import KnownNames

TARGET = Path(__file__).parents[1] / "fixtures" / "known_names"


def names_of(folder: Path) -> dict:
    repository = read_repository(folder)
    blocks = mine_repository(repository).documents
    defining = [block for block in blocks if "test" not in block.path.lower() and "bench" not in block.path]
    beside = [entry.document() for entry in entries_beside_code(repository)]
    known = KnownNames.of(defining, beside, roots=[folder.resolve().name.replace("-", "_")], packages=())
    for block in blocks:
        known.add_text(block.source_code)
    for file in repository.files:
        known.last_lines.setdefault(file.path, file.content.count(b"\n") + 1)
    symbols = [symbol for same in known.symbols.values() for symbol in same]
    return {
        "words": sorted(known.words),
        "bound": sorted(known.bound),
        "last_lines": known.last_lines,
        "modules": sorted(known.modules),
        "roots": sorted(known.roots),
        "symbols": [
            [s.qualified_name, s.kind, None if s.parameters is None else sorted(s.parameters), s.bases, sorted(s.words)]
            for s in symbols
        ],
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = TARGET / f"{Path(name).resolve().name}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(names_of(Path(name))).encode(), 9, mtime=0))
