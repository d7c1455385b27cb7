"""Requests to a runtime: what is no longer waited for is closed, and what breaks off is said."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ai_forge.conductor.openai.upstream import CHAT, Upstream
from ai_forge.conductor.problems import ServiceError
from ai_forge.errors import TransientError
from ai_forge.serving import Endpoint

REFUSED = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 29\r\n\r\n{"error":{"message":"no, no"}}'[:-1]


def model_at(port: int) -> Any:
    """An open model whose runtime listens on `port`."""
    endpoint = Endpoint(f"http://127.0.0.1:{port}", {"Authorization": "Bearer x"}, "demo:r1")
    return SimpleNamespace(endpoint=endpoint, activation=SimpleNamespace(runtime="embedded"))


async def asked(handle: Any, n: int = 1) -> None:
    """Ask a runtime that does what `handle` does."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await Upstream().ask(model_at(port), CHAT, {"messages": []}, n)


def test_where_one_of_several_answers_is_refused_the_others_are_ended() -> None:
    connected, ended = [], []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        connected.append(writer)
        if len(connected) == 4:  # the others never answer
            writer.write(REFUSED)
        await reader.read()
        ended.append(writer)
        writer.close()

    async def run() -> None:
        with pytest.raises(ServiceError, match="no, no"):
            await asked(handle, n=4)
        async with asyncio.timeout(10):
            while len(ended) < 4:
                await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "told",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"nonsense\r\n\r\n", b"HTTP/1.1 500 Oh\r\n\r\nboom"],
)
def test_a_runtime_that_breaks_off_is_to_be_asked_again(told: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(told)
        writer.close()

    with pytest.raises(TransientError, match="The runtime"):
        asyncio.run(asked(handle))


def test_a_runtime_that_is_not_there() -> None:
    with pytest.raises(TransientError, match="did not answer"):
        asyncio.run(Upstream().ask(model_at(1), CHAT, {"messages": []}))
