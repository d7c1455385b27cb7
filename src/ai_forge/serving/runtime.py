"""What every runtime must do, and the values that cross that line.

A deployment goes: `create` → compare `render` and `greedy` with the trainer → `activate` → `chat`. Models are named
`name:version`; `name:latest` is the active one. `render` and `greedy` exist for parity: the first tells what prompt the
runtime really makes of a chat, the second continues a given prompt without any template, greedily.

Runtimes know neither the registry nor the repository; retrieval and the prompt's words are the caller's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ai_forge.errors import InputError
from ai_forge.prompting.prompt import Message
from ai_forge.serving.deployment import Deployment

RuntimeKind = Literal["ollama", "embedded"]
# called with what is being done, how much of it is done and how much there is (bytes, or 0 of 0)
Progress = Callable[[str, int, int], None]
# sampling that the runtimes set differently by themselves (llama.cpp: min_p 0.05; Ollama: repeat_penalty 1.1)
NEUTRAL = {"repeat_penalty": 1.0, "min_p": 0.0}
ASKED_AT_ONCE = 8  # twice the usual slots: a long answer leaves the others something to do


def silent(_what: str, _done: int, _total: int) -> None:
    """A `Progress` for those who do not watch."""


@dataclass(frozen=True)
class HeldModel:
    """A model that a runtime holds. `models()` fills the first three fields, `show()` all."""

    model: str
    size_bytes: int
    digest: str
    system_prompt: str = ""
    template: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedPrompt:
    """The prompt that a runtime makes of a chat: its text (None where the runtime does not tell) and its tokens."""

    text: str | None
    n_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """Where a held model answers OpenAI's routes over HTTP, for who passes requests on; `headers` let in."""

    url: str
    headers: Mapping[str, str]
    model: str


@dataclass(frozen=True)
class Completion:
    """A raw continuation. `token_ids` is None where the runtime does not tell them."""

    text: str
    n_prompt_tokens: int
    n_tokens: int
    token_ids: tuple[int, ...] | None


class Completes(Protocol):
    """A loaded GGUF file."""

    def completions(self, prompts: Sequence[str | Sequence[int]], max_tokens: int) -> Sequence[Completion]:
        """Greedy continuations of texts or token ids, several at once."""


def in_parts(model: Completes, prompts: Sequence[str | Sequence[int]], max_tokens: int) -> Iterator[list[str]]:
    """What `model` goes on with after each of `prompts`, in their order, some at a time: in between it can be stopped."""
    for first in range(0, len(prompts), ASKED_AT_ONCE):
        part = model.completions(prompts[first : first + ASKED_AT_ONCE], max_tokens)
        yield [completion.text for completion in part]


class Runtime(Protocol):
    """Serves GGUF models. Every method that meets a runtime that went away raises `TransientError`."""

    @property
    def kind(self) -> RuntimeKind:
        """Which runtime it is."""

    def is_available(self) -> bool:
        """Whether it can serve now."""

    def create(self, deployment: Deployment, progress: Progress = silent) -> None:
        """Make `name:version` from the file; a failure leaves no model. The same again is harmless.

        Raises:
            InputError, PrerequisiteError: the file is missing, damaged or not the one named; too little disk.
        """

    def activate(self, name: str, version: str) -> None:
        """Make `name:latest` mean `name:version`. Raises `InputError` where that does not exist."""

    def active(self, name: str) -> str | None:
        """The version that `name:latest` means, or None."""

    def models(self) -> list[HeldModel]:
        """All models it holds, by name."""

    def show(self, model: str) -> HeldModel:
        """One model in full. Raises `InputError` where there is none of that name."""

    def is_whole(self, model: str) -> bool:
        """Whether it holds `name:version`, readable and with the weights that were deployed."""

    def delete(self, model: str) -> None:
        """Remove `name:version`; nothing happens where it does not exist."""

    def chat(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer in pieces as they come; what is not given is as deployed. Closing the iterator stops the model.

        Raises:
            InputError: no such model, or the prompt is longer than its context: it is never cut silently.
        """

    def answers(self, model: str, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[Completion]:
        """Greedy answers in the order of `chats`, several at a time; else as deployed. Raises as `chat`."""

    def render(self, model: str, messages: Sequence[Message]) -> RenderedPrompt:
        """What prompt the runtime makes of `messages`."""

    def greedy(self, model: str, prompt: str, max_tokens: int) -> Completion:
        """Continue `prompt` as it stands (special tokens in it are recognised), greedily, until the model ends."""

    def likely(self, model: str, prompt: str) -> Mapping[str, float] | None:
        """The likeliest next tokens after `prompt` with their log-probabilities (nats); empty where this version does not tell.

        None where answers are computed by the very build that the exported file was compared with: they are the same.
        """

    def tokenize(self, model: str, text: str) -> list[int] | None:
        """Token ids of `text`, special tokens recognised, none added; None where the runtime does not tell."""

    def endpoint(self, model: str) -> AbstractContextManager[Endpoint]:
        """Where `model` is asked directly; it stays loaded while the block runs."""

    def close(self) -> None:
        """Free what the runtime holds in this process."""


def context_error(n_prompt_tokens: object, num_ctx: object) -> InputError:
    """The error for a prompt that does not fit."""
    return InputError(
        f"The prompt has {n_prompt_tokens} tokens; the model was deployed with a context of {num_ctx}.",
        "ask with fewer documents, or deploy with a larger AI_FORGE_RUNTIME__NUM_CTX.",
    )


def prompt_difference(rendered: RenderedPrompt, text: str, n_tokens: int) -> str | None:
    """How a runtime's prompt differs from the trainer's (`text`, `n_tokens`), in words; None where it is the same.

    A begin token that the runtime adds while tokenising is not in its text, only in its count.

    >>> prompt_difference(RenderedPrompt("a<end>", 3), "<s>a<end>", 3) is None
    True
    >>> prompt_difference(RenderedPrompt("b", 1), "a", 1)
    "the runtime's prompt differs from character 0 on: 'b' instead of 'a'"
    """
    if rendered.text is not None and not (rendered.n_tokens == n_tokens and text.endswith(rendered.text)):
        pairs = enumerate(zip(rendered.text, text, strict=False))
        at = next((i for i, (have, want) in pairs if have != want), min(len(rendered.text), len(text)))
        have, want = rendered.text[at : at + 40], text[at : at + 40]
        if have or want:
            return f"the runtime's prompt differs from character {at} on: {have!r} instead of {want!r}"
    if rendered.n_tokens != n_tokens:
        return f"the runtime's prompt has {rendered.n_tokens} tokens, the trainer's {n_tokens}"
    return None


def with_system(messages: Sequence[Message], system_prompt: str) -> list[Message]:
    """`messages` with the deployment's system text where they bring none, as Ollama does it."""
    if system_prompt and not any(message["role"] == "system" for message in messages):
        return [{"role": "system", "content": system_prompt}, *messages]
    return list(messages)
