"""Text to token ids and back, exactly as the deployed model sees them: a base's tokenizer and its chat template.

Only `tokenizers` and jinja2 are needed, so `ask` starts without transformers; that the result equals
`transformers.PreTrainedTokenizer.apply_chat_template` is tested. Templates come with models and are untrusted: they are
rendered in jinja2's immutable sandbox.

A template that refuses or drops the system message (Gemma 2, the first Mistrals) gives way to its family's plain one, which
writes it at the head of the first user turn; that one is trained with and exported.
"""

import contextlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from ai_forge.config.training import PromptTemplate
from ai_forge.errors import InputError
from ai_forge.prompting.chat_templates import END_TOKENS, JINJA, Family, alpaca_jinja, family_of
from ai_forge.prompting.jinja import compiled
from ai_forge.prompting.prompt import Message
from ai_forge.prompting.tokenizer_settings import tokenizer_settings

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChatTokenizer:
    """The tokenizer of a base folder (`tokenizer.json`, `tokenizer_config.json`) with its chat template, or Alpaca's.

    A chat template that does not show a system message gives way to the plain one of its family; `replaced` names the family.

    Raises:
        InputError: a file is missing, or the base has no chat template.
    """

    replaced: Family | None = None

    def __init__(self, folder: Path, prompt_template: PromptTemplate = "chat") -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._settings = tokenizer_settings(folder, lambda token: self._tokenizer.token_to_id(token) is not None)
        except BaseException as error:  # `tokenizers` raises plain exceptions, and what Rust panics with, which is none
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise InputError(f"The tokenizer in {folder} cannot be read: {error}", "name another base.") from error
        if _only_composes(self._tokenizer.normalizer):
            # llama.cpp composes no characters (Qwen's tokenizers ask for it): the trainer must see what the runtime sees
            self._tokenizer.normalizer = normalizers.Sequence([])
        if prompt_template == "alpaca":
            first = self._tokenizer.encode("a", add_special_tokens=True).tokens[:1]
            bos = self.special("bos_token")
            self.chat_template: str = alpaca_jinja(with_bos=first == [bos])
            return
        template = self._settings.get("chat_template")
        if template is None:
            raise InputError(
                f"The base in {folder} has no chat template, so there is no right way to ask it.",
                "choose the instruct version of the base.",
            )
        self.chat_template = template
        if not self._shows_the_system_message():
            with contextlib.suppress(InputError):  # of no known family: it stays as it is
                self.replaced = family_of(template)
                self.chat_template = JINJA[self.replaced]

    def _shows_the_system_message(self) -> bool:
        mark = "<<system>>"
        try:
            return mark in self.render([{"role": "system", "content": mark}, {"role": "user", "content": "Say hi."}])
        except InputError:
            return False

    def special(self, name: str) -> str:
        """The text of a special token ("bos_token", "eos_token", …), empty where there is none."""
        return str(self._settings.get(name) or "")

    @cached_property
    def end_of_turn(self) -> str:
        """The token that ends an assistant's turn: what the template writes behind one, else the end token."""
        end, mark = self.special("eos_token"), "<<answer>>"
        talk: list[Message] = [{"role": role, "content": "Say hi."} for role in ("user", "assistant", "user")]
        talk[1]["content"] = mark
        try:
            behind = self.render(talk).partition(mark)[2].lstrip()
        except InputError:
            return end
        # a base may name the end of a text as its end token, and end a turn with another
        for token in (end, *END_TOKENS):
            if token and behind.startswith(token) and self._tokenizer.token_to_id(token) is not None:
                return token
        return end

    @property
    def end_of_turn_id(self) -> int:
        """Its id."""
        token_id = self._tokenizer.token_to_id(self.end_of_turn)
        if token_id is None:
            raise InputError(f"The base's end-of-turn token {self.end_of_turn!r} is not in its vocabulary.")
        return int(token_id)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt as text, up to where the assistant's turn begins.

        Raises:
            InputError: the template fails, refuses the chat, or reaches for what it must not.
        """
        special = {name: self.special(name) for name in SPECIAL_TOKENS}
        try:
            template = compiled(self.chat_template)
            # as transformers passes them: a template may ask whether `tools` is none
            text = template.render(
                messages=list(messages), tools=None, documents=None, add_generation_prompt=True, **special
            )
        except Exception as error:  # a template computes, and may fail at anything
            raise InputError(
                f"The base's chat template cannot render the chat: {error}",
                "choose another base, or mend its template.",
            ) from error
        return str(text)

    def first_token(self) -> str:
        """The token that a chat begins with, "" for none."""
        prompt = self.render([{"role": "user", "content": "Say hi."}])
        return "".join(self._tokenizer.encode(prompt, add_special_tokens=False).tokens[:1])

    def prompts_begin_with_bos(self) -> bool:
        """Whether the template writes the begin token before a chat."""
        return self.first_token() == self.special("bos_token") != ""

    def prompts_begin_with_special(self) -> bool:
        """Whether a chat begins with a token that is not cut out of text."""
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        return self.first_token() in added

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written in it are recognised, none are added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the rendered prompt."""
        return self.encode(self.render(messages))

    def encode_target(self, text: str) -> list[int]:
        """Token ids of an assistant's turn with the token that ends it."""
        return [*self.encode(text), self.end_of_turn_id]

    def target_starts(self, text: str) -> list[int]:
        """Where each token of `encode_target(text)` but the last begins in `text` (characters)."""
        return [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]

    def same_tokens(self, other: "ChatTokenizer") -> bool:
        """Whether `other` gives every text the same ids."""
        return (
            bool(self._tokenizer.to_str() == other._tokenizer.to_str()) and self.end_of_turn_id == other.end_of_turn_id
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _only_composes(normalizer: Any) -> bool:
    """Whether a normalizer is NFC and nothing else."""
    if normalizer is None:
        return False
    state = json.loads(normalizer.__getstate__())
    steps = state.get("normalizers", [state])
    return bool(steps) and all(step == {"type": "NFC"} for step in steps)
