"""What Ollama must be told about a GGUF file so that it prompts as the file's own chat template does."""

from pathlib import Path

from ai_forge.errors import InputError
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.tokenizers.gguf_tokenizer import CONTROL, token_at
from ai_forge.prompting.chat_templates import ALPACA_TURN
from ai_forge.prompting.go_template import OllamaPrompt, pieces_of


def ollama_prompt(gguf_path: Path) -> OllamaPrompt:
    """Template and stop words for a GGUF file, from the chat template inside it.

    Raises:
        InputError: the file has no chat template, or one that no Go template of this form reproduces.
    """
    metadata = read_gguf(gguf_path).metadata
    jinja = metadata.get("tokenizer.chat_template")
    if not jinja:
        raise InputError(f"{gguf_path} has no chat template.", "export it from an instruct model.")
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    types: list[int] = metadata.get("tokenizer.ggml.token_type", [])
    bos, eos = (token_at(metadata, tokens, role) or "" for role in ("bos", "eos"))
    # Ollama puts it there itself while tokenising
    strip = bos if metadata.get("tokenizer.ggml.add_bos_token") else ""
    pieces = pieces_of(str(jinja), bos, eos, strip)
    between = pieces.user_after_assistant
    found = {token for token, kind in zip(tokens, types, strict=False) if kind == CONTROL and token in between}
    stop = sorted(found - {eos})
    if eos:
        stop.insert(0, eos)
    if ALPACA_TURN in between:  # plain text, no token: a model that goes on asking itself would not stop
        stop.append(ALPACA_TURN)
    return OllamaPrompt(pieces.go(), tuple(stop))
