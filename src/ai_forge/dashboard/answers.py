"""A model's answer as the pages show it: what it found, its words as they come, then its citations as links."""

from __future__ import annotations

import html
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ai_forge.conductor.problems import problem_of
from ai_forge.errors import AIForgeError
from ai_forge.prompting.prompt import CITATION

if TYPE_CHECKING:
    import re

    from ai_forge.data_pipeline.schemas import Document
    from ai_forge.serving.served_model import Reply


def answer_lines(reply: Reply) -> Iterator[bytes]:
    """The answer in lines of JSON: `found`, then `text` piece by piece, at last `html` with its links."""
    yield _line(found=found_html(reply.model, reply.documents))
    for piece in reply:
        yield _line(text=piece)
    yield _line(html=answer_html(reply.text, reply.model, reply.documents, reply.invented))
    if reply.repeated:
        yield _line(error="The model repeated itself; the rest was cut off.")


async def with_errors(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`lines`, and where they break off a line with the `error`: the response has begun by then, and can say it no other way."""
    try:
        async for line in lines:
            yield line
    except AIForgeError as error:
        problem = problem_of(error)
        yield _line(error=f"{problem.message} Next: {problem.next_step}" if problem.next_step else problem.message)


def found_html(model: str, documents: Sequence[Document]) -> str:
    """The places that were found, as links."""
    if not documents:
        return "asked without documents"
    links = (f'<a href="{_href(model, document)}">{html.escape(document.citation)}</a>' for document in documents)
    return "found: " + ", ".join(links)


def answer_html(text: str, model: str, documents: Sequence[Document], invented: Sequence[str]) -> str:
    """The answer with each citation of a shown document as a link, and invented ones marked."""
    shown = {document.citation: document for document in documents}

    def linked(match: re.Match[str]) -> str:
        citation = match[1]
        if citation in shown:
            return f'[<a href="{_href(model, shown[citation])}">{citation}</a>]'
        if html.unescape(citation) in invented:
            return f'<span class="bad" title="not among the documents that were shown">[{citation}] (not shown)</span>'
        return match[0]

    # escaped first: the answer is a model's, and what it was shown is a repository's
    return CITATION.sub(linked, html.escape(text))


def _href(model: str, document: Document) -> str:
    return html.escape("/code?" + urlencode({"model": model, "document": document.block_id}))


def _line(**values: str) -> bytes:
    return (json.dumps(values) + "\n").encode()
