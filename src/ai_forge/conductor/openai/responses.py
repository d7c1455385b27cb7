"""OpenAI's Responses on the chat path: text in, text out, as their current clients ask by default.

What a response adds to a chat (kept conversations, work in the background, tools) is refused by name; function tools are served by
chat completions. Nothing is stored: `store` changes nothing here, and a conversation is sent whole with each request.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from ai_forge.conductor.openai.schemas import MODEL, ChatRequest, Citation, Number, OpenAIBody
from ai_forge.conductor.problems import ServiceError
from ai_forge.json_lines import JsonObject

__all__ = ["Response", "ResponseRequest", "chat_request", "response_events", "response_of"]


class InputPart(OpenAIBody):
    """A part of a message; `output_text` is one of an answer that is sent back."""

    type: Literal["input_text", "output_text", "text"]
    text: StrictStr


class InputMessage(OpenAIBody):
    """A turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: StrictStr | list[InputPart]

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class TextFormat(OpenAIBody):
    """JSON mode; a schema stands beside its type here, not under it as in a chat."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: StrictStr = "answer"
    schema_: JsonObject | None = Field(None, alias="schema")

    def for_chat(self) -> JsonObject:
        """As a chat asks for it."""
        if self.schema_ is None:
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"name": self.name, "schema": self.schema_}}


class TextSettings(OpenAIBody):
    """How the answer is written."""

    format: TextFormat = TextFormat()


class ResponseRequest(OpenAIBody):
    """`POST /v1/responses`."""

    model: StrictStr | None = Field(None, description=MODEL)
    input: StrictStr | Annotated[list[InputMessage], Field(min_length=1)] = Field(description="a text, or the turns")
    instructions: StrictStr | None = Field(None, description="a system text before the turns")
    stream: StrictBool | None = Field(False, description="events as they come")
    max_output_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="longest answer, within service.max_answer_tokens; as deployed otherwise"
    )
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    text: TextSettings | None = Field(None, description="JSON mode")
    tools: list[JsonObject] | None = Field(None, description="none: function tools are served by chat completions")
    previous_response_id: StrictStr | None = Field(None, description="none: nothing is kept, send the turns")
    conversation: StrictStr | JsonObject | None = Field(None, description="none: nothing is kept, send the turns")
    background: StrictBool | None = Field(None, description="false: an answer is given while it is waited for")


class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[JsonObject] = []
    logprobs: list[JsonObject] = []


class OutputMessage(BaseModel):
    """An answer."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class ResponseUsage(BaseModel):
    """Tokens read and written."""

    input_tokens: int = 0
    input_tokens_details: dict[str, int] = {"cached_tokens": 0, "cache_write_tokens": 0}
    output_tokens: int = 0
    output_tokens_details: dict[str, int] = {"reasoning_tokens": 0}
    total_tokens: int = 0


