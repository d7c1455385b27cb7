"""A chat that is asked with what is found of the repository: which documents, what the model is sent, what it cites.

The answer's text cites as it was trained to (`[path:first-last]`); where it cites nothing of what it was shown, a last line says
what that was. The same places stand in the extra field `citations`. A phrase that the model repeats without end is cut off.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ai_forge.conductor.openai.schemas import ChatRequest, Citation
from ai_forge.data_pipeline.schemas import Document
from ai_forge.json_lines import JsonObject
from ai_forge.prompting.prompt import Message, citations_in
from ai_forge.serving.served_model import ServedModel, loop_at_end

__all__ = ["Shown", "citations_of", "cited_answer", "cited_events", "shown_for", "without_loop"]

END = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Shown:
    """What a question is asked with."""

    documents: tuple[Document, ...]
    messages: list[JsonObject]
    has_footer: bool


def shown_for(request: ChatRequest, served: ServedModel) -> Shown | None:
    """The documents for the last question and the chat with them; None where the last turn is no question (a tool's result),
    or the model is asked without documents.
    """
    *before, last = request.messages
    if last.role != "user" or served.index is None:
        return None
    history: list[Message] = [
        {"role": turn.role, "content": turn.text} for turn in before if turn.role in ("user", "assistant") and turn.text
    ]
    documents = served.documents_for(last.text, history)
    messages: list[JsonObject] = [dict(turn) for turn in served.chat_for(last.text, history, documents)]
    told = [turn.text for turn in before if turn.role in ("system", "developer")]
    # one system turn, that of the training first: templates refuse a second
    messages[0]["content"] = "\n\n".join([messages[0]["content"], *told])
    wants_form = request.tools or (request.response_format and request.response_format.type != "text")
    return Shown(documents, messages, has_footer=not wants_form)


def citations_of(documents: Sequence[Document], text: str) -> list[Citation]:
    """Every shown place, and whether `text` cites it."""
    named = set(citations_in(text))
    return [
        Citation(
            path=document.path or document.citation,
            first_line=document.first_line,
            last_line=document.last_line,
            name=document.name,
            cited=document.citation in named,
        )
        for document in documents
    ]


def footer(shown: Shown, text: str) -> str:
    """The line that says what was shown, for an answer that cites none of it."""
    if not shown.has_footer or not shown.documents or any(one.cited for one in citations_of(shown.documents, text)):
        return ""
    return "\n\nShown: " + ", ".join(f"[{document.citation}]" for document in shown.documents)


def without_loop(text: str) -> str:
    """`text` with what it repeats at its end once.

    >>> without_loop("So: " + "it calls load. " * 9)
    'So: it calls load. '
    """
    loop = loop_at_end(text)
    if not loop:
        return text
    phrase = text[-loop:]
    while text.endswith(phrase * 2):
        text = text[:-loop]
    return text


def cited_answer(answer: JsonObject, shown: Shown) -> JsonObject:
    """A whole answer with its citations."""
    texts = []
    for choice in answer["choices"]:
        message = choice["message"]
        text = without_loop(message.get("content") or "")
        texts.append(text)
        if not message.get("tool_calls"):
            message["content"] = text + footer(shown, text)
    cited = citations_of(shown.documents, "\n".join(texts))
    return answer | {"citations": [citation.model_dump() for citation in cited]}


async def cited_events(lines: AsyncGenerator[str], shown: Shown) -> AsyncGenerator[bytes]:
    """The events of a streamed answer (as `Upstream.lines` gives them) with its citations in the last of them."""
    texts: dict[int, str] = {}
    ended: set[int] = set()
    chunk: JsonObject = {}
    async with aclosing(lines) as going:
        async for line in going:
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                yield _event(_last(chunk, shown, texts))
                yield END
                return
            chunk = json.loads(data)
            for part in _parts(chunk, shown, texts, ended):
                yield _event(part)
            if texts and ended.issuperset(texts) and _is_looping(texts):
                yield _event(_last(chunk, shown, texts))
                yield END
                return


def _parts(chunk: JsonObject, shown: Shown, texts: dict[int, str], ended: set[int]) -> list[JsonObject]:
    """A chunk as it is passed on: the footer before what ends a choice, nothing of a choice that has ended."""
    if not chunk.get("choices"):
        return [chunk]  # usage
    parts = []
    for choice in chunk["choices"]:
        index = choice.get("index", 0)
        if index in ended:
            continue
        texts[index] = texts.get(index, "") + (choice.get("delta", {}).get("content") or "")
        if loop_at_end(texts[index]):
            parts.append(chunk | {"choices": [choice]})
            choice = {"index": index, "delta": {}, "finish_reason": "stop"}
        if choice.get("finish_reason"):
            ended.add(index)
            more = footer(shown, texts[index]) if choice["finish_reason"] != "tool_calls" else ""
            if more:
                added = {"index": index, "delta": {"content": more}, "finish_reason": None}
                parts.append(chunk | {"choices": [added]})
        parts.append(chunk | {"choices": [choice]})
    return parts


def _is_looping(texts: dict[int, str]) -> bool:
    return any(loop_at_end(text) for text in texts.values())


def _last(chunk: JsonObject, shown: Shown, texts: dict[int, str]) -> JsonObject:
    cited = citations_of(shown.documents, "\n".join(texts.values()))
    kept = {key: value for key, value in chunk.items() if key not in ("usage", "timings")}
    return kept | {"choices": [], "citations": [citation.model_dump() for citation in cited]}


def _event(chunk: JsonObject) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
