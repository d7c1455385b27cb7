"""Fill-in-the-middle: the prompt that a base was trained to fill in, where its vocabulary has the tokens for it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ai_forge.model_files.gguf.reader import read_gguf

__all__ = ["fill_in_prompt"]

# prefix, suffix, middle: Qwen, StarCoder and SmolLM, CodeGemma's is Qwen's; DeepSeek; CodeLlama; Granite's is StarCoder's
TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),
)


def fill_in_prompt(gguf_path: Path, prefix: str, suffix: str) -> str | None:
    """The prompt whose continuation stands between the two; None where the base has no tokens for it."""
    stat = gguf_path.stat()
    tokens = _tokens_of(gguf_path, stat.st_mtime_ns, stat.st_size)
    if tokens is None:
        return None
    before, after, middle = tokens
    return f"{before}{prefix}{after}{suffix}{middle}"


@lru_cache(maxsize=16)
def _tokens_of(path: Path, mtime_ns: int, size: int) -> tuple[str, str, str] | None:
    known = set(read_gguf(path).metadata.get("tokenizer.ggml.tokens", ()))
    return next((tokens for tokens in TOKENS if known.issuperset(tokens)), None)
