"""A streamed chat as the events of a response: whatever pieces its bytes come in."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ai_forge.conductor.openai.responses import ResponseRequest, response_events

TOLD = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chat(texts: list[str], ending: str) -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": ending}], "model": "m:r1"})
    chunks.append({"choices": [], "usage": TOLD})
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + b"data: [DONE]\n\n"


def events_of(raw: bytes, cuts: list[int]) -> list[dict[str, Any]]:
    async def pieces() -> AsyncGenerator[bytes]:
        places = [0, *sorted(cut % len(raw) for cut in cuts), len(raw)]
        for first, last in itertools.pairwise(places):
            yield raw[first:last]

    async def read() -> bytes:
        return b"".join([event async for event in response_events(ResponseRequest(input="?"), "m:r0", pieces())])

    blocks = asyncio.run(read()).decode().split("\n\n")[:-1]
    found = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
    assert [block.partition("\n")[0] for block in blocks] == [f"event: {one['type']}" for one in found]
    return found


@given(
    st.lists(st.text(min_size=1, max_size=5), max_size=5), st.lists(st.integers(0, 10_000), max_size=9), st.booleans()
)
def test_the_events_say_what_the_chat_said(texts: list[str], cuts: list[int], is_cut_off: bool) -> None:
    found = events_of(chat(texts, "length" if is_cut_off else "stop"), cuts)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert "".join(e["delta"] for e in found if e["type"] == "response.output_text.delta") == "".join(texts)
    assert found[0]["response"]["status"] == "in_progress"
    last = found[-1]
    status = "incomplete" if is_cut_off else "completed"
    assert (last["type"], last["response"]["status"], last["response"]["model"]) == (
        f"response.{status}",
        status,
        "m:r1",
    )
    assert last["response"]["output"][0]["content"][0]["text"] == "".join(texts)
    assert [last["response"]["usage"][key] for key in ("input_tokens", "output_tokens", "total_tokens")] == [3, 2, 5]
