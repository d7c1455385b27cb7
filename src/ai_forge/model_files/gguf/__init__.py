"""GGUF files: read, written, imported to a trainable folder, quantised."""
