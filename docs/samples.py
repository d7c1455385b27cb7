"""Write docs/samples: what the data pipeline makes of this repository, for reading.

    python docs/samples.py          (the same as `make docs-samples`)
    python docs/samples.py FOLDER   write it elsewhere

Blocks, five examples of each difficulty as a model is shown them, the quality report of all training examples, and the
handbook file of `tests/fixtures/handbook`. The same commit and the same files give the same samples; no model is run.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ai_forge.config import MinerSettings, SynthesisSettings
from ai_forge.data_pipeline.examples.project_notes import read_notes
from ai_forge.data_pipeline.examples.splits import split_by_file
from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.handbook.handbook import FINE_TUNING_FILE, read_handbook
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.mining.filters import without_near_duplicates
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.schemas import CodeBlock, RAFTExample, content_id
from ai_forge.data_pipeline.source.file_dates import read_dates
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.data_pipeline.validator import filter_dataset, generate_quality_report
from ai_forge.prompting.prompt import user_turn

ROOT = Path(__file__).resolve().parents[1]
HANDBOOK = ROOT / "tests" / "fixtures" / "handbook"
MAX_BYTES = 200_000
MAX_LINES = 40
DIFFICULTIES = ("easy", "medium", "hard")
README = """# Samples

Written by `python docs/samples.py` (`make docs-samples`) from this repository at the commit that they were made from.

- `blocks.json`: {n_blocks} of {n_subjects} blocks that questions are asked about.
- `examples.txt`: five examples of each difficulty, as the model is shown them and is to answer; {n_examples} were made of the
  training side, {per_block:.1f} a block.
- `quality.md`: the quality report of all of these.
- `{handbook}`: Alpaca pairs from the handbook in `tests/fixtures/handbook`.
"""


def some_blocks(blocks: Sequence[CodeBlock], n: int) -> list[CodeBlock]:
    """`n` blocks of every kind in turn, drawn by content."""
    drawn = sorted((b for b in blocks if b.source_code.count("\n") < MAX_LINES), key=lambda b: content_id(b.id))
    kinds = dict.fromkeys(block.block_type for block in drawn)
    queues = [[block for block in drawn if block.block_type == kind] for kind in kinds]
    turns = [queue[turn] for turn in range(n) for queue in queues if turn < len(queue)]
    return turns[:n]


def some_examples(examples: Sequence[RAFTExample], n: int) -> list[RAFTExample]:
    """`n` examples of each difficulty, of as many families as can be, drawn by content."""
    chosen: list[RAFTExample] = []
    families: list[str] = []
    for difficulty in DIFFICULTIES:
        left = sorted((e for e in examples if e.difficulty == difficulty), key=lambda e: content_id(e.id))
        for _ in range(n):
            best = min(left, key=lambda e: families.count(e.family))
            left.remove(best)
            chosen.append(best)
            families.append(best.family)
    return chosen


def as_text(example: RAFTExample) -> str:
    """An example as it is read: what it is, the user's turn, the assistant's."""
    head = f"=== {example.difficulty}, {example.family}, about {example.subject_path} ==="
    facts = ", ".join(f"{fact.kind} {fact.value}" for fact in example.facts) or "none"
    turn = user_turn(example.question, example.shown_documents)
    return f"{head}\n\n--- user ---\n{turn}\n\n--- assistant ---\n{example.target}\n\n--- facts: {facts} ---\n"


def write_samples(folder: Path) -> list[Path]:
    """Write all files; raises SystemExit where they are larger than they may be."""
    repository = read_repository(ROOT)
    mined = mine_repository(repository)
    subjects, _ = without_near_duplicates(mined.blocks, MinerSettings().near_duplicate)
    split = split_by_file(subjects, documents=mined.documents, dates=read_dates(repository))
    notes = read_notes(repository, mined.documents)
    notes = notes.of_side("train", mined.documents, split.side_of_file, split.ends("train"))
    graph = SymbolGraph(split.train_documents, mined.imports)
    settings = SynthesisSettings(max_examples=100_000)
    made = synthesize(split.train, documents=split.train_documents, settings=settings, graph=graph, notes=notes)
    kept, dropped = filter_dataset(made.examples)
    blocks = some_blocks(split.train, 8)
    readme = README.format(
        n_blocks=len(blocks),
        n_subjects=len(subjects),
        n_examples=len(kept),
        per_block=len(kept) / len(split.train),
        handbook=FINE_TUNING_FILE,
    )
    pairs = [pair.alpaca() for pair in read_handbook(HANDBOOK).train_pairs]
    texts = {
        "README.md": readme,
        "blocks.json": json.dumps([block.model_dump(mode="json") for block in blocks], indent=1, ensure_ascii=False),
        "examples.txt": "\n".join(as_text(example) for example in some_examples(kept, 5)),
        "quality.md": generate_quality_report(kept, before=len(made.examples), rejected=dropped),
        FINE_TUNING_FILE: json.dumps(pairs, indent=2, ensure_ascii=False),
    }
    size = sum(len(text.encode()) for text in texts.values())
    if size > MAX_BYTES:
        raise SystemExit(f"The samples take {size} bytes; {MAX_BYTES} is the limit. Show fewer blocks.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return [folder / name for name in texts]


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(prog="python docs/samples.py", description="Write docs/samples.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "samples")
    for path in write_samples(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
