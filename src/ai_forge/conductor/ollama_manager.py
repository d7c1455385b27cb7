"""Models in Ollama for one-off use: see, create, choose and ask them, on OLLAMA_HOST or the default host.

The runtime that deployments go through is `serving.ollama_runtime`; these are its faces for a person or a script.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import AIForgeError, PrerequisiteError
from ai_forge.model_files.gguf.reader import check_gguf
from ai_forge.prompting.prompt import Message
from ai_forge.serving.deployment import LATEST, deployment_from_gguf
from ai_forge.serving.ollama_http import OllamaStatus
from ai_forge.serving.ollama_runtime import OllamaRuntime, modelfile_for
from ai_forge.serving.runtime import Progress, silent
from ai_forge.workspace import Workspace, atomic_write, read_json

ACTIVE_FILE = "ollama_active.json"
FIRST = "first"  # the version under which a model without one is made, before it becomes `latest`


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
