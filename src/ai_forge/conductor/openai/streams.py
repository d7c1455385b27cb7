"""Answers that come piece by piece, and end when their reader does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ai_forge.conductor.problems import ServiceError, answer_to
from ai_forge.errors import AIForgeError

__all__ = ["Events", "unless_left"]

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class ReaderLeftError(ServiceError):
    """Nobody is there to be answered."""

    def __init__(self) -> None:
        super().__init__(499, "left", "The caller went away.")


class Events(Response):
    """Server-sent events from an iterator of bytes.

    The first piece is waited for before the status goes out, so what cannot be answered is an error and not a broken stream.
    When the reader goes away the iterator is closed at once, wherever it waits.
    """

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes]) -> None:
        self._pieces = pieces
        self.status_code = 200
        self.background = None
        self.init_headers({"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        with contextlib.suppress(ReaderLeftError):
            await unless_left(receive, self._send_all(scope, receive, send))

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        async with contextlib.aclosing(self._pieces) as pieces:
            try:
                async for piece in pieces:
                    if not begun:
                        begun = True
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await asyncio.sleep(
                        0
                    )  # where many are there at once: that the reader has left is heard between them
            except AIForgeError as error:
                if not begun:
                    raise
                log.warning("a stream broke off: %s", error)
                told = bytes(answer_to(error, scope["path"]).body)
                await send({"type": "http.response.body", "body": b"data: " + told + b"\n\n", "more_body": True})
        if not begun:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_left(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the caller closes the connection.

    Raises:
        ReaderLeftError: it did.
    """
    # a scope and no second task for the work, which would wait for a turn of its own
    try:
        async with asyncio.timeout(None) as while_there:
            leaving = asyncio.create_task(_end_when_left(receive, while_there))
            try:
                return await work
            finally:
                leaving.cancel()
    except TimeoutError as error:
        if not while_there.expired():
            raise
        raise ReaderLeftError from error


async def _end_when_left(receive: Receive, scope: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.reschedule(asyncio.get_running_loop().time())
