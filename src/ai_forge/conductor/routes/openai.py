"""OpenAI's routes: chat, responses, completions, embeddings. Any client of theirs works with `base_url=http://…/v1`."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from ai_forge.conductor.cited import Shown, cited_answer, cited_events, shown_for
from ai_forge.conductor.gate import allow
from ai_forge.conductor.open_models import OpenModel
from ai_forge.conductor.openai.fill_in import fill_in_prompt
from ai_forge.conductor.openai.responses import Response as Answered
from ai_forge.conductor.openai.responses import ResponseRequest, chat_request, response_events, response_of
from ai_forge.conductor.openai.schemas import (
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    Embedding,
    EmbeddingRequest,
    Embeddings,
    Usage,
)
from ai_forge.conductor.openai.streams import Events, unless_left
from ai_forge.conductor.openai.upstream import CHAT, COMPLETIONS, chat_body, completion_body
from ai_forge.conductor.problems import ServiceError
from ai_forge.conductor.routes.models import OPENAI_ERROR
from ai_forge.conductor.service import Service, TheService, service_of
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.json_lines import JsonObject
from ai_forge.serving.registry import ActiveVersion

router = APIRouter(tags=["OpenAI"])
COUNTED = re.compile(rb'"(prompt|completion)_tokens"\s*:\s*(\d+)')
ASKED = {"messages": [{"role": "user", "content": "Where are settings loaded?"}], "max_tokens": 64}
STREAMED: dict[int | str, JsonObject] = {
    200: {"model": ChatCompletion, "content": {"text/event-stream": {}}, "description": "The answer."}
}


def example(body: JsonObject) -> JsonObject:
    """The example that a route's page shows and its test sends."""
    return {"requestBody": {"content": {"application/json": {"example": body}}}}


@router.post(CHAT, response_model=None, responses=OPENAI_ERROR | STREAMED, openapi_extra=example(ASKED))
@allow("chat")
async def chat(request: Request, body: ChatRequest) -> Response:
    """A chat, as OpenAI's. `NAME` is asked with what is found of its repository and adds `citations`; `NAME:plain` is not."""
    service = service_of(request)  # not as a dependency, which takes as long as reading the body
    deployed, plain = service.models.find(body.model)
    asked = _Asked(service, deployed)
    if body.stream:
        return Events(_streamed_chat(asked, body, plain))
    return Response(await unless_left(request.receive, _whole_chat(asked, body, plain)), media_type="application/json")


