"""How often the search for secrets touches code that holds none, and what it costs beside parsing.

python bench/secrets_false_alarms.py [FOLDER]      the standard library of this Python, if no folder is named
"""

import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from tree_sitter import Parser

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline.languages import load
from ai_forge.data_pipeline.miner import mine
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.mining.parsing import normalise
from ai_forge.data_pipeline.secrets.masking import scrub
from ai_forge.data_pipeline.source.repository import SourceFile, blob_id


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["stdlib"])
    paths = sorted(p for p in root.rglob("*.py") if "site-packages" not in p.parts and p.stat().st_size < 1_000_000)
    contents = {str(path.relative_to(root)): path.read_bytes() for path in paths}
    texts = [normalise(content) for content in contents.values()]
    scrub(b"q8Zr2LmX0vTy5KdJ3bWe")  # loads detect-secrets
    began = time.process_time()
    found = [scrub(text) for text in texts]
    scrub_s = time.process_time() - began
    grammar, _ = load("python") or sys.exit("pip install tree-sitter-python")
    began = time.process_time()
    for text in texts:
        Parser(grammar).parse(text)
    parse_s = time.process_time() - began
    result = mine([SourceFile(path, content, blob_id(content)) for path, content in contents.items()], MinerSettings())
    size = sum(map(len, texts)) / 1e6
    print(
        f"{len(texts)} files, {size:.1f} MB: search {scrub_s:.2f} s, parse alone {parse_s:.2f} s ({scrub_s / parse_s:.0%})"
    )
    print("kinds:", dict(sum((scrubbed.kinds for scrubbed in found), Counter()).most_common()))
    for name, blocks in (
        ("all blocks", result.documents),
        ("without tests", [block for block in result.documents if not is_test_path(block.path)]),
    ):
        touched = sum(1 for block in blocks if block.metadata.n_masked)
        print(f"{name}: {touched} of {len(blocks)} masked ({touched / len(blocks):.3%})")
    print("dropped for a secret:", result.rejected["secret"])


if __name__ == "__main__":
    main()
