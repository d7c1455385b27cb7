"""The full name of an embedder, as an index keeps it."""

from ai_forge.config import Settings


def with_address(name: str, settings: Settings) -> str:
    """`name`, with the address for one of Ollama's."""
    from ai_forge.serving.ollama_http import ollama_url

    if name.startswith("ollama:") and "@" not in name:
        return f"{name}@{ollama_url(settings.runtime.ollama_host)}"
    return name
