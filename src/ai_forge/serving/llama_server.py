"""One GGUF file served by llama.cpp inside this process: render, tokenise, complete.

Method: `xllamacpp.Server` runs llama.cpp's own server on a free loopback port; it is asked over HTTP, because only
there can an answer be stopped half-way (the connection closes) and a chat be rendered without being answered.

Measured on SmolLM2-135M Q4_1 (2 cores): load 0.4 s, render 3 ms. A chat is rendered and then completed as text, so what
`render` shows is by construction what is answered.

Threads: as many as there are idle physical cores when the model is loaded. llama.cpp's threads wait for each other by
spinning, so beside a training run one thread answers 32 tokens in 1 s and two need 20 s (2 cores, load 2 to 4); on a
machine at rest all cores are taken. A model that was loaded while the machine was busy keeps its few threads.

Several requests are answered at once, each in a slot with a context of its own, so a long answer holds up no other; further
ones wait for a slot. A slot keeps the prompt that it answered last, and `completions` compute anew only what differs from it: of
questions with the same instructions and worked examples the shared beginning is evaluated once in each slot.

xllamacpp is imported when the first model is loaded.
"""

import contextlib
import json
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from ai_forge.errors import AIForgeError, InputError, PrerequisiteError, TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.gguf.reader import check_gguf
from ai_forge.prompting.prompt import Message
from ai_forge.serving.runtime import NEUTRAL, Completion, context_error

ANSWER_TIMEOUT_S = 600.0
_FORCED = 1e4  # added to a logit: far above all others
BATCH_TOKENS = 512  # of all slots in one step: with more, the others' next tokens wait while a long prompt is read
# no prompt cache: evaluating only the last token again gives other rounding, and with it sometimes another answer
GREEDY = NEUTRAL | {"temperature": 0, "cache_prompt": False, "return_tokens": True}


