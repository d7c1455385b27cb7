"""What a person sees while a run goes on: one bar for the stage at work, one line for each that is done.

Everything goes to stderr, so that stdout holds data only. Without a terminal there are no bars, only the lines.
"""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from ai_forge.events import (
    AdapterInitialised,
    AnswerSampled,
    EvalFinished,
    Event,
    Notice,
    PlanMade,
    StageFinished,
    StageProgress,
    StageStarted,
    StepLogged,
    TrainingStopped,
)

stderr = Console(stderr=True, highlight=False)


class Display:
    """Listens to events and shows them; use as a context manager."""

    def __init__(self, console: Console = stderr) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<9}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._last_eval: float | None = None
        self.finished: list[StageFinished] = []

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        if isinstance(event, StageStarted):
            self._drop()
            self._task = self._bar.add_task("", total=None, stage=event.stage, note="")
        elif isinstance(event, StageProgress):
            self._advance(event.done, event.total or None, event.note)
        elif isinstance(event, StepLogged):
            held_out = "" if self._last_eval is None else f" · held out {self._last_eval:.3f}"
            note = (
                f"step {event.step}/{event.n_steps} · loss {event.loss:.3f}{held_out} · {event.tokens_per_s:.0f} tok/s"
            )
            self._advance(event.step, event.n_steps, note)
        elif isinstance(event, EvalFinished):
            self._last_eval = event.loss
            if not self._console.is_terminal:
                self._say(
                    f"[dim]  step {event.step}: held-out loss {event.loss:.3f}, accuracy {event.accuracy:.1%}[/dim]"
                )
        elif isinstance(event, StageFinished):
            self._drop()
            self.finished.append(event)
            self._say(f"[green]✓[/green] {event.stage:<9} {_seconds(event)}  {escape(summary(event))}")
        else:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Notice):
            colour = "yellow" if event.level == "warning" else "dim"
            self._say(f"[{colour}]  {escape(event.message)}[/{colour}]")
        elif isinstance(event, AdapterInitialised):
            removed = f", {event.error_removed:.0%} of its error removed" if event.relative_error_quantized else ""
            plain = f" (plain NF4: {event.kl_quantized_base:.1e}{removed})" if event.kl_quantized_base else ""
            self._say(
                f"[dim]  {event.init_method} rank {event.rank} on {event.n_matrices} matrices: logits "
                f"{event.kl_initialised:.1e} nats from the base's{plain}[/dim]"
            )
        elif isinstance(event, AnswerSampled):
            self._say(f"[dim]  step {event.step}: {escape(event.question)} → {escape(event.answer)}[/dim]")
        elif isinstance(event, PlanMade):
            self._say(
                f"[dim]  {event.n_steps} steps on {event.n_examples} examples ({event.reason}), about "
                f"{duration(event.expected_s)} at {event.tokens_per_s:.0f} tokens/s[/dim]"
            )
        elif isinstance(event, TrainingStopped) and event.reason != "all steps done":
            self._say(f"[dim]  stopped after step {event.step}: {escape(event.reason)}[/dim]")

    def _advance(self, done: int, total: int | None, note: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)

    def _drop(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(4.2), duration(75), duration(7300)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 59.95:  # what rounds to 60.0 is a minute
        return f"{seconds:.1f} s"
    seconds = max(seconds, 60)
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def _seconds(event: StageFinished) -> str:
    return f"[dim]{'unchanged' if event.cached else duration(event.seconds):>11}[/dim]"


def summary(event: StageFinished) -> str:
    """A stage's counts in a few words."""
    counts = event.counts
    match event.stage:
        case "base":
            lossy = " (lossy source)" if counts.get("lossy") else ""
            return f"{counts['name']}, {counts['parameters'] / 1e6:.0f} M parameters{lossy}"
        case "mine":
            return f"{counts['documents']} blocks in {counts['files']} files, {counts['subjects']} to ask about"
        case "words":
            return f"{counts['commits']} blocks explained by their commit, {counts['sections']} by the documentation"
        case "dataset":
            return f"{counts['train']} examples to train on, {counts['valid']} to stop on, {counts['test']} held out"
        case "train":
            told = f"held-out loss {counts['first_loss']:.3f} → {counts['last_loss']:.3f} in {counts['n_steps']} steps"
            before, after = counts.get("trained_first_loss"), counts.get("trained_last_loss")
            return told if before is None else f"loss {before:.3f} → {after:.3f}, {told}"
        case "export":
            return ", ".join(f"{kind} {size / 1e6:.0f} MB" for kind, size in counts["bytes"].items())
        case "index":
            return f"{counts['blocks']} blocks"
        case "evaluate":
            return f"{counts['questions']} held-out questions, {counts['code_files']} held-out files"
        case "merge":
            return f"{counts['bytes'] / 1e6:.0f} MB"
        case _:
            return ", ".join(_pair(name, value) for name, value in counts.items())


def _pair(name: str, value: Any) -> str:
    return str(value) if name in ("file", "model", "runtime") else f"{name}: {value}"
