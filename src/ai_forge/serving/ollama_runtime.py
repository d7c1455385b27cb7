"""The runtime that most users have: models in Ollama, created from our file, prompted as the trainer prompted.

Method: the GGUF is sent by hash (skipped where Ollama holds it), then `name:version` is created with an explicit Go
template, system text, stop words and sampling; `name:latest` is a copy of the active version. The template is not
left to Ollama: for SmolLM2 it recognises "chatml" and drops the model's default system message. It is made from the
GGUF's Jinja (`model_files.gguf.ollama_prompt`), and `render` reads back what Ollama really makes of a chat.

Ollama is not told to pull, push or merge.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ai_forge.errors import InputError, TransientError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.gguf.modelfile import create_ollama_modelfile
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.prompting.prompt import Message
from ai_forge.serving.deployment import LATEST, Deployment
from ai_forge.serving.ollama_http import OllamaServer
from ai_forge.serving.runtime import (
    NEUTRAL,
    Completion,
    Endpoint,
    HeldModel,
    Progress,
    RenderedPrompt,
    RuntimeKind,
    silent,
)

REQUESTS_AT_ONCE = 4
MOST_LIKELY = 20  # as many as Ollama tells of one place


class OllamaRuntime:
    """Serves models through an Ollama server; see `Runtime` for what each method promises."""

    kind: RuntimeKind = "ollama"

    def __init__(self, host: str) -> None:
        self.server = OllamaServer(host)

    def is_available(self) -> bool:
        """Whether a usable Ollama answers."""
        return self.server.status().problem is None

    def create(self, deployment: Deployment, progress: Progress = silent) -> None:
        """Send the file and make `name:version` from it."""
        progress("checking the model file", 0, 0)
        deployment.check_file()
        template = ollama_prompt(deployment.gguf_path).template
        digest = deployment.gguf_sha256
        if not self.server.has_blob(digest):
            self.server.put_blob(deployment.gguf_path, digest, progress)
        body = {
            "model": deployment.model,
            "files": {deployment.gguf_path.name: f"sha256:{digest}"},
            "template": template,
            "system": deployment.system_prompt,
            "parameters": dataclasses.asdict(deployment.sampling) | {"stop": list(deployment.stop)} | NEUTRAL,
        }
        last = ""
        for event in self.server.stream("/api/create", body):
            last = str(event.get("status", ""))
            progress(f"Ollama: {last}", 0, 0)
        if last != "success":  # there is no model then: Ollama writes the manifest last
            raise TransientError(
                f"Ollama stopped in the middle of creating {deployment.model} (last: {last or 'nothing'}).",
                "run the same command again.",
            )

    def activate(self, name: str, version: str) -> None:
        """Copy `name:version` to `name:latest`: a second manifest, no second file."""
        self.server.ask("POST", "/api/copy", {"source": f"{name}:{version}", "destination": f"{name}:{LATEST}"})

    def active(self, name: str) -> str | None:
        """The version with the content of `name:latest`; of several with the same content, the newest."""
        versions = {model.model: model.digest for model in self._by_age() if model.model.startswith(f"{name}:")}
        latest = versions.pop(f"{name}:{LATEST}", None)
        for model, digest in versions.items():
            if digest == latest:
                return model.partition(":")[2]
        return None

    def models(self) -> list[HeldModel]:
        """All models of the server, also those that AI Forge did not make."""
        return sorted(self._by_age(), key=lambda model: model.model)

    def show(self, model: str) -> HeldModel:
        """One model with its template, system text and parameters."""
        answer = self.server.ask("POST", "/api/show", {"model": model})
        full = model if ":" in model else f"{model}:{LATEST}"
        # it may have gone since it was asked about
        listed = next((known for known in self._by_age() if known.model == full), HeldModel(full, 0, ""))
        values: dict[str, list[str]] = {}
        for line in str(answer.get("parameters", "")).splitlines():
            words = line.split(None, 1)
            if len(words) == 2:
                values.setdefault(words[0], []).append(words[1])  # one line for each stop word
        return dataclasses.replace(
            listed,
            system_prompt=answer.get("system", ""),
            template=answer.get("template", ""),
            parameters={key: ", ".join(found) for key, found in values.items()},
        )

    def is_whole(self, model: str) -> bool:
        """Whether it is listed: Ollama names its files by their hashes and checks them when they come."""
        return any(served.model == model for served in self.models())

    def delete(self, model: str) -> None:
        """Remove a model; nothing happens where it does not exist."""
        with contextlib.suppress(InputError):
            self.server.ask("DELETE", "/api/delete", {"model": model})

    def chat(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer piece by piece."""
        wanted = {"num_predict": max_tokens, "temperature": temperature, "seed": seed}
        options = {key: value for key, value in wanted.items() if value is not None}
        finished = False  # a connection that ends early looks like an answer that does
        for event in self.server.stream("/api/chat", _chat(model, messages) | {"options": options}):
            piece = event.get("message", {}).get("content", "")
            if piece:
                yield piece
            finished = bool(event.get("done"))
        if not finished:
            raise TransientError(f"Ollama ended in the middle of the answer of {model}.", "ask again.")

    def answers(self, model: str, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[Completion]:
        """Greedy answers; how many are computed at once is the server's to say (OLLAMA_NUM_PARALLEL)."""

        def answer(chat: Sequence[Message]) -> Completion:
            options = {"num_predict": max_tokens, "temperature": 0}
            told = self.server.ask("POST", "/api/chat", _chat(model, chat) | {"options": options, "stream": False})
            text = str(told.get("message", {}).get("content", ""))
            n_tokens = int(told.get("eval_count", 0))
            return Completion(text, int(told.get("prompt_eval_count", 0)), n_tokens, token_ids=None)

        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(answer, chats))

    def render(self, model: str, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt as Ollama shows it (text None where this Ollama does not), and the tokens it evaluates."""
        body = _chat(model, messages) | {"options": {"num_predict": 1}, "stream": False}
        answer = self.server.ask("POST", "/api/chat", body)  # the other one evaluates nothing, so it counts nothing
        shown = self.server.ask("POST", "/api/chat", body | {"_debug_render_only": True})
        text = shown.get("_debug_info", {}).get("rendered_template")
        return RenderedPrompt(text, int(answer.get("prompt_eval_count", 0)))

    def greedy(self, model: str, prompt: str, max_tokens: int) -> Completion:
        """Continue `prompt` greedily, past the template."""
        answer = self.server.ask("POST", "/api/generate", _raw(model, prompt, max_tokens))
        return Completion(
            text=str(answer.get("response", "")),
            n_prompt_tokens=int(answer.get("prompt_eval_count", 0)),
            n_tokens=int(answer.get("eval_count", 0)),
            token_ids=None,
        )

    def likely(self, model: str, prompt: str) -> dict[str, float]:
        """The likeliest next tokens; Ollama tells them since 0.12.11."""
        body = _raw(model, prompt, 1) | {"logprobs": True, "top_logprobs": MOST_LIKELY}
        told = self.server.ask("POST", "/api/generate", body).get("logprobs") or []
        return {str(top["token"]): float(top["logprob"]) for place in told for top in place.get("top_logprobs", ())}

    def tokenize(self, model: str, text: str) -> list[int] | None:
        """None: Ollama does not tell token ids."""
        return None

    @contextlib.contextmanager
    def endpoint(self, model: str) -> Iterator[Endpoint]:
        """Ollama itself, which loads models as they are asked."""
        yield Endpoint(self.server.host, {}, model)

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def _by_age(self) -> list[HeldModel]:
        listed: list[Mapping[str, Any]] = self.server.ask("GET", "/api/tags").get("models") or []
        newest_first = sorted(listed, key=lambda model: str(model.get("modified_at", "")), reverse=True)
        return [
            HeldModel(str(model["name"]), int(model.get("size", 0)), str(model.get("digest", "")))
            for model in newest_first
        ]


def _chat(model: str, messages: Sequence[Message]) -> JsonObject:
    # truncate: or Ollama cuts what is too long without a word (9,055 tokens became 1,026); so it is an error
    return {"model": model, "messages": list(messages), "truncate": False}


def _raw(model: str, prompt: str, max_tokens: int) -> JsonObject:
    options = {"num_predict": max_tokens, "temperature": 0, "stop": []}  # stop words are the deployment's
    return {"model": model, "prompt": prompt, "raw": True, "stream": False, "truncate": False, "options": options}


def modelfile_for(deployment: Deployment) -> str:
    """The Modelfile with which `ollama create` makes by hand what AI Forge deploys (over HTTP, without one).

    Raises:
        InputError: the system prompt cannot be written into one.
    """
    return create_ollama_modelfile(
        deployment.model,
        deployment.gguf_path,
        deployment.system_prompt,
        stop=deployment.stop,
        **dataclasses.asdict(deployment.sampling),
    )
