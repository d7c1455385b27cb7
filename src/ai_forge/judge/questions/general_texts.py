"""What a model should still know after it was tuned: short code and chats about no project in particular.

They ship with the package (`general_texts.yaml`, written for it) and are the same for everyone, so figures of several runs can
be compared. Twelve of each see a model that has come apart, not one that has become a little worse: the intervals say so.
"""

from collections.abc import Iterator
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.backends.base import Generator
from ai_forge.training.tokens.packing import TokenizedExample, collate

Kind = Literal["code", "chat"]


class GeneralText(BaseModel):
    """A piece of code, or the answer to a `question`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    name: str = ""
    question: str = ""


class GeneralScore(BaseModel):
    """Summed −log p (nats) that base and tuned model give to a text of `n_bytes`."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    n_bytes: int
    base_nats: float
    tuned_nats: float


def general_texts() -> dict[Kind, list[GeneralText]]:
    """The texts by kind."""
    read = yaml.safe_load(files("ai_forge.judge.questions").joinpath("general_texts.yaml").read_text(encoding="utf-8"))
    kinds: tuple[Kind, ...] = ("code", "chat")
    return {kind: [GeneralText.model_validate(text) for text in read[kind]] for kind in kinds}


def general_nats(model: Generator, tokenizer: ChatTokenizer) -> list[float]:
    """Summed −log p of each text in order: of code all tokens but the first, of a chat the answer."""
    return [-float(model.log_probs(collate([text])).sum()) for text in _tokenized(tokenizer)]


def general_scores(base_nats: list[float], tuned_nats: list[float]) -> tuple[GeneralScore, ...]:
    """What both models gave to the texts, by text."""
    texts = [(kind, text) for kind, of_kind in general_texts().items() for text in of_kind]
    return tuple(
        GeneralScore(
            kind=kind,
            name=text.name or text.question,
            n_bytes=len(text.text.encode()),
            base_nats=base,
            tuned_nats=tuned,
        )
        for (kind, text), base, tuned in zip(texts, base_nats, tuned_nats, strict=True)
    )


def _tokenized(tokenizer: ChatTokenizer) -> Iterator[TokenizedExample]:
    texts = general_texts()
    for code in texts["code"]:
        yield TokenizedExample(tuple(tokenizer.encode(code.text)), 1)
    for chat in texts["chat"]:
        prompt = tokenizer.encode_prompt([{"role": "user", "content": chat.question}])
        yield TokenizedExample((*prompt, *tokenizer.encode_target(chat.text)), len(prompt))
