"""How every benchmark here measures: rivals take turns in one run, the median of at least seven rounds is told.

A first round warms up and is not counted. Wall seconds, in one process, on whatever else the machine is doing: the
interleaving makes the ratio fair where the seconds are not. What trainings are measured on is here, too.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ai_forge.config.data import SynthesisSettings
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.source.repository import read_repository

ROUNDS = 7
RESULTS = Path(__file__).parent / "results"


def interleaved(rivals: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each rival."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, act in rivals.items():
            start = time.perf_counter()
            act()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def own_examples() -> list[RAFTExample]:
    """What a training on this repository would read, of its first 200 definitions."""
    mined = mine_repository(read_repository(Path(__file__).parent.parent))
    settings = SynthesisSettings(max_context_tokens=400)
    return synthesize(mined.blocks[:200], documents=mined.documents, settings=settings).examples


def record(name: str, figures: Mapping[str, object]) -> None:
    """Print the figures and keep them in `bench/results/`."""
    RESULTS.mkdir(exist_ok=True)
    entry = {"date": time.strftime("%Y-%m-%d"), "machine": f"{platform.machine()}, {platform.system()}", **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    for key, value in entry.items():
        print(f"  {key}: {value}")
