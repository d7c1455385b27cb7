"""What reads and writes weights: architectures, safetensors, GGUF both ways, tokenizers, adapters, the merge."""
