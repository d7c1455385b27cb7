"""What is deployed: one immutable version of a model, with everything that decides how it is prompted and sampled.

`deployment_from_gguf` reads template and stop words out of the file itself, so a deployment cannot name another
template than its GGUF holds; both runtimes then serve the prompt that the trainer used. A version is named by the id of
the run that made it; two deployments are equal when they would answer alike. Nothing here talks to a runtime.
"""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.model_files.gguf.reader import check_gguf, read_gguf
from ai_forge.model_files.tokenizers.gguf_tokenizer import token_at
from ai_forge.workspace import file_sha256

LATEST = "latest"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Sampling:
    """How the model answers unless a request says otherwise. `num_ctx` and `num_predict` are tokens."""

    num_ctx: int
    num_predict: int
    temperature: float
    top_k: int
    top_p: float

    @classmethod
    def of(cls, settings: RuntimeSettings) -> "Sampling":
        """The part of the runtime's settings that goes into a deployment."""
        return cls(settings.num_ctx, settings.num_predict, settings.temperature, settings.top_k, settings.top_p)


@dataclass(frozen=True)
class FileStamp:
    """By what a file is known again without reading it: any write to it changes one of the three."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "FileStamp":
        """The stamp of the file at `path`."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class _AskValue(BaseModel):
    # a row that a later version of AI Forge wrote stays readable
    model_config = ConfigDict(frozen=True, extra="ignore")


class RetrievalSettings(_AskValue):
    """How many documents are shown with a question at most, and how many tokens they may have together."""

    k: int
    max_tokens: int


class RepositoryRef(_AskValue):
    """The repository that a model was trained on, as it was then. `path` may have moved since."""

    path: Path
    name: str
    commit: str | None = None


class AskSettings(_AskValue):
    """What is needed to ask a version as it was trained, without its repository or its run.

    `index_folder` and `retrieval` are None for a model that is asked without documents (a handbook's).
    """

    kind: str = "repository"
    prompt_version: int = 1
    index_folder: Path | None = None
    retrieval: RetrievalSettings | None = None
    repository: RepositoryRef | None = None


@dataclass(frozen=True)
class Deployment:
    """One version of a model. `chat_template` is Jinja; `version` is the id of the run that made it.

    `asking` is None in what was deployed before it was recorded. It says where things lie, so it may be filled in later.
    """

    name: str
    version: str
    # not compared: where the file lies and when it was made changes no answer
    gguf_path: Path = field(compare=False)
    gguf_sha256: str
    chat_template: str
    stop: tuple[str, ...]
    system_prompt: str
    sampling: Sampling
    base: str
    created_at: str = field(compare=False)
    asking: AskSettings | None = field(default=None, compare=False)

    @property
    def model(self) -> str:
        """What the runtimes call it: `name:version`."""
        return f"{self.name}:{self.version}"

    def check_file(self) -> None:
        """Raise unless the GGUF is there, whole, and the one that was registered.

        Raises:
            PrerequisiteError: the file is missing.
            InputError: it is damaged, or it is another file than the deployment names.
        """
        if not self.gguf_path.is_file():
            raise PrerequisiteError(
                f"The model file {self.gguf_path} of {self.model} is missing.", "make it again: ai-forge export."
            )
        template = check_gguf(self.gguf_path).chat_template  # before the hash: a file that is cut off is said to be so
        digest = file_sha256(self.gguf_path)
        if digest != self.gguf_sha256:
            raise InputError(
                f"{self.gguf_path} has sha256 {digest[:12]}…, {self.model} was made from {self.gguf_sha256[:12]}….",
                "make it again: ai-forge export.",
            )
        if template != self.chat_template:
            raise InputError(f"{self.gguf_path} holds another chat template than {self.model} names.")


def read_deployment(values: Mapping[str, object]) -> Deployment:
    """A deployment from plain values that were stored. Raises `ValueError` where they do not make one."""
    return _STORED.validate_python(values)


_STORED = TypeAdapter(Deployment)


def check_name(text: str, what: str = "model name") -> None:
    """Refuse what a path or a tag cannot hold.

    Raises:
        InputError: it is no name.
    """
    if not NAME.fullmatch(text) or text == LATEST:
        raise InputError(
            f"{text[:100]!r} cannot be a {what}.",
            f"use 1 to 80 letters, digits, dots, dashes and underscores, a letter or digit first, not {LATEST!r}.",
        )


def deployment_from_gguf(
    name: str,
    version: str,
    gguf_path: Path,
    *,
    system_prompt: str,
    settings: RuntimeSettings,
    base: str,
    gguf_sha256: str | None = None,
    asking: AskSettings | None = None,
) -> Deployment:
    """A deployment of a GGUF file with the chat template and stop words that the file itself holds.

    `gguf_sha256` saves hashing the file where it is known already (98 MB take 0.1 s, 15 GB some 20 s).

    Raises:
        PrerequisiteError: the file is missing.
        InputError: a name that is not allowed, a damaged file, no chat template, or a context longer than the model's.
    """
    check_name(name)
    check_name(version, "version")
    if not gguf_path.is_file():
        raise PrerequisiteError(f"The model file {gguf_path} is missing.", "make it: ai-forge export.")
    summary = check_gguf(gguf_path)
    if not summary.chat_template:
        raise InputError(f"{gguf_path} has no chat template.", "export it from an instruct model.")
    if summary.context_length and settings.num_ctx > summary.context_length:
        raise InputError(
            f"runtime.num_ctx is {settings.num_ctx}; {gguf_path.name} was made for at most {summary.context_length}.",
            f"set AI_FORGE_RUNTIME__NUM_CTX={summary.context_length} or less.",
        )
    return Deployment(
        name=name,
        version=version,
        gguf_path=gguf_path.absolute(),
        gguf_sha256=gguf_sha256 or file_sha256(gguf_path),
        chat_template=summary.chat_template,
        stop=stop_words(gguf_path),
        system_prompt=system_prompt,
        sampling=Sampling.of(settings),
        base=base,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        asking=asking,
    )


def stop_words(gguf_path: Path) -> tuple[str, ...]:
    """What ends an answer: the end token and the control tokens between two turns of the chat template.

    A template that has no such pieces (Ollama cannot serve it, the embedded runtime can) leaves the end token alone.
    """
    try:
        return ollama_prompt(gguf_path).stop
    except InputError:
        metadata = read_gguf(gguf_path).metadata
        end = token_at(metadata, metadata.get("tokenizer.ggml.tokens", []), "eos")
        return (end,) if end else ()
