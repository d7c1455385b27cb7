"""Which documents are shown with a question that a user asks (or the judge asks in the user's place)."""

from collections.abc import Collection, Iterator

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.raft_examples import prompt_order
from ai_forge.data_pipeline.search.excerpt import excerpt
from ai_forge.data_pipeline.search.index import Retriever
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.data_pipeline.text.words import approximate_tokens

_LEAST_EXCERPT = 120
"""Approximate tokens: of a document that is too long, less than this is not worth its place."""


def documents_for(
    question: str, index: Retriever | QuestionIndex, *, k: int, max_tokens: int, without: Collection[str] = ()
) -> tuple[Document, ...]:
    """The best `k` hits that fit into `max_tokens` approximate tokens together, in the order of the prompt.

    Files in `without` are not shown.

    None lies inside another. Of one that does not fit, head and relevant part are shown (`excerpt`), or the next one where
    there is too little room for that. The budget is that of synthesis, so that a model is asked with prompts of the size
    it was trained on.
    """
    chosen: list[Document] = []
    left = max_tokens
    for document in _hits(question, index, 4 * k if not without else 12 * k):
        if document.path in without:
            continue
        cost = approximate_tokens(document.text)
        if cost > left >= _LEAST_EXCERPT:
            document = document.model_copy(update={"text": excerpt(document.text, question, left)})
            cost = approximate_tokens(document.text)
        if cost <= left:
            chosen.append(document)
            left -= cost
        if len(chosen) == k:
            break
    return prompt_order(chosen)


def _hits(question: str, index: Retriever | QuestionIndex, n: int) -> Iterator[Document]:
    """What an index finds, best first, as documents."""
    if isinstance(index, QuestionIndex):
        for found in index.search(question, n):
            yield found.entry.document()
    else:
        yield from (Document.from_block(hit.block) for hit in index.search(question, n, nested=False))
