"""What Ollama must be told so that it prompts as the trainer did: a Go template and the stop words, from the Jinja.

Method: the Jinja chat template is rendered with marked messages; the text between the marks is what stands before a
system, a user and an assistant turn, and from these pieces the Go template is put together. Before it is used,
the pieces are put together again for several other conversations and compared with the Jinja, character by character.
So the default system message that SmolLM2's Jinja adds by itself is in the Go template as well (Ollama's own ChatML
template drops it: "Say hi." is 12 tokens there instead of 31).

Not covered: tools, images, thinking blocks, a system message after the first turn. A template that trims contents gives
the same prompt only for contents without space at their ends; one that prints today's date keeps the day of export.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from ai_forge.errors import InputError
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.jinja import compiled
from ai_forge.prompting.prompt import Message

_PROBES: list[list[tuple[str, str]]] = [
    [("user", "Say hi.")],
    [("system", "Answer briefly."), ("user", "a\n\nb  c")],
    [("user", "one"), ("assistant", "two {{ x }}"), ("user", "three")],
    [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"), ("user", "w")],
]


@dataclass(frozen=True)
class OllamaPrompt:
    """The Go template for Ollama and the words that end an answer."""

    template: str
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes before each content, by what came before, and after the last."""

    system: str
    user_first: str
    user_after_system: str
    user_after_assistant: str
    assistant: str
    answer: str

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """The prompt for a conversation: what the Go template does, in Python."""
        text, before = "", ""
        for role, content in messages:
            if role == "system":
                text += self.system
            elif role == "user":
                after = {"system": self.user_after_system, "assistant": self.user_after_assistant}
                text += after.get(before, self.user_first)
            else:
                text += self.assistant
            text, before = text + content, role
        return text + self.answer

    def go(self) -> str:
        """The same as a Go template."""
        user = (
            f'{{{{ if eq $before "system" }}}}{_literal(self.user_after_system)}'
            f'{{{{ else if eq $before "assistant" }}}}{_literal(self.user_after_assistant)}'
            f"{{{{ else }}}}{_literal(self.user_first)}{{{{ end }}}}"
        )
        return (
            '{{ $before := "" }}{{ range .Messages }}'
            f'{{{{ if eq .Role "system" }}}}{_literal(self.system)}'
            f'{{{{ else if eq .Role "user" }}}}{user}'
            f"{{{{ else }}}}{_literal(self.assistant)}{{{{ end }}}}{{{{ .Content }}}}"
            f"{{{{ $before = .Role }}}}{{{{ end }}}}{_literal(self.answer)}"
        )


def _literal(text: str) -> str:
    """Text inside a Go template; quoted where it holds braces or quotes that Go or a Modelfile would read."""
    if "{{" in text or "}}" in text or '"""' in text:
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"
    return text


def check_followable(tokenizer: ChatTokenizer) -> None:
    """Find out before there is a GGUF whether Ollama can ask as the trainer does. Raises `InputError` if not."""
    pieces_of(tokenizer.chat_template, tokenizer.special("bos_token"), tokenizer.special("eos_token"), "")


def pieces_of(jinja: str, bos: str, eos: str, strip: str) -> Pieces:
    """The pieces of the chat template `jinja`, with `strip` taken off the head of each prompt.

    Raises:
        InputError: it does not render, or no Go template of this form reproduces it.
    """

    def render(messages: Sequence[tuple[str, str]]) -> str:
        # Ollama tokenises with the begin token where the GGUF asks for one: a second one would be another prompt
        return _render(jinja, messages, bos, eos).removeprefix(strip)

    # what stands before a user turn may hang on what came before it, so each kind of neighbour is tried once
    marks = ["<<mark-s>>", "<<mark-u>>", "<<mark-a>>", "<<mark-v>>"]
    s, u, a, v = marks
    whole = _split(render([("system", s), ("user", u), ("assistant", a), ("user", v)]), marks)
    bare = _split(render([("user", u)]), [u])
    pieces = Pieces(
        system=whole[0],
        user_after_system=whole[1],
        assistant=whole[2],
        user_after_assistant=whole[3],
        answer=whole[4],
        user_first=bare[0],
    )
    for probe in _PROBES:
        want, have = render(probe), pieces.render(probe)
        if want != have:
            raise InputError(
                f"The chat template renders {want!r}, which a Go template made of its pieces would render as {have!r}.",
                "deploy with the embedded runtime, which uses the Jinja template itself.",
            )
    return pieces


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise InputError("The chat template leaves out a message, so no Go template can follow it.")
        parts.append(before)
    return [*parts, text]


def _render(jinja: str, messages: Sequence[tuple[str, str]], bos: str, eos: str) -> str:
    turns = [Message(role=role, content=content) for role, content in messages]
    try:
        return str(compiled(jinja).render(messages=turns, add_generation_prompt=True, bos_token=bos, eos_token=eos))
    except TemplateError as error:
        raise InputError(f"The chat template cannot be rendered: {error}.") from error
