"""Mining by several processes: this pool (loky's) against the standard library's and one process alone, the same files, in turns.

    python bench/bench_pool.py FOLDER [--rounds 7]

All give the same blocks (checked first). The standard pool gets the same batches and sends back the same; a process of it that dies
ends all that is in flight.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.config import MinerSettings
from ai_forge.data_pipeline.mining.file_mining import MinedFile, MiningTask, mine_file
from ai_forge.data_pipeline.mining.pool import mine_files, no_collection
from ai_forge.data_pipeline.source.repository import SourceFile, read_repository
from measure import record

BATCH_BYTES = 1_000_000
Mined = dict[int, bytes]


def packed(batch: Sequence[tuple[int, SourceFile]], task: MiningTask) -> list[tuple[int, bytes]]:
    """What a worker sends back."""
    return [(index, mine_file(source, task).pack()) for index, source in batch]


def batches(sources: Sequence[SourceFile]) -> Iterable[list[tuple[int, SourceFile]]]:
    batch: list[tuple[int, SourceFile]] = []
    for item in sorted(enumerate(sources), key=lambda item: -len(item[1].content)):
        batch.append(item)
        if sum(len(source.content) for _, source in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def by_executor(pool: Executor, sources: Sequence[SourceFile], task: MiningTask) -> Mined:
    futures = [pool.submit(packed, batch, task) for batch in batches(sources)]
    return {index: MinedFile.unpack(data).pack() for future in futures for index, data in future.result()}


def own(sources: Sequence[SourceFile], task: MiningTask, n: int) -> Mined:
    return {index: file.pack() for index, file in mine_files(sources, task, processes=n)}


def alone(sources: Sequence[SourceFile], task: MiningTask, _: int) -> Mined:
    return own(sources, task, 1)


def standard(sources: Sequence[SourceFile], task: MiningTask, n: int) -> Mined:
    with ProcessPoolExecutor(n, mp_context=get_context("spawn")) as pool:
        return by_executor(pool, sources, task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    sources, task = read_repository(given.folder).files, MiningTask(MinerSettings())
    rivals: dict[str, Callable[..., Mined]] = {"pool": own, "standard": standard, "one process": alone}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    expected: Mined | None = None
    for number in range(given.rounds + 1):
        for name, mine in rivals.items():
            began = time.perf_counter()
            with no_collection():
                found = mine(sources, task, given.processes)
            if number:
                seconds[name].append(time.perf_counter() - began)
            else:  # not counted: each reads the files' code and the grammars for the first time
                expected = expected or found
                assert found == expected, name
    megabytes = sum(len(source.content) for source in sources) / 1e6
    figures = {
        "files": len(sources),
        "megabytes": round(megabytes, 1),
        "processes": given.processes,
        "seconds": {name: {"median": round(statistics.median(s), 2), "all": s} for name, s in seconds.items()},
    }
    record("pool", figures)


if __name__ == "__main__":
    main()
