"""How often the search for secrets touches code that holds none, and what it costs beside reading.

    python bench/secrets_false_alarms.py REPOSITORY…             blocks, documents and commits of each that are masked
    python bench/secrets_false_alarms.py --write REPOSITORY…     the same, kept in bench/results/secrets_false_alarms.json

The code of well-known projects holds no secret, or one that everybody knows: what is masked outside their tests is a false alarm, but
for examples of keys and passwords in their documentation, which are told too: `--show` prints each line.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline.miner import mine
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.mining.parsing import normalise
from ai_forge.data_pipeline.search.entries import entries_beside_code
from ai_forge.data_pipeline.secrets.masking import scrub
from ai_forge.data_pipeline.source.repository import read_repository
from measure import record

MASKED = ("<masked>", "masked")


def looked_at(root: Path, *, show: bool) -> dict[str, Any]:
    """What is masked of one repository."""
    repository = read_repository(root)
    texts = {file.path: normalise(file.content) for file in repository.files}
    began = time.process_time()
    found = {path: scrub(text) for path, text in texts.items()}
    scrub_s = time.process_time() - began
    if show:
        for path, scrubbed in found.items():
            lines = texts[path].split(b"\n")
            for number in sorted(scrubbed.lines):
                print(f"{root.name}/{path}:{number}: {lines[number - 1][:160]!r}", file=sys.stderr)
    blocks = mine(repository.files, MinerSettings()).documents
    code = [block for block in blocks if not is_test_path(block.path)]
    beside = entries_beside_code(repository)
    return {
        "files": len(texts),
        "megabytes": round(sum(map(len, texts.values())) / 1e6, 2),
        "search_s": round(scrub_s, 2),
        "kinds": dict(sum((scrubbed.kinds for scrubbed in found.values()), Counter[str]()).most_common()),
        "blocks": len(code),
        "blocks_masked": sum(1 for block in code if block.metadata.n_masked),
        "test_blocks": len(blocks) - len(code),
        "test_blocks_masked": sum(1 for b in blocks if b.metadata.n_masked)
        - sum(1 for b in code if b.metadata.n_masked),
        "documents": len(beside),
        "documents_masked": sum(1 for entry in beside if MASKED[0] in entry.text),
    }


def main() -> None:
    """Look at each repository, tell all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--show", action="store_true", help="print each line that is masked")
    chosen = parser.parse_args()
    scrub(b"q8Zr2LmX0vTy5KdJ3bWe")  # loads detect-secrets
    each = {root.name: looked_at(root, show=chosen.show) for root in chosen.repositories}
    numbers = [{name: value for name, value in one.items() if isinstance(value, int | float)} for one in each.values()]
    total = {name: round(sum(one[name] for one in numbers), 2) for name in numbers[0]}
    made = {"repositories": len(each), "all": total, "each": each}
    if chosen.write:
        record("secrets_false_alarms", made)
    else:
        print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
