"""The embedder's full name, as the index keeps it."""

from ai_forge.config import Settings


def embedder_of(settings: Settings) -> str:
    """The embedder that is set, with the address for one of Ollama's."""
    from ai_forge.conductor.ollama_http import ollama_url

    name = settings.synthesis.embedder
    has_no_address = name.startswith("ollama:") and "@" not in name
    return f"{name}@{ollama_url(settings.runtime.ollama_host)}" if has_no_address else name
