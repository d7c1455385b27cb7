"""Stage `export`: `model.f16.gguf`, and the deployed type beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.events import Progress
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.merge import merged_folder

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run


BASE_FILE = "base.gguf"


class ExportSummary(Summary):
    """Bytes of each file, by its type."""

    bytes: dict[str, int]

    def sentence(self) -> str:
        """In a few words."""
        return ", ".join(f"{kind} {size / 1e6:.0f} MB" for kind, size in self.bytes.items())


def _kinds(run: Run) -> list[str]:
    """f16, which the parity check needs, and what is deployed."""
    return list(dict.fromkeys(("f16", run.settings.export.quantization)))


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    # the name stands in the file, and runtimes show it
    return {"merge": outputs.key("merge"), "kinds": _kinds(run), "called": run.model}


def _build(context: StageContext) -> ExportSummary:
    from ai_forge.judge.exporter import convert_to_gguf, metadata_of

    run, kinds = context.run, _kinds(context.run)
    base, data = context.opened.base, ""
    if "dataset" in context.outputs:
        data = context.outputs.key("dataset")
    about = metadata_of(
        licence=_licence(run.settings.training.base_model),
        base=f"{base.name} ({base.fingerprint[:16]})",
        data=data,
        run=run.id,  # of the run that wrote it: another that makes the same of the same data takes the file as it is
    )
    sizes = {}
    for place, kind in enumerate(kinds):
        path = context.folder / f"model.{kind}.gguf"
        convert_to_gguf(
            merged_folder(context.outputs),
            path,
            kind,
            name=run.model,
            about=about,
            progress=_share(context, kinds, place),
        )
        sizes[kind] = path.stat().st_size
    return ExportSummary(bytes=sizes)


def _licence(base_model: str) -> str:
    """As the registry knows it; empty for a base that it does not name."""
    from ai_forge.config.models import load_models

    found = load_models().find(base_model)
    return found[1].licence if found else ""


def _share(context: StageContext, kinds: list[str], place: int) -> Progress:
    """Reports the tensors of one file as a part of those of all files."""

    def report(done: int, total: int, note: str = "") -> None:
        context.report(place * total + done, len(kinds) * total, kinds[place])

    return report


def _base_inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    return {"base": run.base, "kind": run.settings.export.quantization}


def _build_base(context: StageContext) -> ExportSummary:
    from ai_forge.judge.exporter import convert_to_gguf

    kind, base = context.run.settings.export.quantization, context.opened.base
    path = context.folder / BASE_FILE
    convert_to_gguf(base.folder, path, kind, name=base.name, progress=context.report)
    return ExportSummary(bytes={kind: path.stat().st_size})


def base_gguf_of(outputs: Outputs) -> Path:
    """The untuned base in the type that is deployed: what the tuned model is compared with."""
    return outputs.folder("base-export") / BASE_FILE


def gguf_of(run: Run, outputs: Outputs) -> Path:
    """The file that is deployed."""
    return outputs.folder("export") / f"model.{run.settings.export.quantization}.gguf"


EXPORT = Stage("export", ("merge",), 3, _inputs, _build, ExportSummary, ("ai_forge.judge.exporter",))
# keyed by the base alone: all runs on it are judged against one file
BASE_EXPORT = Stage("base-export", (), 1, _base_inputs, _build_base, ExportSummary, ("ai_forge.judge.exporter",))
