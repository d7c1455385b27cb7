"""Tokenizers between `tokenizer.json` and GGUF: pre-tokenizers, SentencePiece vocabularies."""
