"""Vectors of texts: by the encoder that questions are found with."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ai_forge.conductor.problems import ServiceError

if TYPE_CHECKING:
    from ai_forge.data_pipeline.search.embedders.embedding import Embedder, Matrix

__all__ = ["Embedding"]


class Embedding:
    """One encoder, loaded when it is first needed and asked by one thread at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    @property
    def name(self) -> str:
        """What it is called; "none" where there is none."""
        from ai_forge.data_pipeline.search.embedders.embedding import default_embedder

        return default_embedder() if self._name == "auto" else self._name

    def embed(self, texts: list[str]) -> Matrix:
        """Unit vectors [text, dimension].

        Raises:
            ServiceError: 400, there is no encoder.
        """
        from ai_forge.data_pipeline.search.embedders.embedding import Texts, embedder_named

        with self._lock:
            if self._embedder is None:
                name = self.name
                if name == "none":
                    raise ServiceError(
                        400,
                        "unsupported",
                        "This service has no embedder.",
                        "set runtime.embedder; see docs/configuration.md.",
                    )
                self._embedder = embedder_named(name)
            words = [text.split() for text in texts]
            return self._embedder.embed(Texts(texts, words))
