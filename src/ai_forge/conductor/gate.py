"""What every request passes before any route sees it, mounted applications included.

In this order: an id, Host and Origin, the key and its scope, the rate, the size and pace of the body. Then the answer is counted
and logged. Pure ASGI: nothing is buffered, so a stream passes as it comes.

A route says by `allow` what it needs; one that says nothing needs `admin`, so a new route cannot be open by mistake.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlencode, urlsplit

from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from ai_forge.conductor.auth import (
    ANYONE_HERE,
    PREFIX,
    Caller,
    KeyStore,
    RateLimiter,
    Scope,
    demands_keys,
    unauthorised,
)
from ai_forge.conductor.logs import in_request
from ai_forge.conductor.problems import ServiceError, answer_to

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ai_forge.conductor.metrics import Metrics
    from ai_forge.config import ServiceSettings

__all__ = ["KEY_COOKIE", "Gate", "Policy", "allow", "policies"]

log = logging.getLogger(__name__)
Endpoint = TypeVar("Endpoint")
BODY_PAUSE_S = 30.0  # longest silence in the middle of a body: who sends a byte a minute holds a connection for ever
GIVEN_ID = re.compile(r"[\w.-]{1,64}")
KEY_COOKIE = "ai_forge_key"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Policy:
    """What a route needs. `scope` None: it is open to all. `upload`: its body may be as large as an upload."""

    scope: Scope | None = "admin"
    upload: bool = False


def allow(scope: Scope | Literal["everyone"], *, upload: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Say what a route (or a mounted application) needs; below the route's own decorator."""
    policy = Policy(None if scope == "everyone" else scope, upload)

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.policy = policy  # type: ignore[attr-defined]
        return endpoint

    return mark


def missing_scope(caller: Caller, scope: Scope) -> ServiceError:
    """A 403 with what is missing."""
    return ServiceError(
        403,
        "missing_scope",
        f"The API key {caller.name} has the scopes {', '.join(sorted(caller.scopes))}; this needs {scope}.",
        f"use one with it: ai-forge keys add NAME --scope {scope}.",
    )


def require_deploy(request: Request) -> None:
    """For what ends with a deployment, whatever else it needs. Raises `ServiceError` 403 where the caller may not deploy."""
    caller: Caller = request.state.caller
    if not caller.may("deploy"):
        raise missing_scope(caller, "deploy")


@dataclass(frozen=True)
class _Rule:
    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    policy: Policy


def policies(app: FastAPI) -> list[tuple[str, frozenset[str], Policy]]:
    """(path, methods, policy) of every route and mount of `app`; no methods mean all."""
    return [(rule.path, rule.methods, rule.policy) for rule in _rules(app)]


def _rules(app: FastAPI) -> list[_Rule]:
    rules = []
    for route in iter_route_contexts(app.routes):
        path = route.path or ""
        target = route.endpoint or getattr(route.original_route, "app", None)
        methods = frozenset(route.methods or ())
        if not methods:  # a mount: everything below it
            path += "/{rest:path}"
        rules.append(_Rule(route.path or "", compile_path(path)[0], methods, getattr(target, "policy", Policy())))
    return rules


class Gate:
    """The middleware; see above. One for an application."""

    def __init__(
        self, app: ASGIApp, *, service: FastAPI, settings: ServiceSettings, keys: KeyStore, metrics: Metrics
    ) -> None:
        self._app = app
        self._service = service
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._limiter = RateLimiter(settings.requests_per_minute)
        self._hosts = {*LOCAL_NAMES, _bracketed(settings.host), *settings.allowed_hosts}
        self._rules: list[_Rule] = []
        self._n_routes = -1

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        identifier = given if GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
        with in_request(identifier):
            await _Passage(self, scope, receive, send, headers, identifier).run()

    def rule(self, method: str, path: str) -> _Rule | None:
        """The route that will answer; of several with this path the one that has the method."""
        if len(self._service.routes) != self._n_routes:  # routers may be included after the first request
            self._rules, self._n_routes = _rules(self._service), len(self._service.routes)
        matching = [rule for rule in self._rules if rule.pattern.match(path)]
        by_method = (rule for rule in matching if not rule.methods or method in rule.methods)
        return next(by_method, matching[0] if matching else None)

    def check_origin(self, headers: Headers) -> None:
        """A page of another site must not drive the service through its reader's browser, nor by a name that it rebinds.

        Raises:
            ServiceError: 421 for an unknown Host, 403 for a foreign Origin.
        """
        host = headers.get("host", "")
        if _without_port(host) not in self._hosts and "*" not in self._hosts:
            raise ServiceError(
                421,
                "unknown_host",
                f"This service is not called {host[:100]!r}.",
                "add the name to service.allowed_hosts.",
            )
        origin = headers.get("origin")
        if origin is None or origin in self._settings.allowed_origins or urlsplit(origin).netloc == host:
            return
        raise ServiceError(
            403,
            "foreign_origin",
            f"Pages of {origin[:100]!r} may not call this service.",
            "see service.allowed_origins.",
        )

    def caller(self, headers: Headers) -> Caller | None:
        """Who calls; None where keys are demanded and none is given. A key that is given is always checked.

        Raises:
            ServiceError: 401.
        """
        kind, _, text = headers.get("authorization", "").partition(" ")
        text = text.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if not text:  # a browser that was signed in on a page
            text = cookie_parser(headers.get("cookie", "")).get(KEY_COOKIE, "")
        if demands_keys(self._settings):
            return self._keys.caller(text) if text else None
        if text.startswith(f"{PREFIX}_"):  # others are what clients send because they must send something
            return self._keys.caller(text)
        return ANYONE_HERE

    def admit(self, headers: Headers, rule: _Rule | None, address: str) -> Caller | None:
        """Who is let in, and counted. Raises `ServiceError` 401, 403, 421 or 429."""
        self.check_origin(headers)
        policy = rule.policy if rule else Policy()
        if policy.scope is None:
            return None
        caller = self.caller(headers)
        if caller is None:
            raise unauthorised("This service demands an API key.")
        # what does not exist is told to everyone with a key
        if rule is not None and not caller.may(policy.scope):
            raise missing_scope(caller, policy.scope)
        self._limiter.check(caller.name if caller is not ANYONE_HERE else address)
        return caller


