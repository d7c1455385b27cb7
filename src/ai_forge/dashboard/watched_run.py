"""A run that is looked at: read and drawn once a second, however many look."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool

from ai_forge.dashboard.rendering import render
from ai_forge.dashboard.views import curve_of
from ai_forge.pipeline.runs import EventTail, RunView

__all__ = ["WatchedRuns"]

PAUSE_S = 1.0


class WatchedRuns:
    """The runs that are looked at now. Used from one event loop."""

    def __init__(self) -> None:
        self._runs: MutableMapping[Path, _WatchedRun] = WeakValueDictionary()  # as long as somebody looks

    def stream(self, events: Path, after: int) -> AsyncIterator[bytes]:
        """Once a second what came after the event with this number: the page's figures anew, and the points that the curves
        gained (server-sent events)."""
        run = self._runs.get(events)
        if run is None:
            run = self._runs[events] = _WatchedRun(events)
        return _stream(run, after)


async def _stream(run: _WatchedRun, after: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while True:
        seen = await run.read(int(loop.time() / PAUSE_S))
        if seen > after:
            yield run.since(after)
            after = seen
        else:
            yield b": still here\n\n"  # so that a reader who went away is noticed
        # all at the same moments, so that one reads for all
        await asyncio.sleep(PAUSE_S - loop.time() % PAUSE_S)


class _WatchedRun:
    def __init__(self, events: Path) -> None:
        self._view, self._tail, self._seen = RunView(), EventTail(events), 0
        self._tick = -1
        self._lock = asyncio.Lock()
        # the number of the event that each point of a curve came with
        self._losses: list[int] = []
        self._held_out: list[int] = []
        self._html = ""
        self._told: dict[int, bytes] = {}

    async def read(self, tick: int) -> int:
        """Take in what is new, once in a tick; the number of the last event."""
        async with self._lock:
            if tick > self._tick:
                self._tick = tick
                new = await run_in_threadpool(self._tail)
                for self._seen, event in new:
                    self._view.take(event)
                    self._losses += [self._seen] * (len(self._view.losses) - len(self._losses))
                    self._held_out += [self._seen] * (len(self._view.held_out) - len(self._held_out))
                if new:
                    self._html = render("run_live.html", None, "/", view=self._view)
                    self._told.clear()
            return self._seen

    def since(self, after: int) -> bytes:
        """What came after an event: made once for all who have heard as much."""
        if after not in self._told:
            losses = self._view.losses[bisect_right(self._losses, after) :]
            held_out = self._view.held_out[bisect_right(self._held_out, after) :]
            data = json.dumps({"html": self._html, **curve_of(losses, held_out)})
            self._told[after] = f"id: {self._seen}\nevent: view\ndata: {data}\n\n".encode()
        return self._told[after]
