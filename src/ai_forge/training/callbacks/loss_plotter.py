"""The loss curve as a PNG that is redrawn while training goes on."""

import io
from pathlib import Path

from ai_forge.events import EvalFinished, Event, StepLogged
from ai_forge.workspace import atomic_write

Point = tuple[int, float]


def draw_loss_curve(train: list[Point], held_out: list[Point]) -> bytes:
    """A PNG of training loss and held-out loss (nats per supervised token) over optimizer steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    if train:
        label = "training batch, replayed code included"
        axes.plot(*zip(*train, strict=True), color="#9db4c0", linewidth=1.4, label=label)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="#c1440e", marker="o", markersize=4, label="held-out examples")
    axes.set(xlabel="optimizer step", ylabel="loss (nats per answer token)", ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if train or held_out:
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # else the bytes change with matplotlib's version
    return buffer.getvalue()


class LossPlotter:
    """Redraws `path` at each evaluation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.train: list[Point] = []
        self.held_out: list[Point] = []

    def __call__(self, event: Event) -> None:
        """Listen to `StepLogged` and `EvalFinished`."""
        if isinstance(event, StepLogged):
            self.train.append((event.step, event.loss))
        elif isinstance(event, EvalFinished):
            self.held_out.append((event.step, event.loss))
            atomic_write(self._path, draw_loss_curve(self.train, self.held_out))
