"""What a person sees while a run goes on: one bar for the stage at work, one line for each that is done.

Everything goes to stderr, so that stdout holds data only. Without a terminal there are no bars, only the lines.
"""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from ai_forge.cli.output import stderr
from ai_forge.events import (
    AdapterInitialised,
    AnswerSampled,
    EvalFinished,
    Event,
    Notice,
    PlanMade,
    StageCancelled,
    StageFailed,
    StageFinished,
    StageProgress,
    StageStarted,
    StepLogged,
    TrainingStopped,
)
from ai_forge.wording import duration


class Display:
    """Listens to events and shows them; use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console = console or stderr()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<11}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._last_eval: float | None = None
        self.finished: list[StageFinished] = []  # for the table at the end of a run

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
            parts = [f"step {event.step}/{event.n_steps}", f"loss {event.loss:.3f}"]
            if self._last_eval is not None:
                parts.append(f"held out {self._last_eval:.3f}")
            note = " · ".join([*parts, f"{event.tokens_per_s:.0f} tok/s"])
            self._advance(event.step, event.n_steps, note)
        elif isinstance(event, EvalFinished):
            self._last_eval = event.loss
            if not self._console.is_terminal:  # without a bar this is a long training's only sign of life
                text = f"step {event.step}: held-out loss {event.loss:.3f}, accuracy {event.accuracy:.1%}"
                self._say(f"[dim]  {text}[/dim]")
        elif isinstance(event, StageFinished):
            self._drop()
            self.finished.append(event)
            took = "unchanged" if event.cached else duration(event.seconds)
            self._say(f"[green]✓[/green] {event.stage:<11} [dim]{took:>11}[/dim]  {escape(event.text)}")
        elif isinstance(event, StageFailed):  # why stands in the one line that the command ends with
            self._drop()
            self._say(f"[red]✗[/red] {event.stage:<11} [dim]{duration(event.seconds):>11}[/dim]")
        elif isinstance(event, StageCancelled):
            self._drop()
            self._say(f"[yellow]‖[/yellow] {event.stage:<11} [dim]{duration(event.seconds):>11}[/dim]")
        else:
            self._show_note(event)

    def _show_note(self, event: Event) -> None:
        """The events that move no bar: a line each."""
        if isinstance(event, Notice):
            colour = "yellow" if event.level == "warning" else "dim"
            self._say(f"[{colour}]  {escape(event.message)}[/{colour}]")
        elif isinstance(event, AdapterInitialised):
            plain = removed = ""  # where nothing was quantised there is nothing to compare with
            if event.relative_error_quantized:
                removed = f", {event.error_removed:.0%} of its error removed"
            if event.kl_quantized_base:
                plain = f" (plain NF4: {event.kl_quantized_base:.1e}{removed})"
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
        elif isinstance(event, TrainingStopped) and event.reason != "all steps done":  # the expected end needs no line
            self._say(f"[dim]  stopped after step {event.step}: {escape(event.reason)}[/dim]")

    def _advance(self, done: int, total: int | None, note: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)

    def _drop(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)  # a line that is broken by width cannot be searched for in a log
