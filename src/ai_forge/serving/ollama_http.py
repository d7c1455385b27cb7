"""Talking to an Ollama server: is it there, start it, ask it, and say clearly what went wrong.

Method: plain HTTP with one httpx client. Every failure becomes one of our errors: a connection that breaks is "try
again", an unknown model or a prompt that is too long is the caller's input, a server that answers something else than
Ollama is a missing prerequisite. Ollama has no authentication of its own: keep it on the loopback interface.

Why not the `ollama` package: its `chat` and `generate` (0.6) cannot send `truncate: false`, without which Ollama cuts long
prompts in silence, nor ask for the rendered prompt; its `create_blob` reports no progress for files of many gigabytes.

A server is started only on this machine and is left running, as the user would have done it by `ollama serve`.
"""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from ai_forge.errors import AIForgeError, InputError, PrerequisiteError, TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.serving.runtime import Progress, context_error

DEFAULT_PORT = 11434
OLDEST_VERSION = (0, 5, 5)  # the first whose /api/create takes files by hash
STATUS_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 600.0
START_TIMEOUT_S = 20.0
CHUNK_BYTES = 4 * 2**20
INSTALL = "install Ollama from https://ollama.com, or set AI_FORGE_RUNTIME__KIND=embedded."


@dataclass(frozen=True)
class OllamaStatus:
    """What is known about Ollama at `host`. `problem` says in words why it cannot be used, None where it can."""

    host: str
    installed: bool
    running: bool
    version: str | None
    problem: str | None

    def __bool__(self) -> bool:
        """Whether it can be used."""
        return self.problem is None


