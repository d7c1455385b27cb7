"""Warn once when training fills the memory beyond a share of what there is."""

from ai_forge.events import Event, Notice, Sink, StepLogged


class MemoryMonitor:
    """Emits one warning when `memory_bytes` of a step exceeds `warn_fraction` of `total_bytes`."""

    def __init__(self, total_bytes: int, warn_fraction: float, emit: Sink) -> None:
        self._total = total_bytes
        self._fraction = warn_fraction
        self._emit = emit
        self._warned = False

    def __call__(self, event: Event) -> None:
        """Listen to `StepLogged`."""
        if self._warned or not isinstance(event, StepLogged) or event.memory_bytes <= self._fraction * self._total:
            return
        self._warned = True  # once: memory that is full stays full, and every step would say so
        used = f"training uses {event.memory_bytes / 1e9:.1f} of {self._total / 1e9:.1f} GB of memory"
        advice = "lower micro_batch_size, max_seq_len or rank if it grows."
        self._emit(Notice("warning", f"{used} (warning above {self._fraction:.0%}); {advice}"))
