"""Asking a teacher: one client for everything that speaks OpenAI's `/v1/chat/completions`, Ollama among them.

Method: a request that may succeed when it is made again (429, 5xx, a timeout, a connection that breaks) is made again, with
waits that double and the server's own `Retry-After` where it gives one. What cannot be cured so becomes one of three:
`Unanswered` (this request only: too slow, refused, the server stumbled over it), an `AIForgeError` (no request can succeed:
wrong key, no such model, not this protocol), or `TransientError` when nobody listens any more.

The key comes from the environment variable `AI_FORGE_TEACHER_API_KEY`, goes into one header, and is masked in every message.
"""

import asyncio
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from ai_forge.config.data import TEACHER
from ai_forge.errors import AIForgeError, InputError, PrerequisiteError, TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.prompting.prompt import Message

__all__ = ["Answer", "Teacher", "TeacherClient", "Unanswered", "resolve_teacher"]

_RETRIES = 4
_LONGEST_WAIT_S = 60.0
_CONNECT_TIMEOUT_S = 5.0
# Too slow, in conflict, too early, too many: as from 500 on, the same request may succeed when it is made again
_AGAIN = frozenset({408, 409, 425, 429})


@dataclass(frozen=True)
class Teacher:
    """Which model, where. `name` is what the cache and the manifest know it by; it never holds a key."""

    name: str
    url: str
    model: str
    takes_key: bool

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, so that no code leaves it."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Answer:
    """What the teacher wrote, and the tokens that it counted (0 where it does not say)."""

    text: str
    n_tokens_in: int
    n_tokens_out: int


class Unanswered(Exception):  # noqa: N818 (no error of the run: its example stays as it was)
    """This request got no answer; another one may. `reason` is counted, `error` is raised when it happens too often."""

    def __init__(self, reason: str, error: AIForgeError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


def resolve_teacher(text: str, ollama_url: str) -> Teacher:
    """The teacher that a setting names: `ollama:NAME`, asked at `ollama_url`, or `URL#MODEL`.

    A URL without a path gets `/v1`.

    >>> resolve_teacher("ollama:qwen2.5-coder", "http://127.0.0.1:11434").url
    'http://127.0.0.1:11434/v1'
    >>> resolve_teacher("http://gpu-box:8000#my-model", "").url
    'http://gpu-box:8000/v1'

    Raises:
        InputError: it is neither.
    """
    match = TEACHER.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} names no teacher.", "write --teacher ollama:NAME or --teacher URL#MODEL.")
    if match["ollama"]:
        return Teacher(text, f"{ollama_url.rstrip('/')}/v1", match["ollama"], takes_key=False)
    url = match["url"].rstrip("/")
    if not urlsplit(url).path:
        url += "/v1"
    return Teacher(text, url, match["model"], takes_key=True)