class _Passage:
    """One request on its way through."""

    def __init__(
        self, gate: Gate, scope: AsgiScope, receive: Receive, send: Send, headers: Headers, identifier: str
    ) -> None:
        self.gate, self.scope, self.headers, self.identifier = gate, scope, headers, identifier
        self._receive, self._send = receive, send
        self._started = time.perf_counter()
        self._status = 0
        self._n_bytes = 0
        self._body_ended = False
        self._limit = 0

    async def run(self) -> None:
        scope, gate = self.scope, self.gate
        method, path = scope.get("method", "GET"), scope["path"]
        rule = gate.rule(method, path)
        address = scope["client"][0] if scope.get("client") else "local"
        settings, metrics = gate._settings, gate._metrics
        with metrics.in_flight.track_inprogress():
            try:
                caller = gate.admit(self.headers, rule, address)
                scope.setdefault("state", {})["caller"] = caller
                is_upload = rule is not None and rule.policy.upload
                self._limit = settings.max_upload_bytes if is_upload else settings.max_request_bytes
                self._check_length(self.headers.get("content-length"))
                await gate._app(scope, self.receive, self.send)
            except asyncio.CancelledError:
                self._status = self._status or 499
                raise
            except Exception as error:  # noqa: BLE001 (the last place where it can become an answer)
                await self._answer(error)
            finally:
                self._tell(method, rule.path if rule else "(none)")

    async def _answer(self, error: Exception) -> None:
        if self._status:  # it broke in the middle of an answer: cutting it off is all that is left
            log.error("broken answer", exc_info=error)
            raise error
        if self.scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": 1008, "reason": str(error)[:100]})
            return
        answer: Response = answer_to(error, self.scope["path"])
        is_page = self.scope["method"] == "GET" and "text/html" in self.headers.get("accept", "")
        if is_page and isinstance(error, ServiceError) and error.status == 401:
            answer = RedirectResponse("/sign-in?" + urlencode({"next": self.scope["path"]}), 303)
        await answer(self.scope, self.receive, self.send)

    def _tell(self, method: str, route: str) -> None:
        seconds = time.perf_counter() - self._started
        self.gate._metrics.requests.labels(method, route, str(self._status)).observe(seconds)
        fields = {"method": method, "route": route, "status": self._status, "ms": round(seconds * 1000, 1)}
        caller = self.scope.get("state", {}).get("caller")
        if caller is not None:
            fields["caller"] = caller.name
        log.info("request", extra={"fields": fields})

    def _check_length(self, given: str | None) -> None:
        if given is not None and given.isdigit() and int(given) > self._limit:
            raise too_large(self._limit)

    async def receive(self) -> Message:
        if self._body_ended:
            return await self._receive()  # waits until the caller goes away
        try:
            async with asyncio.timeout(BODY_PAUSE_S):
                message = await self._receive()
        except TimeoutError as error:
            raise ServiceError(
                408, "slow_body", f"Nothing came for {BODY_PAUSE_S:g} s in the middle of the body.", "send it again."
            ) from error
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            if self._n_bytes > self._limit:
                raise too_large(self._limit)
            self._body_ended = not message.get("more_body", False)
        else:
            self._body_ended = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.identifier
            headers.setdefault("x-content-type-options", "nosniff")
            headers.setdefault("cache-control", "no-store")
        await self._send(message)


def too_large(limit: int) -> ServiceError:
    """A 413 that names the limit."""
    return ServiceError(
        413,
        "too_large",
        f"The body is larger than {limit} bytes.",
        "send less, or raise service.max_request_bytes or service.max_upload_bytes.",
    )


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
