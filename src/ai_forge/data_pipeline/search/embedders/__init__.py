"""Texts to vectors: latent semantic analysis, sentence encoders, Ollama."""
