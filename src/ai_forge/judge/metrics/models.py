"""What a metric may be asked about: a model that answers (`Answering`), or one that tells log-probabilities (`Scoring`).

The metrics take either as it is, or a name or path, which is opened for the call:

| given | is |
| --- | --- |
| a name in the registry of deployments (`my-repo`) | the deployed model, asked through its runtime as users ask it |
| a `.gguf` file | that file in llama.cpp, greedily |
| a folder of weights, or the name of a base | the model in the trainer's library, greedily; the only ones with log-probabilities |
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ai_forge.errors import InputError
from ai_forge.prompting.prompt import Message

if TYPE_CHECKING:
    from ai_forge.data_pipeline.schemas import Document
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.serving.llama_server import LlamaServer
    from ai_forge.serving.served_model import ServedModel
    from ai_forge.training.backends.base import Generator
    from ai_forge.workspace import Workspace

MAX_NEW_TOKENS = 256


@runtime_checkable
class Answering(Protocol):
    """A model that answers chats. A class of yours with this method will do."""

    def reply(self, messages: Sequence[Message], max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The answer to a chat that ends with a user's turn; the same each time."""


@dataclass(frozen=True)
class Scoring:
    """A model in the trainer's library with its tokenizer."""

    generator: "Generator"
    tokenizer: "ChatTokenizer"

    def reply(self, messages: Sequence[Message], max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The greedy answer."""
        (ids,) = self.generator.generate([self.tokenizer.encode_prompt(messages)], max_new_tokens)
        return self.tokenizer.decode(ids)


@dataclass(frozen=True)
class Served:
    """A deployed model, asked through its runtime at temperature 0."""

    model: "ServedModel"

    def reply(self, messages: Sequence[Message], max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """What the runtime answers."""
        served = self.model
        return "".join(
            served.runtime.chat(served.deployment.model, messages, max_tokens=max_new_tokens, temperature=0.0)
        )

    def documents(self) -> Iterator["Document"]:
        """All that it may be shown of its repository: what its index holds."""
        index = self.model.index
        if index is not None:
            yield from (entry.document() for entry in index.entries)


@dataclass(frozen=True)
class InLlamaCpp:
    """A GGUF file, loaded into llama.cpp."""

    server: "LlamaServer"

    def reply(self, messages: Sequence[Message], max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The greedy answer."""
        return self.server.greedy(self.server.render(messages), max_new_tokens).text


@contextmanager
def opened(model: "Answering | str | Path", workspace: "Workspace | None" = None) -> Iterator[Answering]:
    """The model that answers; one that is opened here is closed after.

    Raises:
        TypeError: it cannot answer chats, a bare `Generator` for one, which has no tokenizer.
        InputError: nothing is known by that name.
        PrerequisiteError: what it needs is not installed, or its file is gone.
    """
    if not isinstance(model, str | Path):
        if not isinstance(model, Answering):
            raise TypeError(
                f"{type(model).__name__} has no `reply`: give Scoring(generator, tokenizer), or a name or path"
            )
        yield model
    elif str(model).endswith(".gguf"):
        from ai_forge.serving.llama_server import LlamaServer

        path = Path(model)
        if not path.is_file():
            raise InputError(f"There is no file {path}.", "name a GGUF file, a folder, a base or a deployed model.")
        with LlamaServer(path, num_ctx=4096) as server:
            yield InLlamaCpp(server)
    elif (deployed := deployed_model(str(model), workspace)) is not None:
        with deployed:
            yield Served(deployed)
    else:
        yield scoring(model, workspace)


def scoring(model: str | Path, workspace: "Workspace | None" = None) -> Scoring:
    """The folder of weights or the base of that name, loaded. Raises InputError where there is neither."""
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.backends import load_backend
    from ai_forge.training.bases.resolve import resolve_base
    from ai_forge.workspace import Workspace

    home = workspace or Workspace.open()
    base = resolve_base(str(model), cache_dir=home.cache_dir)
    tokenizer = ChatTokenizer(base.folder)
    return Scoring(load_backend("auto").generator.load(base.folder, tokenizer.end_of_turn_id), tokenizer)


def deployed_model(name: str, workspace: "Workspace | None" = None) -> "ServedModel | None":
    """The deployed model of that name, open; None where nothing of it is deployed."""
    from ai_forge.config import load_settings
    from ai_forge.serving.registry import Registry
    from ai_forge.serving.served_model import ServedModel
    from ai_forge.workspace import Workspace

    home = workspace or Workspace.open()
    if not home.registry_path.exists():
        return None
    with Registry(home.registry_path) as registry:
        if registry.active(name) is None:
            return None
    return ServedModel.open(name, home, load_settings().settings.runtime)
