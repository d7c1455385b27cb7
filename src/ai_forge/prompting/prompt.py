"""The one prompt: what the trainer trains on, the judge asks and the deployed model is given.

A parity failure ("good in training, rubbish when served") starts where two places build prompts. So there is one.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypedDict

from ai_forge.data_pipeline.schemas import Document, RAFTExample

SYSTEM_PROMPT = (
    "You answer questions about a code repository. Use only the documents given. "
    "Cite the code you rely on as [path:first-last]. If the documents do not hold the answer, say so."
)
NOT_IN_CONTEXT = "The given documents do not contain the answer."

CITATION = re.compile(r"\[((?:[^\[\]\n]+?):\d+-\d+|commit:[0-9a-f]{12})\]")
FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)  # a code fence in an answer


class Message(TypedDict):
    """One chat turn; `role` is system, user or assistant."""

    role: str
    content: str


def document_text(document: Document) -> str:
    """A document as the model sees it: its name and citation, then the code in a fence.

    The name stands right before the citation: an answer that starts with the name then finds the citation by copying on,
    which small models learn first.
    """
    return f"`{document.name}` [{document.citation}]\n```{document.language}\n{document.text}\n```"


def user_turn(question: str, documents: Sequence[Document]) -> str:
    """The user's turn: the documents (if any), then the question."""
    return "\n\n".join([*(document_text(d) for d in documents), f"Question: {question}"])


def messages_for(
    question: str, documents: Sequence[Document], worked_examples: Iterable[RAFTExample] = ()
) -> list[Message]:
    """The chat up to the assistant's turn. `worked_examples` become earlier turns (few-shot, for the rival base)."""
    messages: list[Message] = [{"role": "system", "content": SYSTEM_PROMPT}]
    for example in worked_examples:
        messages.append({"role": "user", "content": user_turn(example.question, example.shown_documents)})
        messages.append({"role": "assistant", "content": example.target})
    messages.append({"role": "user", "content": user_turn(question, documents)})
    return messages


def citations_in(text: str) -> list[str]:
    """The citations of an answer in order, `path:first-last` or `commit:<12 hex>`; none from code in fences.

    >>> citations_in("See [a/b.py:3-9], not [x], since [commit:0123456789ab].")
    ['a/b.py:3-9', 'commit:0123456789ab']
    """
    return CITATION.findall(FENCE.sub("", text))
