"""Stage `parity`: trainer against GGUF on held-out prompts. What is deployed is what was trained, or it is not deployed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.export import gguf_of
from ai_forge.pipeline.stages.train import adapter_stage
from ai_forge.prompting.prompt import Message
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from ai_forge.judge.parity import Parity
    from ai_forge.pipeline.run import Run

FILE, CHATS = "parity.json", "chats.json"
Chats = Callable[[StageContext], list[list[Message]]]


class ParitySummary(Summary):
    """What was compared, as name → sentence."""

    rows: dict[str, Any]

    def sentence(self) -> str:
        """In a few words."""
        return ", ".join(f"{name}: {value}" for name, value in self.rows.items())


def parity_stage(made_for: Chats, depends_on: Callable[[Run, Outputs], Any], needs: tuple[str, ...]) -> Stage:
    """The stage on the chats of a recipe, and what they depend on. They are kept: the deployed model is asked them again."""

    def inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
        return {
            "export": outputs.key("export"),
            "adapter": outputs.key(adapter_stage(outputs)),
            "chats": depends_on(run, outputs),
            "settings": run.settings.export.model_dump(),
        }

    def build(context: StageContext) -> ParitySummary:
        chats = made_for(context)
        result = _compare(context, chats)
        atomic_write(context.folder / FILE, result.model_dump_json(indent=1))
        atomic_write(context.folder / CHATS, json.dumps(chats, ensure_ascii=False, indent=1))
        return ParitySummary(rows=result.rows)

    made_of = ("ai_forge.judge.parity", "ai_forge.serving.llama_server")
    return Stage("parity", ("export", *needs), 8, inputs, build, ParitySummary, made_of)


def _compare(context: StageContext, chats: list[list[Message]]) -> Parity:
    from ai_forge.judge.parity import Files, compare
    from ai_forge.serving import LlamaServer
    from ai_forge.training.backends import load_backend

    run, outputs = context.run, context.outputs
    settings, tokenizer = run.settings.export, context.opened.tokenizer
    backend = load_backend(run.settings.training.backend)
    # the servers' context holds the longest prompt with its answer; more of it would only take memory
    longest = max(len(tokenizer.encode_prompt(chat)) for chat in chats) + settings.parity_tokens
    adapter = outputs.folder(adapter_stage(outputs))
    # exact computes in float32: a difference is then the file's, not the trainer's rounding
    trainee = backend.trainee.from_adapter(context.opened.base.folder, adapter, run.settings.training, exact=True)
    trainer = backend.generator(trainee.model, tokenizer.end_of_turn_id)
    # both files are needed at once: what the deployed type costs is told from what the conversion costs
    is_f16 = settings.quantization == "f16"
    with (
        LlamaServer(outputs.folder("export") / "model.f16.gguf", longest + 8) as f16,
        nullcontext(f16) if is_f16 else LlamaServer(gguf_of(run, outputs), longest + 8) as deployed,
    ):
        files = Files(f16, deployed, settings.quantization)
        return compare(trainer, files, tokenizer, chats, settings.parity_tokens, context.report)


def parity_of(outputs: Outputs) -> Parity:
    """What was compared."""
    from ai_forge.judge.parity import Parity

    return outputs.read("parity", FILE, Parity)


def chats_of(outputs: Outputs) -> list[list[Message]]:
    """The chats that were compared."""
    chats: list[list[Message]] = json.loads((outputs.folder("parity") / CHATS).read_text(encoding="utf-8"))
    return chats
