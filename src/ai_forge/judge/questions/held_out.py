"""What the judge asks: held-out questions, the worked examples that the base is shown, held-out code."""

import random
from collections.abc import Iterable, Sequence, Set

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas import RAFTExample

LEAST_CODE_BYTES = 2000  # of one file
MOST_FILES = 8  # so many share the bytes where there are enough: one large file alone would leave no interval


def questions_of(examples: Iterable[RAFTExample], findable: Set[str], settings: JudgeSettings) -> list[RAFTExample]:
    """The test questions that are asked: those whose oracles retrieval could find, spread over files and families.

    `findable` are the ids of what is in the index. Excerpts and functions with a gap are not, so they are not asked about.
    """
    answerable = [e for e in examples if e.oracle_documents and {d.block_id for d in e.oracle_documents} <= findable]
    return spread(answerable, settings.n_questions, settings.seed)


def worked_examples_of(examples: Iterable[RAFTExample], settings: JudgeSettings) -> list[RAFTExample]:
    """Training examples that the base is shown: from the shortest third, so that they leave room for the question."""
    usable = [e for e in examples if e.oracle_documents and e.distractor_documents]
    usable.sort(key=lambda e: sum(len(d.text) for d in e.shown_documents))
    return spread(usable[: max(1, len(usable) // 3)], settings.n_worked_examples, settings.seed)


def code_of(files: Iterable[tuple[str, str]], settings: JudgeSettings) -> list[tuple[str, str]]:
    """(path, text) of held-out `files` while they fit into `code_bytes`, each cut at a line."""
    chosen: list[tuple[str, str]] = []
    left = settings.code_bytes
    for path, whole in files:
        if left <= 0:
            break
        share = min(left, max(LEAST_CODE_BYTES, settings.code_bytes // MOST_FILES))
        beginning = whole.encode()[:share].decode("utf-8", errors="ignore")  # a cut may halve a character
        text = beginning.rpartition("\n")[0]
        if text.strip():
            chosen.append((path, text))
            left -= len(text.encode())
    return chosen


def spread(examples: Sequence[RAFTExample], n: int, seed: int) -> list[RAFTExample]:
    """`n` examples, drawn in turn from every (file, family) so that no large file drowns the others."""
    groups: dict[tuple[str, str], list[RAFTExample]] = {}
    for example in examples:
        groups.setdefault((example.subject_path, example.family), []).append(example)
    generator = random.Random(seed)
    # sorted by content ids first, so that the draw does not depend on the order in which examples were made
    queues = [sorted(group, key=lambda e: e.id) for _, group in sorted(groups.items())]
    for queue in queues:
        generator.shuffle(queue)
    generator.shuffle(queues)
    chosen: list[RAFTExample] = []
    while len(chosen) < n and queues:
        chosen += [queue.pop() for queue in queues][: n - len(chosen)]
        queues = [queue for queue in queues if queue]
    return chosen
