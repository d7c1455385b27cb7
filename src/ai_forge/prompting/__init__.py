"""How a model is asked, once: the prompt, chat templates, what Ollama is told."""
