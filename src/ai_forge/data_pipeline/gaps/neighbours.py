"""What an editor would send with a request to complete code: a few lines of other files, found by the lines above the place."""

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.search.excerpt import excerpt
from ai_forge.data_pipeline.search.question_index import QuestionIndex

__all__ = ["SHOWN_DOCUMENTS", "neighbours"]

SHOWN_DOCUMENTS, SHOWN_TOKENS = 2, 220
_QUERY_LINES = 8


def neighbours(path: str, prefix: str, index: QuestionIndex, n: int = SHOWN_DOCUMENTS) -> list[Document]:
    """At most `n` places in other files than `path` that retrieval finds with the last lines of `prefix`, cut to a few lines."""
    query = "\n".join(prefix.split("\n")[-_QUERY_LINES:])
    found = [one.entry for one in index.search(query, 4 * n) if one.path != path and one.entry.kind != "commit"]
    documents = [entry.document() for entry in found[:n]]
    return [one.model_copy(update={"text": excerpt(one.text, query, SHOWN_TOKENS)}) for one in documents]
