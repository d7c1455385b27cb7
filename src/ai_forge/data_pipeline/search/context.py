"""Which documents are shown with a question that a user asks (or the judge asks in the user's place)."""

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.raft_examples import prompt_order
from ai_forge.data_pipeline.search.index import Retriever
from ai_forge.data_pipeline.text.words import approximate_tokens


def documents_for(question: str, index: Retriever, *, k: int, max_tokens: int) -> tuple[Document, ...]:
    """The best `k` hits that fit into `max_tokens` approximate tokens together, in the order of the prompt.

    A hit that does not fit is passed over for the next one, and none lies inside another. The budget is that of
    synthesis, so that a model is asked with prompts of the size it was trained on.
    """
    chosen: list[Document] = []
    left = max_tokens
    for hit in index.search(question, 4 * k, nested=False):
        cost = approximate_tokens(hit.block.source_code)
        if cost <= left:
            chosen.append(Document.from_block(hit.block))
            left -= cost
        if len(chosen) == k:
            break
    return prompt_order(chosen)