class _Asked:
    """An answer on its way, for the metrics and the time limit."""

    def __init__(self, service: Service, deployed: ActiveVersion) -> None:
        self.service, self.deployed = service, deployed
        self.limit = service.context.settings.service.max_answer_tokens
        self.timeout_s = service.context.settings.service.answer_timeout_s
        self._name = deployed.activation.name
        self._started = time.perf_counter()
        self._begun = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenModel]:
        """The model, for as long as one answer may take.

        Raises:
            ServiceError: 504, it took longer.
        """
        try:
            async with asyncio.timeout(self.timeout_s), self.service.models.using(self.deployed) as model:
                yield model
        except TimeoutError as error:
            raise ServiceError(
                504,
                "too_slow",
                f"The answer took longer than {self.timeout_s:g} s.",
                "ask for fewer tokens, or raise service.answer_timeout_s.",
            ) from error

    async def counted(self, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The pieces, counted on their way."""
        tail, n_pieces = b"", 0
        async with aclosing(pieces) as going:
            async for piece in going:
                self.piece()
                n_pieces += piece.count(b"data: {")
                tail = (tail + piece)[-2000:]
                yield piece
        self.ended(tail, n_pieces)

    def piece(self) -> None:
        """Something of it went out."""
        if not self._begun:
            self._begun = True
            self.service.metrics.first_token.labels(self._name).observe(time.perf_counter() - self._started)

    def ended(self, tail: bytes, n_pieces: int = 0) -> None:
        """All of it went out; `tail` holds the usage where the runtime tells it, else pieces are tokens."""
        self.piece()
        counted = {kind: int(number) for kind, number in COUNTED.findall(tail)} or {b"completion": n_pieces}
        for kind, number in counted.items():
            self.service.metrics.tokens.labels(self._name, kind.decode()).inc(number)
        self.service.metrics.answer_seconds.labels(self._name).inc(time.perf_counter() - self._started)


async def _prepared(asked: _Asked, body: ChatRequest, model: OpenModel, plain: bool) -> tuple[JsonObject, Shown | None]:
    """What the runtime is sent, and the documents in it."""
    # a file is read and thousands of entries are ranked: not in the event loop
    shown = None if plain or model.served.index is None else await run_in_threadpool(shown_for, body, model.served)
    messages = [message.passed_on() for message in body.messages] if shown is None else shown.messages
    return chat_body(body, model, messages, asked.limit), shown


async def _whole_chat(asked: _Asked, body: ChatRequest, plain: bool) -> bytes:
    async with asked.open() as model:
        sent, shown = await _prepared(asked, body, model, plain)
        answer = await asked.service.upstream.ask(model, CHAT, sent, body.n or 1)
        asked.ended(answer[-2000:])
        if shown is None:
            return answer
        return json.dumps(cited_answer(json.loads(answer), shown), ensure_ascii=False).encode()


async def _streamed_chat(asked: _Asked, body: ChatRequest, plain: bool) -> AsyncGenerator[bytes]:
    async with asked.open() as model:
        sent, shown = await _prepared(asked, body, model, plain)
        upstream, n = asked.service.upstream, body.n or 1
        if shown is None:
            pieces = upstream.pieces(model, CHAT, sent, n)
        else:
            pieces = cited_events(upstream.lines(model, CHAT, sent, n), shown)
        async with aclosing(asked.counted(pieces)) as counted:
            async for piece in counted:
                yield piece


@router.post(
    "/v1/responses",
    response_model=None,
    responses=OPENAI_ERROR
    | {200: {"model": Answered, "content": {"text/event-stream": {}}, "description": "The answer."}},
    openapi_extra=example({"input": "Where are settings loaded?", "max_output_tokens": 64}),
)
@allow("chat")
async def responses(request: Request, body: ResponseRequest, service: TheService) -> Response:
    """A chat in OpenAI's newer form: text in, text out, nothing kept. `NAME` is asked with what is found, as in a chat."""
    chat_body = chat_request(body)
    deployed, plain = service.models.find(body.model)
    asked = _Asked(service, deployed)
    if body.stream:
        pieces = _streamed_chat(asked, chat_body, plain)
        return Events(response_events(body, deployed.version.deployment.model, pieces))
    answer = await unless_left(request.receive, _whole_chat(asked, chat_body, plain))
    return JSONResponse(response_of(body, json.loads(answer)))


@router.post(
    COMPLETIONS,
    response_model=None,
    responses=OPENAI_ERROR | STREAMED,
    openapi_extra=example({"prompt": "def add(a, b):\n", "max_tokens": 16}),
)
@allow("chat")
async def completions(request: Request, body: CompletionRequest, service: TheService) -> Response:
    """A text that goes on, without a chat template or retrieval; with `suffix`, what stands between the two."""
    deployed, _ = service.models.find(body.model)
    asked = _Asked(service, deployed)
    if body.stream:
        return Events(_streamed_completion(asked, body))
    return Response(await unless_left(request.receive, _whole_completion(asked, body)), media_type="application/json")


async def _whole_completion(asked: _Asked, body: CompletionRequest) -> bytes:
    async with asked.open() as model:
        sent = completion_body(body, model, await _prompt(body, model), asked.limit)
        answer = await asked.service.upstream.ask(model, COMPLETIONS, sent, body.n or 1)
        asked.ended(answer[-2000:])
        return answer


async def _streamed_completion(asked: _Asked, body: CompletionRequest) -> AsyncGenerator[bytes]:
    async with asked.open() as model:
        sent = completion_body(body, model, await _prompt(body, model), asked.limit)
        pieces = asked.service.upstream.pieces(model, COMPLETIONS, sent, body.n or 1)
        async with aclosing(asked.counted(pieces)) as counted:
            async for piece in counted:
                yield piece


async def _prompt(body: CompletionRequest, model: OpenModel) -> str:
    if body.suffix is None:
        return body.text
    deployment = model.served.deployment
    prompt = await run_in_threadpool(fill_in_prompt, deployment.gguf_path, body.text, body.suffix)
    if prompt is None and not body.suffix:  # editors send an empty one at the end of a file
        return body.text
    if prompt is None:
        raise ServiceError(
            400,
            "unsupported",
            f"{deployment.base} was not trained to fill in: its vocabulary has no tokens for a suffix.",
            "leave suffix out, or serve a base that was, such as Qwen2.5-Coder.",
            param="suffix",
        )
    return prompt


@router.post(
    "/v1/embeddings", responses=OPENAI_ERROR, openapi_extra=example({"input": ["def load(path):", "read a file"]})
)
@allow("chat")
async def embeddings(body: EmbeddingRequest, service: TheService) -> Embeddings:
    """Vectors of texts, of length 1, by the encoder that questions are found with."""
    if not body.texts:
        raise ServiceError(
            400,
            "unsupported",
            "input holds token ids, which do not say whose vocabulary they are of.",
            "send the text (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)).",
            param="input",
        )
    encoder = service.embedding
    if body.model and body.model != encoder.name:
        service.models.find(body.model)  # 404 for what is neither
    vectors = await run_in_threadpool(encoder.embed, body.texts)
    n_tokens = sum(approximate_tokens(text) for text in body.texts)
    data = []
    for index, vector in enumerate(vectors):
        value: list[float] | str = vector.tolist()
        if body.encoding_format == "base64":
            value = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        data.append(Embedding(index=index, embedding=value))
    return Embeddings(data=data, model=encoder.name, usage=Usage(prompt_tokens=n_tokens, total_tokens=n_tokens))