class TeacherClient:
    """Asks one teacher; use as an asynchronous context manager. `first_wait_s` is the wait before the second try."""

    def __init__(self, teacher: Teacher, *, timeout_s: float, first_wait_s: float = 1.0) -> None:
        self._teacher = teacher
        self._first_wait_s = first_wait_s
        self._timeout_s = timeout_s
        self._key = ""
        headers: dict[str, str] = {}
        if teacher.takes_key:
            self._key = os.environ.get("AI_FORGE_TEACHER_API_KEY", "").strip()
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
            headers=headers,
            follow_redirects=False,  # they could carry the key elsewhere
            trust_env=not teacher.is_here,  # the environment's proxies are for other hosts than this machine
            # As many as `teacher_concurrency` lets go out: a request that waits here would count as too slow.
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._client.aclose()

    async def ask(self, messages: Sequence[Message], max_tokens: int, *, as_json: bool = True) -> Answer:
        """The greedy answer, asked for as a JSON object or, not `as_json`, as it comes.

        Raises:
            Unanswered: this request cannot be answered.
            AIForgeError: none can.
        """
        body: JsonObject = {
            "model": self._teacher.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": False,
        }
        if as_json:
            body["response_format"] = {"type": "json_object"}
        tries = 0
        while True:
            wait_s = min(self._first_wait_s * 2**tries, _LONGEST_WAIT_S)
            tries += 1
            try:
                response = await self._client.post(f"{self._teacher.url}/chat/completions", json=body)
            except httpx.ConnectTimeout as error:  # before the other timeouts, of which it is one: nobody is there
                failure: Exception = self._gone(error)
            except httpx.TimeoutException as error:
                slow = TransientError(
                    f"The teacher {self._teacher.name} did not answer within {self._timeout_s:g} s.",
                    "raise synthesis.teacher_timeout_s or lower synthesis.teacher_concurrency; "
                    "the answers so far are kept.",
                )
                failure = Unanswered("no_answer_in_time", slow)
                failure.__cause__ = error
            except (httpx.TransportError, httpx.DecodingError) as error:
                failure = self._gone(error)
            else:
                if response.status_code == httpx.codes.OK:
                    return self._answer(response)
                if response.status_code not in _AGAIN and response.status_code < 500:
                    raise self._refusal(response)
                failed = TransientError(
                    f"The teacher {self._teacher.name} failed {_RETRIES + 1} times ({response.status_code}): "
                    f"{self._safe(response.text)}",
                    "run the same command later; the answers so far are kept.",
                )
                failure = Unanswered("server_failed", failed)
                wait_s = _retry_after_s(response, wait_s)
            if tries > _RETRIES:
                raise failure
            await asyncio.sleep(wait_s)

    def _answer(self, response: httpx.Response) -> Answer:
        try:
            answer = response.json()
            text = answer["choices"][0]["message"]["content"] or ""  # null where a model only called tools
            usage = answer.get("usage") or {}
        except (ValueError, LookupError, TypeError, AttributeError):
            text, usage = None, {}
        if not isinstance(text, str):
            raise PrerequisiteError(
                f"What answers at {self._teacher.url} is not an OpenAI-compatible server: {self._safe(response.text)}",
                "name the address to which /chat/completions is added, such as http://127.0.0.1:8000/v1#MODEL.",
            )
        return Answer(text, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))

    def _refusal(self, response: httpx.Response) -> Exception:
        status, name = response.status_code, self._teacher.name
        if status in (401, 403):
            return PrerequisiteError(
                f"The teacher {name} does not accept the key ({status}).",
                "set AI_FORGE_TEACHER_API_KEY to a key of that service.",
            )
        if status in (404, 405) or 300 <= status < 400:
            step = "check the URL and the model."
            if name.startswith("ollama:"):
                step = f"ollama pull {self._teacher.model}."
            return InputError(
                f"{self._teacher.url} has no model {self._teacher.model!r} ({status}): {self._safe(response.text)}",
                step,
            )
        error = InputError(
            f"The teacher {name} refuses the requests ({status}): {self._safe(response.text)}",
            "choose another teacher, or lower synthesis.teacher_batch where the prompt is too long.",
        )
        return Unanswered("refused", error)

    def _gone(self, error: Exception) -> TransientError:
        gone = TransientError(
            f"The teacher at {self._teacher.url} does not answer or went away ({type(error).__name__}).",
            "start it, then run the same command; the answers so far are kept.",
        )
        gone.__cause__ = error
        return gone

    def _safe(self, text: str) -> str:
        """The beginning of a server's words, on one line, without the key."""
        if self._key:  # some servers repeat the key that they refuse
            text = text.replace(self._key, "<masked>")
        return " ".join(text.split())[:200] or "(no reason given)"


def _retry_after_s(response: httpx.Response, otherwise: float) -> float:
    """The seconds that the server asks to wait; a date (also allowed) counts as not given."""
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), _LONGEST_WAIT_S)
    except (KeyError, ValueError):
        return otherwise


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0
