"""Which models are deployed: our list, and OpenAI's."""

from __future__ import annotations

import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from ai_forge.conductor.gate import allow
from ai_forge.conductor.open_models import PLAIN
from ai_forge.conductor.problems import OpenAIErrorAnswer
from ai_forge.conductor.service import Service, TheService
from ai_forge.json_lines import JsonObject
from ai_forge.serving.registry import ActiveVersion

router = APIRouter(tags=["models"])
OPENAI_ERROR: dict[int | str, JsonObject] = {
    "default": {"model": OpenAIErrorAnswer, "description": "An error in OpenAI's shape."}
}


class ModelInfo(BaseModel):
    """The active version of a model. `retrieval`: it is asked with what is found of its repository."""

    name: str
    version: str
    runtime: str
    base: str
    kind: str
    retrieval: bool
    open: bool
    activated_at: str
    metrics: JsonObject


class Models(BaseModel):
    """The deployed models; `active_model` is the one that answers where a request names none."""

    available_models: list[str]
    active_model: str | None
    models: list[ModelInfo]


class OpenAIModel(BaseModel):
    """A model as OpenAI lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ai-forge"


class OpenAIModels(BaseModel):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


@router.get("/models")
@allow("read")
async def list_models(service: TheService) -> Models:
    """The deployed models and the one that answers where none is named."""
    known = service.models.deployed()
    opened = {model.activation for model in service.models.opened()}
    active = max(known.values(), key=lambda one: one.activation.id, default=None)
    return Models(
        available_models=sorted(known),
        active_model=active.activation.name if active else None,
        models=[_info(deployed, deployed.activation in opened) for _, deployed in sorted(known.items())],
    )


def _info(deployed: ActiveVersion, is_open: bool) -> ModelInfo:
    activation, deployment = deployed.activation, deployed.version.deployment
    asking = deployment.asking
    return ModelInfo(
        name=activation.name,
        version=activation.version,
        runtime=activation.runtime,
        base=deployment.base,
        kind=asking.kind if asking else "repository",
        retrieval=deployed.has_index,
        open=is_open,
        activated_at=activation.activated_at,
        metrics=dict(deployed.version.metrics),
    )


@router.get("/v1/models", responses=OPENAI_ERROR)
@allow("read")
async def list_openai_models(service: TheService) -> OpenAIModels:
    """OpenAI's list: each model under its name and, to be asked without retrieval, as `NAME:plain`."""
    return OpenAIModels(data=_as_openai(service))


@router.get("/v1/models/{model}", responses=OPENAI_ERROR)
@allow("read")
async def get_openai_model(model: str, service: TheService) -> OpenAIModel:
    """One model of OpenAI's list."""
    deployed, plain = service.models.find(model)
    name = deployed.activation.name
    wanted = f"{name}:{PLAIN}" if plain else name
    return next(one for one in _as_openai(service) if one.id == wanted)


def _as_openai(service: Service) -> list[OpenAIModel]:
    listed = []
    for name, deployed in sorted(service.models.deployed().items()):
        created = int(datetime.datetime.fromisoformat(deployed.activation.activated_at).timestamp())
        listed += [OpenAIModel(id=model, created=created) for model in (name, f"{name}:{PLAIN}")]
    return listed