class OllamaServer:
    """An Ollama at `host` (a URL, or what OLLAMA_HOST may hold). Nothing is asked before it is needed."""

    def __init__(self, host: str) -> None:
        self.host = ollama_url(host)
        self.process: subprocess.Popen[bytes] | None = None
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=STATUS_TIMEOUT_S)
        self._client = httpx.Client(base_url=self.host, timeout=timeout, trust_env=False)

    def status(self) -> OllamaStatus:
        """Whether Ollama is installed here, and whether a usable one answers at the host; takes at most 3 s."""
        installed = shutil.which("ollama") is not None
        version = problem = None
        try:
            response = self._client.get("/api/version", timeout=STATUS_TIMEOUT_S)
            version = _version(response)
            if version is None:
                problem = f"something that is not Ollama answers at {self.host}"
            else:
                numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
                if (0, 0, 0) < numbers < OLDEST_VERSION:  # 0.0.0 is a build from source
                    problem = f"Ollama {version} at {self.host} is older than {'.'.join(map(str, OLDEST_VERSION))}"
        except httpx.TransportError as error:
            problem = f"nothing answers at {self.host} ({type(error).__name__})"
            if not installed:
                problem += " and the program ollama is not on PATH"
        except httpx.DecodingError:
            problem = f"something that is not Ollama answers at {self.host}"
        return OllamaStatus(self.host, installed, version is not None, version, problem)

    def require(self) -> None:
        """Raise `PrerequisiteError` with the next step unless a usable Ollama answers."""
        status = self.status()
        if status.problem is None:
            return
        if status.running:
            raise PrerequisiteError(f"{status.problem[0].upper()}{status.problem[1:]}.", "update Ollama.")
        if "not Ollama" in status.problem:
            step = "stop what uses that port, or set OLLAMA_HOST to where Ollama listens."
        elif status.installed:
            step = "start it: ollama serve."
        else:
            step = INSTALL
        raise PrerequisiteError(f"Ollama cannot be used: {status.problem}.", step)

    def start(self, log_path: Path) -> None:
        """Start `ollama serve` at the host and wait until it answers; its log goes to `log_path`.

        Raises:
            PrerequisiteError: it is not installed, the host is another machine, or it did not come up.
        """
        program = shutil.which("ollama")
        if program is None:
            raise PrerequisiteError(f"Nothing answers at {self.host} and the program ollama is not on PATH.", INSTALL)
        address = urlsplit(self.host)
        if not _is_loopback(address.hostname or ""):
            raise PrerequisiteError(
                f"Nothing answers at {self.host}, and Ollama can only be started on this machine.",
                f"start it on {address.hostname}, or set OLLAMA_HOST to where it runs.",
            )
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "serve"],
                env=os.environ | {"OLLAMA_HOST": address.netloc},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in this terminal is not meant for it
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.status().problem is None:
                return
            time.sleep(0.1)
        self.process.terminate()
        self.process.wait()
        lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "(it said nothing)"
        raise PrerequisiteError(f"`ollama serve` did not come up at {self.host}: {last}", f"read {log_path}.")

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> JsonObject:
        """One request, one JSON object; an empty answer is an empty object."""
        with self._errors():
            response = self._client.request(method, path, json=body)
        if response.is_error:
            raise self._refusal(response.status_code, response.text, body)
        if not response.text.strip():
            return {}
        return self._object(response.text)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[JsonObject]:
        """The JSON objects of an answer as they come. Closing the iterator ends the request."""
        with self._errors(), self._client.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                raise self._refusal(response.status_code, response.text, body)
            for line in response.iter_lines():
                if line.strip():
                    event = self._object(line)
                    if "error" in event:  # the status went out before the work began
                        raise self._refusal(500, line, body)
                    yield event

    def has_blob(self, sha256: str) -> bool:
        """Whether the server holds a file already."""
        with self._errors():
            return self._client.head(f"/api/blobs/sha256:{sha256}").status_code == httpx.codes.OK

    def put_blob(self, path: Path, sha256: str, progress: Progress) -> None:
        """Send a file; the server checks its hash."""
        size = path.stat().st_size

        def chunks() -> Iterator[bytes]:
            done = 0
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
                    done += len(chunk)
                    progress("sending the model file to Ollama", done, size)

        with self._errors():
            headers = {"Content-Length": str(size)}  # or httpx would send an iterator chunked
            response = self._client.post(f"/api/blobs/sha256:{sha256}", content=chunks(), headers=headers)
        if response.is_error:
            raise self._refusal(response.status_code, response.text, {"model": path.name})

    def close(self) -> None:
        """Close the connections; a server that was started goes on."""
        self._client.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise TransientError(
                f"Ollama at {self.host} does not answer or went away ({type(error).__name__}).",
                "start it again (ollama serve), then run the same command.",
            ) from error

    def _object(self, text: str) -> JsonObject:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise PrerequisiteError(
                f"Something that is not Ollama answers at {self.host}: {text[:60]!r}.",
                "set OLLAMA_HOST to where Ollama listens.",
            )
        return value

    def _refusal(self, status: int, text: str, body: Mapping[str, Any] | None) -> AIForgeError:
        model = (body or {}).get("model") or (body or {}).get("source") or "the request"
        reason = _nested(text)
        if isinstance(reason, dict) and reason.get("type") == "exceed_context_size_error":
            return context_error(reason.get("n_prompt_tokens"), reason.get("n_ctx"))
        words = reason
        if isinstance(reason, dict):
            words = reason.get("message", str(reason))
        if status == httpx.codes.NOT_FOUND and "not found" in words:
            return InputError(f"Ollama at {self.host} has no model {model!r}.", "deploy it: ai-forge deploy.")
        if status < 500:
            return InputError(f"Ollama refused {model}: {words}")
        return TransientError(f"Ollama failed on {model}: {words}", "read Ollama's log, then run the same command.")


def ollama_url(host: str) -> str:
    """The URL of what OLLAMA_HOST may hold, by Ollama's own rules.

    >>> ollama_url("0.0.0.0"), ollama_url("http://box"), ollama_url(":8080")
    ('http://127.0.0.1:11434', 'http://box:80', 'http://127.0.0.1:8080')
    """
    text = host.strip().rstrip("/")
    ports = {"http": 80, "https": 443}
    if "://" not in text:
        text, ports = f"http://{text}", {"http": DEFAULT_PORT}
    try:
        parts = urlsplit(text)
        port = parts.port or ports[parts.scheme]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{host!r} is not an address of Ollama.", "set OLLAMA_HOST, e.g. to 127.0.0.1:11434."
        ) from error
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # "everywhere" is where it listens, not where it is
    if ":" in name:  # IPv6
        name = f"[{name}]"
    return f"{parts.scheme}://{name}:{port}{parts.path}"


def _is_loopback(hostname: str) -> bool:
    try:
        return hostname == "localhost" or ipaddress.ip_address(hostname).is_loopback
    except ValueError:  # a name, which may be this machine's: it is not looked up
        return False


def _version(response: httpx.Response) -> str | None:
    try:
        version = response.json()["version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def _nested(text: str) -> Any:
    """The innermost error of an answer: Ollama passes on its engine's JSON as a string."""
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()[:200] or "no reason given"
    if not isinstance(value, dict) or "error" not in value:
        return value
    error = value["error"]
    return _nested(error) if isinstance(error, str) else error
