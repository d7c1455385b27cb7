"""From examples to a trained adapter: bases, tokens, the plan, the one loop, checkpoints.

    base name ─ bases ─► Base ─┐
    RAFTExamples ─ chat, packing ─► batches ─┴─ forge: pissa, plan, loop, checkpoint ─► adapter + residual

`forge` is the public face. The loop knows no array library: it asks a `Trainee` (`backends/base.py`) and minimises a
loss that is handed in (`losses/`); who wants to hear of a training listens to its events (`callbacks/`). Torch is imported
under `backends/torch_*` only. The exports are loaded on first use.
"""

from typing import TYPE_CHECKING

from ai_forge.lazy import lazy_exports

if TYPE_CHECKING:
    from ai_forge.model_files.base import Base, Origin
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.bases.resolve import resolve_base
    from ai_forge.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
    from ai_forge.training.forge import FineTuneTrainer
    from ai_forge.training.handbook import HandbookTrainer
    from ai_forge.training.loop import run_loop
    from ai_forge.training.memory import memory_of
    from ai_forge.training.plan import Schedule, lay_schedule
    from ai_forge.training.record import TrainingRecord, TrainingResult
    from ai_forge.training.tokens.packing import Batch, TokenizedExample

_HOMES = {
    "Base": "ai_forge.model_files.base",
    "Origin": "ai_forge.model_files.base",
    "resolve_base": "bases.resolve",
    "ChatTokenizer": "ai_forge.prompting.chat",
    "Checkpoint": "checkpoint",
    "newest_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "FineTuneTrainer": "forge",
    "TrainingRecord": "record",
    "TrainingResult": "record",
    "HandbookTrainer": "handbook",
    "run_loop": "loop",
    "Batch": "tokens.packing",
    "TokenizedExample": "tokens.packing",
    "Schedule": "plan",
    "lay_schedule": "plan",
    "memory_of": "memory",
}

__all__ = [
    "Base",
    "Batch",
    "ChatTokenizer",
    "Checkpoint",
    "FineTuneTrainer",
    "HandbookTrainer",
    "Origin",
    "Schedule",
    "TokenizedExample",
    "TrainingRecord",
    "TrainingResult",
    "lay_schedule",
    "memory_of",
    "newest_checkpoint",
    "resolve_base",
    "run_loop",
    "save_checkpoint",
]

__getattr__ = lazy_exports(__name__, _HOMES)
