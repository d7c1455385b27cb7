"""Errors as a caller of the service sees them: a status, a stable code, what failed, what to do next.

Our routes answer `{"error": {"code", "message", "next_step", "request_id"}}`, the OpenAI routes what OpenAI's clients expect:
`{"error": {"message", "type", "param", "code"}}`. No error tells a path of this machine or what Python said.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from ai_forge.conductor.logs import request_id
from ai_forge.errors import AIForgeError, CancelledError, InputError, PrerequisiteError, RefusedError, TransientError

__all__ = ["ErrorAnswer", "OpenAIErrorAnswer", "ServiceError", "answer_to", "is_openai", "problem_of", "without_paths"]

log = logging.getLogger(__name__)
OPENAI_ROUTES = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/responses")
STATUS: tuple[tuple[type[AIForgeError], int], ...] = (
    (InputError, 400),
    (RefusedError, 409),
    (CancelledError, 409),
    (PrerequisiteError, 503),
    (TransientError, 503),
)
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\",;]+/)+([^\s/:'\",;]*)")
DATABASE = re.compile(r"\b(sqlite|postgresql)(?:\+\w+)?://\S*")


class ErrorDetail(BaseModel):
    """What went wrong: `code` is stable, `message` names the value and the limit, `next_step` what to try."""

    code: str
    message: str
    next_step: str | None = None
    request_id: str


class ErrorAnswer(BaseModel):
    """An error of our routes."""

    error: ErrorDetail


class OpenAIErrorDetail(BaseModel):
    """An error in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIErrorAnswer(BaseModel):
    """An error of the OpenAI routes."""

    error: OpenAIErrorDetail


class ServiceError(InputError):
    """An error with a status of its own."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        next_step: str | None = None,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, next_step)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


def problem_of(error: Exception) -> ServiceError:
    """The status and words for any error; what nobody raised on purpose is logged and told without details."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, AIForgeError):
        status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        headers = {"Retry-After": "5"} if status == 503 else {}
        if status != 500:
            next_step = None if error.next_step is None else without_paths(error.next_step)
            return ServiceError(status, error.code, without_paths(error.message), next_step, headers=headers)
    if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
        return ServiceError(
            507, "disk_full", "The disk of the service is full.", "free some space there, then send it again."
        )
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return ServiceError(
        500, "internal", "Something went wrong inside AI Forge.", "its log says more under this request's id."
    )


def without_paths(text: str) -> str:
    """`text` with the last part alone of each absolute path: a caller is not told where things lie on this machine.

    >>> without_paths("/home/ann/up/data.jsonl holds no records; see /v1/jobs.")
    'data.jsonl holds no records; see /v1/jobs.'
    >>> without_paths("The database of jobs postgresql+psycopg://ann@db.team:5432/jobs cannot be used.")
    'The database of jobs postgresql cannot be used.'
    """
    home = str(Path.home())
    text = DATABASE.sub(r"\1", text)
    text = text.replace(home + "/", "/home/")

    def short(match: re.Match[str]) -> str:
        if match.group().startswith(("/v1/", "/status/", "/deploy/", "/validate/")):  # a route, not a place
            return match.group()
        return match.group(1)

    return ABSOLUTE_PATH.sub(short, text)


def is_openai(path: str) -> bool:
    """Whether errors of this route have OpenAI's shape."""
    return path.startswith(OPENAI_ROUTES)


def answer_to(error: Exception, path: str) -> JSONResponse:
    """The response that tells `error`."""
    problem = problem_of(error)
    status, headers = problem.status, problem.headers
    content: ErrorAnswer | OpenAIErrorAnswer
    if is_openai(path):
        kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        detail = OpenAIErrorDetail(message=str(problem), type=kind, param=problem.param, code=problem.code)
        content = OpenAIErrorAnswer(error=detail)
    else:
        content = ErrorAnswer(
            error=ErrorDetail(
                code=problem.code, message=problem.message, next_step=problem.next_step, request_id=request_id()
            )
        )
    return JSONResponse(content.model_dump(), status, headers)
