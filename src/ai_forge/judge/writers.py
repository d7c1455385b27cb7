"""Who writes the code that the tests decide on: a served model by name, a GGUF file, or anything that answers chats.

Beside `metrics.models.Answering`, which answers the same each time, a writer can be asked for another try. A model without a
chat template (a base that was never taught to chat) goes on from a text instead.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ai_forge.errors import InputError
from ai_forge.judge.metrics.models import Answering, Scoring, deployed_model
from ai_forge.places import expanded
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message
from ai_forge.training.backends.base import Generator

if TYPE_CHECKING:
    from ai_forge.serving.served_model import ServedModel

NUM_CTX = 4096
TOP_P = 0.95


@runtime_checkable
class Writer(Protocol):
    """Writes text. `temperature` 0 is greedy; `seed` makes a try repeatable, as far as the runtime's arithmetic is."""

    name: str
    chats: bool
    """Whether it answers chats; else it goes on from a text."""
    samples: bool
    """Whether another seed may give another text."""

    def write(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """The answer to a chat."""

    def go_on(self, text: str, stop: Sequence[str], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """What comes after `text`, up to one of `stop`."""


class GreedyWriter:
    """Any model that answers chats the same each time."""

    chats, samples = True, False

    def __init__(self, model: Answering, name: str = "model") -> None:
        self.name = name
        self._model = model

    def write(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """The greedy answer, whatever temperature and seed."""
        return self._model.reply(messages, max_tokens)

    def go_on(self, text: str, stop: Sequence[str], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """It answers chats only."""
        raise InputError(f"{self.name} answers chats; it cannot go on from a text.")


class FileWriter:
    """A GGUF file in llama.cpp. Close it, or use `open_writer`."""

    samples = True

    def __init__(self, path: Path, num_ctx: int = NUM_CTX) -> None:
        from ai_forge.model_files.gguf.reader import check_gguf
        from ai_forge.serving.llama_server import LlamaServer

        summary = check_gguf(path)
        self.name = path.stem
        self.chats = summary.chat_template is not None
        self._server = LlamaServer(path, min(num_ctx, summary.context_length or num_ctx))

    def write(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """The answer to a chat by the file's own template."""
        return self.go_on(self._server.render(messages), (), max_tokens=max_tokens, temperature=temperature, seed=seed)

    def go_on(self, text: str, stop: Sequence[str], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """What comes after `text`."""
        options = {"n_predict": max_tokens, "temperature": temperature, "top_k": 0, "top_p": TOP_P, "seed": seed}
        return "".join(self._server.stream(text, options | {"stop": list(stop)}))

    def close(self) -> None:
        """Free the model."""
        self._server.close()


class DeployedWriter:
    """The active version of a deployed model, in the runtime that it was deployed to."""

    chats = samples = True

    def __init__(self, served: "ServedModel") -> None:
        self._served = served
        self.name = served.deployment.model

    def write(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """The answer to a chat, sampled as asked, otherwise as deployed."""
        runtime = self._served.runtime
        return "".join(runtime.chat(self.name, messages, max_tokens=max_tokens, temperature=temperature, seed=seed))

    def go_on(self, text: str, stop: Sequence[str], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """A deployed model is asked in chats only."""
        raise InputError(f"{self.name} is deployed to answer chats; it cannot go on from a text.")

    def close(self) -> None:
        """Free the runtime."""
        self._served.close()


@contextlib.contextmanager
def open_writer(
    model: Writer | Answering | Generator | Path | str, tokenizer: ChatTokenizer | None = None
) -> Iterator[Writer]:
    """A writer for whatever names a model: one itself, what answers chats, a generator with its `tokenizer`, a path or a name.

    A path is a GGUF file or a model folder; a name is a deployed model's, else a base's (`models.yaml`, a hub id,
    `ollama:NAME`). A folder or base is written as f16 GGUF once, into the cache.

    Raises:
        InputError: nothing is meant by it, or a generator comes without its tokenizer.
    """
    if isinstance(model, str | Path):
        writer = _served(model)
        try:
            yield writer
        finally:
            writer.close()
    elif isinstance(model, Writer):
        yield model
    elif isinstance(model, Answering):
        yield GreedyWriter(model)
    elif tokenizer is None:
        raise InputError(
            "A generator answers in tokens.", "give its tokenizer as well, or name the model's folder or GGUF file."
        )
    else:
        yield GreedyWriter(Scoring(model, tokenizer))


def _served(model: Path | str) -> FileWriter | DeployedWriter:
    from ai_forge.model_files.gguf.writer import write_gguf
    from ai_forge.training.bases.resolve import resolve_base
    from ai_forge.workspace import Workspace

    path = expanded(Path(model))
    if path.is_file():
        return FileWriter(path)
    workspace = Workspace.open()
    deployed = deployed_model(str(model), workspace)
    if deployed is not None:
        return DeployedWriter(deployed)
    base = resolve_base(str(model), cache_dir=workspace.cache_dir)
    file = workspace.cache_dir / "writers" / f"{base.fingerprint}.f16.gguf"
    if not file.is_file():
        write_gguf(base.folder, file, "f16", name=base.name)
    return FileWriter(file)


def until(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of `stop`.

    >>> until("a = 1\\nclass B", ("\\nclass", "\\ndef"))
    'a = 1'
    """
    ends = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(ends, default=len(text))]
