"""Requests passed on to the runtime: what is sent, and what comes back as bytes.

The answer is not read on its way, so `NAME:plain` costs a hop and no more. What a version was deployed with (system text,
sampling, stop words) is put in here for llama.cpp; Ollama holds it with the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator

import httpx

from ai_forge.conductor.open_models import OpenModel
from ai_forge.conductor.openai_schemas import ChatRequest, CompletionRequest
from ai_forge.conductor.problems import ServiceError, without_paths
from ai_forge.errors import TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.prompting.prompt import Message
from ai_forge.serving.runtime import NEUTRAL, with_system

__all__ = ["Upstream", "chat_body", "completion_body"]

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


class Upstream:
    """The connections to all runtimes."""

    def __init__(self, timeout_s: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        timeout = httpx.Timeout(timeout_s, connect=5, pool=None)
        self._client = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False)

    async def close(self) -> None:
        """Close them."""
        await self._client.aclose()

    @contextlib.asynccontextmanager
    async def post(self, model: OpenModel, path: str, body: JsonObject) -> AsyncIterator[httpx.Response]:
        """The runtime's answer; leaving the block before its end stops the model.

        Raises:
            ServiceError: the runtime refuses the request.
            TransientError: it does not answer, or breaks off.
        """
        endpoint = model.endpoint
        request = self._client.build_request(
            "POST",
            endpoint.url + path,
            content=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **endpoint.headers},
        )
        try:
            response = await self._client.send(request, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                yield response
            finally:
                await response.aclose()
        except (httpx.TransportError, httpx.StreamError) as error:
            raise TransientError(f"The runtime did not answer ({type(error).__name__}).", "ask again.") from error

    async def ask(self, model: OpenModel, path: str, body: JsonObject, n: int = 1) -> bytes:
        """The whole answer, or `n` of them as one: no runtime gives more than it has slots."""
        answers = await asyncio.gather(*(self._whole(model, path, _seeded(body, i)) for i in range(n)))
        if n == 1:
            return answers[0]
        merged: JsonObject = json.loads(answers[0])
        for i, raw in enumerate(answers[1:], start=1):
            answer = json.loads(raw)
            merged["choices"] += [choice | {"index": i} for choice in answer["choices"]]
            _add_usage(merged, answer)
        return json.dumps(merged, ensure_ascii=False).encode()

    async def _whole(self, model: OpenModel, path: str, body: JsonObject) -> bytes:
        async with self.post(model, path, body) as response:
            return await response.aread()

    async def pieces(self, model: OpenModel, path: str, body: JsonObject, n: int = 1) -> AsyncGenerator[bytes]:
        """The stream as it comes, byte for byte; of `n` answers one after the other."""
        if n == 1:
            async with self.post(model, path, body) as response:
                async for piece in response.aiter_raw():
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
        for i in range(n):
            done = False
            async with self.post(model, path, _seeded(body, i)) as response:
                async for line in response.aiter_lines():
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


def _refusal(response: httpx.Response) -> Exception:
    try:
        error = response.json()["error"]
        message = str(error["message"]) if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = response.text
    message = without_paths(" ".join(message.split()))[:300].rstrip(".")
    is_callers = response.status_code < 500 or any(word in message.lower() for word in CALLERS_FAULT)
    if is_callers:
        code = "context_length_exceeded" if "context" in message and "exceed" in message else "bad_input"
        return ServiceError(
            400, code, f"The runtime cannot do this: {message}.", "change the request; /docs shows one."
        )
    return TransientError(f"The runtime failed: {message}.", "ask again.")


def chat_body(request: ChatRequest, model: OpenModel, messages: list[JsonObject], limit: int) -> JsonObject:
    """What the runtime is sent for a chat."""
    return _sampled(request, model, limit, request.wanted_tokens) | {"messages": _with_system(messages, model)}


def _with_system(messages: list[JsonObject], model: OpenModel) -> list[JsonObject]:
    turns: list[Message] = messages  # type: ignore[assignment]
    return [dict(turn) for turn in with_system(turns, model.served.deployment.system_prompt)]


def completion_body(request: CompletionRequest, model: OpenModel, prompt: str, limit: int) -> JsonObject:
    """What the runtime is sent for a text to go on with."""
    return _sampled(request, model, limit, request.wanted_tokens) | {"prompt": prompt}


def _sampled(
    request: ChatRequest | CompletionRequest, model: OpenModel, limit: int, wanted_tokens: int | None
) -> JsonObject:
    """Model and sampling.

    Raises:
        ServiceError: the answer that is asked for is longer than what is allowed, or the runtime lacks what is asked for.
    """
    if wanted_tokens is not None and wanted_tokens > limit:
        raise ServiceError(
            400,
            "bad_input",
            f"max_tokens is {wanted_tokens}; at most {limit} are allowed.",
            "ask for fewer.",
            param="max_tokens",
        )
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
