"""Low-rank adapters: how they start (PiSSA, LoftQ, LoRA) and how they are converted."""
