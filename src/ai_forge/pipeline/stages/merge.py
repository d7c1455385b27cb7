"""Stage `merge`: the tuned model as a Hugging Face folder, the adapter merged onto the residual that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.train import adapter_stage

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.backends.base import Generator


class MergeSummary(Summary):
    """Size of the merged model on disk."""

    bytes: int

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.bytes / 1e6:.0f} MB"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    # the base beside the adapter: a matrix without a residual of its own is merged onto the base's
    return {"adapter": outputs.key(adapter_stage(outputs)), "base": run.base}


def _build(context: StageContext) -> MergeSummary:
    from ai_forge.model_files.merge import merge_adapters_to_base

    adapter = context.outputs.folder(adapter_stage(context.outputs))
    merged = merge_adapters_to_base(context.opened.base, adapter, context.folder / "model", progress=context.report)
    return MergeSummary(bytes=sum(file.stat().st_size for file in merged.iterdir()))


def merged_folder(outputs: Outputs) -> Path:
    """The merged model."""
    return outputs.folder("merge") / "model"


def load_generator(context: StageContext, tuned: bool, tokenizer: ChatTokenizer | None = None) -> Generator:
    """The tuned model or the base, ready to answer; its turns end as those of `tokenizer`, or of the run's own."""
    from ai_forge.training.backends import load_backend

    folder = merged_folder(context.outputs) if tuned else context.opened.base.folder
    backend = load_backend(context.run.settings.training.backend)
    model: Generator = backend.generator.load(folder, (tokenizer or context.opened.tokenizer).end_of_turn_id)
    return model


MERGE = Stage("merge", ("train", "prefer"), 1, _inputs, _build, MergeSummary, ("ai_forge.model_files.merge",))
