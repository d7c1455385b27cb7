"""Embedding models of a running Ollama (`/api/embed`): `ollama:nomic-embed-text`, or `ollama:NAME@http://host:port`.

Without an address it is the one that OLLAMA_HOST names, else this machine's. Texts longer than the model's context are
cut by Ollama.
"""

import numpy as np

from ai_forge.data_pipeline.search.embedders.embedding import Matrix, Texts, unit_rows
from ai_forge.errors import InputError, PrerequisiteError, TransientError

__all__ = ["OllamaEmbedder"]

_BATCH = 64
_TIMEOUT_S = 300


class OllamaEmbedder:
    """One model of an Ollama; nothing is asked before it is needed."""

    weight = 1.0

    def __init__(self, name: str) -> None:
        self.name = name
        self._model, _, address = name.removeprefix("ollama:").partition("@")
        self._address = address or None
        if not self._model:
            raise InputError(f"{name!r} names no model.", "Write ollama:NAME, such as ollama:nomic-embed-text.")

    def embed(self, texts: Texts) -> Matrix:
        """Unit vectors [text, dimension].

        Raises PrerequisiteError where Ollama or the model is not there, InputError where it is no embedding model,
        TransientError where it fails.
        """
        import httpx
        import ollama

        rows: list[list[float]] = []
        try:
            with ollama.Client(host=self._address, timeout=_TIMEOUT_S) as client:
                for start in range(0, len(texts.written), _BATCH):
                    batch = [text or " " for text in texts.written[start : start + _BATCH]]
                    reply = client.embed(model=self._model, input=batch, truncate=True)
                    rows.extend([list(row) for row in reply.embeddings])
        except ollama.ResponseError as error:
            if error.status_code == 404:
                raise PrerequisiteError(
                    f"Ollama has no model {self._model!r}.", f"Run `ollama pull {self._model}`."
                ) from error
            if error.status_code == 501:
                raise InputError(
                    f"{self._model!r} answers, it gives no embeddings.",
                    "Name an embedding model, such as ollama:nomic-embed-text.",
                ) from error
            raise TransientError(
                f"Ollama could not embed with {self._model!r}: {error.error}.", "Try again."
            ) from error
        except (ConnectionError, httpx.HTTPError) as error:
            where = self._address or "its usual address"
            raise PrerequisiteError(
                f"Ollama does not answer at {where} ({type(error).__name__}).", "Start it with `ollama serve`."
            ) from error
        return unit_rows(np.array(rows, dtype=np.float32).reshape(len(rows), -1))
