"""The service: jobs that queue and survive, models served to the tools that people have, and what is asked of Ollama by hand."""