class LlamaServer:
    """A loaded model. Close it, or use it as a context manager, to free its memory.

    It may be asked from several threads; `n_slots` are answered at once, each with `num_ctx` tokens of context.

    Raises:
        InputError: the file is damaged or not a GGUF.
        PrerequisiteError: llama.cpp could not load it.
    """

    def __init__(
        self, gguf_path: Path, num_ctx: int, n_threads: int | None = None, n_slots: int = 1, *, name: str = ""
    ) -> None:
        import xllamacpp

        check_gguf(gguf_path)
        key = secrets.token_hex(16)  # keeps other users of the machine out
        params = xllamacpp.CommonParams()
        params.verbosity = -1
        params.model.path = str(gguf_path)
        params.model_alias = {name or gguf_path.stem}  # what it calls itself in answers: else the whole path
        params.n_ctx = num_ctx * n_slots  # llama.cpp deals it out
        params.n_parallel = n_slots
        params.n_batch = BATCH_TOKENS
        # Kernels whose rounding does not depend on how many tokens are computed at once: so an answer is the same whatever is
        # asked beside it and however much of its prompt a slot still held. Measured with SmolLM2, 8 prompts of 430 tokens: the
        # fast ones took 14 s of CPU and gave other answers to half of them, these 15 s.
        params.no_extra_bufts = True
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.api_keys = [key]
        params.ui = False
        params.warmup = False
        params.cache_ram_mib = 0  # keeps no prompts beside the context
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads or idle_cores()
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise PrerequisiteError(
                f"llama.cpp could not load {gguf_path} with a context of {num_ctx} tokens: {error}",
                "free some memory, set AI_FORGE_RUNTIME__NUM_CTX lower, or choose a smaller model.",
            ) from error
        self.num_ctx, self.n_slots = num_ctx, n_slots
        self.address = str(self._server.listening_address)
        self.headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(
            base_url=self.address,
            headers=self.headers,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=5),
            trust_env=False,  # a proxy cannot reach this machine's loopback
        )
        self._sockets: list[socket.socket] = []
        self._is_closing = False
        self._traced = {"trace": self._note_socket}
        # Seen: a server that is destroyed before its loop has begun waits for that loop for ever. This goes through the loop,
        # so once it was answered the loop runs.
        try:
            self._client.get("/slots", extensions=self._traced)
        except httpx.TransportError as error:
            raise _gone(error) from error

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt that the GGUF's own template makes of `messages`."""
        return str(self._ask("/apply-template", {"messages": list(messages)})["prompt"])

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of `text`; `add_special` adds a begin token where the model asks for one."""
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return [int(token) for token in self._ask("/tokenize", body)["tokens"]]

    def greedy(self, prompt: str | Sequence[int], max_tokens: int) -> Completion:
        """Continue a text, or token ids as they stand, with the most likely token each time, until the model ends.

        Raises:
            InputError: the prompt does not fit the context.
        """
        given = prompt if isinstance(prompt, str) else list(prompt)
        return _completion(self._ask("/completion", {"prompt": given, "n_predict": max_tokens} | GREEDY))

    def completions(
        self, prompts: Sequence[str | Sequence[int]], max_tokens: int, stop: Sequence[str] = ()
    ) -> list[Completion]:
        """Continue each of `prompts` greedily, `n_slots` at a time; the same tokens whatever `n_slots` is.

        Raises:
            InputError: a prompt does not fit the context.
        """
        options = GREEDY | {"cache_prompt": True, "n_predict": max_tokens, "stop": list(stop)}

        def complete(prompt: str | Sequence[int]) -> Completion:
            given = prompt if isinstance(prompt, str) else list(prompt)
            return _completion(self._ask("/completion", {"prompt": given} | options))

        with ThreadPoolExecutor(self.n_slots) as pool:
            return list(pool.map(complete, prompts))

    def greedy_top(self, prompt: Sequence[int], max_tokens: int, n_top: int) -> list[tuple[int, dict[int, float]]]:
        """Greedy tokens, each with the log-probabilities (nats) of the `n_top` most likely tokens at its place.

        llama.cpp tells none for a token that ends inside a character: its mapping is empty.
        """
        body = {"prompt": list(prompt), "n_predict": max_tokens, "n_probs": n_top}
        answer = self._ask("/completion", body | GREEDY)
        tokens: list[tuple[int, dict[int, float]]] = []
        places = list(answer.get("completion_probabilities", ()))  # left out where no token ends a character
        for token in reversed(answer["tokens"]):  # from the end: what completes a character comes after its other bytes
            likely = []
            if places and places[-1]["id"] == token:
                likely = places.pop()["top_logprobs"]
            tokens.append((int(token), {int(top["id"]): float(top["logprob"]) for top in likely}))
        return tokens[::-1]

    def stops_at(self, prompt: Sequence[int], token: int) -> bool:
        """Whether an answer ends at `token`: it is made the only likely one after `prompt`."""
        forced = {"prompt": list(prompt), "n_predict": 2, "logit_bias": [[token, _FORCED]]} | GREEDY
        return bool(self._ask("/completion", forced)["stop_type"] == "eos")

    def stream(self, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
        """Continue a text piece by piece; `options` are fields of llama.cpp's `/completion`."""
        body = {"prompt": prompt, "stream": True, "cache_prompt": True} | NEUTRAL | dict(options)
        try:
            with self._client.stream("POST", "/completion", json=body, extensions=self._traced) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        event = json.loads(line[6:])
                        if event.get("content"):
                            yield event["content"]
                        if event.get("stop"):
                            return
        except (httpx.TransportError, RuntimeError) as error:  # httpx: the client was closed by another thread
            raise _gone(error) from error
        raise TransientError("llama.cpp ended in the middle of the answer.", "ask again.")

    def _ask(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        try:
            response = self._client.post(path, json=body, extensions=self._traced)
        except (httpx.TransportError, RuntimeError) as error:  # httpx: the client was closed by another thread
            raise _gone(error) from error
        if response.is_error:
            raise _refusal(response)
        answer: JsonObject = response.json()
        return answer

    def _note_socket(self, event: str, told: Mapping[str, Any]) -> None:
        """Remember each connection that httpx opens."""
        if event == "connection.connect_tcp.complete":
            self._sockets.append(told["return_value"].get_extra_info("socket"))
            if self._is_closing:  # opened while the others were shut down
                self._shut_down()

    def close(self) -> None:
        """Stop the server and free the model; what is being answered to other threads ends with `TransientError`."""
        self._is_closing = True
        self._shut_down()
        self._client.close()
        self._server = None

    def _shut_down(self) -> None:
        # not only closed: a thread that waits for an answer would go on waiting, and the server for that thread
        for connection in tuple(self._sockets):
            with contextlib.suppress(OSError):  # ended already
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "LlamaServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _completion(answer: Mapping[str, Any]) -> Completion:
    return Completion(
        text=answer["content"],
        n_prompt_tokens=answer["tokens_evaluated"],
        n_tokens=answer["tokens_predicted"],
        token_ids=tuple(answer["tokens"]),
    )


def idle_cores() -> int:
    """Physical cores with nothing to do, at least one, measured over a tenth of a second."""
    busy = psutil.cpu_percent(interval=0.1) / 100
    return max(1, round((psutil.cpu_count(logical=False) or 1) * (1 - busy)))


def _refusal(response: httpx.Response) -> AIForgeError:
    error = response.json().get("error", {})
    if error.get("type") == "exceed_context_size_error":
        return context_error(error.get("n_prompt_tokens"), error.get("n_ctx"))
    return InputError(f"llama.cpp refused the request: {error.get('message', response.text[:200])}")


def _gone(error: Exception) -> TransientError:
    return TransientError(f"llama.cpp did not answer ({type(error).__name__}).", "ask again.")
