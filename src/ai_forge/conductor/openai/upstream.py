"""Requests passed on to the runtime: what is sent, and what comes back as bytes.

The answer is not read on its way, so `NAME:plain` costs a hop and no more. What a version was deployed with (system text,
sampling, stop words) is put in here for llama.cpp; Ollama holds it with the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import urlsplit

import h11

from ai_forge.conductor.ollama_raw import GENERATE, completion_of, generate_body, probe_body
from ai_forge.conductor.open_models import OpenModel
from ai_forge.conductor.openai.schemas import ChatRequest, CompletionRequest, ToolChoice
from ai_forge.conductor.problems import ServiceError, without_paths
from ai_forge.errors import TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.prompting.prompt import Message
from ai_forge.serving.runtime import NEUTRAL, with_system

__all__ = ["CHAT", "COMPLETIONS", "Upstream", "chat_body", "completion_body"]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONNECT_S = 5.0
CHUNK_BYTES = 65536
OURS = {
    "model",
    "stream",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "messages",
    "prompt",
    "suffix",
    "top_k",
    "min_p",
    "seed",
    "n",
}
# what llama.cpp says where the request cannot be done, whatever status it gives that
CALLERS_FAULT = (
    "template",
    "jinja",
    "schema",
    "grammar",
    "parse",
    "tool",
    "exceed",
    "context size",
    "invalid",
    "unsupported",
)


class Answer:
    """A runtime's answer on its way."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.protocol = h11.Connection(h11.CLIENT)
        self.status = 0
        self._reader = reader

    async def _next(self) -> h11.Response | h11.Data | h11.EndOfMessage:
        while True:
            event = self.protocol.next_event()
            if event is h11.NEED_DATA:
                self.protocol.receive_data(await self._reader.read(CHUNK_BYTES))
            elif isinstance(event, h11.Response | h11.Data | h11.EndOfMessage):
                return event
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("it closed the connection")

    async def head(self) -> None:
        """Wait for the status."""
        event = await self._next()
        assert isinstance(event, h11.Response)
        self.status = event.status_code

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it comes."""
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces()])

    async def lines(self) -> AsyncGenerator[str]:
        """The lines of the body, without their ends."""
        rest = b""
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line.decode("utf-8", "replace").rstrip("\r")


class Upstream:
    """Asks runtimes. Connections are not kept: one within a machine takes a tenth of a millisecond.

    h11 and not httpx, which adds a third of a millisecond to the first token.
    """

    @contextlib.asynccontextmanager
    async def post(self, model: OpenModel, path: str, body: JsonObject) -> AsyncIterator[Answer]:
        """The runtime's answer; leaving the block before its end stops the model.

        Raises:
            ServiceError: the runtime refuses the request.
            TransientError: it does not answer, or breaks off.
        """
        url = urlsplit(model.endpoint.url)
        content = json.dumps(body).encode()
        headers = {"Host": url.netloc, "Content-Type": "application/json", "Content-Length": str(len(content))}
        headers |= {"Connection": "close", **model.endpoint.headers}
        try:
            async with asyncio.timeout(CONNECT_S):
                port = url.port or {"http": 80, "https": 443}[url.scheme]
                reader, writer = await asyncio.open_connection(url.hostname, port, ssl=url.scheme == "https" or None)
            try:
                answer = Answer(reader)
                request = h11.Request(method="POST", target=url.path + path, headers=list(headers.items()))
                sent = (request, h11.Data(data=content), h11.EndOfMessage())
                writer.write(b"".join(answer.protocol.send(event) or b"" for event in sent))
                await answer.head()
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.read())
                yield answer
            finally:
                writer.close()
        except (OSError, h11.RemoteProtocolError) as error:  # a TimeoutError is an OSError
            raise TransientError(f"The runtime did not answer ({type(error).__name__}).", "ask again.") from error

    async def ask(self, model: OpenModel, path: str, body: JsonObject, n: int = 1) -> bytes:
        """The whole answer, or `n` of them as one: no runtime gives more than it has slots."""
        if n == 1:
            return await self._whole(model, path, body)
        asking = [asyncio.create_task(self._whole(model, path, _seeded(body, i))) for i in range(n)]
        try:
            answers = await asyncio.gather(*asking)
        finally:  # where one fails: what nobody waits for any more is collected in its middle
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        merged: JsonObject = json.loads(answers[0])
        for i, raw in enumerate(answers[1:], start=1):
            answer = json.loads(raw)
            merged["choices"] += [choice | {"index": i} for choice in answer["choices"]]
            _add_usage(merged, answer)
        return json.dumps(merged, ensure_ascii=False).encode()

    async def _whole(self, model: OpenModel, path: str, body: JsonObject) -> bytes:
        if is_raw(model, path):
            async with self.post(model, GENERATE, generate_body(body)) as answer:
                return json.dumps(completion_of(await answer.read()), ensure_ascii=False).encode()
        await self._require_room(model, path, body)
        async with self.post(model, path, body) as answer:
            return await answer.read()

    async def _require_room(self, model: OpenModel, path: str, body: JsonObject) -> None:
        """Raise where Ollama would cut the prompt."""
        if model.activation.runtime != "ollama" or path != CHAT:
            return
        # no text has more tokens than bytes: what is shorter than that needs no asking
        if len(json.dumps(body["messages"], ensure_ascii=False).encode()) > model.served.deployment.sampling.num_ctx:
            async with self.post(model, "/api/chat", probe_body(body)) as answer:
                await answer.read()

    async def pieces(self, model: OpenModel, path: str, body: JsonObject, n: int = 1) -> AsyncGenerator[bytes]:
        """The stream as it comes, byte for byte; of `n` answers one after the other."""
        if n == 1 and not is_raw(model, path):
            await self._require_room(model, path, body)
            async with self.post(model, path, body) as answer, contextlib.aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
            return
        async with contextlib.aclosing(self.lines(model, path, body, n)) as lines:
            async for line in lines:
                yield f"{line}\n\n".encode()

    async def lines(self, model: OpenModel, path: str, body: JsonObject, n: int = 1) -> AsyncGenerator[str]:
        """The events of the stream, the last of them `data: [DONE]`.

        Raises:
            TransientError: the runtime broke off.
        """
        usage: JsonObject = {}
        raw = is_raw(model, path)
        await self._require_room(model, path, body)
        for i in range(n):
            done = False
            sent = generate_body(_seeded(body, i)) if raw else _seeded(body, i)
            async with (
                self.post(model, GENERATE if raw else path, sent) as answer,
                contextlib.aclosing(answer.lines()) as lines,
            ):
                async for line in lines:
                    if raw and line:
                        chunk = completion_of(line)
                        done = "usage" in chunk
                        line = "data: " + json.dumps(chunk, ensure_ascii=False)
                    done = done or line.startswith("data: [DONE]")
                    if not line.startswith("data: {"):
                        continue
                    if n == 1:
                        yield line
                        continue
                    chunk = json.loads(line[6:])
                    _add_usage(chunk, usage)
                    usage = chunk if chunk.get("usage") else usage
                    if chunk["choices"]:
                        choices = [choice | {"index": i} for choice in chunk["choices"]]
                        yield "data: " + json.dumps(chunk | {"choices": choices}, ensure_ascii=False)
            if not done:
                raise TransientError("The runtime ended in the middle of the answer.", "ask again.")
        if n > 1 and usage:
            yield "data: " + json.dumps(usage | {"choices": []})
        yield "data: [DONE]"


def is_raw(model: OpenModel, path: str) -> bool:
    """Whether Ollama has to be asked by its own route, or it would put the text into a chat."""
    return path == COMPLETIONS and model.activation.runtime == "ollama"


def _seeded(body: JsonObject, i: int) -> JsonObject:
    """The request for answer `i`: with the same seed all would be the same."""
    if i and "seed" in body:
        return body | {"seed": body["seed"] + i}
    return body


def _add_usage(to: JsonObject, other: JsonObject) -> None:
    if to.get("usage") and other.get("usage"):
        both = to["usage"], other["usage"]
        to["usage"] = {
            key: both[0][key] + both[1][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")
        }


def _refusal(status: int, content: bytes) -> Exception:
    message = content.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(content)["error"]
        message = str(error["message"] if isinstance(error, dict) else error)
    message = without_paths(" ".join(message.split()))[:300].rstrip(".")
    is_callers = status < 500 or any(word in message.lower() for word in CALLERS_FAULT)
    if is_callers:
        code = "context_length_exceeded" if "context" in message and "exceed" in message else "bad_input"
        return ServiceError(
            400, code, f"The runtime cannot do this: {message}.", "change the request; /docs shows one."
        )
    return TransientError(f"The runtime failed: {message}.", "ask again.")


def chat_body(request: ChatRequest, model: OpenModel, messages: list[JsonObject], limit: int) -> JsonObject:
    """What the runtime is sent for a chat."""
    body = _sampled(request, model, limit, request.wanted_tokens) | _chosen_tool(request, model)
    return body | {"messages": _with_system(messages, model)}


def _chosen_tool(request: ChatRequest, model: OpenModel) -> JsonObject:
    """A call that must be made, in the words that llama.cpp knows: one tool alone, and one is required.

    Raises:
        ServiceError: the tool is none of those that were sent, or the model's template has no place for tools: such a model is
            shown none, and answers in words.
    """
    choice = request.tool_choice
    if choice in (None, "none", "auto"):
        return {}
    deployment = model.served.deployment
    if "tools" not in deployment.chat_template:
        raise ServiceError(
            400,
            "unsupported",
            f"{deployment.name} cannot be made to call a tool: the chat template of {deployment.base} has none.",
            "leave tool_choice out, or serve a base that was trained on tools, such as Qwen2.5-Coder.",
            param="tool_choice",
        )
    if not isinstance(choice, ToolChoice):
        return {}
    name, tools = choice.function.name, request.tools or []
    chosen = [tool.model_dump(exclude_none=True) for tool in tools if tool.function.name == name]
    if not chosen:
        known = ", ".join(tool.function.name for tool in tools) or "none"
        raise ServiceError(
            400,
            "bad_input",
            f"tool_choice names {name[:64]!r}; the tools are: {known}.",
            "name one of them.",
            param="tool_choice",
        )
    return {"tools": chosen, "tool_choice": "required"}


def _with_system(messages: list[JsonObject], model: OpenModel) -> list[JsonObject]:
    turns: list[Message] = messages  # type: ignore[assignment]
    return [dict(turn) for turn in with_system(turns, model.served.deployment.system_prompt)]


def completion_body(request: CompletionRequest, model: OpenModel, prompt: str, limit: int) -> JsonObject:
    """What the runtime is sent for a text to go on with."""
    return _sampled(request, model, limit, request.wanted_tokens) | {"prompt": prompt}


def _sampled(
    request: ChatRequest | CompletionRequest, model: OpenModel, limit: int, wanted_tokens: int | None
) -> JsonObject:
    """Model and sampling. Clients ask for as many tokens as they could show (32,000, 64,000): a bound, of which `limit` are given."""
    if wanted_tokens is not None:
        wanted_tokens = min(wanted_tokens, limit)
    deployment = model.served.deployment
    body: JsonObject = request.model_dump(exclude_none=True, exclude=OURS)
    body |= {"model": model.endpoint.model, "stream": bool(request.stream)}
    if request.seed is not None:
        body["seed"] = request.seed % 2**31
    stop = request.stop_words
    if model.activation.runtime == "ollama":
        # it lays the request over what the model was made with
        if wanted_tokens is not None:
            body["max_tokens"] = wanted_tokens
        if stop:
            body["stop"] = [*deployment.stop, *stop]
        return body
    sampling = deployment.sampling
    body["max_tokens"] = wanted_tokens or min(sampling.num_predict, limit)
    body.setdefault("temperature", sampling.temperature)
    body.setdefault("top_p", sampling.top_p)
    body["top_k"] = request.top_k or sampling.top_k
    body["stop"] = [*deployment.stop, *stop]
    body |= NEUTRAL
    if request.min_p is not None:
        body["min_p"] = request.min_p
    return body
