"""The runtime that most users have: models in Ollama, created from our file, prompted as the trainer prompted.

Method: the GGUF is sent by hash (skipped where Ollama holds it), then `name:version` is created with an explicit Go
template, system text, stop words and sampling; `name:latest` is a copy of the active version. The template is not
left to Ollama: for SmolLM2 it recognises "chatml" and drops the model's default system message. It is made from the
GGUF's Jinja (`model_files.gguf.ollama_prompt`), and `render` reads back what Ollama really makes of a chat.

Ollama is not told to pull, push or merge.

The functions at the end are the same for one-off use, on OLLAMA_HOST or the default host.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ai_forge.conductor.deployment import LATEST, Deployment, deployment_from_gguf
from ai_forge.conductor.ollama_http import OllamaServer, OllamaStatus
from ai_forge.conductor.runtime import NEUTRAL, Completion, HeldModel, Progress, RenderedPrompt, RuntimeKind, silent
from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import AIForgeError, InputError, PrerequisiteError, TransientError
from ai_forge.judge.exporter import create_ollama_modelfile
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.model_files.gguf.reader import check_gguf
from ai_forge.prompting.prompt import Message
from ai_forge.workspace import Workspace, atomic_write, read_json

ACTIVE_FILE = "ollama_active.json"
FIRST = "first"  # the version under which a model without one is made, before it becomes `latest`


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

    def render(self, model: str, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt as Ollama shows it (text None where this Ollama does not), and the tokens it evaluates."""
        body = _chat(model, messages) | {"options": {"num_predict": 1}, "stream": False}
        answer = self.server.ask("POST", "/api/chat", body)  # the other one evaluates nothing, so it counts nothing
        shown = self.server.ask("POST", "/api/chat", body | {"_debug_render_only": True})
        text = shown.get("_debug_info", {}).get("rendered_template")
        return RenderedPrompt(text, int(answer.get("prompt_eval_count", 0)))

    def greedy(self, model: str, prompt: str, max_tokens: int) -> Completion:
        """Continue `prompt` greedily, past the template."""
        options = {"num_predict": max_tokens, "temperature": 0, "stop": []}  # stop words are the deployment's
        body = {"model": model, "prompt": prompt, "raw": True, "stream": False, "truncate": False, "options": options}
        answer = self.server.ask("POST", "/api/generate", body)
        return Completion(
            text=str(answer.get("response", "")),
            n_prompt_tokens=int(answer.get("prompt_eval_count", 0)),
            n_tokens=int(answer.get("eval_count", 0)),
            token_ids=None,
        )

    def tokenize(self, model: str, text: str) -> list[int] | None:
        """None: Ollama does not tell token ids."""
        return None

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


def _chat(model: str, messages: Sequence[Message]) -> dict[str, Any]:
    # truncate: or Ollama cuts what is too long without a word (9,055 tokens became 1,026); so it is an error
    return {"model": model, "messages": list(messages), "truncate": False}


@contextlib.contextmanager
def _runtime(host: str | None) -> Iterator[OllamaRuntime]:
    runtime = OllamaRuntime(host or os.environ.get("OLLAMA_HOST") or RuntimeSettings().ollama_host)
    try:
        yield runtime
    finally:
        runtime.close()


def check_ollama_status(host: str | None = None) -> OllamaStatus:
    """Whether a usable Ollama answers at `host`: true or false, and why in `problem`. Never raises for one that does not."""
    with _runtime(host) as runtime:
        return runtime.server.status()


def list_ollama_models(host: str | None = None) -> list[str]:
    """The names of all models that Ollama holds, `name:tag`; `OllamaRuntime.models` tells size and digest."""
    with _runtime(host) as runtime:
        runtime.server.require()
        return [served.model for served in runtime.models()]


def create_ollama_model(
    model_name: str,
    gguf_path: Path | str,
    system_prompt: str = "",
    *,
    settings: RuntimeSettings | None = None,
    host: str | None = None,
    progress: Progress = silent,
) -> bool:
    """Create `model_name` (with `:version`, or "latest") from a GGUF with its own system prompt; true when it is there.

    A context longer than the file's own is cut to that.

    Raises:
        PrerequisiteError: Ollama or the file is missing.
        InputError: the file is damaged or has no usable chat template.
        TransientError: Ollama went away.
    """
    name, _, version = model_name.partition(":")
    path = Path(gguf_path)
    if not path.is_file():
        raise PrerequisiteError(f"The model file {path} is missing.", "make it: ai-forge export.")
    if settings is None:
        settings = RuntimeSettings()
        longest = check_gguf(path).context_length or settings.num_ctx
        settings = RuntimeSettings(num_ctx=min(settings.num_ctx, longest))
    with _runtime(host) as runtime:
        runtime.server.require()
        deployment = deployment_from_gguf(
            name, version or FIRST, path, system_prompt=system_prompt, settings=settings, base=""
        )
        runtime.create(deployment, progress)
        if not version:
            runtime.activate(name, FIRST)
            runtime.delete(deployment.model)  # its files stay, as `latest` holds them
    return True