class Response(BaseModel):
    """OpenAI's response; `citations` are ours."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    model: str
    output: list[OutputMessage] = []
    usage: ResponseUsage | None = None
    incomplete_details: dict[str, str] | None = None
    citations: list[Citation] | None = None


def chat_request(request: ResponseRequest) -> ChatRequest:
    """The chat that is asked.

    Raises:
        ServiceError: 400, it wants something that a chat does not give.
    """
    wanted = {
        "tools": request.tools,
        "previous_response_id": request.previous_response_id,
        "conversation": request.conversation,
        "background": request.background,
    }
    for name, value in wanted.items():
        if value:
            raise ServiceError(
                400,
                "unsupported",
                f"Responses are served without {name}.",
                "leave it out and send the turns as input; function tools are served by /v1/chat/completions.",
                param=name,
            )
    turns = [{"role": "system", "content": request.instructions}] * bool(request.instructions)
    if isinstance(request.input, str):
        turns.append({"role": "user", "content": request.input})
    else:
        turns += [{"role": turn.role, "content": turn.text} for turn in request.input]
    asked: JsonObject = request.model_dump(include={"model", "stream", "temperature", "top_p"})
    asked |= {"messages": turns, "max_completion_tokens": request.max_output_tokens}
    if request.text is not None:
        asked["response_format"] = request.text.format.for_chat()
    if request.stream:
        asked["stream_options"] = {"include_usage": True}
    return ChatRequest.model_validate(asked)


class _Told:
    """A response on its way: what of it is known."""

    def __init__(self, request: ResponseRequest, model: str) -> None:
        self._request = request
        self._id = uuid.uuid4().hex
        self._created = int(time.time())
        self.model = model
        self.text = ""
        self.ending: str | None = None
        self.usage: JsonObject = {}
        self.citations: list[JsonObject] | None = None

    def message(self, status: str) -> JsonObject:
        """The answer as far as it is known."""
        parts = [OutputText(text=self.text)] * (status != "in_progress")
        made = OutputMessage.model_validate({"id": f"msg_{self._id}", "status": status, "content": parts})
        return made.model_dump()

    @property
    def status(self) -> str:
        """How it ended."""
        return "incomplete" if self.ending == "length" else "completed"

    def response(self, status: str) -> JsonObject:
        """The response, whose message is there when it has ended."""
        request, usage = self._request, None
        has_ended = status != "in_progress"
        if has_ended:
            counts = [int(self.usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion", "total")]
            usage = ResponseUsage(input_tokens=counts[0], output_tokens=counts[1], total_tokens=counts[2])
        made = Response.model_validate(
            {
                "id": f"resp_{self._id}",
                "created_at": self._created,
                "status": status,
                "model": self.model,
                "output": [self.message(status)] * has_ended,
                "usage": usage,
                "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
                "citations": self.citations,
            }
        )
        asked = request.model_dump(include={"instructions", "max_output_tokens", "temperature", "top_p"})
        form = TextFormat() if request.text is None else request.text.format
        fixed: JsonObject = {"error": None, "metadata": {}, "store": False, "previous_response_id": None}
        fixed |= {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False, "truncation": "disabled"}
        return (
            made.model_dump() | asked | fixed | {"text": {"format": form.model_dump(by_alias=True, exclude_none=True)}}
        )

    def hear(self, chunk: JsonObject) -> str:
        """Take in a piece of a streamed chat; the text that it adds."""
        self.model = chunk.get("model") or self.model
        self.usage = chunk.get("usage") or self.usage
        self.citations = chunk.get("citations", self.citations)
        added = ""
        for choice in chunk.get("choices") or ():
            added += choice.get("delta", {}).get("content") or ""
            self.ending = choice.get("finish_reason") or self.ending
        self.text += added
        return added


def response_of(request: ResponseRequest, answer: JsonObject) -> JsonObject:
    """The response that a whole chat's answer makes."""
    told = _Told(request, answer.get("model", ""))
    choice = answer["choices"][0]
    told.text, told.ending = choice["message"].get("content") or "", choice.get("finish_reason")
    told.usage, told.citations = answer.get("usage") or {}, answer.get("citations")
    return told.response(told.status)


async def response_events(request: ResponseRequest, model: str, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The events of a response, of the bytes of a streamed chat."""
    told, number = _Told(request, model), 0

    def event(kind: str, **more: object) -> bytes:
        nonlocal number
        body = {"type": kind, "sequence_number": number, **more}
        number += 1
        return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()

    place = {"item_id": told.message("in_progress")["id"], "output_index": 0, "content_index": 0}
    begun = False
    async with aclosing(_chunks(pieces)) as chunks:
        async for chunk in chunks:
            added = told.hear(chunk)
            if not begun:  # not earlier: what cannot be answered is an error and no event
                begun = True
                yield event("response.created", response=told.response("in_progress"))
                yield event("response.in_progress", response=told.response("in_progress"))
                yield event("response.output_item.added", output_index=0, item=told.message("in_progress"))
                yield event("response.content_part.added", **place, part=OutputText().model_dump())
            if added:
                yield event("response.output_text.delta", **place, delta=added, logprobs=[])
    status = told.status
    yield event("response.output_text.done", **place, text=told.text, logprobs=[])
    yield event("response.content_part.done", **place, part=OutputText(text=told.text).model_dump())
    yield event("response.output_item.done", output_index=0, item=told.message(status))
    yield event(f"response.{status}", response=told.response(status))


async def _chunks(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[JsonObject]:
    """The chunks of a streamed chat, whose bytes come cut anywhere."""
    rest = b""
    async with aclosing(pieces) as going:
        async for piece in going:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    yield json.loads(line[len(b"data: ") :])
