"""One question, one answer; and what retrieval finds for it."""

from __future__ import annotations

import json
import time
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.concurrency import run_in_threadpool

from ai_forge.conductor.gate import allow
from ai_forge.conductor.openai.schemas import ChatMessage, ChatRequest, Citation
from ai_forge.conductor.openai.streams import unless_left
from ai_forge.conductor.problems import ServiceError
from ai_forge.conductor.routes.openai import _Asked, _whole_chat, example
from ai_forge.conductor.schemas import FoundPlace
from ai_forge.conductor.service import Service, TheService
from ai_forge.json_lines import JsonObject

router = APIRouter(tags=["questions"])
Text = Annotated[StrictStr, Field(min_length=1, max_length=100_000)]


class Query(BaseModel):
    """A question."""

    model_config = ConfigDict(extra="forbid")

    prompt: Text = Field(description="the question")
    model: StrictStr | None = Field(None, description="a deployed model; the one deployed last where it is left out")


class QueryMetadata(BaseModel):
    """How it was answered. `citations` are the places that were shown."""

    model: str
    citations: list[Citation]
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class QueryAnswer(BaseModel):
    """The answer."""

    answer: str
    metadata: QueryMetadata


@router.post("/v1/query", openapi_extra=example({"prompt": "Where are settings loaded?"}))
@allow("chat")
async def query(request: Request, body: Query, service: TheService) -> QueryAnswer:
    """Ask one question, with what is found of the repository."""
    started = time.perf_counter()
    deployed, plain = service.models.find(body.model)
    chat = ChatRequest(messages=[ChatMessage(role="user", content=body.prompt)])
    raw = await unless_left(request.receive, _whole_chat(_Asked(service, deployed), chat, plain))
    answer: JsonObject = json.loads(raw)
    usage = answer.get("usage") or {}
    return QueryAnswer(
        answer=answer["choices"][0]["message"].get("content") or "",
        metadata=QueryMetadata(
            model=f"{deployed.activation.name}:{deployed.activation.version}",
            citations=answer.get("citations", []),
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            seconds=round(time.perf_counter() - started, 3),
        ),
    )


class Search(BaseModel):
    """What to look for."""

    model_config = ConfigDict(extra="forbid")

    query: Text
    model: StrictStr | None = Field(None, description="a deployed model; the last with an index where it is left out")
    k: Annotated[int, Field(ge=1, le=200, strict=True)] = Field(10, description="how many places")


def _searched(service: Service) -> str | None:
    """The model that was deployed last of those that have an index."""
    indexed = [one for one in service.models.deployed().values() if one.has_index]
    return max(indexed, key=lambda one: one.activation.id).activation.name if indexed else None


class SearchAnswer(BaseModel):
    """The places, best first."""

    model: str
    results: list[FoundPlace]


@router.post("/v1/search", openapi_extra=example({"query": "where is the file read?", "k": 3}))
@allow("chat")
async def search(body: Search, service: TheService) -> SearchAnswer:
    """What retrieval finds: files with lines, and why."""
    deployed, _ = service.models.find(body.model or _searched(service))
    name = deployed.activation.name
    async with service.models.using(deployed) as model:
        index = model.served.index
        if index is None:
            raise ServiceError(
                400, "unsupported", f"{name} has no index: it is asked without documents.", "name another model."
            )
        found = await run_in_threadpool(index.search, body.query, body.k)
    results = [FoundPlace.of(one) for one in found]
    return SearchAnswer(model=f"{name}:{deployed.activation.version}", results=results)