def get_active_model(model_name: str | None = None, host: str | None = None) -> str:
    """The `name:version` that `model_name:latest` is a copy of; without a name, what `set_active_model` was last given.

    Empty where there is none.
    """
    with _runtime(host) as runtime:
        runtime.server.require()
        if model_name is not None:
            version = runtime.active(model_name)
            return f"{model_name}:{version}" if version else ""
        chosen = read_json(_choice_file()) or {}
        model = str(chosen.get(runtime.server.host, ""))
        is_there = any(held.model == model for held in runtime.models())  # it may have been removed since
        return model if is_there else ""


def set_active_model(model_name: str, host: str | None = None) -> bool:
    """Make a model the one that is asked where no name is given; true when it is.

    With `:version`, `name:latest` means it from now on. Remembered in AI_FORGE_HOME, for each Ollama.

    Raises:
        InputError: there is no such model.
    """
    name, _, version = model_name.partition(":")
    with _runtime(host) as runtime:
        runtime.server.require()
        served = runtime.show(model_name)
        if version not in ("", LATEST):
            runtime.activate(name, version)
        chosen = (read_json(_choice_file()) or {}) | {runtime.server.host: served.model}
        atomic_write(_choice_file(), json.dumps(chosen))
    return True


def _choice_file() -> Path:
    return Workspace.open().root / ACTIVE_FILE


def query_model(
    model_name: str,
    prompt: str,
    temperature: float = 0.7,
    *,
    system_prompt: str | None = None,
    max_tokens: int | None = None,
    host: str | None = None,
) -> str:
    """The whole answer to one user turn. `system_prompt` replaces the model's own for this question."""
    messages: list[Message] = [{"role": "user", "content": prompt}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    with _runtime(host) as runtime:
        runtime.server.require()
        return "".join(runtime.chat(model_name, messages, max_tokens=max_tokens, temperature=temperature))


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m ai_forge.conductor.ollama_manager`: the functions of this module as commands."""
    parser = argparse.ArgumentParser(
        prog="python -m ai_forge.conductor.ollama_manager", description="See, create and ask models in Ollama."
    )
    parser.add_argument("--host", help="where Ollama listens (default: OLLAMA_HOST)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", help="whether a usable Ollama answers; exit code 3 if not")
    commands.add_parser("list", help="the models that it holds")
    create = commands.add_parser("create", help="a model from a GGUF file")
    create.add_argument("name")
    create.add_argument("gguf", type=Path)
    create.add_argument("--system", default="", help="its system prompt")
    commands.add_parser("active", help="the active model")
    commands.add_parser("activate", help="make a model the active one").add_argument("name")
    query = commands.add_parser("query", help="ask one question")
    query.add_argument("name")
    query.add_argument("prompt")
    query.add_argument("--temperature", type=float, default=0.7)
    given = parser.parse_args(argv)
    try:
        print(_run_command(given))
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run_command(given: argparse.Namespace) -> str:
    host: str | None = given.host
    match given.command:
        case "status":
            status = check_ollama_status(host)
            if status.problem:
                raise PrerequisiteError(f"Ollama cannot be used: {status.problem}.", "start it: ollama serve.")
            return f"Ollama {status.version} at {status.host}"
        case "list":
            return "\n".join(list_ollama_models(host)) or "no models"
        case "create":
            create_ollama_model(given.name, given.gguf, given.system, host=host)
            return f"created {given.name}"
        case "active":
            return get_active_model(host=host) or "no active model"
        case "activate":
            set_active_model(given.name, host)
            return f"active: {given.name}"
        case _:
            return query_model(given.name, given.prompt, given.temperature, host=host)


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


__all__ = [
    "OllamaRuntime",
    "OllamaStatus",
    "check_ollama_status",
    "create_ollama_model",
    "get_active_model",
    "list_ollama_models",
    "modelfile_for",
    "query_model",
    "set_active_model",
]

if __name__ == "__main__":
    sys.exit(main())
