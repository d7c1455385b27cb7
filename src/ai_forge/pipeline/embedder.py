"""The full name of an embedder, as an index keeps it."""

from ai_forge.config import Settings


def embedder_of(settings: Settings) -> str:
    """The embedder by which distractors are found."""
    return with_address(settings.synthesis.embedder, settings)


def with_address(name: str, settings: Settings) -> str:
    """`name`, with the address for one of Ollama's."""
    from ai_forge.conductor.ollama_http import ollama_url

    has_no_address = name.startswith("ollama:") and "@" not in name
    return f"{name}@{ollama_url(settings.runtime.ollama_host)}" if has_no_address else name
