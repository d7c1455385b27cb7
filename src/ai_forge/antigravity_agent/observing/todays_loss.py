"""How well the deployed model still predicts the code: its loss on what changed, against that on the code that was held out.

Stale by measurement, not by count. Both are nats per byte of the tuned model, so files of any length compare; the second was
measured by the judge. The merged model and the evaluation of the deployed version's run have to be in the cache still; where
they are not, or time ran out before anything was measured, nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ai_forge.data_pipeline.secrets.masking import scrub
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.pipeline.run import read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import NotMadeError
from ai_forge.pipeline.stages.evaluate import FILE
from ai_forge.pipeline.stages.merge import load_generator
from ai_forge.serving.registry import Registry
from ai_forge.workspace import Workspace

__all__ = ["loss_rise"]


def loss_rise(
    model: str,
    workspace: Workspace,
    repository: Path,
    changed: Iterable[str],
    budget_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> float | None:
    """(nats per byte of the changed files) / (nats per byte of the held-out code) − 1, of the deployed version of `model`.

    Files are read in the order of their paths until `budget_s` seconds are over, loading included.
    """
    from ai_forge.judge.evaluation import Evaluation
    from ai_forge.judge.windows import code_windows
    from ai_forge.training.tokens.packing import collate

    deadline = clock() + budget_s
    with Registry(workspace.registry_path) as registry:
        active = registry.active(model)
    run = None if active is None else read_run(workspace.runs_dir / active.version)
    if run is None or run.recipe != "repository":
        return None
    runner = Runner(run, workspace)
    try:
        outputs = runner.outputs()
        held_out = outputs.read("evaluate", FILE, Evaluation).code
        n_bytes = sum(score.n_bytes for score in held_out)
        outputs.folder("merge")
    except NotMadeError:  # cleaned away
        return None
    wanted = set(changed)
    files = [file for file in read_repository(repository).files if file.path in wanted]
    if not files or not n_bytes:
        return None
    before = sum(score.tuned_nats for score in held_out) / n_bytes
    generator = load_generator(runner.context("evaluate", runner.folder, outputs), tuned=True)
    nats, read = 0.0, 0
    for file in files:
        # masked as the held-out code was
        text = scrub(file.content, run.settings.miner.secret_placeholder).content.decode("utf-8", "ignore")
        windows = code_windows(runner.opened.tokenizer.encode(text))
        measured = 0.0
        for window in windows:
            if clock() >= deadline:
                return nats / read / before - 1 if read else None  # the file in hand is not whole and does not count
            measured -= float(generator.log_probs(collate([window])).sum())
        nats, read = nats + measured, read + len(text.encode())
    return nats / read / before - 1 if read else None
