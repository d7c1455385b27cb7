"""A run that several look at: everyone gets what they have not heard, and the same is made once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ai_forge.dashboard.watched_run import WatchedRuns


def write_steps(path: Path, *steps: int) -> None:
    """Add steps to a run's events, each with a loss of a tenth of its number."""
    known = {"event": "StepLogged", "n_steps": 9, "tokens_per_s": 1.0, "memory_bytes": 1, "eta_s": 1.0}
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(known | {"step": step, "loss": step / 10}) + "\n" for step in steps)


async def heard(stream: AsyncIterator[bytes]) -> tuple[int, list[list[float]]]:
    """The number of the last event and the points of the next piece that says something."""
    async for piece in stream:
        if piece.startswith(b"id: "):
            number, _, data = piece.decode().strip().split("\n")
            told: dict[str, Any] = json.loads(data.removeprefix("data: "))
            return int(number.removeprefix("id: ")), told["losses"]
    raise AssertionError("it ended")


def test_each_hears_what_is_new_to_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    async def run() -> None:
        watched = WatchedRuns()
        early = watched.stream(path, 0)
        assert (await anext(early)).startswith(b":")  # there is no file yet
        write_steps(path, 1, 2, 3)
        late = watched.stream(path, 2)
        assert await heard(early) == (3, [[1, 0.1], [2, 0.2], [3, 0.3]])
        assert await heard(late) == (3, [[3, 0.3]])
        write_steps(path, 4)
        assert await asyncio.gather(heard(early), heard(late)) == [(4, [[4, 0.4]])] * 2

    asyncio.run(run())


def test_fifty_who_look_get_one_piece_made_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write_steps(path, 1, 2)

    async def run() -> None:
        watched = WatchedRuns()
        streams = [watched.stream(path, 0) for _ in range(50)]
        first = await asyncio.gather(*(anext(stream) for stream in streams))
        write_steps(path, 3)
        then = await asyncio.gather(*(anext(stream) for stream in streams))
        for pieces in (first, then):
            assert pieces[0].startswith(b"id: ")
            assert len({id(piece) for piece in pieces}) == 1

    asyncio.run(run())
